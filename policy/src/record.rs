//! What is kept of a request: the [`Decision`] taken before anything left, and the [`Outcome`] added at its end.
//!
//! Text enters only as [`Redacted`]. Times are microseconds since the Unix epoch, UTC.
//!
//! # Canonical bytes
//!
//! The audit chain is taken over the canonical bytes of a record: JSON in UTF-8 with the keys of every object in
//! ascending byte order, no white space, no key twice; numbers are integers in decimal; of strings only `"`, `\`
//! and the characters below U+0020 are escaped, as `\"`, `\\`, `\b`, `\f`, `\n`, `\r`, `\t` where JSON has such a
//! form and as `\u00xx` in lower case where not. (Python: `json.dumps(record, sort_keys=True,
//! separators=(",", ":"), ensure_ascii=False)`.) Every key is always there, with `null` where nothing is known.
//! A record with the key `event` is an event, one with the key `decision` an outcome, any other a decision.
//! Fields of the types here therefore stand in alphabetical order: serde writes them in that order.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use ulid::Ulid;

pub use crate::event::{Event, Happening};
use crate::identity::{AgentName, SessionId};
use crate::redact::Redacted;
use crate::request::Kind;
use crate::target::Scheme;
use crate::verdict::{Action, Class, Mode, Reason};

/// Something seen in a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Finding {
    /// More left, or would have left, than a limit says.
    LargeUpload {
        /// Bytes counted when the limit was passed.
        bytes: u64,
        /// The limit.
        limit: u64,
        /// Which limit: `request_alert`, `request_block`, `window_alert`, `window_block`, `window_block_agent`.
        of: Arc<str>,
    },
    /// A secret where it does not belong.
    Secret {
        /// Name of the detector, or `known:NAME`.
        detector: Arc<str>,
        /// How often.
        count: u32,
        /// Where: `body`, `query`, `header:NAME` …
        #[serde(rename = "where")]
        place: Arc<str>,
        /// Keyed digest of the secret, `hmac:…`, equal for equal secrets of one data folder.
        key: Arc<str>,
    },
    /// A service's own credential, in its place.
    CredentialUsed {
        /// Name of the detector, or `known:NAME`.
        detector: Arc<str>,
        /// Where.
        #[serde(rename = "where")]
        place: Arc<str>,
        /// Keyed digest.
        key: Arc<str>,
    },
    /// The host looks like another, known one.
    LookalikeDomain {
        /// The domain it looks like.
        of: Arc<str>,
    },
    /// A label of the host looks like encoded data.
    EncodedDataInName,
    /// An unknown host is spoken to as a model API.
    ModelShaped {
        /// Which API.
        api: Arc<str>,
    },
    /// An unknown host is spoken to as an MCP server.
    McpShaped,
    /// A push to a git repository.
    GitPush,
    /// A body whose encoding could not be undone, so that it was not looked into.
    Undecodable {
        /// The encoding as named by the request, redacted.
        encoding: Redacted,
    },
    /// A DNS query carried in HTTP (RFC 8484).
    DnsOverHttps,
    /// A header that asks for another method than the request's own.
    MethodOverride,
}

impl Finding {
    /// The word used in records and labels.
    pub fn kind(&self) -> &'static str {
        match self {
            Finding::LargeUpload { .. } => "large_upload",
            Finding::Secret { .. } => "secret",
            Finding::CredentialUsed { .. } => "credential_used",
            Finding::LookalikeDomain { .. } => "lookalike_domain",
            Finding::EncodedDataInName => "encoded_data_in_name",
            Finding::ModelShaped { .. } => "model_shaped",
            Finding::McpShaped => "mcp_shaped",
            Finding::GitPush => "git_push",
            Finding::Undecodable { .. } => "undecodable",
            Finding::DnsOverHttps => "dns_over_https",
            Finding::MethodOverride => "method_override",
        }
    }

    /// All words, for closed label sets.
    pub const KINDS: &'static [&'static str] = &[
        "large_upload",
        "secret",
        "credential_used",
        "lookalike_domain",
        "encoded_data_in_name",
        "model_shaped",
        "mcp_shaped",
        "git_push",
        "undecodable",
        "dns_over_https",
        "method_override",
    ];
}

/// One decision, as committed before the name is resolved and before the first byte leaves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// What was decided.
    pub action: Action,
    /// The agent that asked.
    pub agent: AgentName,
    /// Class of the destination.
    pub class: Class,
    /// Registrable domain, or the host itself where it has none.
    pub domain: Option<Redacted>,
    /// What was seen before anything was sent.
    #[serde(serialize_with = "sorted")]
    pub findings: Vec<Finding>,
    /// Canonical host; `None` where nothing could be parsed.
    pub host: Option<Redacted>,
    /// `1.0`, `1.1` or `2`.
    pub http_version: Option<Arc<str>>,
    /// Identifier, a ULID: sorts by time.
    pub id: Ulid,
    /// What kind of exchange.
    pub kind: Kind,
    /// Method.
    pub method: Option<Redacted>,
    /// Mode in force.
    pub mode: Mode,
    /// The agent's owner.
    pub owner: Option<Redacted>,
    /// Path with redacted query.
    pub path: Option<Redacted>,
    /// Digest of the policy in force, `sha256:…`.
    pub policy: Arc<str>,
    /// Port.
    pub port: Option<u16>,
    /// Why.
    pub reason: Reason,
    /// The rule that decided.
    pub rule: Option<Redacted>,
    /// Scheme; `None` where nothing could be parsed.
    pub scheme: Option<Scheme>,
    /// Service of the destination.
    pub service: Option<Arc<str>>,
    /// The session it belongs to.
    pub session: Option<SessionId>,
    /// When it was taken.
    pub time: i64,
    /// What enforcing would have done, where it differs.
    pub would: Option<Action>,
    /// Why enforcing would have.
    pub would_reason: Option<Reason>,
}

/// What became of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutcomeKind {
    /// The response was relayed to its end.
    Completed,
    /// It was refused before its first byte left.
    Denied,
    /// It was stopped mid-upload.
    Cut,
    /// The upstream failed.
    Failed,
    /// The client went.
    Abandoned,
    /// The gateway died.
    Interrupted,
}

impl OutcomeKind {
    /// The word used in records.
    pub fn as_str(self) -> &'static str {
        match self {
            OutcomeKind::Completed => "completed",
            OutcomeKind::Denied => "denied",
            OutcomeKind::Cut => "cut",
            OutcomeKind::Failed => "failed",
            OutcomeKind::Abandoned => "abandoned",
            OutcomeKind::Interrupted => "interrupted",
        }
    }
}

/// How long the parts of an exchange took, in milliseconds; `None` where a part did not happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Deciding.
    pub decide: f64,
    /// Waiting for a person.
    pub held: f64,
    /// Resolving, connecting and handshaking; `None` on a pooled connection.
    pub connect: Option<f64>,
    /// Until the response head.
    pub first_byte: Option<f64>,
    /// Everything.
    pub total: f64,
}

/// The beginning of a request body, redacted before it was cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BodyExcerpt {
    /// The request's `content-type`.
    pub content_type: Option<Redacted>,
    /// The text.
    pub excerpt: Redacted,
    /// Whether the body went on.
    pub truncated: bool,
}

/// The second record of an exchange, added when it ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The last word: what was done in the end.
    pub action: Action,
    /// Excerpt of the body.
    pub body: Option<BodyExcerpt>,
    /// What was decided first, where the last word differs.
    pub decided: Option<Action>,
    /// The decision it belongs to.
    pub decision: Ulid,
    /// What was seen after the decision.
    #[serde(serialize_with = "sorted")]
    pub findings: Vec<Finding>,
    /// Model named by the request, where it is a call to one.
    pub model: Option<Redacted>,
    /// How long it took; nanoseconds in the record, because canonical numbers are integers.
    #[serde(rename = "ns", with = "nanoseconds")]
    pub ms: Timing,
    /// What became of it.
    pub outcome: OutcomeKind,
    /// The last word: why.
    pub reason: Reason,
    /// Bytes that left, head included.
    pub request_bytes: u64,
    /// Bytes that came back, head included.
    pub response_bytes: u64,
    /// Status the client was given.
    pub status: Option<u16>,
    /// When the exchange ended.
    pub time: i64,
    /// The address that was dialled.
    pub upstream: Option<SocketAddr>,
    /// What enforcing would have done, where it differs.
    pub would: Option<Action>,
    /// Why enforcing would have.
    pub would_reason: Option<Reason>,
}

/// A link of the audit chain, as read back from its canonical bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A decision.
    Decision(Decision),
    /// An outcome.
    Outcome(Outcome),
    /// Anything else worth keeping.
    Event(Event),
}

impl Decision {
    /// The canonical bytes, which are text.
    pub fn canonical(&self) -> String {
        canonical(self)
    }
}

impl Outcome {
    /// The canonical bytes, which are text.
    pub fn canonical(&self) -> String {
        canonical(self)
    }
}

impl Event {
    /// The canonical bytes, which are text.
    pub fn canonical(&self) -> String {
        canonical(&Sorted(self))
    }
}

impl Record {
    /// Reads canonical bytes back.
    ///
    /// # Errors
    /// What is not a record, in serde's words.
    pub fn parse(bytes: &[u8]) -> Result<Record, serde_json::Error> {
        /// Only looks which of the telling keys are there.
        #[derive(Deserialize)]
        struct Shape<'a> {
            #[serde(borrow)]
            event: Option<&'a serde_json::value::RawValue>,
            #[serde(borrow)]
            decision: Option<&'a serde_json::value::RawValue>,
        }
        // All of it: what stands under keys that nobody knows is passed over unread.
        let text = std::str::from_utf8(bytes).map_err(serde::de::Error::custom)?;
        let shape: Shape<'_> = serde_json::from_str(text)?;
        Ok(match shape {
            Shape { event: Some(_), .. } => Record::Event(serde_json::from_str(text)?),
            Shape { decision: Some(_), .. } => Record::Outcome(serde_json::from_str(text)?),
            Shape { .. } => Record::Decision(serde_json::from_str(text)?),
        })
    }

    /// The word in the store's column `kind`: `decision`, `outcome` or `event`.
    pub fn kind(&self) -> &'static str {
        match self {
            Record::Decision(_) => "decision",
            Record::Outcome(_) => "outcome",
            Record::Event(_) => "event",
        }
    }
}

#[expect(clippy::expect_used, reason = "these types hold nothing that JSON cannot write: no maps, no bytes")]
fn canonical(record: &impl Serialize) -> String {
    serde_json::to_string(record).expect("a record is always JSON")
}

/// Writes any value with sorted keys, by way of [`serde_json::Value`], whose objects are sorted maps.
struct Sorted<'a, T>(&'a T);

impl<T: Serialize> Serialize for Sorted<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::to_value(self.0).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

fn sorted<T: Serialize, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    Sorted(value).serialize(serializer)
}

mod nanoseconds {
    use super::*;

    const IN_A_MILLISECOND: f64 = 1e6;

    #[derive(Serialize, Deserialize)]
    struct Nanoseconds {
        connect: Option<u64>,
        decide: u64,
        first_byte: Option<u64>,
        held: u64,
        total: u64,
    }

    pub(super) fn serialize<S: Serializer>(ms: &Timing, serializer: S) -> Result<S::Ok, S::Error> {
        // Rounds to the nearest; `as` takes what is negative or no number to zero.
        let ns = |ms: f64| (ms * IN_A_MILLISECOND).round() as u64;
        Nanoseconds {
            connect: ms.connect.map(ns),
            decide: ns(ms.decide),
            first_byte: ms.first_byte.map(ns),
            held: ns(ms.held),
            total: ns(ms.total),
        }
        .serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timing, D::Error> {
        let ns = Nanoseconds::deserialize(deserializer)?;
        let ms = |ns: u64| ns as f64 / IN_A_MILLISECOND;
        Ok(Timing {
            decide: ms(ns.decide),
            held: ms(ns.held),
            connect: ns.connect.map(ms),
            first_byte: ns.first_byte.map(ms),
            total: ms(ns.total),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn decision() -> Decision {
        Decision {
            action: Action::Allow,
            agent: "claude".parse().unwrap(),
            class: Class::Unknown,
            domain: Some(Redacted::literal("evil.example")),
            findings: vec![],
            host: Some(Redacted::literal("evil.example")),
            http_version: Some("2".into()),
            id: Ulid::from_parts(1_795_000_000_123, 7),
            kind: Kind::Http,
            method: Some(Redacted::literal("POST")),
            mode: Mode::Enforce,
            owner: Some(Redacted::literal("ana@example.com")),
            path: Some(Redacted::literal("/a\"b\\c\n\u{1}\u{7f}\u{2028}é?token=[redacted:query]")),
            policy: "sha256:00".into(),
            port: Some(443),
            reason: Reason::AllowedByRule,
            rule: None,
            scheme: Some(Scheme::Https),
            service: None,
            session: Some(SessionId(Ulid::from_parts(1_795_000_000_000, 1))),
            time: 1_795_000_000_123_456,
            would: None,
            would_reason: None,
        }
    }

    pub(crate) fn outcome(decision: &Decision) -> Outcome {
        Outcome {
            action: Action::Deny,
            body: Some(BodyExcerpt {
                content_type: Some(Redacted::literal("application/json")),
                excerpt: Redacted::literal("{\"a\":\"[redacted:aws-access-key]\"}"),
                truncated: false,
            }),
            decided: Some(Action::Allow),
            decision: decision.id,
            findings: vec![
                Finding::LargeUpload { bytes: 5_242_880, limit: 1_048_576, of: "request_block".into() },
                Finding::Secret {
                    detector: "aws-access-key".into(),
                    count: 1,
                    place: "body".into(),
                    key: "hmac:00".into(),
                },
            ],
            model: None,
            ms: Timing { decide: 0.02, held: 0.0, connect: None, first_byte: Some(1.5), total: 0.4 },
            outcome: OutcomeKind::Cut,
            reason: Reason::SecretFound,
            request_bytes: 17,
            response_bytes: 0,
            status: Some(403),
            time: decision.time + 400,
            upstream: Some("[2001:db8::1]:443".parse().unwrap()),
            would: None,
            would_reason: None,
        }
    }

    #[test]
    fn canonical_bytes_are_stated_once_and_for_all() {
        // Written out, so that a changed field, order or escape goes red: old records must go on verifying.
        assert_eq!(
            decision().canonical(),
            concat!(
                r#"{"action":"allow","agent":"claude","class":"unknown","domain":"evil.example","findings":[],"#,
                r#""host":"evil.example","http_version":"2","id":"01M7Q5CQKV0000000000000007","kind":"http","#,
                r#""method":"POST","mode":"enforce","owner":"ana@example.com","#,
                r#""path":"/a\"b\\c\n\u0001"#,
                "\u{7f}\u{2028}é?token=[redacted:query]",
                r#"","policy":"sha256:00","port":443,"reason":"allowed_by_rule","rule":null,"scheme":"https","#,
                r#""service":null,"session":"01M7Q5CQG00000000000000001","time":1795000000123456,"#,
                r#""would":null,"would_reason":null}"#
            )
        );
        assert_eq!(
            outcome(&decision()).canonical(),
            concat!(
                r#"{"action":"deny","body":{"content_type":"application/json","#,
                r#""excerpt":"{\"a\":\"[redacted:aws-access-key]\"}","truncated":false},"decided":"allow","#,
                r#""decision":"01M7Q5CQKV0000000000000007","findings":[{"bytes":5242880,"kind":"large_upload","#,
                r#""limit":1048576,"of":"request_block"},{"count":1,"detector":"aws-access-key","key":"hmac:00","#,
                r#""kind":"secret","where":"body"}],"model":null,"ns":{"connect":null,"decide":20000,"#,
                r#""first_byte":1500000,"held":0,"total":400000},"outcome":"cut","reason":"secret_found","#,
                r#""request_bytes":17,"response_bytes":0,"status":403,"time":1795000000123856,"#,
                r#""upstream":"[2001:db8::1]:443","would":null,"would_reason":null}"#
            )
        );
    }

    #[test]
    fn what_was_written_is_what_is_read() {
        let (decision, event) = (decision(), crate::event::tests::events().remove(0));
        let outcome = outcome(&decision);
        for (text, record) in [
            (decision.canonical(), Record::Decision(decision)),
            (outcome.canonical(), Record::Outcome(outcome)),
            (event.canonical(), Record::Event(event)),
        ] {
            assert_eq!(Record::parse(text.as_bytes()).unwrap(), record, "{text}");
        }
    }

    #[test]
    fn what_is_not_text_is_no_record_whichever_key_it_stands_under() {
        let text = decision().canonical().replacen('{', "{\"aaa\":\"~\",", 1);
        assert!(Record::parse(text.as_bytes()).is_ok(), "a later version may have more keys");
        let bytes: Vec<u8> = text.bytes().map(|byte| if byte == b'~' { 0xff } else { byte }).collect();
        assert!(Record::parse(&bytes).is_err());
    }

    #[test]
    fn times_that_are_no_times_do_not_break_the_record() {
        let mut outcome = outcome(&decision());
        outcome.ms = Timing { total: f64::NAN, decide: -1.0, ..Timing::default() };
        assert!(outcome.canonical().contains(r#""decide":0,"first_byte":null,"held":0,"total":0"#));
    }

    #[test]
    fn every_finding_is_recorded_under_a_listed_word() {
        let (of, key): (Arc<str>, Arc<str>) = ("x".into(), "hmac:00".into());
        let findings = [
            Finding::LargeUpload { bytes: 1, limit: 1, of: of.clone() },
            Finding::Secret { detector: of.clone(), count: 1, place: of.clone(), key: key.clone() },
            Finding::CredentialUsed { detector: of.clone(), place: of.clone(), key },
            Finding::LookalikeDomain { of: of.clone() },
            Finding::EncodedDataInName,
            Finding::ModelShaped { api: of },
            Finding::McpShaped,
            Finding::GitPush,
            Finding::Undecodable { encoding: Redacted::literal("lzma") },
            Finding::DnsOverHttps,
            Finding::MethodOverride,
        ];
        let words: Vec<&str> = findings.iter().map(Finding::kind).collect();
        assert_eq!(words, Finding::KINDS);
        for finding in &findings {
            assert_eq!(serde_json::to_value(finding).unwrap()["kind"], finding.kind());
        }
    }
}
