//! The gateway's side of the fence: sockets handed over, served as their session's, dropped with their fence.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use outgate::fence::gate;
use outgate::fence::pass::{HandOver, Role, Taken};
use serde_json::{Value, json};

use crate::harness::{
    Agent, Gate, Request, Row, Session, Way, World, ask, eventually, hand_over, listener, question,
    verify_audit,
};

const POLICY: &str = r#"
allow = ["allowed.test", "allowed.test:{http}", "allowed.test:{tls}", "*.names.test"]
"#;

fn of_kind<'a>(rows: &'a [Row], kind: &str) -> Vec<&'a Row> {
    rows.iter().filter(|row| row.text("kind") == kind).collect()
}

#[tokio::test]
async fn a_listener_is_the_identity_of_its_session() {
    let world = World::with_policy(POLICY).start().await;
    let gate = &world.gate;
    gate.told(&["agent", "add", "claude", "--owner", "ana@example.com"]).await;
    let session = Session::start(gate, "claude").await;
    let (proxy, address) = listener();
    let (taken, fence) = hand_over(gate, session.brings(vec![Role::Proxy]), vec![proxy]).await;
    assert!(matches!(taken, Taken::Serving), "{taken:?}");
    let ca = gate.ca().await;
    let ports = (world.origin.http, world.origin.tls);
    let ways = [Way::Absolute, Way::Http1, Way::Http2];
    for way in ways {
        for credentials in [None, Some("nobody:wrong")] {
            let agent = Agent::new(address, &ca, ports);
            let agent = credentials.map_or(agent.clone(), |credentials| agent.known_as(credentials));
            let answer = agent.send(way, &Request::get("allowed.test", "/")).await;
            assert_eq!(answer.status, 200, "{way:?} {credentials:?}: {answer:?}");
        }
    }
    let rows = gate.decisions_reach(6).await;
    for row in &rows {
        assert_eq!((row.text("session"), row.text("agent")), (&*session.id, "claude"), "{row:?}");
    }
    assert!(!world.origin.saw("wrong"), "credentials for a proxy go no further");

    gate.told(&["agent", "revoke", "claude"]).await;
    for way in ways {
        eventually("the revocation to hold", async || {
            let answer = Agent::new(address, &ca, ports).send(way, &Request::get("allowed.test", "/")).await;
            (answer.status == 407).then_some(())
        })
        .await;
    }
    drop(fence);
    eventually("the listener to be dropped", async || TcpStream::connect(address).is_err().then_some(()))
        .await;
    session.end().await;
    world.finish().await;
}

#[tokio::test]
async fn only_what_a_session_may_bring_is_taken() {
    let world = World::with_policy(POLICY).config("[fence]\nforward = [\"127.0.0.1:9\"]").start().await;
    let gate = &world.gate;
    let (session, other) = (Session::start(gate, "anonymous").await, Session::start(gate, "anonymous").await);
    let stranger = HandOver { token: "og_wrong".into(), ..session.brings(vec![Role::Proxy]) };
    let swapped = HandOver { token: other.token.clone(), ..session.brings(vec![Role::Proxy]) };
    let to = |address: &str| Role::Forward { to: address.parse().unwrap() };
    for (why, brought, words) in [
        ("a wrong token", stranger, "not known"),
        ("another session's token", swapped, "not known"),
        ("more than it says", session.brings(vec![]), "names 0 sockets and brings 1"),
        ("less than it says", session.brings(vec![Role::Proxy, Role::Http]), "names 2 sockets and brings 1"),
        ("a listener for a packet socket", session.brings(vec![Role::Packets]), "not what it is said to be"),
        ("a listener for names", session.brings(vec![Role::Names]), "not what it is said to be"),
        ("a service that is not named", session.brings(vec![to("127.0.0.1:22")]), "does not name"),
    ] {
        let (taken, _fence) = hand_over(gate, brought, vec![listener().0]).await;
        let Taken::Refused(said) = taken else { panic!("{why} was taken") };
        assert!(said.contains(words), "{why}: {said}");
    }
    let (unheard, _) = UnixStream::pair().unwrap();
    let (taken, _fence) = hand_over(gate, session.brings(vec![Role::Proxy]), vec![unheard.into()]).await;
    assert!(matches!(taken, Taken::Refused(_)), "a socket that does not listen");
    // Neither silence nor noise keeps the gateway from the next.
    let _silent = gate::connect(&gate.data()).unwrap();
    gate::connect(&gate.data()).unwrap().write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let (taken, _fence) = hand_over(gate, session.brings(vec![to("127.0.0.1:9")]), vec![listener().0]).await;
    assert!(matches!(taken, Taken::Serving), "{taken:?}");
    session.end().await;
    other.end().await;
    world.finish().await;
}

#[tokio::test]
async fn names_are_answered_or_refused_and_never_leave() {
    let world = World::with_policy(POLICY).start().await;
    let gate = &world.gate;
    let session = Session::start(gate, "anonymous").await;
    let names = UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = names.local_addr().unwrap();
    let (stream, stream_address) = listener();
    let (https, https_address) = listener();
    let brought = session.brings(vec![Role::Names, Role::NamesStream, Role::Https]);
    let (taken, fence) = hand_over(gate, brought, vec![names.into(), stream, https]).await;
    assert!(matches!(taken, Taken::Serving), "{taken:?}");

    let first = ask(server, "allowed.test", 1).await;
    assert_eq!(first, (0, Some([198, 18, 0, 2])));
    assert_eq!(ask(server, "a.names.test", 1).await, (0, Some([198, 18, 0, 3])));
    assert_eq!(ask(server, "Allowed.Test", 1).await, first, "the same for as long as the fence stands");
    assert_eq!(ask(server, "allowed.test", 28).await, (0, None), "no IPv6");
    assert_eq!(ask(server, "localhost", 1).await, (0, Some([127, 0, 0, 1])));
    assert!(gate.decisions().await.is_empty(), "nothing to tell yet");

    for _ in 0..3 {
        assert_eq!(ask(server, "evil.test", 1).await, (3, None));
        assert_eq!(ask(server, "allowed.test", 16).await, (0, None));
    }
    let rows = gate.decisions().await;
    let told: Vec<_> =
        rows.iter().map(|row| (row.text("kind"), row.text("host"), row.text("reason"))).collect();
    let expected = [("dns", "evil.test", "unknown_destination"), ("dns", "allowed.test", "protocol_refused")];
    assert_eq!(told, expected, "once each");
    assert!(rows.iter().all(|row| row.text("session") == session.id && row.text("outcome") == "denied"));
    assert!(rows.iter().all(|row| row["scheme"] == Value::Null && row["port"] == Value::Null));

    let asking = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(stream_address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let packet = question("b.names.test", 1);
        stream.write_all(&[&[0, u8::try_from(packet.len()).unwrap()], &packet[..]].concat()).unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut answer).unwrap();
        answer[answer.len() - 4..].to_vec()
    });
    assert_eq!(asking.await.unwrap(), [198, 18, 0, 4]);

    // An address that stands for no name leads nowhere.
    let closed = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(https_address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.read(&mut [0; 16]).map_or(0, |read| read)
    });
    assert_eq!(closed.await.unwrap(), 0);
    let rows = gate.decisions_reach(3).await;
    let tcp = of_kind(&rows, "tcp");
    tcp[0].is("deny", "port_refused");
    assert_eq!(
        (tcp[0].text("host"), tcp[0].number("port"), tcp[0].text("scheme")),
        ("127.0.0.1", 443, "tcp")
    );

    drop(fence);
    let rows = gate.decisions_reach(6).await;
    let mut unfollowed: Vec<_> =
        of_kind(&rows, "dns").into_iter().filter(|row| row.text("action") == "allow").collect();
    unfollowed.sort_by_key(|row| row.text("host").to_owned());
    let hosts: Vec<_> = unfollowed.iter().map(|row| (row.text("host"), row.text("rule"))).collect();
    let wildcard = "allow \"*.names.test\"";
    assert_eq!(
        hosts,
        [("a.names.test", wildcard), ("allowed.test", "allow \"allowed.test\""), ("b.names.test", wildcard)]
    );
    assert!(unfollowed.iter().all(|row| row.text("outcome") == "completed"));
    for name in ["evil.test", "allowed.test", "a.names.test"] {
        world.resolver.must_not_know(name);
    }
    let log = gate.told(&["log"]).await;
    assert!(log.contains("dns evil.test") && log.contains("tcp 127.0.0.1:443"), "{log}");
    session.end().await;
    world.finish().await;
}

#[tokio::test]
async fn a_service_of_the_host_is_reached_decided_and_counted() {
    let echo = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = echo.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = echo.accept() {
            let mut heard = [0; 5];
            if stream.read_exact(&mut heard).is_ok() {
                let _ = stream.write_all(b"you said ");
                let _ = stream.write_all(&heard);
            }
        }
    });
    let world = World::with_policy(POLICY).config(&format!("[fence]\nforward = [\"{to}\"]")).start().await;
    let gate = &world.gate;
    let session = Session::start(gate, "anonymous").await;
    let (forward, address) = listener();
    let (taken, _fence) = hand_over(gate, session.brings(vec![Role::Forward { to }]), vec![forward]).await;
    assert!(matches!(taken, Taken::Serving), "{taken:?}");
    let say = || async move {
        let saying = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut heard = String::new();
            let _ = stream.write_all(b"hello").and_then(|()| stream.read_to_string(&mut heard).map(|_| ()));
            heard
        });
        saying.await.unwrap()
    };
    assert_eq!(say().await, "you said hello");
    let row = gate.only_decision().await;
    row.is("allow", "allowed_by_rule");
    assert_eq!((row.text("kind"), row.text("rule")), ("tcp", &*format!("forward \"{to}\"")));
    assert_eq!((row.number("request_bytes"), row.number("response_bytes")), (5, 14));
    assert_eq!((row.text("upstream"), row.text("outcome")), (&*to.to_string(), "completed"));
    assert_eq!((row["status"].clone(), row.text("session")), (Value::Null, &*session.id));

    gate.write_policy("version = 1\ndeny = [\"127.0.0.1\"]");
    gate.reload().await;
    assert_eq!(say().await, "", "a rule that denies still does");
    let rows = gate.decisions_reach(2).await;
    rows[1].is("deny", "denied_by_rule");
    assert_eq!((rows[1].text("outcome"), rows[1].number("request_bytes")), ("denied", 0));

    // The proxy itself does not lead there.
    let authority = Request::get("127.0.0.1", "/");
    let answer = world.agent.send(Way::Absolute, &Request { port: Some(to.port()), ..authority }).await;
    assert_eq!(answer.status, 403);
    session.end().await;
    world.finish().await;
}

/// A connection that nobody asked for by HTTP is held like any other, and its end is noticed behind what it has sent.
#[tokio::test]
async fn a_connection_to_a_service_of_the_host_waits_for_a_person() {
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    service.set_nonblocking(true).unwrap();
    let to = service.local_addr().unwrap();
    let policy = format!("ask = [\"{to}\"]");
    let world = World::with_policy(&policy).config(&format!("[fence]\nforward = [\"{to}\"]")).start().await;
    let gate = &world.gate;
    let session = Session::start(gate, "anonymous").await;
    let (forward, forwarded) = listener();
    let (taken, _fence) = hand_over(gate, session.brings(vec![Role::Forward { to }]), vec![forward]).await;
    assert!(matches!(taken, Taken::Serving), "{taken:?}");
    for answer in ["nothing", "approve", "deny"] {
        let before = gate.decisions_now().await.len();
        let mut stream = TcpStream::connect(forwarded).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(b"hello").unwrap();
        let asked = crate::approvals::asked(gate, 1).await;
        assert_eq!(
            (asked[0]["destination"].as_str(), &asked[0]["method"]),
            (Some(&*format!("tcp://{to}")), &Value::Null)
        );
        assert!(service.accept().is_err(), "nothing is dialled while it waits");
        let (reason, outcome) = match answer {
            "nothing" => {
                drop(stream);
                ("approval_timeout", "abandoned")
            }
            word => {
                crate::approvals::answer(gate, &asked[0], word, "once").await;
                if word == "approve" {
                    eventually("the service to be reached", async || service.accept().ok()).await;
                    drop(stream);
                    ("allowed_by_approval", "")
                } else {
                    assert_eq!(stream.read(&mut [0; 8]).unwrap_or(0), 0);
                    ("approval_denied", "denied")
                }
            }
        };
        let rows = gate.decisions_reach(before + 1).await;
        let row = rows.last().unwrap();
        assert_eq!((row.text("kind"), row.text("reason")), ("tcp", reason), "{row:?}");
        assert!(outcome.is_empty() || row.text("outcome") == outcome, "{row:?}");
    }
    session.end().await;
    world.finish().await;
}

#[tokio::test]
async fn a_fence_that_says_nothing_leaves_room_for_all_others() {
    let world = World::with_policy(POLICY)
        .config("[limits]\nconnections = 30\nconnections_per_agent = 20")
        .start()
        .await;
    let gate = &world.gate;
    let session = Session::start(gate, "anonymous").await;
    let (proxy, address) = listener();
    let (taken, _fence) = hand_over(gate, session.brings(vec![Role::Proxy]), vec![proxy]).await;
    assert!(matches!(taken, Taken::Serving), "{taken:?}");
    // More than there are places for anybody.
    let _idle: Vec<_> = (0..40).map(|_| TcpStream::connect(address).unwrap()).collect();
    eventually("those that are too many to be closed", async || {
        (gate.metric("outgate_connections_refused_total", &[]).await >= 10.0).then_some(())
    })
    .await;
    // The same agent, by another way in.
    for way in [Way::Absolute, Way::Http1] {
        let answer = world.agent.send(way, &Request::get("allowed.test", "/")).await;
        assert_eq!(answer.status, 200, "{way:?}: {answer:?}");
    }
    let rows = gate.decisions_now().await;
    let crowd: Vec<_> = rows.iter().filter(|row| row.text("reason") == "overloaded").collect();
    assert_eq!(crowd.len(), 1, "{rows:#?}");
    crowd[0].is("deny", "overloaded");
    assert_eq!((crowd[0].text("session"), crowd[0].text("outcome")), (&*session.id, "denied"));
    session.end().await;
    world.finish().await;
}

#[tokio::test]
async fn a_tunnel_out_of_a_fence_counts_once() {
    let world = World::with_policy(POLICY).config("[limits]\nconnections_per_agent = 4").start().await;
    let gate = &world.gate;
    let session = Session::start(gate, "anonymous").await;
    let (proxy, address) = listener();
    let (taken, _fence) = hand_over(gate, session.brings(vec![Role::Proxy]), vec![proxy]).await;
    assert!(matches!(taken, Taken::Serving), "{taken:?}");
    let inside = Agent::new(address, &gate.ca().await, (world.origin.http, world.origin.tls));
    let request = Request::get("allowed.test", "/");
    let mut open = Vec::new();
    for agent in [&inside, &inside, &world.agent, &world.agent] {
        open.push(agent.tunnel(&request).await.unwrap());
    }
    assert_eq!(world.agent.send(Way::Absolute, &request).await.status, 503, "the agent's fifth");
    drop(open);
    session.end().await;
    world.finish().await;
}

#[tokio::test]
async fn names_that_nothing_connects_to_cause_no_more_rows_than_anything_else() {
    let world = World::with_policy(POLICY).start().await;
    let gate = &world.gate;
    let session = Session::start(gate, "anonymous").await;
    let names = UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = names.local_addr().unwrap();
    let (taken, fence) = hand_over(gate, session.brings(vec![Role::Names]), vec![names.into()]).await;
    assert!(matches!(taken, Taken::Serving), "{taken:?}");
    for number in 0..700 {
        assert_eq!(ask(server, &format!("n{number}.names.test"), 1).await.0, 0);
    }
    drop(fence);
    let told = eventually("the row that says there were more", async || {
        let rows = gate.decisions_now().await;
        rows.iter().any(|row| row.text("reason") == "overloaded").then_some(rows)
    })
    .await;
    assert!(told.iter().all(|row| row.text("kind") == "dns" && row.text("session") == session.id));
    let rows = gate.decisions_reach(501).await;
    let (more, named): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.text("reason") == "overloaded");
    // While they are written the rate lets a few more pass.
    assert_eq!(more.len(), 1);
    assert!((500..650).contains(&named.len()), "{} rows", named.len());
    session.end().await;
    world.finish().await;
}

#[tokio::test]
async fn packets_that_were_lost_are_told_of() {
    let world = World::with_policy(POLICY).start().await;
    let gate = &world.gate;
    let session = Session::start(gate, "anonymous").await;
    // One port, and so one row, however many packets.
    let Some(_) = in_namespaces(gate, &session, &["flood"]).await else { return world.finish().await };
    let rows = gate.decisions_reach(2).await;
    let mut found: Vec<_> = rows.iter().map(|row| (row.text("reason"), row.text("kind"))).collect();
    found.sort_unstable();
    assert_eq!(found, [("overloaded", "tcp"), ("port_refused", "tcp")], "{rows:#?}");
    session.end().await;
    world.finish().await;
}

/// Runs `fence_client.py` in namespaces of its own and gives what it found; `None` where this machine has none.
async fn in_namespaces(gate: &Gate, session: &Session, more: &[&str]) -> Option<Value> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fence_client.py");
    let ca = gate.data().join("test-ca.pem");
    std::fs::write(&ca, gate.ca().await).unwrap();
    let output = tokio::process::Command::new("unshare")
        .args(["-Urn", "python3", script])
        .args([gate.data().join("gateway.sock").as_os_str(), ca.as_os_str()])
        .args([&session.id, &session.token])
        .args(more)
        .output()
        .await;
    let output = match output {
        Ok(output) if output.status.success() => output,
        other => {
            eprintln!(
                "SKIPPED: no user namespaces, or no `unshare` or `python3`, on this machine: {other:?}"
            );
            return None;
        }
    };
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[tokio::test]
async fn programs_that_know_no_proxy_come_by_names_that_stand_for_addresses() {
    let policy = r#"
        allow = ["allowed.test", "pinned.test"]
        [[rule]]
        name = "one path"
        action = "deny"
        to = ["allowed.test"]
        paths = ["/denied"]
        [tls]
        passthrough = ["pinned.test"]
    "#;
    let world = World::with_policy(policy).start().await;
    let gate = &world.gate;
    let session = Session::start(gate, "anonymous").await;
    let Some(found) = in_namespaces(gate, &session, &[]).await else { return world.finish().await };
    assert_eq!(
        found,
        json!({
            "names": ["198.18.0.2", "198.18.0.3", null],
            "https": [403, "denied_by_rule"],
            "http": [403, "denied_by_rule"],
            "other sni": "alert unrecognized_name",
            "other host": [421, "authority_mismatch"],
            "not http": "closed",
            "passthrough": "alert access_denied",
            "no name": "closed",
            "loopback": "closed",
            "port": "refused",
            "direct": "unreachable",
        }),
    );
    let told = |row: &Row| {
        let fields = ["kind", "host", "reason", "method"].map(|field| row.text(field).to_owned());
        format!("{}:{}", fields.join(" ").trim_end(), row.number("port"))
    };
    let expected = [
        "dns evil.test unknown_destination:0",
        "http allowed.test denied_by_rule GET:443",
        "http allowed.test denied_by_rule GET:80",
        "connect allowed.test authority_mismatch:443",
        "http allowed.test authority_mismatch GET:443",
        "connect allowed.test protocol_refused:443",
        "connect pinned.test address_forbidden:443",
        "tcp 198.18.7.7 port_refused:443",
        "tcp 127.0.0.1 port_refused:80",
        "tcp allowed.test port_refused:5432",
        "tcp allowed.test port_refused UDP:443",
    ];
    let rows = gate.decisions_reach(expected.len()).await;
    let mut found: Vec<String> = rows.iter().map(told).collect();
    let mut expected = expected.map(str::to_owned);
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    assert!(rows.iter().all(|row| row.text("session") == session.id), "{rows:#?}");
    let export = gate.data().join("export.jsonl");
    std::fs::write(&export, gate.told(&["audit", "export"]).await).unwrap();
    if let Some(verified) = verify_audit(&["--json".as_ref(), export.as_ref()]).await {
        assert!(verified.status.success(), "{verified:?}");
    }
    session.end().await;
    world.finish().await;
}

#[tokio::test]
async fn the_gateway_comes_back_where_a_dead_one_left_its_socket_and_takes_it_along_when_it_ends() {
    let mut gate = Gate::with_policy("version = 1").start().await;
    let socket = gate.data().join("gateway.sock");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&socket).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    gate.kill9().await;
    assert!(socket.exists());
    let mut gate = gate.again().await;
    let session = Session::start(&gate, "anonymous").await;
    let (proxy, address) = listener();
    let (taken, fence) = hand_over(&gate, session.brings(vec![Role::Proxy]), vec![proxy]).await;
    assert!(matches!(taken, Taken::Serving), "{taken:?}");
    assert!(TcpStream::connect(address).is_ok());
    assert!(gate.metrics().await.contains("process_open_fds"), "its numbers are still to be had");
    assert!(gate.stop().await.success(), "a fence does not keep it");
    assert!(!socket.exists());
    assert!(TcpStream::connect(address).is_err());
    drop(fence);
    session.end().await;
}
