//! However waiting ends, it ends at once, with a row, and leaves nothing behind.

use std::time::Duration;

use serde_json::Value;

use super::{ASKED, answer, asked, pending, send, untouched, world};
use crate::harness::{Frame, Raw, Request, Way, eventually};

/// The client's end is noticed also where it is hidden behind a body that is not read.
#[tokio::test]
async fn a_client_that_goes_is_noticed_and_its_question_lives_on() {
    let world = world().start().await;
    let gate = &world.gate;
    let request = Request::post("asked.test", "/echo", vec![b'x'; 40 << 10]);
    for (number, way) in [Way::Absolute, Way::Http1, Way::Http2].into_iter().enumerate() {
        let waiting = send(&world, way, &request);
        // In clear text and in TLS are two destinations, and the question of the one before lives on.
        let (scheme, requests) = if way == Way::Absolute { ("http:", 1) } else { ("https:", number) };
        eventually("it to wait", async || {
            let waits = |question: &Value| {
                question["destination"].as_str().unwrap().starts_with(scheme)
                    && question["requests"] == requests
            };
            pending(gate).await.iter().any(waits).then_some(())
        })
        .await;
        waiting.abort();
        let rows = gate.decisions_reach(number + 1).await;
        let row = &rows[number];
        assert_eq!(
            (row.text("reason"), row.text("outcome")),
            ("approval_timeout", "abandoned"),
            "{way:?}: {row:?}"
        );
        assert!(row["ms"]["total"].as_f64().unwrap() < 5000.0, "{way:?}: {row:?}");
    }
    untouched(&world, "asked.test");
    assert_eq!(gate.metric("outgate_approvals_total", &["answer=\"withdrawn\""]).await, 3.0);
    let question = pending(gate).await.into_iter().find(|question| question["requests"] == 2).unwrap();
    answer(gate, &question, "approve", "once").await;
    assert_eq!(world.send(Way::Http2, &request).await.status, 200, "the retry finds the answer");
    world.finish().await;
}

#[tokio::test]
async fn another_policy_is_asked_at_once() {
    let world = world().start().await;
    let request = Request::get("asked.test", "/echo");
    let policies = [
        (ASKED.replace("\"ask\"", "\"deny\""), 403, Some("denied_by_rule")),
        (ASKED.replace("\"ask\"", "\"allow\""), 200, None),
    ];
    for (round, (policy, status, reason)) in (1_u64..).zip(policies) {
        world.gate.write_policy(&world.policy(ASKED));
        world.gate.reload().await;
        let waiting = send(&world, Way::Http1, &request);
        let before = eventually("it to wait", async || {
            pending(&world.gate).await.into_iter().find(|question| question["requests"] == round)
        })
        .await;
        // What asks the same goes on waiting.
        world.gate.write_policy(&world.policy(&format!("allow = [\"else.test\"]\n{ASKED}")));
        world.gate.reload().await;
        let after = asked(&world.gate, 1).await.remove(0);
        assert_eq!((&before["id"], &before["requests"]), (&after["id"], &after["requests"]));
        world.gate.write_policy(&world.policy(&policy));
        world.gate.reload().await;
        let answered = waiting.await.unwrap();
        assert_eq!((answered.status, answered.reason()), (status, reason), "{answered:?}");
    }
    let rows = world.gate.decisions_reach(2).await;
    rows[0].is("deny", "denied_by_rule");
    rows[1].is("allow", "allowed_by_rule");
    world.finish().await;
}

#[tokio::test]
async fn who_is_revoked_waits_no_longer() {
    let world = world().start().await;
    let added = world.gate.told(&["agent", "add", "claude", "--owner", "ana@example.com", "--json"]).await;
    let added: Value = serde_json::from_str(&added).unwrap();
    let agent = world.agent.known_as(&format!("claude:{}", added["token"].as_str().unwrap()));
    let request = Request::get("asked.test", "/echo");
    let waiting = {
        let request = request.clone();
        tokio::spawn(async move { agent.send(Way::Http1, &request).await })
    };
    let question = asked(&world.gate, 1).await.remove(0);
    assert_eq!(question["agent"], "claude");
    world.gate.told(&["agent", "revoke", "claude"]).await;
    let answered = waiting.await.unwrap();
    assert_eq!((answered.status, answered.reason()), (407, Some("identity_expired")), "{answered:?}");
    untouched(&world, "asked.test");
    let row = world.gate.only_decision().await;
    row.is("deny", "identity_expired");
    world.finish().await;
}

#[tokio::test]
async fn a_gateway_that_stops_answers_at_once() {
    let mut world = world().start().await;
    let waiting = send(&world, Way::Http1, &Request::get("asked.test", "/echo"));
    let other = send(&world, Way::Http2, &Request::get("asked.test", "/echo"));
    eventually("both to wait", async || {
        pending(&world.gate).await.iter().any(|question| question["requests"] == 2).then_some(())
    })
    .await;
    let began = std::time::Instant::now();
    assert!(world.gate.stop().await.success());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    for waiting in [waiting, other] {
        let answered = waiting.await.unwrap();
        assert_eq!((answered.status, answered.reason()), (503, Some("overloaded")), "{answered:?}");
    }
    let world = world.again().await;
    let rows = world.gate.decisions_reach(2).await;
    rows.iter().for_each(|row| row.is("deny", "overloaded"));
    assert_eq!(pending(&world.gate).await.len(), 0);
    untouched(&world, "asked.test");
    world.finish().await;
}

/// One connection: what comes after what waits is not read before.
#[tokio::test]
async fn a_connection_goes_on_after_what_waited() {
    let world = world().start().await;
    let request = Request::get("asked.test", "/echo");
    let mut raw = world.agent.tls(&request, b"http/1.1").await.unwrap();
    raw.send(world.agent.origin_form(&request).concat()).await;
    let question = asked(&world.gate, 1).await.remove(0);
    answer(&world.gate, &question, "deny", "once").await;
    assert_eq!(raw.answer().await.reason(), Some("approval_denied"));
    raw.send(world.agent.origin_form(&Request::post("asked.test", "/echo", "x")).concat()).await;
    let question = asked(&world.gate, 1).await.remove(0);
    answer(&world.gate, &question, "approve", "session").await;
    assert_eq!(raw.answer_to("POST").await.status, 200);
    drop(raw);
    world.finish().await;
}

/// An answer for one request holds for what that request opened, for as long as it is open.
#[tokio::test]
async fn what_was_opened_once_outlives_another_policy_that_asks_the_same() {
    let world = world().start().await;
    let request = Request::get("asked.test", "/chat")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let mut raw: Raw = world.agent.tls(&request, b"http/1.1").await.unwrap();
    raw.send(world.agent.origin_form(&request).concat()).await;
    let question = asked(&world.gate, 1).await.remove(0);
    answer(&world.gate, &question, "approve", "once").await;
    assert_eq!(raw.answer().await.status, 101);
    world.gate.write_policy(&world.policy(&format!("allow = [\"else.test\"]\n{ASKED}")));
    world.gate.reload().await;
    Frame::text("still here").write(&mut raw.output, true).await.unwrap();
    assert_eq!(Frame::read(&mut raw.input).await.unwrap().payload, b"still here");
    world.gate.write_policy(&world.policy(&ASKED.replace("\"ask\"", "\"deny\"")));
    world.gate.reload().await;
    let ended = tokio::time::timeout(Duration::from_secs(10), Frame::read(&mut raw.input)).await.unwrap();
    assert!(ended.is_err() || ended.is_ok_and(|frame| frame.close_code().is_some()));
    world.gate.decisions_reach(1).await;
    world.finish().await;
}
