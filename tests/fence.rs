//! The fence: nothing gets past the gateway, what goes through it is decided and recorded, and work goes on as outside.
//!
//! Each test has a network of its own, in which all ports are free and [`ELSEWHERE`] can be reached, and a gateway that
//! runs without any privilege.

use std::collections::BTreeMap;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::UdpSocket;
use tokio::process::Command;

use crate::harness::{
    Canary, ELSEWHERE, ELSEWHERE6, NameReply, PATIENCE, World, all_inside_a_network, eventually,
    inside_a_network, is_inside_a_namespace,
};

const POLICY: &str = r#"
    allow = ["allowed.test", "quiet.test", "*.wild.test"]
    deny = ["denied.test"]
"#;
/// Longest that a fenced command may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A test and its body: the test makes a network, in which the body is run as a test of its own.
macro_rules! in_a_network {
    ($($(#[$meta:meta])* $name:ident => $body:ident)*) => { $(
        $(#[$meta])*
        #[tokio::test]
        async fn $name() {
            inside_a_network(concat!("fence::", stringify!($body))).await;
        }

        #[tokio::test]
        #[ignore = "run by another test, in a network of its own"]
        async fn $body() {
            if is_inside_a_namespace() {
                bodies::$body().await;
            }
        }
    )* };
}

in_a_network! {
    nothing_that_is_tried_inside_gets_out => attack
    programs_that_know_no_proxy_are_decided_and_recorded => unaware
    a_published_port_leads_inside_and_a_forwarded_one_to_the_host => ports
    the_command_ends_with_run_and_run_with_the_command => ends
    sockets_are_hidden_however_they_were_bound => sockets
    sockets_are_hidden_whatever_their_names_were => renamed
    what_the_running_gateway_reads_is_hidden_whatever_run_was_told => governing
    what_the_data_folder_leads_to_is_refused => linked
    what_is_saved_outside_meanwhile_stays_protected => saved
    what_a_program_could_cause_is_no_way_to_run_without => no_way_without
    two_fences_are_strangers => strangers
    a_gateway_that_was_away_serves_the_fence_again => away
    a_terminal_works_as_outside => terminal
    without_namespaces_require_refuses_and_doctor_says_what_mends_it => unfenced
}

#[tokio::test]
async fn real_programs_work_inside() {
    all_inside_a_network(&["clients::"], (crate::clients::DESKS, "fenced")).await;
}

#[tokio::test]
async fn real_programs_work_inside_without_proxy_variables() {
    let tests = [
        "clients::cargo::cargo_fetches",
        "clients::curl::curl_passes_in_every_version",
        "clients::git::git_pushes_and_clones",
        "clients::node::npm_installs",
        "clients::python::pip_downloads",
        "clients::sdk::",
    ];
    all_inside_a_network(&tests, (crate::clients::DESKS, "unaware")).await;
}

/// A world on standard ports whose gateway has no privileges, and something listening elsewhere.
async fn world(config: &str) -> World {
    let world = World::with_policy(POLICY)
        .config(config)
        .origin(|origin| origin.on_standard_ports())
        .gate(|gate| gate.unprivileged())
        .start()
        .await;
    world.resolver.answers("evil.test", NameReply::at(&[ELSEWHERE]));
    world
}

/// Runs a command in a fence, to its end.
async fn fenced(world: &World, options: &[&str], command: &[&str]) -> Output {
    let arguments = [&["run", "--fence", "require"], options, &["--"], command].concat();
    ended(world.gate.command(&arguments)).await
}

async fn ended(mut command: Command) -> Output {
    let output = command.stdin(Stdio::null()).output();
    tokio::time::timeout(LIMIT, output).await.expect("it did not end").unwrap()
}

/// What a script that succeeds inside a fence says.
async fn says(world: &World, options: &[&str], command: &[&str]) -> String {
    let output = fenced(world, options, command).await;
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ended with {}: {complaint}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Counts what arrives elsewhere over UDP.
async fn listen_to_datagrams(port: u16) -> Arc<AtomicU64> {
    let socket = UdpSocket::bind((ELSEWHERE, port)).await.unwrap();
    let count = Arc::<AtomicU64>::default();
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while socket.recv_from(&mut buffer).await.is_ok() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    count
}

/// A Unix socket of the host, and how often it was connected to.
fn listen_at(path: &Path) -> Arc<AtomicU64> {
    let listener = UnixListener::bind(path).unwrap();
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let count = Arc::<AtomicU64>::default();
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for _ in listener.incoming() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    count
}

mod bodies {
    use super::*;

    /// What must succeed outside for the attempts to be worth something, and what is said of it inside.
    const REAL: &[(&str, &str)] = &[
        ("tcp to an address", "Network is unreachable"),
        ("tcp to an address on the port for tls", "Network is unreachable"),
        ("udp to an address", "Network is unreachable"),
        ("dns to an address", "Network is unreachable"),
        ("tcp over ipv6", "Network is unreachable"),
        ("curl without its proxy", ""),
        ("bash's /dev/tcp", ""),
        ("unix socket by its name", "Connection refused"),
        ("abstract unix socket", "Connection refused"),
        ("signal to an outside process", "No such process"),
        ("tracing an outside process", "No such process"),
        ("memory of an outside process", "No such file or directory"),
        ("a user namespace of one's own", ""),
        ("shared memory", "No such file or directory"),
        ("another discipline for a terminal", "Operation not permitted"),
        ("a terminal for oneself alone", "Operation not permitted"),
        ("settings of the gateway", "there are none"),
        ("where interrupts go", "it is read-only"),
        ("writing the policy", "nothing was written"),
        ("another policy by moving its folder", "Device or resource busy"),
        ("a folder outside by a descriptor", "No such file or directory"),
    ];

    pub(super) async fn attack() {
        let world = world("").await;
        let elsewhere = Canary::at(ELSEWHERE, &[443, 4444]).await.unwrap();
        let elsewhere6 = Canary::at(ELSEWHERE6, &[4444]).await.unwrap();
        let datagrams = [listen_to_datagrams(5353).await, listen_to_datagrams(53).await];
        let files = world.gate.files().to_owned();
        let socket = listen_at(&files.join("outside.sock"));
        let name = format!("outgate-test-{}", std::process::id());
        let abstract_socket = std::os::unix::net::SocketAddr::from_abstract_name(&name)
            .and_then(|address| UnixListener::bind_addr(&address))
            .unwrap();
        let shared = Path::new("/dev/shm").join(&name);
        std::fs::write(&shared, "shared").unwrap();
        let mut victim = world.gate.program("sh");
        let victim = victim.args(["-c", "trap '' USR1; exec sleep 120"]).spawn().unwrap();
        let pid = victim.id().unwrap().to_string();
        let try_all = |policy: String, place: &str| {
            let script = include_str!("fence/attack.py");
            [ELSEWHERE, files.join("outside.sock").to_str().unwrap(), &name, &pid, &policy, &name, place]
                .iter()
                .fold(vec!["python3".to_owned(), "-c".to_owned(), script.to_owned()], |mut all, one| {
                    all.push((*one).to_owned());
                    all
                })
        };
        let hold = format!("exec 9<'{}'; exec \"$@\"", world.gate.data().display());

        let inside = try_all(files.join("policy.toml").display().to_string(), "inside");
        let run = world.gate.command(&["run", "--fence", "require", "--"]);
        let mut attempt = world.gate.program("sh");
        attempt.args(["-c", &hold, "sh"]).arg(run.as_std().get_program()).args(run.as_std().get_args());
        let output = ended({
            attempt.args(&inside).env("OUTGATE_LOG_FORMAT", "text");
            attempt
        })
        .await;
        let complaint = String::from_utf8_lossy(&output.stderr);
        let became: BTreeMap<String, String> = serde_json::from_slice(&output.stdout).expect(&complaint);
        for (attempt, result) in &became {
            assert_ne!(result, "done", "{attempt} succeeded inside");
        }
        let first = &became["ending the first process"];
        assert!(first.contains("it goes on") || first.contains("not permitted"), "{first}");
        for (attempt, reason) in REAL {
            assert!(became[*attempt].contains(reason), "{attempt}: {}", became[*attempt]);
        }
        elsewhere.must_be_untouched();
        elsewhere6.must_be_untouched();
        assert_eq!(datagrams.each_ref().map(|count| count.load(Ordering::SeqCst)), [0, 0]);
        assert_eq!(socket.load(Ordering::SeqCst), 0);
        abstract_socket.set_nonblocking(true).unwrap();
        assert!(abstract_socket.accept().is_err(), "somebody came to the abstract socket");

        // The same without a fence, with a policy that may be spoilt.
        let spare = files.join("spare");
        let prepared = world
            .gate
            .program("sh")
            .args(["-c", "mkdir \"$0\" && : > \"$0/policy.toml\""])
            .arg(&spare)
            .status();
        assert!(prepared.await.unwrap().success());
        let mut attempt = world.gate.program("sh");
        attempt
            .args(["-c", &hold, "sh"])
            .args(try_all(spare.join("policy.toml").display().to_string(), "outside"))
            .env("OUTGATE_LOG_FORMAT", "text");
        let output = ended(attempt).await;
        let complaint = String::from_utf8_lossy(&output.stderr);
        let became: BTreeMap<String, String> = serde_json::from_slice(&output.stdout).expect(&complaint);
        for (attempt, _) in REAL {
            assert_eq!(became[*attempt], "done", "{attempt}, outside");
        }
        assert!(elsewhere.accepts() > 0 && elsewhere6.accepts() > 0 && socket.load(Ordering::SeqCst) > 0);
        drop(victim);
        std::fs::remove_file(shared).unwrap();
        world.finish().await;
    }

    pub(super) async fn unaware() {
        let world = world("").await;
        let elsewhere = Canary::at(ELSEWHERE, &[22, 80, 443]).await.unwrap();
        let script = include_str!("fence/unaware.py");
        let told = says(&world, &["--agent", "anonymous"], &["python3", "-c", script]).await;
        let became: BTreeMap<String, String> = serde_json::from_str(&told).unwrap();
        for (attempt, result) in [
            ("http", "200"),
            ("https", "200"),
            ("https through the proxy", "200"),
            ("http to a denied host", "not found"),
            ("https to an unknown host", "not found"),
            ("https with another server name", "refused"),
            ("http with another host", "421"),
            ("https with another host inside", "421"),
            ("ssh to an allowed host", "Connection refused"),
            ("udp to an allowed host", "Connection refused"),
            ("an address of the range that stands for no name", "closed"),
            ("ipv6 of an allowed host", "absent"),
            ("text of an allowed host", "absent"),
            ("data in a name", "not found"),
        ] {
            assert!(became[attempt].contains(result), "{attempt}: {}", became[attempt]);
        }
        elsewhere.must_be_untouched();
        world.resolver.must_not_know("denied.test");
        let rows = eventually("the name that nobody went to", async || {
            let rows = world.gate.decisions().await;
            rows.iter().any(|row| row.text("host") == "quiet.test").then_some(rows)
        })
        .await;
        let recorded = |kind: &str, host: &str, reason: &str| {
            let found = rows
                .iter()
                .any(|row| (row.text("kind"), row.text("host"), row.text("reason")) == (kind, host, reason));
            assert!(found, "no {kind} row of {host} with {reason}: {rows:#?}");
        };
        recorded("http", "allowed.test", "allowed_by_rule");
        recorded("dns", "denied.test", "denied_by_rule");
        recorded("dns", "evil.test", "unknown_destination");
        recorded("dns", "quiet.test", "allowed_by_rule");
        recorded("tcp", "allowed.test", "port_refused");
        recorded("connect", "allowed.test", "authority_mismatch");
        recorded("dns", "secret-data.evil.test", "unknown_destination");
        let session =
            rows.iter().find(|row| row.text("host") == "allowed.test").unwrap().text("session").to_owned();
        assert!(
            rows.iter().all(|row| row.text("session") == session),
            "all belong to the session: {rows:#?}"
        );
        world.gate.finish().await;
    }

    pub(super) async fn ports() {
        let world = world("[fence]\nforward = [\"127.0.0.1:11434\"]\n").await;
        let service = tokio::net::TcpListener::bind("127.0.0.1:11434").await.unwrap();
        let other = Canary::at("127.0.0.1", &[11435]).await.unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = service.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        let script = "
import http.server, socket, threading
with socket.create_connection(('127.0.0.1', 11434), 5) as s:
    s.sendall(b'local model'); s.shutdown(socket.SHUT_WR)
    assert s.recv(100) == b'local model'
try: socket.create_connection(('127.0.0.1', 11435), 5); raise SystemExit('reached the host')
except ConnectionRefusedError: pass
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(self.path.encode())
        if self.path == '/end': threading.Thread(target=self.server.shutdown).start()
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(('127.0.0.1', 3000), H).serve_forever()
";
        let mut run = world.gate.command(&[
            "run",
            "--fence",
            "require",
            "--publish",
            "3000",
            "--",
            "python3",
            "-c",
            script,
        ]);
        let run = run.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        eventually("the published port", async || {
            let curl = Command::new("curl")
                .args(["-s", "http://127.0.0.1:3000/callback?code=1"])
                .output()
                .await
                .unwrap();
            (curl.stdout == b"/callback?code=1").then_some(())
        })
        .await;
        let curl = Command::new("curl").args(["-s", "http://localhost:3000/end"]).output().await.unwrap();
        assert_eq!(String::from_utf8_lossy(&curl.stdout), "/end");
        let output = tokio::time::timeout(LIMIT, run.wait_with_output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        other.must_be_untouched();
        let rows = world.gate.decisions().await;
        let row =
            rows.iter().find(|row| row.text("kind") == "tcp").expect("the forwarded connection is recorded");
        assert_eq!(
            (row.text("host"), row.number("port"), row.text("action")),
            ("127.0.0.1", 11434, "allow"),
            "{row:?}"
        );
        assert_eq!((row.number("request_bytes"), row.number("response_bytes")), (11, 11), "{row:?}");
        for publish in ["443", "4480"] {
            let output = fenced(&world, &["--publish", publish], &["true"]).await;
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{complaint}");
            assert!(complaint.contains(&format!("--publish {publish}")), "{complaint}");
        }
        world.finish().await;
    }

    pub(super) async fn ends() {
        let world = world("").await;
        for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)] {
            let output = fenced(&world, &[], &["sh", "-c", script]).await;
            assert_eq!(
                output.status.code(),
                Some(code),
                "`{script}`: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let output = fenced(&world, &[], &["/nowhere/at-all"]).await;
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(127));
        assert!(complaint.contains("cannot run `/nowhere/at-all`: No such file"), "{complaint}");

        let output = fenced(&world, &[], &["sh", "-c", "sleep 987 & sleep 986 & exit 3"]).await;
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3));
        assert!(complaint.contains("left running: 2 of its processes"), "{complaint}");
        assert_eq!(processes("^sleep 98[67]").await, "", "nothing outlives the session");

        let ready = world.gate.files().join("ready");
        let script = format!("trap 'exit 5' TERM; : > '{}'; sleep 985 & wait", ready.display());
        let mut run = world.gate.command(&["run", "--fence", "require", "--", "sh", "-c", &script]);
        let mut run = run.stderr(Stdio::null()).spawn().unwrap();
        eventually("the trap", async || ready.exists().then_some(())).await;
        kill_process(Pid::from_raw(run.id().unwrap().cast_signed()).unwrap(), Signal::TERM).unwrap();
        let ended = tokio::time::timeout(LIMIT, run.wait()).await.unwrap().unwrap();
        assert_eq!(ended.code(), Some(5), "the signal reaches the command");

        let mut run = world.gate.command(&["run", "--fence", "require", "--", "sleep", "984"]);
        let mut run = run.stderr(Stdio::null()).spawn().unwrap();
        eventually("the command", async || (!processes("^sleep 984").await.is_empty()).then_some(())).await;
        run.kill().await.unwrap();
        eventually("its end", async || processes("sleep 984").await.is_empty().then_some(())).await;
        world.finish().await;
    }

    async fn processes(pattern: &str) -> String {
        let found = Command::new("pgrep").args(["-f", pattern]).output().await.unwrap();
        String::from_utf8(found.stdout).unwrap()
    }

    pub(super) async fn sockets() {
        let kept = std::env::temp_dir().join(format!("outgate-kept-{}.sock", std::process::id()));
        let count = listen_at(&kept);
        let world = world(&format!("[fence]\nsockets = [\"{}\"]\n", kept.display())).await;
        let hidden = world.gate.files().join("hidden.sock");
        let uncounted = listen_at(&hidden);
        let script = "import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
try: socket.socket(socket.AF_UNIX).connect(sys.argv[2]); raise SystemExit('reached')
except OSError: pass";
        says(&world, &[], &["python3", "-c", script, kept.to_str().unwrap(), hidden.to_str().unwrap()]).await;
        assert_eq!((count.load(Ordering::SeqCst), uncounted.load(Ordering::SeqCst)), (1, 0));
        std::fs::remove_file(&kept).unwrap();

        // By a relative name, in a folder that no search comes to; and beside a name that is no text.
        let deep = world.gate.files().join("a/b/c/d/e/f/g");
        let made = world.gate.program("mkdir").arg("-p").arg(&deep).status().await.unwrap();
        assert!(made.success());
        let bind = "import socket, time
s = socket.socket(socket.AF_UNIX); s.bind('relative.sock'); s.listen()
t = socket.socket(socket.AF_UNIX); t.bind(b'\\0og\\xfftest-%d' % id(s))
print('bound', flush=True); s.accept(); print('reached', flush=True)";
        let mut server = world.gate.program("python3");
        server.args(["-c", bind]).current_dir(&deep).stdout(Stdio::piped());
        let mut server = server.spawn().unwrap();
        eventually("the socket", async || deep.join("relative.sock").exists().then_some(())).await;
        let reach = "import socket, sys
try: socket.socket(socket.AF_UNIX).connect(sys.argv[1]); raise SystemExit('reached')
except OSError: pass
import os
try: os.rename(os.path.dirname(sys.argv[1]), os.path.dirname(sys.argv[1]) + '2'); raise SystemExit('moved')
except OSError: pass";
        says(&world, &[], &["python3", "-c", reach, deep.join("relative.sock").to_str().unwrap()]).await;
        server.kill().await.unwrap();
        world.finish().await;
    }

    /// As masters of OpenSSH make theirs; by a name that a descriptor leads to; from a folder that was left since.
    pub(super) async fn renamed() {
        let world = world("").await;
        let bind = "import os, socket, sys, time
def listen(name):
    s = socket.socket(socket.AF_UNIX); s.bind(name); s.listen(); return s
os.makedirs('x/y/z/w/v'); top = os.getcwd()
a = listen('x/master.4kD9'); os.link('x/master.4kD9', 'x/master'); os.unlink('x/master.4kD9')
b = listen('/proc/self/fd/%d/descriptor' % os.open('x/y', os.O_DIRECTORY))
os.chdir('x/y/z/w/v'); c = listen('left'); os.chdir('/')
d = listen(top + '/x/before'); os.rename(top + '/x/before', top + '/x/y/z/moved')
open(top + '/bound', 'w').close()
time.sleep(600)";
        let mut server = world.gate.program("python3");
        server.args(["-c", bind]).current_dir(world.gate.files()).kill_on_drop(true);
        let mut server = server.spawn().unwrap();
        eventually("the sockets", async || world.gate.files().join("bound").exists().then_some(())).await;
        let reach = "import socket, sys
for name in sys.argv[1:]:
    try: socket.socket(socket.AF_UNIX).connect(name); print('reached', name)
    except OSError: print('nothing')";
        let names = ["x/master", "x/y/descriptor", "x/y/z/w/v/left", "x/y/z/moved"]
            .map(|name| world.gate.files().join(name).display().to_string());
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let outside = world.gate.program("python3").args(["-c", reach]).args(&names).output().await.unwrap();
        assert_eq!(String::from_utf8_lossy(&outside.stdout).matches("reached").count(), 4, "{outside:?}");
        let inside = says(&world, &[], &[&["python3", "-c", reach], &*names].concat()).await;
        assert_eq!(inside, "nothing\n".repeat(4));
        server.kill().await.unwrap();
        world.finish().await;
    }

    pub(super) async fn governing() {
        let world = world("").await;
        let policy = world.gate.files().join("policy.toml");
        // The gateway was started with a policy and a configuration elsewhere; this session names neither.
        let mut run = world.gate.program(world.gate.command(&[]).as_std().get_program().to_str().unwrap());
        run.arg("--data-dir").arg(world.gate.data()).args(["run", "--fence", "require", "--", "sh", "-c"]);
        run.arg("wc -c < \"$0\"; wc -c < \"$1\"; echo 'mode = \"observe\"' > \"$0\"; rm -f \"$0\"; true");
        run.arg(&policy).arg(world.gate.files().join("outgate.toml"));
        let before = std::fs::read(&policy).unwrap();
        let output = ended(run).await;
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{complaint}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n0\n", "they read as empty");
        assert_eq!(std::fs::read(&policy).unwrap(), before, "and stay as they are");
        // By another name, or behind a link, they could not be kept from it.
        let other = world.gate.files().join("other.toml");
        std::fs::hard_link(&policy, &other).unwrap();
        let output = fenced(&world, &[], &["echo", "ran"]).await;
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*output.stdout), (Some(2), &b""[..]), "{complaint}");
        assert!(complaint.contains("is a hard link"), "{complaint}");
        std::fs::remove_file(&other).unwrap();
        world.finish().await;
    }

    pub(super) async fn linked() {
        let world = world("").await;
        let program = world.gate.command(&[]).as_std().get_program().to_str().unwrap().to_owned();
        let run = |folder: &Path| {
            let mut run = world.gate.program(&program);
            run.arg("--data-dir").arg(folder).args(["run", "--fence", "require", "--", "echo", "ran"]);
            run
        };
        let link = |name: &str, flags: &str| {
            let mut link = world.gate.program("ln");
            link.arg(flags).arg(world.gate.files().join("elsewhere")).arg(world.gate.data().join(name));
            link
        };
        std::fs::create_dir(world.gate.files().join("elsewhere")).unwrap();
        for name in ["policy.toml", "policy.d"] {
            assert!(link(name, "-s").status().await.unwrap().success());
            let output = ended(run(&world.gate.data())).await;
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert_eq!((output.status.code(), &*output.stdout), (Some(2), &b""[..]), "{complaint}");
            assert!(complaint.contains(&format!("/{name}` is a symbolic link")), "{complaint}");
            std::fs::remove_file(world.gate.data().join(name)).unwrap();
        }
        std::fs::remove_dir(world.gate.files().join("elsewhere")).unwrap();
        let written = world.gate.program("touch").arg(world.gate.files().join("elsewhere")).status().await;
        assert!(written.unwrap().success());
        assert!(link("policy.toml", "-f").status().await.unwrap().success());
        let output = ended(run(&world.gate.data())).await;
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*output.stdout), (Some(2), &b""[..]), "{complaint}");
        assert!(complaint.contains("/policy.toml` is a hard link"), "{complaint}");
        std::fs::remove_file(world.gate.data().join("policy.toml")).unwrap();
        // A folder in the one that is used where none is named.
        let state = world.gate.files().join("state");
        let mut nested = run(&state.join("outgate/work"));
        nested.env("XDG_STATE_HOME", &state);
        let made = world.gate.program("mkdir").arg("-p").arg(state.join("outgate/work")).status().await;
        assert!(made.unwrap().success());
        let output = ended(nested).await;
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*output.stdout), (Some(2), &b""[..]), "{complaint}");
        assert!(complaint.contains("lies in the one that is used where none is named"), "{complaint}");
        world.finish().await;
    }

    pub(super) async fn saved() {
        let folder = std::env::temp_dir().join(format!("outgate-points-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let points = folder.join("points.jsonl");
        std::fs::write(&points, "").unwrap();
        std::fs::set_permissions(&points, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        let world = world(&format!("[audit]\ncheckpoint_file = \"{}\"\n", points.display())).await;
        let ready = world.gate.files().join("ready");
        let script = "wc -c < \"$0\"; : > \"$1\"; until [ -s \"$0\" ]; do sleep 0.05; done
echo forged >> \"$0\"; mv \"$0\" \"$0.away\"; echo forged > \"$0.new\"; cat \"$0\"";
        let (points_name, ready_name) = (points.display().to_string(), ready.display().to_string());
        let inside = tokio::spawn({
            let arguments =
                ["run", "--fence", "require", "--", "sh", "-c", script, &points_name, &ready_name];
            ended(world.gate.command(&arguments))
        });
        eventually("the command", async || ready.exists().then_some(())).await;
        // What an editor does when it saves.
        std::fs::write(folder.join("saved"), "as saved\n").unwrap();
        std::fs::set_permissions(folder.join("saved"), std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .unwrap();
        std::fs::rename(folder.join("saved"), &points).unwrap();
        let output = inside.await.unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "0\nas saved\n", "{complaint}");
        assert_eq!(complaint.matches("Read-only file system").count(), 3, "{complaint}");
        assert_eq!(std::fs::read_to_string(&points).unwrap(), "as saved\n");
        world.finish().await;
        std::fs::remove_dir_all(&folder).unwrap();
    }

    pub(super) async fn no_way_without() {
        let world = world("").await;
        let taken = tokio::net::TcpListener::bind("127.0.0.1:3001").await.unwrap();
        let output = ended(world.gate.command(&["run", "--publish", "3001", "--", "echo", "ran"])).await;
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b""[..]), "{complaint}");
        assert!(complaint.contains("--publish 3001") && complaint.contains("nothing was run"), "{complaint}");
        drop(taken);
        // Start-up files that lead elsewhere, a folder that is gone, a name that is no text: it is fenced all the same.
        let prepare = "ln -s /proc/self/fdinfo/0 ~/.zlogin; ln -s / ~/.zlogout; \
            mkdir -p ~/gone && cd ~/gone && rmdir ~/gone && exec \"$@\"";
        let run = world.gate.command(&["run", "--", "sh", "-c", "cat \"$0\"; : > ~/written", "/proc/1/comm"]);
        let mut shell = world.gate.program("sh");
        shell.args(["-c", prepare, "sh"]).arg(run.as_std().get_program()).args(run.as_std().get_args());
        let output = ended(shell).await;
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{complaint}");
        assert!(!complaint.contains("there is no fence"), "{complaint}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "outgate\n", "its first process is ours");
        // A signal to its group stays with it.
        let run = world.gate.command(&["run", "--", "python3", "-c", "import os; os.kill(0, 9)"]);
        let mut shell = world.gate.program("sh");
        shell.args(["-c", "\"$@\"; echo ended-with-$?", "sh"]);
        shell.arg(run.as_std().get_program()).args(run.as_std().get_args());
        let output = ended(shell).await;
        assert_eq!(String::from_utf8_lossy(&output.stdout), "ended-with-137\n", "{output:?}");
        // Nor does a priority for all of a group, or of a user.
        let nicer = "import os
for which in (os.PRIO_PGRP, os.PRIO_USER):
    try: os.setpriority(which, 0, 19); print('done')
    except PermissionError: print('refused')
os.setpriority(os.PRIO_PROCESS, 0, 19)";
        assert_eq!(says(&world, &[], &["python3", "-c", nicer]).await, "refused\nrefused\n");
        world.finish().await;
    }

    pub(super) async fn strangers() {
        let world = world("").await;
        let token = world.gate.told(&["agent", "add", "other", "--owner", "ana", "--json"]).await;
        let token: serde_json::Value = serde_json::from_str(&token).unwrap();
        let token = token["token"].as_str().unwrap();
        let script = format!(
            "curl -s -o /dev/null http://allowed.test/mine; \
             curl -s -o /dev/null -x http://other:{token}@127.0.0.1:4480 http://allowed.test/theirs; \
             curl -s -o /dev/null -x http://127.0.0.1:4480 -U nobody:wrong http://allowed.test/wrong; \
             ps ax | grep -c '[s]leep 983'"
        );
        let mut other =
            world.gate.command(&["run", "--fence", "require", "--label", "two", "--", "sleep", "983"]);
        let mut other = other.stderr(Stdio::null()).spawn().unwrap();
        eventually("the other fence", async || (!processes("^sleep 983").await.is_empty()).then_some(()))
            .await;
        let output = fenced(&world, &["--label", "one"], &["sh", "-c", &script]).await;
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "0", "no process of the other is seen");
        let rows = world.gate.decisions_reach(3).await;
        for row in &rows {
            row.is("allow", "allowed_by_rule");
            assert_eq!(
                row.text("agent"),
                "anonymous",
                "the socket says who asks, whatever is claimed: {row:?}"
            );
        }
        other.kill().await.unwrap();
        world.finish().await;
    }

    pub(super) async fn away() {
        let mut world = world("").await;
        let (answered, go) = (world.gate.files().join("answered"), world.gate.files().join("go"));
        let script = format!(
            "curl -s -o /dev/null -w '%{{http_code}} ' http://allowed.test/before; \
             touch '{}'; while [ ! -e '{}' ]; do sleep 0.05; done; \
             curl -s -m 20 --noproxy '*' -o /dev/null -w '%{{http_code}}' http://allowed.test/after",
            answered.display(),
            go.display()
        );
        let mut run = world.gate.command(&["run", "--fence", "require", "--", "sh", "-c", &script]);
        let run = run.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        eventually("the first answer", async || answered.exists().then_some(())).await;
        world.gate.kill9().await;
        let world = world.again().await;
        std::fs::write(&go, "").unwrap();
        let output = tokio::time::timeout(LIMIT, run.wait_with_output()).await.unwrap().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "200 200");
        world.finish().await;
    }

    pub(super) async fn terminal() {
        if !crate::clients::has("tmux") {
            return;
        }
        let world = world("").await;
        let tmux = Tmux { socket: world.gate.files().join("tmux.sock") };
        let run = world.gate.command(&["run", "--fence", "require", "--"]);
        let line: Vec<_> = [run.as_std().get_program()]
            .into_iter()
            .chain(run.as_std().get_args())
            .map(|word| format!("'{}'", word.to_str().unwrap()))
            .collect();
        let line = line.join(" ");
        tmux.start(&world).await;
        tmux.types(&format!("{line} bash --norc")).await;
        tmux.types("tty; stty size; echo size-$?").await;
        tmux.shows("30 100").await;
        tmux.shows("/dev/pts/").await;
        tmux.types("sleep 982").await;
        eventually("the command", async || (!processes("^sleep 982").await.is_empty()).then_some(())).await;
        tmux.key("C-z").await;
        tmux.shows("Stopped").await;
        tmux.types("kill %1; echo still-$((40 + 2))").await;
        tmux.shows("still-42").await;
        tmux.command(&["resize-window", "-x", "120", "-y", "40"]).await;
        tmux.types("stty size").await;
        tmux.shows("40 120").await;
        // A terminal program that keeps terminals of its own, inside.
        tmux.types(
            "tmux -S inner.sock -f /dev/null new-session -d 'sleep 30' && tmux -S inner.sock ls; exit 5",
        )
        .await;
        tmux.shows("1 windows").await;
        tmux.shows("exit code 5").await;
        // Stopped as a whole by the shell outside, taken up again, and interrupted.
        tmux.types(&format!("clear; {line} sleep 981")).await;
        eventually("the command", async || (!processes("^sleep 981").await.is_empty()).then_some(())).await;
        tmux.key("C-z").await;
        tmux.shows("Stopped").await;
        tmux.types("fg").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        tmux.key("C-c").await;
        tmux.shows("exit code 130").await;
        tmux.command(&["kill-server"]).await;
        world.finish().await;
    }

    /// A terminal with somebody at it.
    struct Tmux {
        socket: std::path::PathBuf,
    }

    impl Tmux {
        async fn start(&self, world: &World) {
            let mut tmux = world.gate.program("tmux");
            tmux.arg("-S").arg(&self.socket).args([
                "-f",
                "/dev/null",
                "new-session",
                "-d",
                "-x",
                "100",
                "-y",
                "30",
            ]);
            // tmux runs what it is told by a shell, and whoever has no privilege has none to log in with.
            tmux.arg("bash --norc").current_dir(world.gate.files()).env("SHELL", "/bin/sh");
            assert!(tmux.status().await.unwrap().success());
        }

        async fn command(&self, arguments: &[&str]) -> String {
            let output =
                Command::new("tmux").arg("-S").arg(&self.socket).args(arguments).output().await.unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        }

        async fn key(&self, key: &str) {
            self.command(&["send-keys", key]).await;
        }

        async fn types(&self, line: &str) {
            self.command(&["send-keys", "-l", line]).await;
            self.key("Enter").await;
        }

        /// Waits until `text` is there; else shows what is there instead.
        async fn shows(&self, text: &str) {
            let deadline = tokio::time::Instant::now() + PATIENCE;
            loop {
                let page = self.command(&["capture-pane", "-p", "-J"]).await;
                if page.contains(text) {
                    return;
                }
                assert!(tokio::time::Instant::now() < deadline, "`{text}` is not on the terminal:\n{page}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    pub(super) async fn unfenced() {
        let world = world("").await;
        let output = ended(world.gate.command(&["doctor", "--json"])).await;
        let checks: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
        let fence = checks.iter().find(|check| check["check"] == "fence").unwrap();
        assert_eq!(fence["ok"], true, "{fence}");
        // In a user namespace of its own the setting is nobody else's.
        let without = |arguments: &[&str]| {
            let inner = world.gate.command(arguments);
            let mut outer = world.gate.program("unshare");
            outer.args(["--user", "--map-root-user", "sh", "-c"]);
            outer.args(["echo 0 > /proc/sys/user/max_user_namespaces; exec \"$@\"", "sh"]);
            outer.arg(inner.as_std().get_program()).args(inner.as_std().get_args());
            outer
        };
        let output = ended(without(&["run", "--fence", "require", "--", "echo", "ran"])).await;
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b""[..]), "{complaint}");
        assert!(complaint.contains("sysctl -w user.max_user_namespaces"), "{complaint}");
        let output = ended(without(&["run", "--fence", "auto", "--", "echo", "ran"])).await;
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*output.stdout), (Some(0), &b"ran\n"[..]), "{complaint}");
        assert!(complaint.contains("there is no fence here"), "{complaint}");
        let output = ended(without(&["doctor", "--json"])).await;
        let checks: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
        let fence = checks.iter().find(|check| check["check"] == "fence").unwrap();
        assert_eq!(fence["ok"], false, "{fence}");
        assert!(fence["mend"].as_str().unwrap().contains("sysctl -w user.max_user_namespaces"), "{fence}");
        world.finish().await;
    }
}
