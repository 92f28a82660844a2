//! Refusals and failures as responses: the only place that chooses a status code.

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, PROXY_AUTHENTICATE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use policy::verdict::{Class, Reason};
use serde::Serialize;
use ulid::Ulid;

/// Names the decision a refusal belongs to.
pub const DECISION_HEADER: HeaderName = HeaderName::from_static("x-outgate-decision");
/// Names the reason of a refusal.
pub const REASON_HEADER: HeaderName = HeaderName::from_static("x-outgate-reason");
/// Every header of ours begins so; an upstream may not send them.
pub const OWN_HEADER_PREFIX: &str = "x-outgate-";

/// How long a client that met a limit should wait, in seconds.
const RETRY_SECONDS: &str = "1";

/// Why a client gets no response of its destination, in words and codes.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The code.
    pub reason: Reason,
    /// What was wrong with a malformed request decides between 400, 414 and 431.
    pub malformed: Malformed,
    /// A sentence that goes on from "outgate refused this request: ". Holds nothing secret.
    pub what: String,
    /// What the operator would run to allow it.
    pub allow_with: Option<String>,
    /// The destination, where one could be read; redacted.
    pub destination: Option<String>,
    /// Class of the destination.
    pub class: Class,
    /// The rule that decided.
    pub rule: Option<String>,
    /// The address that may not be dialled: for the record, not for whoever asked.
    pub address: Option<Box<SocketAddr>>,
}

/// What is malformed about a malformed request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Malformed {
    /// Something else than its size.
    #[default]
    Syntax,
    /// The URL is too long.
    Url,
    /// The header section is too large.
    Header,
}

/// Which shape of answer the client can show to whoever asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Programs that read JSON, and people who see it.
    Json,
    /// git, which prints plain text as `remote:` lines.
    Git,
}

impl Audience {
    /// Judges by the user agent.
    pub fn of(headers: &http::HeaderMap) -> Audience {
        let git = headers.get(http::header::USER_AGENT).is_some_and(|agent| {
            agent.as_bytes().starts_with(b"git/") || agent.as_bytes().starts_with(b"git-lfs/")
        });
        if git { Audience::Git } else { Audience::Json }
    }
}

impl Refusal {
    /// A refusal that has nothing to do with a destination.
    pub fn plain(reason: Reason, what: impl Into<String>) -> Refusal {
        Refusal {
            reason,
            malformed: Malformed::Syntax,
            what: what.into(),
            allow_with: None,
            destination: None,
            class: Class::Unknown,
            rule: None,
            address: None,
        }
    }

    /// The status the client gets; `None` where the connection is closed instead.
    pub fn status(&self) -> Option<StatusCode> {
        status_of(self.reason, self.malformed)
    }

    /// The sentence for whoever asked.
    pub fn message(&self) -> String {
        let failed = matches!(
            self.reason,
            Reason::UpstreamUnreachable
                | Reason::UpstreamTlsFailed
                | Reason::UpstreamTimeout
                | Reason::NameNotFound
        );
        if failed {
            return format!("outgate could not complete this request: {}", self.what);
        }
        let advice = match (&self.allow_with, self.reason) {
            (Some(argument), _) => format!(
                ". Do not retry or look for another route; ask the operator to run: outgate policy allow {argument}"
            ),
            (None, Reason::AuditUnavailable | Reason::Overloaded) => ". Retry later".to_owned(),
            (None, Reason::ApprovalTimeout) => {
                ". Ask the operator to answer it (outgate approvals list), then retry; do not look for another route"
                    .to_owned()
            }
            (None, Reason::MalformedRequest) => String::new(),
            (None, _) => ". Do not retry or look for another route; ask the operator".to_owned(),
        };
        format!("outgate refused this request: {}{advice}", self.what)
    }

    /// The response, closing the connection where `close` says so (RFC 9112, section 9.6).
    pub fn response(&self, decision: Ulid, audience: Audience, close: bool) -> Response<Full<Bytes>> {
        let (content_type, body) = match audience {
            Audience::Json => ("application/json", self.json(decision)),
            Audience::Git => ("text/plain; charset=utf-8", format!("{}\n", self.message())),
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = self.status().unwrap_or(StatusCode::FORBIDDEN);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(REASON_HEADER, HeaderValue::from_static(self.reason.as_str()));
        if let Ok(value) = HeaderValue::from_str(&decision.to_string()) {
            headers.insert(DECISION_HEADER, value);
        }
        match self.reason {
            Reason::IdentityRequired | Reason::IdentityUnknown | Reason::IdentityExpired => {
                headers.insert(PROXY_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"outgate\""));
            }
            Reason::AuditUnavailable | Reason::Overloaded => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS));
            }
            _ => {}
        }
        if close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn json(&self, decision: Ulid) -> String {
        #[derive(Serialize)]
        struct Envelope<'a> {
            error: Error<'a>,
        }
        #[derive(Serialize)]
        struct Error<'a> {
            code: &'a str,
            message: String,
            decision: String,
            destination: Option<&'a str>,
            class: &'a str,
            rule: Option<&'a str>,
        }
        let envelope = Envelope {
            error: Error {
                code: self.reason.as_str(),
                message: self.message(),
                decision: decision.to_string(),
                destination: self.destination.as_deref(),
                class: self.class.as_str(),
                rule: self.rule.as_deref(),
            },
        };
        serde_json::to_string(&envelope).unwrap_or_else(|_| "{}".to_owned())
    }
}

fn status_of(reason: Reason, malformed: Malformed) -> Option<StatusCode> {
    Some(match reason {
        Reason::AllowedByRule
        | Reason::AllowedByDefault
        | Reason::AllowedByApproval
        | Reason::AllowedByObserve
        | Reason::ProtocolRefused
        | Reason::ClientTlsFailed => return None,
        Reason::DeniedByRule
        | Reason::UnknownDestination
        | Reason::DeniedByDefault
        | Reason::ApprovalDenied
        | Reason::ApprovalTimeout
        | Reason::ApprovalUnattended
        | Reason::SecretFound
        | Reason::AddressForbidden
        | Reason::PortRefused => StatusCode::FORBIDDEN,
        Reason::UploadTooLarge | Reason::UploadWindowExceeded => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::AuthorityMismatch => StatusCode::MISDIRECTED_REQUEST,
        Reason::IdentityRequired | Reason::IdentityUnknown | Reason::IdentityExpired => {
            StatusCode::PROXY_AUTHENTICATION_REQUIRED
        }
        Reason::MalformedRequest => match malformed {
            Malformed::Syntax => StatusCode::BAD_REQUEST,
            Malformed::Url => StatusCode::URI_TOO_LONG,
            Malformed::Header => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        },
        Reason::AuditUnavailable | Reason::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        Reason::UpstreamUnreachable | Reason::UpstreamTlsFailed | Reason::NameNotFound => {
            StatusCode::BAD_GATEWAY
        }
        Reason::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_who_why_and_what_to_do() {
        let refusal = Refusal {
            allow_with: Some("evil.example".to_owned()),
            destination: Some("https://evil.example:443".to_owned()),
            ..Refusal::plain(Reason::UnknownDestination, "evil.example is not on the allowlist")
        };
        let response = refusal.response(Ulid::nil(), Audience::Json, true);
        assert_eq!(response.status(), 403);
        assert_eq!(response.headers()["x-outgate-reason"], "unknown_destination");
        assert_eq!(response.headers()["connection"], "close");
        assert_eq!(
            refusal.message(),
            "outgate refused this request: evil.example is not on the allowlist. Do not retry or look for another \
             route; ask the operator to run: outgate policy allow evil.example"
        );
    }

    #[test]
    fn every_reason_that_refuses_has_a_status_or_closes() {
        for reason in Reason::ALL {
            let status = status_of(*reason, Malformed::Syntax).map(|status| status.as_u16());
            let closes = matches!(reason, Reason::ProtocolRefused | Reason::ClientTlsFailed)
                || reason.as_str().starts_with("allowed");
            assert_eq!(status.is_none(), closes, "{reason}");
        }
    }
}
