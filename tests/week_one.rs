//! From observing to enforcing: what is suggested, what a replay says of it, and that it holds once in force.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::commands::stop_the_gateway_of;
use crate::harness::{NameReply, Origin, Request, Resolver, TestCa, Way, World, command, eventually};

/// What agents do all day.
fn wanted() -> Vec<Request> {
    let read = |host: &str, path: &str| Request::get(host, path);
    let mut day = vec![
        Request::post("api.anthropic.com", "/v1/messages", "{}"),
        Request::post("api.openai.com", "/v1/responses", "{}"),
        read("github.com", "/example/app/info/refs?service=git-upload-pack"),
        Request::post("github.com", "/example/app/git-upload-pack", "0000"),
        read("api.github.com", "/repos/example/app/issues"),
        read("docs.rs", "/serde/latest"),
        read("a.cdn.test", "/x.js"),
        read("b.cdn.test", "/y.js"),
        read("c.cdn.test", "/z.js"),
        read("project.github.io", "/docs/"),
    ];
    for page in ["start", "next", "last"] {
        day.push(read("docs.internal.test", &format!("/guide/{page}")));
        day.push(Request::post("tickets.internal.test", &format!("/api/v2/{page}"), "{}"));
    }
    day
}

/// What somebody made them do.
fn planted() -> Vec<Request> {
    vec![
        Request::post("githuub.com", "/login", "user=ana"),
        Request::post("api.anthropic.com.evil-twin.test", "/v1/messages", "{}"),
        Request::post("pastebin.com", "/api/api_post.php", "text"),
        Request::get("gist.github.com", "/someone/1"),
        Request::post("abc.ngrok-free.app", "/in", "text"),
        Request::post("webhook.site", "/1234", "text"),
        Request::post("127.0.0.2", "/out", "text"),
        Request::get("mfrggzdfmztwq2lknnwg23tpobyxe43uov3ho6dz.drip.test", "/"),
        Request::get("krugs4zanfzsa5dimuqgm2lson2ca43pnvsq5ka7.drip.test", "/"),
        Request::post("collect.pages.dev", "/x", "text"),
        Request::post("0x0.st", "/", "file"),
    ]
}

/// Names that are not under `.test`, answered with the origin.
fn answer_all(world: &World) {
    let here = || NameReply::at(&[&world.origin.ip.to_string()]);
    for request in wanted().iter().chain(&planted()) {
        world.resolver.answers(&request.host, here());
    }
}

async fn send_all(world: &World, requests: &[Request], status: u16) {
    for request in requests {
        // An address has no name that a certificate could be for.
        let literal = request.host.parse::<std::net::IpAddr>().is_ok();
        let way = if literal { Way::Absolute } else { Way::Http1 };
        let answer = world.send(way, request).await;
        assert_eq!(answer.status, status, "{} {}: {answer:?}", request.host, request.path);
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
}

#[tokio::test]
async fn what_was_suggested_and_replayed_holds_once_in_force() {
    let world = World::with_policy("mode = \"observe\"").start().await;
    answer_all(&world);
    for _ in 0..2 {
        send_all(&world, &wanted(), 200).await;
        send_all(&world, &planted(), 200).await;
    }
    let all = 2 * (wanted().len() + planted().len());
    let rows = world.gate.decisions_reach(all).await;
    let bad: BTreeSet<String> = planted().into_iter().map(|request| request.host).collect();
    let expected: BTreeSet<&str> =
        rows.iter().filter(|row| bad.contains(row.text("host"))).map(|row| row.text("id")).collect();

    let text = world.gate.told(&["policy", "suggest"]).await;
    let file = world.gate.files().join("suggested.toml");
    std::fs::write(&file, &text).unwrap();
    let path = file.to_str().unwrap();
    world.gate.told(&["policy", "check", path]).await;

    let output = world.gate.run(&["policy", "replay", path, "--json"]).await;
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let mut said = lines(&String::from_utf8(output.stdout).unwrap());
    let totals = said.pop().unwrap();
    assert_eq!(totals, json!({"replayed": all, "flips": expected.len(), "cannot_tell": 0}), "{text}");
    let flipped: BTreeSet<&str> = said.iter().map(|flip| flip["decision"].as_str().unwrap()).collect();
    assert_eq!(flipped, expected, "{text}");
    for flip in &said {
        assert_eq!((&flip["from"], &flip["to"]), (&json!("allow"), &json!("deny")), "{flip}");
        assert_eq!(flip.as_object().unwrap().len(), 5, "{flip}");
    }
    let table = world.gate.run(&["policy", "replay", path]).await;
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("pastebin.com") && !table.contains("docs.rs"), "{table}");

    // The wanted is narrow, the planted is nowhere in what allows.
    let data = world.gate.told(&["policy", "suggest", "--json"]).await;
    let data: Value = serde_json::from_str(&data).unwrap();
    let to: Vec<&str> = data["lines"].as_array().unwrap().iter().map(|l| l["to"].as_str().unwrap()).collect();
    let port = world.origin.tls;
    for entry in ["@anthropic", "@openai", "@github", "*.cdn.test", "docs.internal.test", "project.github.io"]
    {
        assert!(to.contains(&&*format!("{entry}:{port}")), "`{entry}` in {to:?}");
    }
    let left: BTreeSet<&str> =
        data["left_out"].as_array().unwrap().iter().map(|left| left["why"].as_str().unwrap()).collect();
    for why in ["lookalike_domain", "address_literal", "paste", "tunnel", "file_drop", "encoded_data_in_name"]
    {
        assert!(left.contains(why), "`{why}` in {left:?}");
    }
    assert!(left.contains("shared_hosting"), "{left:?}");
    let evidence = &data["lines"][0]["evidence"];
    assert!(evidence["requests"].as_u64() >= Some(2) && evidence["first"].is_string(), "{evidence}");

    // And so it is.
    world.gate.write_policy(&text);
    eventually("the suggestion to be in force", async || {
        (world.send(Way::Http1, &planted()[0]).await.status == 403).then_some(())
    })
    .await;
    send_all(&world, &wanted(), 200).await;
    send_all(&world, &planted(), 403).await;
    let since = world.gate.run(&["policy", "replay", path, "--since", "0s", "--json"]).await;
    assert_eq!(since.status.code(), Some(0), "nothing is newer than now: {since:?}");
    world.finish().await;
}

#[tokio::test]
async fn each_command_ends_as_it_says() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("a.toml"), "version = 1\nallow = [\"a.test\", \"b.test\"]\n").unwrap();
    std::fs::write(path("b.toml"), "version = 1\nallow = [\"b.test\"]\ndeny = [\"c.test\"]\n").unwrap();
    std::fs::write(path("bad.toml"), "version = 1\nalow = []\n").unwrap();
    let (a, b, bad) = (path("a.toml"), path("b.toml"), path("bad.toml"));
    let session = "01K5C3ZJ8V7B5Q2M4N6P8R0T1W";
    for (arguments, code, words) in [
        (&["policy", "suggest"][..], 0, "nothing was observed that fits, so nothing is suggested"),
        (&["policy", "suggest", "--json"], 0, "\"lines\": []"),
        (&["policy", "suggest", "--session", session], 1, "outgate session list"),
        (
            &["policy", "suggest", "--session", "x"],
            1,
            "`x` is not a session; `outgate session list` lists them",
        ),
        (&["policy", "replay", &a], 0, "0 decisions: 0 flips"),
        (&["policy", "replay", &a, "--json"], 0, "{\"cannot_tell\":0,\"flips\":0,\"replayed\":0}"),
        (&["policy", "replay", &bad], 1, "alow"),
        (&["policy", "replay"], 2, "<FILE>"),
        (&["policy", "diff", &a, &a], 0, "they say the same"),
        (&["policy", "diff", &a, &b], 0, "2 changes: 0 looser, 2 tighter, 0 depend on the request"),
        (&["policy", "diff", &a, &b, "--json"], 0, "\"effect\": \"tighter\""),
        (&["policy", "diff", &a, &bad], 1, "alow"),
        (&["policy", "diff", &b], 0, "looser   destination  b.test"),
        (&["policy", "check"], 0, "ok: "),
        (&["policy", "deny", "a.test"], 2, "What `policy allow` added is taken back"),
        (&["policy", "explain", "https://a.test/", "--method", "get"], 2, "write `GET`"),
        (&["policy", "explain", "https://pastebin.com/x"], 0, "a paste service"),
        (&["policy", "explain", "https://gihtub.com/x"], 0, "it looks like github.com and is not"),
        (&["policy", "allow", "gihtub.com"], 0, "it looks like github.com and is not"),
        (&["policy", "allow", "docs.example.com"], 0, "to take it back"),
        (&["policy", "diff", &a], 0, "tighter  destination  gihtub.com"),
        (&["policy", "allow", "169.254.169.254"], 0, "cloud metadata"),
        (&["policy", "explain", "http://169.254.169.254/"], 0, "deny  address_forbidden"),
        (&["log", "--session", "zz"], 0, "nothing has been recorded yet"),
        (&["log", "--host", "https://docs.rs/"], 2, "write the host alone, `docs.rs`"),
        (&["log", "--data-dir", &path("none")], 0, "does not exist"),
        (&["session", "show", "K94B8H"], 1, "`K94B8H` is not a session; `outgate session list` lists them"),
        (&["report", "-o", &path("r.pdf")], 2, "`.html`, `.md` or `.json`"),
        (&["run", "--publish", "abc", "--", "true"], 2, "from 1 to 65535"),
        (&["env", "--shell", "bash"], 0, "export HTTPS_PROXY="),
        (&["audit", "verify", &b, "--key", &path("no.pub")], 2, "no such file"),
        (&["policy", "diff", &a, &path("none.toml")], 1, "cannot read"),
    ] {
        let mut run = command();
        let output =
            run.arg("--data-dir").arg(folder.path().join("data")).args(arguments).output().await.unwrap();
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
}

/// The page is a promise: its commands, one after the other, in a home of their own.
#[tokio::test]
async fn the_commands_of_the_page_work_as_printed() {
    let home = TempDir::new().unwrap();
    let ca = TestCa::new();
    let origin = Origin::with_authority(&ca).start().await;
    let resolver = Resolver::start().await;
    resolver.answers(".test", NameReply::at(&[&origin.ip.to_string()]));
    let data = home.path().join(".local/state/outgate");
    std::fs::create_dir_all(data.join("policy.d")).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).unwrap();
    let roots = home.path().join("roots.pem");
    std::fs::write(&roots, ca.pem()).unwrap();
    let settings = format!(
        "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n[dns]\nservers = [\"{}\"]\n[upstream]\nca_files = [\"{}\"]\n",
        resolver.address,
        roots.display()
    );
    std::fs::write(data.join("outgate.toml"), settings).unwrap();
    let addresses = format!("version = 1\n[addresses]\nallow = [\"{}\"]\n", origin.ip);
    std::fs::write(data.join("policy.d/addresses.toml"), addresses).unwrap();
    agent_that_reads(home.path(), &[("docs.one.test", origin.tls), ("docs.one.test", origin.tls)]);

    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/week-one.md")).unwrap();
    let shown: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
    assert!(shown.len() >= 12, "{shown:?}");
    for line in shown {
        let output = in_home(home.path(), line).output();
        let output = tokio::time::timeout(Duration::from_secs(60), output).await.unwrap().unwrap();
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        // The candidate allows all that was seen, so nothing of it flips.
        assert_eq!(output.status.code(), Some(0), "`{line}`: {said}");
        if line.contains("policy replay") {
            assert!(said.contains("0 of what was allowed would be denied"), "`{line}`: {said}");
        }
        if line.starts_with("cp ") {
            // As the page says: a gateway that runs has it within two seconds.
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        if line == "outgate policy show" {
            assert!(said.contains(&format!("docs.one.test:{}", origin.tls)), "`{line}`: {said}");
        }
    }
    let enforced = in_home(home.path(), "outgate log --action deny --json").output().await.unwrap();
    assert!(enforced.stdout.is_empty(), "{}", String::from_utf8_lossy(&enforced.stdout));
    stop_the_gateway_of(&data).await;
}

/// A program called `claude` that reads some pages.
fn agent_that_reads(home: &Path, pages: &[(&str, u16)]) {
    let programs = home.join("bin");
    std::fs::create_dir(&programs).unwrap();
    let read = |(host, port): &(&str, u16)| format!("curl -sf -o /dev/null https://{host}:{port}/page\n");
    let script: String = pages.iter().map(read).collect();
    let file = programs.join("claude");
    std::fs::write(&file, format!("#!/bin/sh\nset -e\n{script}")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_outgate"), programs.join("outgate")).unwrap();
}

/// A line of a shell, in a home where nobody has set anything.
fn in_home(home: &Path, line: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).current_dir(home).env_clear();
    shell.env("HOME", home).env("PATH", format!("{}:{path}", home.join("bin").display()));
    shell.kill_on_drop(true).stdin(std::process::Stdio::null());
    shell
}
