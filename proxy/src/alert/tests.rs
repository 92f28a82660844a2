//! What is gathered, in which shape it is told, and what is kept to be shown.

use std::time::{Duration, Instant};

use policy::redact::Redacted;

use super::digest::{Digest, Message};
use super::*;
use crate::config::AlertFormat;

fn alert(kind: AlertKind, key: &str) -> Alert {
    Alert::new(kind, key.to_owned(), format!("about {key}"))
}

fn told(message: &Message) -> (String, u64) {
    (message.alert.text.clone(), message.count)
}

#[test]
fn equal_alerts_become_one_and_others_do_not_wait() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut digest = Digest::new(Duration::from_secs(60));
    let denied = |key: &str| alert(AlertKind::Denied, key);
    assert!(digest.add(AlertKind::Denied, denied("a"), at(0)).is_some());
    assert!(digest.add(AlertKind::Denied, denied("a"), at(1)).is_none());
    assert!(digest.add(AlertKind::Denied, denied("b"), at(2)).is_some(), "another one does not wait");
    assert!(digest.add(AlertKind::Denied, denied("a"), at(3)).is_none());
    assert!(digest.due(at(59)).is_empty());
    assert_eq!(digest.next(), Some(at(60)));
    let due: Vec<_> = digest.due(at(60)).iter().map(told).collect();
    assert_eq!(due, [("about a".to_owned(), 2)]);
    // It went on within the time, so it stays one message for each time.
    assert!(digest.add(AlertKind::Denied, denied("a"), at(70)).is_none());
    assert_eq!(digest.due(at(120)).len(), 1);
    assert!(digest.due(at(180)).is_empty(), "nothing came since");
    assert!(digest.add(AlertKind::Denied, denied("a"), at(181)).is_some(), "and it begins anew");
}

#[test]
fn of_a_flood_the_number_is_told() {
    let now = Instant::now();
    let mut digest = Digest::new(Duration::from_secs(60));
    let sent = (0..500)
        .filter(|number| {
            let kind = if number % 5 == 0 { AlertKind::Upload } else { AlertKind::Denied };
            digest.add(kind, alert(kind, &number.to_string()), now).is_some()
        })
        .count();
    assert_eq!(sent, 20);
    assert!(
        digest.add(AlertKind::AuditFailure, alert(AlertKind::AuditFailure, "audit"), now).is_some(),
        "what is urgent is told"
    );
    let question = digest.add(AlertKind::Approval, alert(AlertKind::Approval, "question"), now);
    assert!(question.is_some(), "somebody waits");
    let due = digest.due(now + Duration::from_secs(60));
    assert_eq!(
        due.iter().map(told).collect::<Vec<_>>(),
        [("480 more alerts: denied 384×, upload 96×".to_owned(), 480)]
    );
    assert!(digest.flush().is_empty());
}

/// A host that names a channel, a link and a person must do none of that in a message.
#[test]
fn hostile_names_are_plain_text_in_slack() {
    let hostile = "<!channel> <https://evil.example|click> & *bold*\n_x_";
    let alert = Alert {
        host: Some(Redacted::from_store(hostile.to_owned())),
        reply_url: Some("https://outgate.example/approvals".to_owned()),
        ..Alert::new(AlertKind::Denied, "x".to_owned(), format!("claude to {hostile}: refused"))
    };
    let message = Message { kind: AlertKind::Denied, alert, count: 1, first: 0, others: Vec::new() };
    let text = shape::body(AlertFormat::Slack, Ulid::nil(), &message);
    let body: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(!text.contains('<') && !text.contains("\\n"), "{text}");
    assert_eq!(
        body["text"],
        "Outgate: denied: claude to &lt;!channel&gt; &lt;https://evil.example|click&gt; &amp; *bold* _x_: refused"
    );
    assert_eq!(body["mrkdwn"], false);
    assert_eq!(body["blocks"][1]["text"]["type"], "plain_text");
    assert!(
        !text.contains("https://outgate.example"),
        "a channel must not hold what answers a question: {body}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&shape::body(AlertFormat::Json, Ulid::nil(), &message)).unwrap();
    assert_eq!(json["host"], hostile, "data is told as it is");
    assert_eq!(json["reply_url"], "https://outgate.example/approvals");
}

#[tokio::test]
async fn a_question_is_told_and_shown() {
    let alerts = Alerts::silent();
    let agent = "claude".parse().unwrap();
    let (destination, rule) = (Redacted::literal("https://a.test"), Redacted::literal("ask \"a.test\""));
    let id = Ulid::from_parts(1, 1);
    alerts.approval_waiting(&Waiting {
        id,
        agent: &agent,
        session: None,
        destination: &destination,
        rule: Some(&rule),
        reply_url: None,
        deny_url: None,
    });
    let shown = serde_json::to_value(alerts.overview()).unwrap();
    assert_eq!(shown["alerts"][0]["kind"], "approval");
    assert_eq!(
        shown["alerts"][0]["text"],
        format!("claude asks to reach https://a.test (ask \"a.test\"): outgate approvals approve {id}")
    );
    assert_eq!(shown["alerts"][0]["sent"], false, "nobody wants it");
}

#[test]
fn what_is_shown_is_bounded() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _inside = runtime.enter();
    let alerts = Alerts::silent();
    for number in 0..10_000 {
        alerts.audit_failure("the disk is full");
        alerts.expiring(&format!("agent-{number}").parse().unwrap());
    }
    let shown = alerts.overview().alerts;
    assert_eq!(shown.len(), RECENT);
}
