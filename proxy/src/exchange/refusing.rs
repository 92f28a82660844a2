//! What is not let through: the words for it, its row, the answer, and what is done with the rest of the request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::EXPECT;
use http::request::Parts;
use http::{Request, Response, Version};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use policy::catalogue::Catalogue;
use policy::record::OutcomeKind;
use policy::request::Kind;
use policy::suggest;
use policy::target::Target;
use policy::verdict::{Action, Class, Denial, Judgement, Reason};
use ulid::Ulid;

use super::subject::{Subject, decision};
use crate::body::ReplyBody;
use crate::connection::Scope;
use crate::dial::DialError;
use crate::entry::{Entry, Progress};
use crate::gateway::{CurrentPolicy, Gateway};
use crate::hold::Hold;
use crate::reply::{Audience, Refusal};
use crate::resolve::ResolveError;

/// Answers and records a request that was refused before it could be decided.
pub async fn refuse(
    scope: &Scope,
    subject: Subject,
    refusal: &Refusal,
    audience: Audience,
    started: Instant,
) -> Response<ReplyBody> {
    let close = closes(&subject, refusal);
    let refusal =
        Refusal { destination: subject.target.as_ref().map(ToString::to_string), ..refusal.clone() };
    match record_refusal(scope, subject.clone(), &refusal, started).await {
        Some(entry) => answer_refusal(entry, &refusal, OutcomeKind::Denied, audience, close),
        None => unrecorded(audience, &subject),
    }
}

/// Records a request that was refused before it could be decided; `None` where it cannot be recorded.
pub async fn record_refusal(
    scope: &Scope,
    subject: Subject,
    refusal: &Refusal,
    started: Instant,
) -> Option<Entry> {
    let policy = scope.gateway.policy();
    let judgement = refused_unjudged(&policy, subject.target.as_ref(), refusal);
    record(&scope.gateway, &policy, &subject, &judgement, started).await
}

/// What a record says where it was not the policy that refused.
pub fn refused_unjudged(policy: &CurrentPolicy, target: Option<&Target>, refusal: &Refusal) -> Judgement {
    let (class, service) = match target {
        Some(target) => {
            let place = policy.rules.catalogue().classify(&target.host, target.port);
            (place.class, place.service.map(|service| service.name.as_str().into()))
        }
        None => (refusal.class, None),
    };
    Judgement {
        action: Action::Deny,
        reason: refusal.reason,
        class,
        service,
        rule: None,
        mode: policy.rules.mode(),
        would: None,
        findings: Vec::new(),
    }
}

pub(super) async fn refuse_judged(
    scope: &Scope,
    policy: &CurrentPolicy,
    subject: Subject,
    judgement: &Judgement,
    refusal: &Refusal,
    audience: Audience,
    started: Instant,
) -> Response<ReplyBody> {
    match record(&scope.gateway, policy, &subject, judgement, started).await {
        Some(entry) => {
            answer_refusal(entry, refusal, OutcomeKind::Denied, audience, closes(&subject, refusal))
        }
        None => unrecorded(audience, &subject),
    }
}

/// Commits what was judged; `None` where it cannot be recorded.
pub async fn record(
    gateway: &Arc<Gateway>,
    policy: &CurrentPolicy,
    subject: &Subject,
    judgement: &Judgement,
    started: Instant,
) -> Option<Entry> {
    let decision = decision(policy, subject, judgement);
    let progress = Arc::new(Progress::default());
    subject.time(&progress, started);
    Entry::commit(gateway, decision, progress, started).await.ok()
}

/// Records a head that hyper refused by itself.
pub async fn record_unparsed(scope: &Scope, refusal: &Refusal) {
    let (target, client) = match &scope.tunnel {
        Some(tunnel) => (Some(tunnel.target.clone()), Some(tunnel.client.clone())),
        None => (None, None),
    };
    let subject = Subject { kind: Kind::Http, ..Subject::connect(target, client) };
    if let Some(entry) = record_refusal(scope, subject, refusal, Instant::now()).await {
        if let Some(status) = refusal.status() {
            entry.progress().status(status.as_u16());
        }
        entry.finish(OutcomeKind::Denied);
    }
}

/// Refuses a request inside a tunnel for which there is no room.
pub async fn overloaded(scope: &Scope, request: Request<Incoming>, what: &str) -> Response<ReplyBody> {
    let started = Instant::now();
    let (parts, _) = request.into_parts();
    let opener = scope.tunnel.as_ref().map(|tunnel| (tunnel.target.clone(), tunnel.client.clone()));
    let (target, client) = opener.unzip();
    let refusal = Refusal::plain(Reason::Overloaded, what);
    refuse(scope, Subject::of(&parts, target, client), &refusal, Audience::of(&parts.headers), started).await
}

/// Something that was not let through, or not to its end, and what is to be said of it.
pub struct Stopped {
    pub(super) entry: Option<Entry>,
    pub(super) refusal: Refusal,
    pub(super) outcome: OutcomeKind,
    pub(super) subject: Subject,
    pub(super) close: bool,
}

impl Stopped {
    /// What was decided and recorded, and cannot be carried out.
    pub fn failed(entry: Entry, refusal: Refusal, subject: Subject) -> Stopped {
        note_stop(&entry, &refusal);
        let failed = crate::entry::is_failure(refusal.reason);
        let outcome = if failed { OutcomeKind::Failed } else { OutcomeKind::Completed };
        Stopped { entry: Some(entry), refusal, outcome, subject, close: false }
    }

    /// Says so in a response.
    pub fn response(self, audience: Audience) -> Response<ReplyBody> {
        match self.entry {
            Some(entry) => answer_refusal(entry, &self.refusal, self.outcome, audience, self.close),
            None => unrecorded(audience, &self.subject),
        }
    }

    /// Where nothing can be said: only the record is finished.
    pub fn close(self) {
        if let Some(entry) = self.entry {
            entry.finish(self.outcome);
        }
    }
}

/// Ends an exchange that has no response of its destination.
pub(super) fn fail(entry: Entry, refusal: &Refusal, audience: Audience) -> Response<ReplyBody> {
    note_stop(&entry, refusal);
    let failed = crate::entry::is_failure(refusal.reason);
    let kind = if failed { OutcomeKind::Failed } else { OutcomeKind::Completed };
    answer_refusal(entry, refusal, kind, audience, false)
}

fn note_stop(entry: &Entry, refusal: &Refusal) {
    entry.progress().stop(refusal.reason, refusal.what.clone());
    if let Some(address) = refusal.address.as_deref() {
        entry.progress().refused_address(*address);
    }
}

pub(super) fn answer_refusal(
    entry: Entry,
    refusal: &Refusal,
    kind: OutcomeKind,
    audience: Audience,
    close: bool,
) -> Response<ReplyBody> {
    let response = refusal.response(entry.id(), audience, close);
    entry.progress().status(response.status().as_u16());
    entry.finish(kind);
    response.map(ReplyBody::Full)
}

/// The answer where no row could be written: the one refusal that has none.
pub(super) fn unrecorded(audience: Audience, subject: &Subject) -> Response<ReplyBody> {
    let refusal = Refusal {
        destination: subject.target.as_ref().map(ToString::to_string),
        ..Refusal::plain(Reason::AuditUnavailable, "the decision cannot be recorded")
    };
    refusal.response(Ulid::new(), audience, subject.kind != Kind::Http).map(ReplyBody::Full)
}

/// After a refused CONNECT or upgrade and after a framing error nothing more is read (RFC 9110, section 7.8;
/// RFC 9112, section 9.6): what follows was meant for somebody else.
pub(super) fn closes(subject: &Subject, refusal: &Refusal) -> bool {
    let framing = matches!(refusal.reason, Reason::MalformedRequest | Reason::AuthorityMismatch);
    subject.version != Some("2") && (framing || subject.kind != Kind::Http)
}

/// Marks a response that is not sent: the connection is closed instead.
#[derive(Clone, Copy, Debug)]
pub struct CloseInstead;

pub(super) async fn close_clear(scope: &Scope, subject: Subject, started: Instant) -> Response<ReplyBody> {
    let what = "the tunnel carries clear HTTP to a destination that is allowed over TLS only";
    let refusal = Refusal::plain(Reason::ProtocolRefused, what);
    if let Some(entry) =
        record_refusal(scope, Subject { kind: Kind::Connect, ..subject }, &refusal, started).await
    {
        entry.finish(OutcomeKind::Denied);
    }
    let mut response = Response::new(ReplyBody::empty());
    response.extensions_mut().insert(CloseInstead);
    response
}

/// How much of a refused upload is still read, and for how long.
const LINGER_BYTES: u64 = 64 * 1024 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(5);

/// Reads on after a refusal and throws away what comes. A connection closed upon unread bytes is reset, and the reset
/// takes the refusal with it before the client has read it. HTTP/2 has a way of its own to say so; a client that
/// waits to be asked for its body is not asked.
pub(super) fn linger(parts: &Parts, mut body: Incoming) {
    if parts.version == Version::HTTP_2 || parts.headers.contains_key(EXPECT) || body.is_end_stream() {
        return;
    }
    tokio::spawn(tokio::time::timeout(LINGER_TIME, async move {
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, |data| data.len() as u64);
            if read > LINGER_BYTES {
                return;
            }
        }
    }));
}

pub(super) fn denied(denial: &Denial, target: &Target) -> Refusal {
    let judgement = &denial.judgement;
    let host = &target.host;
    let rule = judgement.rule.as_deref().unwrap_or("the policy");
    let what = match judgement.reason {
        Reason::UnknownDestination => format!("{host} is not on the allowlist"),
        Reason::DeniedByRule => format!("{host} is denied by {rule}"),
        Reason::PortRefused => format!("{host} is allowed, but not on port {}", target.port),
        Reason::UploadTooLarge => format!("it would send more to {host} at once than the policy allows"),
        Reason::UploadWindowExceeded => format!("more was sent to {host} lately than the policy allows"),
        _ => format!("{host} is a known {} that the policy does not allow", judgement.class.as_str()),
    };
    // Whoever is handed a line that allows it should know what it allows.
    let unknown = judgement.class == Class::Unknown && denial.allow_with.is_some();
    let mind = suggest::warning(Catalogue::builtin(), host).filter(|_| unknown);
    let what = mind.map_or(what.clone(), |mind| format!("{what} (mind: {})", mind.words()));
    Refusal { allow_with: denial.allow_with.clone(), ..judged(judgement, target, what) }
}

/// What is said where a question is in the way.
pub(super) fn asked(reason: Reason, judgement: &Judgement, target: Option<&Target>, hold: &Hold) -> Refusal {
    let host = target.map_or_else(|| "this destination".to_owned(), |target| target.host.to_string());
    let what = match reason {
        Reason::ApprovalUnattended => {
            format!("{host} needs a person's approval and nobody is there to give it")
        }
        Reason::ApprovalDenied => format!("{host} needs a person's approval, and a person said no"),
        Reason::ApprovalTimeout => format!(
            "{host} needs a person's approval, and none came within {} seconds",
            hold.timeout.as_secs()
        ),
        _ => format!("{host} needs a person's approval, and no more questions can be asked now"),
    };
    let class = judgement.class;
    let rule = judgement.rule.as_deref().map(str::to_owned);
    Refusal { destination: target.map(ToString::to_string), class, rule, ..Refusal::plain(reason, what) }
}

fn judged(judgement: &Judgement, target: &Target, what: String) -> Refusal {
    Refusal {
        destination: Some(target.to_string()),
        class: judgement.class,
        rule: judgement.rule.as_deref().map(str::to_owned),
        ..Refusal::plain(judgement.reason, what)
    }
}

/// A dialler's error in words for the client. Addresses inside are not told.
pub fn dial_refusal(error: &DialError, target: &Target) -> Refusal {
    let host = &target.host;
    let address = match error {
        DialError::Forbidden { address, .. } => Some(Box::new(SocketAddr::new(*address, target.port))),
        _ => None,
    };
    let (reason, what) = match error {
        DialError::Forbidden { class, .. } => (
            Reason::AddressForbidden,
            format!("{host} leads to an address that may not be dialled ({class})"),
        ),
        DialError::Own(_) => (Reason::AddressForbidden, format!("{host} leads back to this gateway")),
        DialError::Resolve(ResolveError::NotFound) => {
            (Reason::NameNotFound, format!("the name {host} does not resolve"))
        }
        DialError::Resolve(ResolveError::Timeout | ResolveError::Failed) => {
            (Reason::NameNotFound, format!("no name server could say where {host} is"))
        }
        DialError::Connect(_) | DialError::Parent(_) => {
            (Reason::UpstreamUnreachable, format!("{host} port {} accepts no connection", target.port))
        }
        DialError::Tls(_) => (
            Reason::UpstreamTlsFailed,
            format!("the TLS handshake with {host} failed: its certificate is not trusted or does not fit"),
        ),
        DialError::Timeout => {
            (Reason::UpstreamTimeout, format!("{host} did not accept a connection in time"))
        }
    };
    Refusal { address, ..Refusal::plain(reason, what) }
}
