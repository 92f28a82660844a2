//! What the agent of the demo does, and what must become of it.

use bytes::Bytes;
use http::Method;
use policy::verdict::{Action, Reason};

use crate::cli::probe::Errand;

/// The policy of the demo: two services, one rule on trial, and the limits that make a demo short.
pub(super) const POLICY: &str = r#"version = 1
mode = "enforce"
allow = ["@anthropic", "@github"]

[[rule]]
name = "on trial: no issues in the tracker"
action = "deny"
to = ["tracker.example"]
observe = true

[uploads]
request_alert = "64 KiB"
request_block = "1 MiB"

[secrets]
action = "block"
[secrets.model]
action = "mask"
"#;

/// Every host that anything is sent to in the demo.
pub(super) const HOSTS: [&str; 5] =
    ["api.anthropic.com", "api.github.com", "paste.example", "gihtub.com", "tracker.example"];

/// One thing that the agent does.
pub(super) struct Scene {
    /// In words.
    pub(super) does: &'static str,
    /// What that shows.
    pub(super) shows: &'static str,
    /// What is done with it.
    pub(super) action: Action,
    /// Why.
    pub(super) reason: Reason,
    /// The request.
    pub(super) errand: Errand,
}

/// All of them, in order.
pub(super) fn scenes() -> Vec<Scene> {
    let leaked = leaked_key();
    vec![
        Scene {
            does: "asks its model",
            shows: "a model that the policy allows; the key goes where it belongs and is no leak",
            action: Action::Allow,
            reason: Reason::AllowedByRule,
            errand: with_key(post(
                HOSTS[0],
                "/v1/messages",
                r#"{"messages":[{"role":"user","content":"fix issue 42"}]}"#,
            )),
        },
        Scene {
            does: "reads the issue",
            shows: "a tool that the policy allows",
            action: Action::Allow,
            reason: Reason::AllowedByRule,
            errand: Errand::get(HOSTS[1], "/repos/example/app/issues/42"),
        },
        Scene {
            does: "posts notes to a paste site",
            shows: "a host that nobody named: refused before its name is even looked up",
            action: Action::Deny,
            reason: Reason::UnknownDestination,
            errand: post(HOSTS[2], "/new", r#"{"notes":"what I found out"}"#),
        },
        Scene {
            does: "attaches a 3 MiB archive",
            shows: "more than one request may carry: refused before its first byte",
            action: Action::Deny,
            reason: Reason::UploadTooLarge,
            errand: Errand {
                body: Bytes::from(vec![b'.'; 3 << 20]),
                ..post(HOSTS[1], "/repos/example/app/issues/42/attachments", "")
            },
        },
        Scene {
            does: "comments with a cloud key",
            shows: "a secret where it does not belong: it never left",
            action: Action::Deny,
            reason: Reason::SecretFound,
            errand: post(
                HOSTS[1],
                "/repos/example/app/issues/42/comments",
                &leaking("The deploy key is", &leaked),
            ),
        },
        Scene {
            does: "pastes that key in a prompt",
            shows: "towards models this policy masks: the work goes on, the key stays here",
            action: Action::Allow,
            reason: Reason::AllowedByRule,
            errand: with_key(post(HOSTS[0], "/v1/messages", &leaking("What is this for?", &leaked))),
        },
        Scene {
            does: "follows a mistyped link",
            shows: "a name made to look like one that is known",
            action: Action::Deny,
            reason: Reason::UnknownDestination,
            errand: Errand::get(HOSTS[3], "/example/app"),
        },
        Scene {
            does: "files a ticket",
            shows: "a rule on trial: it passes, and the record says what enforcing would have done",
            action: Action::Allow,
            reason: Reason::AllowedByObserve,
            errand: post(HOSTS[4], "/tickets", r#"{"title":"flaky test"}"#),
        },
    ]
}

/// The scene in which the secret is masked.
pub(super) const MASKED: usize = 5;
/// The scene whose refusal is shown as the agent sees it.
pub(super) const REFUSED: usize = 2;

fn post(host: &str, path: &str, body: &str) -> Errand {
    Errand { method: Method::POST, body: body.to_owned().into(), ..Errand::get(host, path) }
}

fn with_key(errand: Errand) -> Errand {
    let key = format!(
        "sk-ant-api03-{}AA",
        made_up(93, b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789")
    );
    Errand { headers: vec![("x-api-key", key)], ..errand }
}

fn leaking(text: &str, secret: &str) -> String {
    format!(r#"{{"messages":[{{"role":"user","content":"{text} {secret}"}}]}}"#)
}

/// A key of the right shape that nobody was ever given.
fn leaked_key() -> String {
    format!("AKIA{}7", made_up(15, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
}

/// Letters that look drawn at random, and are the same each time.
fn made_up(length: usize, alphabet: &[u8]) -> String {
    let mut state: u32 = 0x2545_f491;
    let next = |_| {
        // xorshift: any other scatter would do.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        char::from(alphabet[state as usize % alphabet.len()])
    };
    (0..length).map(next).collect()
}
