//! What the policy asks about waits for a person, whichever way it came: nothing is looked up, dialled or read before
//! the answer, the answer reaches exactly as far as it says, and every request has one row with the right reason.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::harness::{
    Answer, Gate, Raw, Request, Row, UNAWARE, Way, World, WorldBuilder, all_inside_a_network, eventually,
    secrets,
};

mod crowd;
mod endings;
mod offers;
mod terminal;

const ASKED: &str = r#"
    [[rule]]
    name = "a person says"
    action = "ask"
    to = ["asked.test:{http}", "asked.test:{tls}", "*.asked.test:{http}", "*.asked.test:{tls}"]
"#;

/// The questions that wait for an answer, once there are so many.
pub async fn asked(gate: &Gate, count: usize) -> Vec<Value> {
    eventually(&format!("{count} questions"), async || {
        let pending = pending(gate).await;
        (pending.len() == count).then_some(pending)
    })
    .await
}

/// The questions that wait for an answer now.
async fn pending(gate: &Gate) -> Vec<Value> {
    let answer = gate.ask_admin("GET", "/api/approvals", None).await;
    let listed: Value = serde_json::from_str(&answer.text()).unwrap();
    let all = listed["approvals"].as_array().unwrap().clone();
    all.into_iter().filter(|question| question["state"] == "pending").collect()
}

/// Gives an answer, which must be taken.
pub async fn answer(gate: &Gate, question: &Value, answer: &str, scope: &str) -> Value {
    let answer = try_answer(gate, question, answer, scope).await;
    assert_eq!(answer.status, 200, "{answer:?}: {}", answer.text());
    serde_json::from_str(&answer.text()).unwrap()
}

async fn try_answer(gate: &Gate, question: &Value, answer: &str, scope: &str) -> Answer {
    let path = format!("/api/approvals/{}", question["id"].as_str().unwrap());
    gate.ask_admin("POST", &path, Some(json!({ "answer": answer, "for": scope, "by": "ana" }))).await
}

/// Sends a request and does not wait for its answer.
fn send(world: &World, way: Way, request: &Request) -> JoinHandle<Answer> {
    let (agent, request) = (world.agent.clone(), request.clone());
    tokio::spawn(async move { agent.send(way, &request).await })
}

fn untouched(world: &World, host: &str) {
    world.origin.must_be_untouched();
    world.resolver.must_not_know(host);
}

fn world() -> WorldBuilder {
    World::with_policy(ASKED)
}

#[tokio::test]
async fn every_way_waits_and_passes_or_not_by_the_same_answers() {
    for way in Way::ALL {
        let mut world = world().config("[approvals]\ntimeout = \"2s\"").start().await;
        world.gate.plant(&secrets::heart(&secrets::aws_access_key()));
        let request = Request::get("asked.test", "/echo");

        let waiting = send(&world, way, &request);
        let question = asked(&world.gate, 1).await.remove(0);
        untouched(&world, "asked.test");
        assert_eq!(world.gate.decisions_now().await.len(), 0, "nothing is decided yet");
        answer(&world.gate, &question, "approve", "once").await;
        let status = if way == Way::WebSocket { 101 } else { 200 };
        let answered = waiting.await.unwrap();
        assert_eq!(answered.status, status, "{way:?}: {answered:?}");
        let accepts = world.origin.accepts();

        let timed_out = send(&world, way, &request).await.unwrap();
        assert_eq!((timed_out.status, timed_out.reason()), (403, Some("approval_timeout")), "{way:?}");

        let waiting = send(&world, way, &request);
        let question = eventually("the retry to join the question", async || {
            pending(&world.gate).await.into_iter().find(|question| question["requests"] == 2)
        })
        .await;
        answer(&world.gate, &question, "deny", "once").await;
        let denied = waiting.await.unwrap();
        assert_eq!((denied.status, denied.reason()), (403, Some("approval_denied")), "{way:?}: {denied:?}");
        let retry = world.send(way, &request).await;
        assert_eq!(retry.reason(), Some("approval_denied"), "{way:?}: the denial holds");

        let rows = world.gate.decisions_reach(4).await;
        let reasons: Vec<&str> = rows.iter().map(|row| row.text("reason")).collect();
        let expected = ["allowed_by_approval", "approval_timeout", "approval_denied", "approval_denied"];
        assert_eq!(reasons, expected, "{way:?}");
        let outcomes: Vec<&str> = rows.iter().map(|row| row.text("outcome")).collect();
        assert_eq!(outcomes, ["completed", "denied", "denied", "denied"], "{way:?}: {rows:#?}");
        let held = |row: &Row| row["ms"]["held"].as_f64().unwrap();
        assert!(held(&rows[0]) > 0.0 && held(&rows[1]) >= 1900.0, "{way:?}: {rows:#?}");
        let decide = rows[1]["ms"]["decide"].as_f64().unwrap();
        assert!(decide < 1000.0, "waiting is not deciding: {decide}");
        assert!(rows.iter().all(|row| row.text("rule") == "a person says"), "{way:?}: {rows:#?}");
        assert_eq!(world.origin.accepts(), accepts, "{way:?}: only the first was dialled for");
        for (word, count) in [("approved", 1.0), ("denied", 1.0), ("timeout", 1.0), ("withdrawn", 0.0)] {
            let label = format!("answer=\"{word}\"");
            assert_eq!(world.gate.metric("outgate_approvals_total", &[&label]).await, count, "{word}");
        }
        assert_eq!(world.gate.metric("outgate_approvals_pending", &[]).await, 0.0);
        world.finish().await;
    }
}

/// The same by the ways out of a fence that programs take which know no proxy.
#[tokio::test]
async fn programs_that_know_no_proxy_wait_alike() {
    let tests = ["approvals::every_way_waits", "approvals::endings::a_client_that_goes"];
    all_inside_a_network(&tests, (UNAWARE, "yes")).await;
}

#[tokio::test]
async fn a_tunnel_that_is_not_read_waits_before_its_200() {
    let policy = "ask = [\"asked.test:{tls}\"]\n[tls]\npassthrough = [\"asked.test:{tls}\"]";
    let world = World::with_policy(policy).start().await;
    let authority = format!("asked.test:{}", world.origin.tls);
    let connect = || {
        let (proxy, authority) = (world.gate.proxy, authority.clone());
        tokio::spawn(async move {
            let mut raw = Raw::open(proxy).await;
            let answer = raw.connect(&authority).await;
            (raw, answer)
        })
    };
    let waiting = connect();
    let question = asked(&world.gate, 1).await.remove(0);
    untouched(&world, "asked.test");
    assert_eq!(question["destination"], format!("https://{authority}"));
    answer(&world.gate, &question, "approve", "once").await;
    let (raw, connected) = waiting.await.unwrap();
    assert_eq!(connected.status, 200, "{connected:?}");
    drop(raw);

    let waiting = connect();
    let question = asked(&world.gate, 1).await.remove(0);
    answer(&world.gate, &question, "deny", "once").await;
    let (_, refused) = waiting.await.unwrap();
    assert_eq!((refused.status, refused.reason()), (403, Some("approval_denied")), "{refused:?}");
    let rows = world.gate.decisions_reach(2).await;
    rows[0].is("deny", "protocol_refused");
    assert_eq!((rows[0].text("decided"), rows[0].text("kind")), ("allow", "connect"));
    rows[1].is("deny", "approval_denied");
    world.finish().await;
}

#[tokio::test]
async fn what_waits_is_not_asked_for_its_body() {
    let world = world().start().await;
    let authority = format!("asked.test:{}", world.origin.http);
    let head = format!(
        "POST http://{authority}/echo HTTP/1.1\r\nHost: {authority}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    );
    let mut raw = Raw::open(world.gate.proxy).await;
    raw.send(&head).await;
    let question = asked(&world.gate, 1).await.remove(0);
    assert!(
        raw.read_to_close(Duration::from_millis(300)).await.is_none(),
        "nothing is said, nothing is closed"
    );
    let mut raw = Raw::open(world.gate.proxy).await;
    raw.send(&head).await;
    eventually("it to wait too", async || (pending(&world.gate).await[0]["requests"] == 2).then_some(()))
        .await;
    answer(&world.gate, &question, "approve", "once").await;
    // 100 comes with the upload, after the answer.
    raw.send("hello").await;
    let answered = raw.answer_to("POST").await;
    assert_eq!((answered.status, &*answered.informational), (200, &[100][..]), "{answered:?}");
    world.finish().await;
}

/// An answer is not a permit: what is decided again may still be refused.
#[tokio::test]
async fn limits_on_content_hold_after_an_answer() {
    let policy = format!("{ASKED}\n[uploads]\nrequest_block = \"1 KiB\"");
    let mut world = World::with_policy(&policy).start().await;
    let key = secrets::anthropic_key();
    world.gate.plant(&secrets::heart(&key));
    let large = world.send(Way::Http1, &Request::post("asked.test", "/echo", vec![b'x'; 2048])).await;
    assert_eq!(large.reason(), Some("upload_too_large"), "nobody is asked about what cannot pass");
    let waiting = send(&world, Way::Http1, &Request::post("asked.test", "/echo", key));
    let question = asked(&world.gate, 1).await.remove(0);
    answer(&world.gate, &question, "approve", "1h").await;
    let answered = waiting.await.unwrap();
    assert_eq!(answered.reason(), Some("secret_found"), "{answered:?}");
    let pieces = Request::get("asked.test", "/echo").method("POST").pieces(vec![vec![b'x'; 512]; 4]);
    let cut = world.send(Way::Http1, &pieces).await;
    assert!(cut.status == 413 || cut.status == 0, "{cut:?}");
    let rows = world.gate.decisions_reach(3).await;
    assert_eq!((rows[1].text("reason"), rows[1].text("decided")), ("secret_found", "allow"), "{:?}", rows[1]);
    assert_eq!(rows[2].text("reason"), "upload_too_large");
    world.finish().await;
}

#[tokio::test]
async fn an_answer_reaches_as_far_as_it_says() {
    let world = world().config("[approvals]\ntimeout = \"1s\"").start().await;
    let gate = &world.gate;
    let mut agents = Vec::new();
    for name in ["claude", "codex"] {
        let added = gate.told(&["agent", "add", name, "--owner", "ana@example.com", "--json"]).await;
        let added: Value = serde_json::from_str(&added).unwrap();
        agents.push(format!("{name}+one:{}", added["token"].as_str().unwrap()));
        agents.push(format!("{name}+two:{}", added["token"].as_str().unwrap()));
    }
    let sent = async |who: &str, host: &str, method: &str| {
        let request = Request::get(host, "/echo").method(method);
        let answer = world.agent.known_as(who).send(Way::Http1, &request).await;
        answer.reason().map_or_else(|| answer.status.to_string(), str::to_owned)
    };
    let [one, two, other, _] = &agents[..] else { panic!() };
    for (host, scope, expected) in [
        // What the retry, another method, another session, another agent and another host then get.
        ("a.asked.test", "once", ["200", "approval_timeout", "approval_timeout", "approval_timeout"]),
        ("b.asked.test", "session", ["200", "200", "approval_timeout", "approval_timeout"]),
        ("c.asked.test", "1h", ["200", "200", "200", "approval_timeout"]),
    ] {
        assert_eq!(sent(one, host, "GET").await, "approval_timeout", "{host}: nobody answers");
        let pending = pending(gate).await;
        let question =
            pending.iter().find(|question| question["destination"].as_str().unwrap().contains(host));
        answer(gate, question.unwrap(), "approve", scope).await;
        // A retry after it gave up finds the answer.
        assert_eq!(sent(one, host, "GET").await, expected[0], "{scope}, the retry");
        assert_eq!(sent(one, host, "HEAD").await, expected[1], "{scope}, once more");
        assert_eq!(sent(two, host, "GET").await, expected[2], "{scope}, another session");
        assert_eq!(sent(other, host, "GET").await, expected[3], "{scope}, another agent");
        assert_eq!(sent(one, host, "POST").await, "approval_timeout", "{scope}: to read is not to write");
        assert_eq!(sent(one, "d.asked.test", "GET").await, "approval_timeout", "{scope}, another host");
    }
    let rows = gate.decisions().await;
    assert!(
        rows.iter().all(|row| row.text("action") == "deny" || row.text("reason") == "allowed_by_approval")
    );
    world.finish().await;
}

#[tokio::test]
async fn an_answer_for_always_is_written_and_in_force() {
    let world = world().gate(|gate| gate.own_policy()).start().await;
    let gate = &world.gate;
    let request = Request::get("asked.test", "/echo");
    let waiting = send(&world, Way::Http1, &request);
    let question = asked(gate, 1).await.remove(0);
    let id = question["id"].as_str().unwrap();
    let preview = gate.ask_admin("GET", &format!("/api/approvals/{id}/preview?by=ana"), None).await;
    let preview: Value = serde_json::from_str(&preview.text()).unwrap();
    let file = gate.data().join("policy.d/approved.toml");
    assert_eq!(preview["file"], file.to_str().unwrap(), "{preview}");
    assert!(preview["entry"].as_str().unwrap().contains("by = \"ana\""), "{preview}");
    assert!(!file.exists(), "to look at it changes nothing");
    let told = gate.told(&["approvals", "approve", &id[20..], "--for", "always"]).await;
    assert!(told.contains("[[approved]]") && told.contains("approved.toml"), "{told}");
    assert!(told.contains("approved for always: 1 request waited for it"), "{told}");
    assert_eq!(waiting.await.unwrap().status, 200);
    let text = std::fs::read_to_string(&file).unwrap();
    let host = format!("host = \"asked.test:{}\"", world.origin.tls);
    for line in [&*host, "agent = \"anonymous\"", "rule = \"a person says\"", "by = ", "at = "] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(world.send(Way::Http2, &Request::post("asked.test", "/echo", "more")).await.status, 200);
    assert_eq!(pending(gate).await.len(), 0);
    // A rule that denies still does.
    let denies = "\n[[rule]]\nname = \"no\"\naction = \"deny\"\nto = [\"asked.test\"]";
    gate.write_policy(&world.policy(&format!("{ASKED}{denies}")));
    gate.reload().await;
    assert_eq!(world.send(Way::Http1, &request).await.reason(), Some("denied_by_rule"));
    let events = gate.told(&["audit", "export"]).await;
    let event = events.lines().find(|line| line.contains("approval_answered")).unwrap();
    for part in
        [id, "\"scope\":\"always\"", "\"agent\":\"anonymous\"", "asked.test", "a person says", "\"by\":"]
    {
        assert!(event.contains(part), "{part}: {event}");
    }
    assert!(gate.run(&["audit", "verify"]).await.status.success());
    world.finish().await;
}

#[tokio::test]
async fn where_the_policy_lies_elsewhere_nothing_can_be_added_to_it() {
    let world = world().start().await;
    let waiting = send(&world, Way::Absolute, &Request::get("asked.test", "/echo"));
    let question = asked(&world.gate, 1).await.remove(0);
    let refused = try_answer(&world.gate, &question, "approve", "always").await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert!(refused.text().contains("policy.toml") && refused.text().contains("`1h`"), "{}", refused.text());
    assert_eq!(pending(&world.gate).await.len(), 1, "it can still be answered");
    answer(&world.gate, &question, "approve", "once").await;
    assert_eq!(waiting.await.unwrap().status, 200);
    let again = try_answer(&world.gate, &question, "deny", "once").await;
    assert_eq!(again.status, 409, "{}", again.text());
    world.finish().await;
}

/// Whoever answers for once answers for what they have seen.
#[tokio::test]
async fn an_answer_for_once_lets_pass_no_path_that_was_not_shown() {
    let world = world().start().await;
    let shown = send(&world, Way::Http1, &Request::get("asked.test", "/echo"));
    let question = asked(&world.gate, 1).await.remove(0);
    let joined = send(&world, Way::Http1, &Request::get("asked.test", "/echo/joined"));
    let listed = eventually("the other path", async || {
        let question = pending(&world.gate).await.remove(0);
        (!question["others"].as_array().unwrap().is_empty()).then_some(question)
    })
    .await;
    assert_eq!(listed["others"], json!([{ "method": "GET", "path": "/echo/joined" }]));
    assert_eq!((&listed["path"], &listed["unlisted"]), (&json!("/echo"), &json!(0)));
    let table = world.gate.told(&["approvals", "list"]).await;
    assert!(table.contains("and 1 other path, e.g. /echo/joined"), "{table}");
    let path = format!("/api/approvals/{}", question["id"].as_str().unwrap());
    let said = json!({ "answer": "approve", "for": "once", "shown": 1, "by": "ana" });
    let given = world.gate.ask_admin("POST", &path, Some(said)).await;
    let given: Value = serde_json::from_str(&given.text()).unwrap();
    assert_eq!(given["requests"], 1, "{given}");
    assert_eq!(shown.await.unwrap().status, 200);
    let again = asked(&world.gate, 1).await.remove(0);
    assert_ne!(again["id"], question["id"]);
    assert_eq!((&again["path"], joined.is_finished()), (&json!("/echo/joined"), false));
    answer(&world.gate, &again, "deny", "once").await;
    assert_eq!(joined.await.unwrap().reason(), Some("approval_denied"));
    world.finish().await;
}

#[tokio::test]
async fn the_commands_list_and_answer_and_are_not_for_agents() {
    let mut world = world().start().await;
    world.gate.plant(&secrets::heart(&secrets::aws_access_key()));
    let gate = &world.gate;
    assert_eq!(gate.told(&["approvals", "list", "--json"]).await.trim(), "[]");
    let path = format!("/echo?token={}", secrets::aws_access_key());
    let waiting = send(&world, Way::Http1, &Request::get("asked.test", &path));
    let second = send(&world, Way::Http1, &Request::post("asked.test", "/echo", "x"));
    let questions = asked(gate, 2).await;
    let listed: Value = serde_json::from_str(&gate.told(&["approvals", "list", "--json"]).await).unwrap();
    let keys: Vec<&String> = listed[0].as_object().unwrap().keys().collect();
    let mut expected = [
        "id",
        "agent",
        "session",
        "destination",
        "method",
        "path",
        "others",
        "unlisted",
        "rule",
        "asked",
        "expires",
        "requests",
    ];
    expected.sort_unstable();
    assert_eq!(keys.len(), expected.len(), "{listed}");
    assert!(expected.iter().all(|key| keys.iter().any(|known| known == key)), "{listed}");
    let get = questions.iter().find(|question| question["method"] == "GET").unwrap();
    assert_eq!(get["path"], "/echo?token=[redacted:query]");
    assert_eq!(get["destination"], format!("https://asked.test:{}", world.origin.tls));
    assert_eq!(
        (&get["agent"], &get["rule"], &get["requests"]),
        (&json!("anonymous"), &json!("a person says"), &json!(1))
    );
    let table = gate.told(&["approvals", "list"]).await;
    assert!(table.contains("QUESTION") && table.contains(get["id"].as_str().unwrap()), "{table}");
    for arguments in [&["approvals", "approve", "x"][..], &["approvals", "deny", "x"]] {
        let output = gate.command(arguments).env("OUTGATE_SESSION", "x").output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("refused inside a session"), "{said}");
    }
    let unknown = gate.run(&["approvals", "approve", "01K5C3ZJ8V7B5Q2M4N6P8R0T1W"]).await;
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
    let post =
        questions.iter().find(|question| question["method"] == "POST").unwrap()["id"].as_str().unwrap();
    assert_eq!(gate.told(&["approvals", "deny", post]).await, "denied: 1 request waited for it\n");
    assert_eq!(second.await.unwrap().reason(), Some("approval_denied"));
    gate.told(&["approvals", "approve", get["id"].as_str().unwrap(), "--for", "1h"]).await;
    // It passes the question, and not what is in it.
    assert_eq!(waiting.await.unwrap().reason(), Some("secret_found"));
    world.finish().await;
}
