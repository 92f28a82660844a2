//! A refusal of what no rule names can be answered like a question: by the console, beside its row.

use serde_json::{Value, json};

use crate::harness::{Answer, Gate, Request, Row, Way, World};

const POLICY: &str = "allow = [\"allowed.test:{tls}\"]\ndeny = [\"denied.test\"]";

async fn offer(gate: &Gate, row: &Row, scope: &str) -> Answer {
    let path = format!("/api/decisions/{}/answer", row.text("id"));
    gate.ask_admin("POST", &path, Some(json!({ "for": scope, "by": "ana" }))).await
}

#[tokio::test]
async fn a_refusal_is_answered_for_once_for_an_hour_or_for_always() {
    let world = World::with_policy(POLICY).gate(|gate| gate.own_policy()).start().await;
    let gate = &world.gate;
    let refused = "unknown_destination";
    for (host, scope, expected) in [
        // Two retries, and a write.
        ("a.test", "once", [None, Some(refused), Some(refused)]),
        ("b.test", "session", [None, None, Some(refused)]),
        ("c.test", "1h", [None, None, Some(refused)]),
        ("d.test", "deny", [Some(refused); 3]),
        ("e.test", "always", [None, None, None]),
    ] {
        let request = Request::get(host, "/echo");
        assert_eq!(world.send(Way::Http1, &request).await.reason(), Some(refused), "{host}");
        let row = gate.decisions().await.pop().unwrap();
        let answered = offer(gate, &row, scope).await;
        assert_eq!(answered.status, 200, "{scope}: {}", answered.text());
        let write = Request::post(host, "/echo", "x");
        for (request, reason) in [&request, &request, &write].into_iter().zip(expected) {
            assert_eq!(world.send(Way::Http2, request).await.reason(), reason, "{scope}: {request:?}");
        }
    }
    let rows = gate.decisions().await;
    let passed: Vec<&Row> = rows.iter().filter(|row| row.text("action") == "allow").collect();
    let by_approval = passed.iter().filter(|row| row.text("reason") == "allowed_by_approval").count();
    assert_eq!((passed.len(), by_approval), (8, 5), "{rows:#?}");
    let allowed = std::fs::read_to_string(gate.data().join("policy.d/allowed.toml")).unwrap();
    assert!(allowed.contains(&format!("\"e.test:{}\"", world.origin.tls)), "{allowed}");
    let events = gate.told(&["audit", "export"]).await;
    assert_eq!(events.matches("\"approval_answered\"").count(), 5, "{events}");
    world.finish().await;
}

#[tokio::test]
async fn only_what_no_rule_names_is_offered() {
    let world = World::with_policy(POLICY).gate(|gate| gate.own_policy()).start().await;
    let gate = &world.gate;
    for (host, reason) in [("denied.test", "denied_by_rule"), ("allowed.test", "")] {
        let answered = world.send(Way::Http1, &Request::get(host, "/echo")).await;
        assert_eq!(answered.reason().unwrap_or_default(), reason);
        let row = gate.decisions().await.pop().unwrap();
        for scope in ["once", "session", "1h", "always", "deny"] {
            let answered = offer(gate, &row, scope).await;
            assert_eq!(answered.status, 422, "{host} {scope}: {}", answered.text());
        }
        let preview =
            gate.ask_admin("GET", &format!("/api/decisions/{}/preview", row.text("id")), None).await;
        assert_eq!(preview.status, 422, "{}", preview.text());
    }
    world.send(Way::Http1, &Request::get("a.test", "/")).await;
    let row = gate.decisions().await.pop().unwrap();
    assert_eq!(offer(gate, &row, "ever").await.status, 400);
    let preview = gate.ask_admin("GET", &format!("/api/decisions/{}/preview", row.text("id")), None).await;
    let preview: Value = serde_json::from_str(&preview.text()).unwrap();
    assert_eq!(preview["entry"], format!("allow = [\"a.test:{}\"]\n", world.origin.tls));
    assert!(preview["file"].as_str().unwrap().ends_with("policy.d/allowed.toml"));
    assert!(!gate.data().join("policy.d").exists(), "to look at it changes nothing");
    world.finish().await;
}
