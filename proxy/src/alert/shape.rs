//! What a webhook is posted: our own JSON, or a message as Slack takes it.

use policy::view::rfc3339;
use serde_json::{Value, json};
use ulid::Ulid;

use super::digest::Message;
use crate::config::{AlertFormat, Word as _};

/// Longest text of a message in Slack's limits, which are greater.
const SLACK_TEXT: usize = 2000;

/// The body of a message.
pub(super) fn body(format: AlertFormat, id: Ulid, message: &Message) -> String {
    match format {
        AlertFormat::Json => plain(id, message),
        AlertFormat::Slack => slack(message),
    }
    .to_string()
}

fn plain(id: Ulid, message: &Message) -> Value {
    let Message { kind, alert, count, first, .. } = message;
    json!({
        "id": id,
        "kind": kind.word(),
        "time": rfc3339(alert.time),
        "first": rfc3339(*first),
        "count": count,
        "text": alert.text,
        "agent": alert.agent,
        "session": alert.session,
        "host": alert.host,
        "rule": alert.rule,
        "reason": alert.reason,
        "decision": alert.decision,
        "reply_url": alert.reply_url,
        "deny_url": alert.deny_url,
    })
}

/// Only plain text, escaped besides: a host is what an attacker names, and must neither call a channel nor become a link
/// (<https://docs.slack.dev/messaging/formatting-message-text#escaping>).
fn slack(message: &Message) -> Value {
    let Message { kind, alert, count, .. } = message;
    let times = if *count > 1 { format!(" ({count}×)") } else { String::new() };
    let title = format!("Outgate: {}{times}", kind.word().replace('_', " "));
    let text = escaped(&alert.text);
    let block = |text: &str| json!({ "type": "plain_text", "text": text, "emoji": false });
    let mut blocks = vec![
        json!({ "type": "header", "text": block(&title) }),
        json!({ "type": "section", "text": block(&text) }),
    ];
    if let Some(decision) = alert.decision {
        let text = block(&format!("decision {decision}, {}", rfc3339(alert.time)));
        blocks.push(json!({ "type": "context", "elements": [text] }));
    }
    json!({
        "text": format!("{title}: {text}"),
        "mrkdwn": false,
        "unfurl_links": false,
        "unfurl_media": false,
        "blocks": blocks,
    })
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars().take(SLACK_TEXT) {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            control if control.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}
