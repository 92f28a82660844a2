//! What is not suggested, however often it was seen: what a person should look at before anybody allows it.

use std::sync::Arc;

use crate::catalogue::{Catalogue, Risk, encoded_label, registrable_domain};
use crate::observed::Observed;
use crate::record::Finding;
use crate::request::Kind;
use crate::target::Host;
use crate::verdict::{Action, Class, Reason};

/// A request that only reads is smaller than this, head included.
const READING: u64 = 16 << 10;

/// Why something is left out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// It looks like a known domain and is another.
    LookAlike(Arc<str>),
    /// It is an address and has no name.
    AddressLiteral,
    /// It is a known way out for data.
    Risky(Risk),
    /// Its name carries data.
    EncodedName,
    /// It carries questions for names, which can carry anything.
    DnsOverHttps,
    /// Data was sent to a page of a stranger's, under a shared name.
    SharedHosting,
    /// The request held a secret.
    Secret,
    /// The name leads to an address that may not be dialled.
    Address,
    /// The request sent more than the limits allow.
    Upload,
    /// A rule of the policy in force denies it.
    Denied(String),
    /// A rule of the policy in force asks, and goes on asking.
    Asks(String),
    /// A person said no.
    PersonSaidNo,
    /// The client did not accept our certificate.
    Handshake,
    /// There is no such name.
    NoSuchName,
    /// It was refused for what it is, whatever the policy.
    Refused(Reason),
}

impl Why {
    /// The word for scripts.
    pub fn as_str(&self) -> &'static str {
        match self {
            Why::LookAlike(_) => "lookalike_domain",
            Why::AddressLiteral => "address_literal",
            Why::Risky(Risk::Paste) => "paste",
            Why::Risky(Risk::Tunnel) => "tunnel",
            Why::Risky(Risk::FileDrop) => "file_drop",
            Why::Risky(Risk::UserContent) | Why::SharedHosting => "shared_hosting",
            Why::EncodedName => "encoded_data_in_name",
            Why::DnsOverHttps => "dns_over_https",
            Why::Secret => "secret",
            Why::Address => "address_forbidden",
            Why::Upload => "upload",
            Why::Denied(_) => "denied_by_rule",
            Why::Asks(_) => "asked_by_rule",
            Why::PersonSaidNo => "approval_denied",
            Why::Handshake => "client_tls_failed",
            Why::NoSuchName => "name_not_found",
            Why::Refused(reason) => reason.as_str(),
        }
    }

    /// In words for whoever reads the file.
    pub fn words(&self) -> String {
        match self {
            Why::LookAlike(of) => format!("it looks like {of} and is not"),
            Why::AddressLiteral => "an address without a name: nobody can tell whose it is".to_owned(),
            Why::Risky(Risk::Paste) => "a paste service: shows what anyone posts to anyone".to_owned(),
            Why::Risky(Risk::Tunnel) => {
                "a tunnel or request inspector: leads to a machine of the caller's choice".to_owned()
            }
            Why::Risky(Risk::FileDrop) => "a file drop: takes files from anyone".to_owned(),
            Why::Risky(Risk::UserContent) => "shared hosting: carries pages and functions of strangers".to_owned(),
            Why::SharedHosting => {
                "shared hosting, and data was sent: the name may be a stranger's".to_owned()
            }
            Why::EncodedName => "its name looks like encoded data".to_owned(),
            Why::DnsOverHttps => "questions for names inside requests, which can carry anything".to_owned(),
            Why::Secret => "requests with secrets in them".to_owned(),
            Why::Address => "leads to an address that may not be dialled; see [addresses]".to_owned(),
            Why::Upload => "uploads over the limits".to_owned(),
            Why::Denied(rule) => format!("the rule {rule} denies it"),
            Why::Asks(rule) => format!("the rule {rule} goes on asking"),
            Why::PersonSaidNo => "a person said no".to_owned(),
            Why::Handshake => {
                "the client did not accept the gateway's certificate; see docs/running.md, or [tls] passthrough"
                    .to_owned()
            }
            Why::NoSuchName => "there is no such name".to_owned(),
            Why::Refused(reason) => format!("refused whatever the policy: {reason}"),
        }
    }

    /// Whether it is about the destination itself, which then must not be reachable, and not about some requests.
    pub(super) fn is_about_the_destination(&self) -> bool {
        matches!(
            self,
            Why::LookAlike(_) | Why::AddressLiteral | Why::Risky(_) | Why::EncodedName | Why::SharedHosting
        )
    }
}

/// What of a decision is left out, and why; `None` for what may be suggested.
pub(super) fn left_out(catalogue: &Catalogue, seen: &Observed) -> Option<(String, Why)> {
    let Some(target) = seen.target() else {
        return Some(("(unreadable)".to_owned(), Why::Refused(seen.reason)));
    };
    let host = &target.host;
    let why = by_name(catalogue, host, seen).or_else(|| by_request(catalogue, host, seen))?;
    // Every request of a tunnel through names has another name.
    let what = if why == Why::EncodedName { registrable_domain(host) } else { host.as_str() };
    Some((what.to_owned(), why))
}

/// What whoever allows a host should know: the same that keeps it out of a suggestion, and pages of strangers.
pub fn warning(catalogue: &Catalogue, host: &Host) -> Option<Why> {
    match catalogue.risk(host) {
        Some(risk) => Some(Why::Risky(risk)),
        // Whoever names an address knows that it is one.
        None if host.ip().is_some() => None,
        None => by_spelling(catalogue, host, 443, None),
    }
}

/// What is wrong with the destination itself.
fn by_name(catalogue: &Catalogue, host: &Host, seen: &Observed) -> Option<Why> {
    if host.ip().is_some() {
        return Some(Why::AddressLiteral);
    }
    match catalogue.risk(host) {
        Some(risk @ (Risk::Paste | Risk::Tunnel | Risk::FileDrop)) => return Some(Why::Risky(risk)),
        Some(Risk::UserContent) | None => {}
    }
    by_spelling(catalogue, host, seen.port.unwrap_or(0), Some(seen))
}

fn by_spelling(catalogue: &Catalogue, host: &Host, port: u16, seen: Option<&Observed>) -> Option<Why> {
    let known = catalogue.classify(host, port).class != Class::Unknown;
    let mut findings = seen.into_iter().flat_map(|seen| &seen.findings);
    let like = findings.find_map(|finding| match finding {
        Finding::LookalikeDomain { of } => Some(Arc::clone(of)),
        _ => None,
    });
    // A service that the policy has come to name since is no imitation.
    let like = like.or_else(|| catalogue.look_alike(host).map(|like| like.of.into())).filter(|_| !known);
    if let Some(of) = like {
        return Some(Why::LookAlike(of));
    }
    (!known && encoded_label(host)).then_some(Why::EncodedName)
}

/// What is wrong with the request.
fn by_request(catalogue: &Catalogue, host: &Host, seen: &Observed) -> Option<Why> {
    if seen.found(|finding| matches!(finding, Finding::DnsOverHttps)) {
        return Some(Why::DnsOverHttps);
    }
    // What stopped it, or would have.
    for (action, reason) in
        [(Some(seen.action), Some(seen.reason)), (seen.would, seen.would_reason)].into_iter().rev()
    {
        if let Some((action, reason)) = action.zip(reason)
            && let Some(why) = by_reason(seen, action, reason)
        {
            return Some(why);
        }
    }
    if seen.found(|finding| matches!(finding, Finding::Secret { .. })) {
        return Some(Why::Secret);
    }
    let unknown = seen.class == Class::Unknown;
    let shared =
        || catalogue.risk(host) == Some(Risk::UserContent) || host.name().is_some_and(psl::is_shared);
    (unknown && sends(seen) && shared()).then_some(Why::SharedHosting)
}

fn by_reason(seen: &Observed, action: Action, reason: Reason) -> Option<Why> {
    let rule = || seen.rule.clone().map(|rule| format!("`{rule}`"));
    Some(match reason {
        Reason::AddressForbidden => Why::Address,
        Reason::SecretFound => Why::Secret,
        Reason::UploadTooLarge | Reason::UploadWindowExceeded => Why::Upload,
        Reason::DeniedByRule => Why::Denied(rule().unwrap_or_else(|| "that matched".to_owned())),
        Reason::ApprovalDenied => Why::PersonSaidNo,
        Reason::AllowedByApproval | Reason::ApprovalTimeout | Reason::ApprovalUnattended => {
            Why::Asks(rule()?)
        }
        Reason::ClientTlsFailed => Why::Handshake,
        Reason::NameNotFound => Why::NoSuchName,
        Reason::PortRefused if seen.kind != Kind::Tcp => return None,
        Reason::AuthorityMismatch
        | Reason::ProtocolRefused
        | Reason::PortRefused
        | Reason::IdentityRequired
        | Reason::IdentityUnknown
        | Reason::IdentityExpired
        | Reason::MalformedRequest
        | Reason::AuditUnavailable
        | Reason::Overloaded
            if action == Action::Deny =>
        {
            Why::Refused(reason)
        }
        _ => return None,
    })
}

/// Whether a request does more than read.
fn sends(seen: &Observed) -> bool {
    let reads = matches!(seen.method.as_deref(), Some("GET" | "HEAD" | "OPTIONS")) && seen.kind == Kind::Http;
    !reads || seen.request_bytes.unwrap_or(0) > READING
}
