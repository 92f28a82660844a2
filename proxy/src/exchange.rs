//! One request from its head to its record: read, decide, record, send, relay.
//!
//! Every path a request can take (absolute form, HTTP/1.1 or HTTP/2 inside TLS, clear HTTP in a tunnel, WebSocket)
//! comes through [`exchange`], and everything that was refused on the way to it through [`refuse`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::header::{CONNECTION, EXPECT, HOST, HeaderMap, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{Request, Response, StatusCode, Version};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use policy::catalogue::registrable_domain;
use policy::decide::Reach;
use policy::record::{Decision, OutcomeKind};
use policy::redact::Redacted;
use policy::request::Kind;
use policy::target::{Host, Scheme, Target};
use policy::usage::Usage;
use policy::verdict::{Action, Denial, Judgement, Permit, Reason, SecretAction, Verdict};
use ulid::Ulid;

use crate::body::{Download, Meter, ReplyBody, Upload};
use crate::clock;
use crate::connection::{Scope, Tunnel};
use crate::dial::DialError;
use crate::entry::{Entry, Progress, milliseconds};
use crate::forward::{Offer, dial_error, upstream_uri};
use crate::gateway::{CurrentPolicy, Gateway};
use crate::head::{BadHead, Head, asks_for_websocket, clean_response, join_cookies, strip_hop_by_hop};
use crate::identify::Client;
use crate::inspect;
use crate::reply::{Audience, Refusal};
use crate::resolve::ResolveError;
use crate::websocket;

/// What a record says a request was about.
#[derive(Clone, Debug)]
pub struct Subject {
    /// What kind of exchange.
    pub kind: Kind,
    /// Where to, where that could be read.
    pub target: Option<Target>,
    /// Who, where that is known.
    pub client: Option<Client>,
    /// Method.
    pub method: Option<String>,
    /// Path and query as sent on.
    pub path: Option<String>,
    /// Version on the client's side.
    pub version: Option<&'static str>,
}

impl Subject {
    /// A tunnel, before anything in it was read.
    pub fn connect(target: Option<Target>, client: Option<Client>) -> Subject {
        Subject { kind: Kind::Connect, target, client, method: None, path: None, version: None }
    }

    fn of(parts: &Parts, target: Option<Target>, client: Option<Client>) -> Subject {
        Subject {
            kind: if asks_for_websocket(parts) { Kind::WebSocket } else { Kind::Http },
            target,
            client,
            method: Some(parts.method.as_str().to_owned()),
            path: parts.uri.path_and_query().map(|path| path.as_str().to_owned()),
            version: Some(version(parts.version)),
        }
    }
}

/// Serves one request.
pub async fn exchange(scope: &Scope, mut request: Request<Incoming>) -> Response<ReplyBody> {
    let started = Instant::now();
    let upgrade = hyper::upgrade::on(&mut request);
    let (parts, body) = request.into_parts();
    let audience = Audience::of(&parts.headers);
    let tunnel = scope.tunnel.as_ref().map(|tunnel| &tunnel.target);
    let client = match client_of(scope, &parts.headers).await {
        Ok(client) => client,
        Err(refusal) => {
            let target =
                Head::read(&parts, tunnel, &scope.gateway.config.limits).ok().map(|head| head.target);
            let opener = scope.tunnel.as_ref().map(|tunnel| tunnel.client.clone());
            return refuse(scope, Subject::of(&parts, target, opener), &refusal, audience, started).await;
        }
    };
    if !scope.admits(&client.agent) {
        let refusal = Refusal::plain(Reason::Overloaded, "this agent has too many connections open");
        return refuse(scope, Subject::of(&parts, None, Some(client)), &refusal, audience, started).await;
    }
    let head = match Head::read(&parts, tunnel, &scope.gateway.config.limits) {
        Ok(head) => head,
        Err(bad) => {
            let BadHead { refusal, target } = *bad;
            return refuse(scope, Subject::of(&parts, target, Some(client)), &refusal, audience, started)
                .await;
        }
    };
    let policy = scope.gateway.policy();
    let subject = Subject {
        kind: head.kind,
        path: Some(head.path.forwarded()),
        ..Subject::of(&parts, Some(head.target.clone()), Some(client.clone()))
    };
    match decide(scope, &policy, &client, &head) {
        Verdict::Allow(permit) => {
            let request = Permitted { parts, body: Some(body), head, permit, upgrade, audience, started };
            send(scope, &policy, subject, request).await
        }
        Verdict::Ask(question) => {
            linger(&parts, body);
            let refusal = unattended(&question.judgement, &question.target);
            let judgement = Judgement { action: Action::Deny, reason: refusal.reason, ..question.judgement };
            refuse_judged(scope, &policy, subject, &judgement, &refusal, audience, started).await
        }
        Verdict::Deny(denial) => {
            linger(&parts, body);
            let refusal = denied(&denial, &head.target);
            if tls_only(scope, &policy, &denial) {
                return close_clear(scope, subject, started).await;
            }
            refuse_judged(scope, &policy, subject, &denial.judgement, &refusal, audience, started).await
        }
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

/// Whether clear HTTP came through a tunnel to a port where policy allows TLS.
fn tls_only(scope: &Scope, policy: &CurrentPolicy, denial: &Denial) -> bool {
    let clear = scope.tunnel.as_ref().filter(|tunnel| tunnel.target.scheme == Scheme::Http);
    denial.judgement.reason == Reason::PortRefused
        && clear.is_some_and(|tunnel| {
            let target = Target { scheme: Scheme::Https, ..tunnel.target.clone() };
            unreachable(policy, &Tunnel { target, ..tunnel.clone() }).is_none()
        })
}

/// Marks a response that is not sent: the connection is closed instead.
#[derive(Clone, Copy, Debug)]
pub struct CloseInstead;

async fn close_clear(scope: &Scope, subject: Subject, started: Instant) -> Response<ReplyBody> {
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
fn linger(parts: &Parts, mut body: Incoming) {
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

/// Who asks: the tunnel's opener, or whoever this request's own credentials name. A tunnel may outlive the agent that
/// opened it, so its credentials have to hold for every request.
async fn client_of(scope: &Scope, headers: &HeaderMap) -> Result<Client, Refusal> {
    match &scope.tunnel {
        Some(tunnel) => scope.gateway.identify_by(tunnel.credentials.as_ref()).await,
        None => scope.identify(headers).await,
    }
}

/// Decides for each method the request may be taken for; the strictest verdict counts.
fn decide(scope: &Scope, policy: &CurrentPolicy, client: &Client, head: &Head) -> Verdict {
    // A length is whatever the client wrote, up to 2^64 - 1.
    let upload = head.bytes.saturating_add(head.declared.unwrap_or(0));
    let began = Instant::now();
    let usage = scope.gateway.usage(&client.agent, &head.target.host);
    let now = clock::now();
    let one = |method: &str| {
        let request = policy::request::Request {
            agent: &client.agent,
            kind: head.kind,
            target: &head.target,
            method,
            path: Some(&head.path),
            upload,
            observe: client.observe,
        };
        policy.rules.decide(&request, &usage, &scope.gateway.grants(), now)
    };
    let verdicts = head.methods.iter().map(|method| one(method));
    let verdict = verdicts.reduce(stricter).unwrap_or_else(|| one(""));
    scope.gateway.metrics.decide_took(began.elapsed());
    verdict
}

fn stricter(one: Verdict, other: Verdict) -> Verdict {
    if action(&other) > action(&one) { other } else { one }
}

fn action(verdict: &Verdict) -> Action {
    match verdict {
        Verdict::Allow(_) => Action::Allow,
        Verdict::Ask(_) => Action::Ask,
        Verdict::Deny(_) => Action::Deny,
    }
}

/// Returns when a new policy no longer allows what was permitted under the one in force now.
pub async fn no_longer_allowed(scope: &Scope, client: &Client, request: policy::request::Request<'_>) {
    loop {
        let policy = scope.gateway.policy();
        let again =
            policy::request::Request { agent: &client.agent, upload: 0, observe: client.observe, ..request };
        let verdict = policy.rules.decide(&again, &Usage::default(), &scope.gateway.grants(), clock::now());
        if action(&verdict) != Action::Allow {
            return;
        }
        policy.superseded.cancelled().await;
    }
}

/// A request that may be sent, with everything sending it takes.
struct Permitted {
    parts: Parts,
    body: Option<Incoming>,
    head: Head,
    permit: Permit,
    upgrade: OnUpgrade,
    audience: Audience,
    started: Instant,
}

/// Records the decision, then sends the request and relays the response.
async fn send(
    scope: &Scope,
    policy: &Arc<CurrentPolicy>,
    subject: Subject,
    mut request: Permitted,
) -> Response<ReplyBody> {
    let progress = Arc::new(Progress::default());
    progress.timing(|timing| timing.decide = milliseconds(request.started));
    let mut judgement = request.permit.judgement().clone();
    judgement.findings.extend(inspect::shapes(&request.parts, &request.head, judgement.class));
    let secrets = inspect::head(policy, &request.parts, &request.head);
    judgement.findings.extend(secrets.findings);
    let decision = decision(policy, &subject, &judgement);
    let entry = match Entry::commit(&scope.gateway, decision, Arc::clone(&progress), request.started).await {
        Ok(entry) => entry,
        Err(_) => return unrecorded(request.audience, &subject),
    };
    if let Some(place) = secrets.misplaced.filter(|_| request.permit.secrets() != SecretAction::Alert) {
        if request.permit.enforces() {
            // Overwriting a part of the head would make it another request, so masking stops here too.
            let what = format!(
                "it holds a secret in its {place} that does not belong at {}",
                request.head.target.host
            );
            return stop(entry, Refusal::plain(Reason::SecretFound, what), &mut request, &subject);
        }
        entry.progress().would_stop(Reason::SecretFound);
    }
    let meter = match Meter::begin(&scope.gateway, &request.permit, &entry, request.head.bytes) {
        Ok(meter) => meter,
        Err(why) => return stop(entry, Refusal::plain(why.reason, why.what), &mut request, &subject),
    };
    if subject.kind == Kind::WebSocket {
        strip_hop_by_hop(&mut request.parts.headers);
        return websocket::open(scope, policy, subject, entry, request_for_websocket(request, meter)).await;
    }
    let mut upload = match request.body.take() {
        // Before a `connection` header can take the coding of the body out of sight.
        Some(body) => Upload::new(scope, policy, &request.permit, &request.parts, &request.head, body, meter),
        None => Upload::empty(),
    };
    strip_hop_by_hop(&mut request.parts.headers);
    if upload.prime().await.is_err() {
        request.body = upload.into_rest();
        return match progress.stopped() {
            Some(why) => stop(entry, Refusal::plain(why.reason, why.what), &mut request, &subject),
            // The client broke off: nobody is left to be answered.
            None => Response::new(ReplyBody::empty()),
        };
    }
    let outgoing = match outgoing(&request.parts, &request.head, upload) {
        Ok(outgoing) => outgoing,
        Err(error) => {
            let refusal = Refusal::plain(Reason::MalformedRequest, error.to_string());
            entry.progress().stop(refusal.reason, refusal.what.clone());
            return answer_refusal(entry, &refusal, OutcomeKind::Denied, request.audience, false);
        }
    };
    let response =
        forward(scope, policy, &request.permit, &entry, outgoing, request.head.bytes, Offer::Any).await;
    relay(scope, entry, response, &request.permit, request.audience)
}

fn stop(entry: Entry, refusal: Refusal, request: &mut Permitted, subject: &Subject) -> Response<ReplyBody> {
    if let Some(body) = request.body.take() {
        linger(&request.parts, body);
    }
    let refusal = Refusal {
        destination: subject.target.as_ref().map(ToString::to_string),
        class: request.permit.judgement().class,
        ..refusal
    };
    entry.progress().stop(refusal.reason, refusal.what.clone());
    let close = request.head.kind == Kind::WebSocket;
    answer_refusal(entry, &refusal, OutcomeKind::Denied, request.audience, close)
}

/// What [`websocket::open`] needs of a permitted request.
pub struct WebSocketRequest {
    /// Head without hop-by-hop fields.
    pub parts: Parts,
    /// What the head says.
    pub head: Head,
    /// Permission.
    pub permit: Permit,
    /// The client's side of the upgrade.
    pub upgrade: OnUpgrade,
    /// How a refusal is written.
    pub audience: Audience,
    /// Counts what leaves; the head has been admitted.
    pub meter: Meter,
}

fn request_for_websocket(request: Permitted, meter: Meter) -> WebSocketRequest {
    let Permitted { parts, head, permit, upgrade, audience, .. } = request;
    WebSocketRequest { parts, head, permit, upgrade, audience, meter }
}

/// The request as it leaves: canonical path, its own `Host`, nothing of the client's connection.
pub fn outgoing<B>(parts: &Parts, head: &Head, upload: B) -> Result<Request<B>, http::Error> {
    let mut request = Request::new(upload);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = upstream_uri(&head.target, &head.path.forwarded())?;
    *request.headers_mut() = parts.headers.clone();
    request.headers_mut().remove(HOST);
    join_cookies(request.headers_mut());
    Ok(request)
}

/// Sends, with a deadline for the response head that begins anew whenever upload bytes move. The head of `head_bytes`
/// counts as having left from the moment there is a connection for it, whatever comes after.
pub async fn forward(
    scope: &Scope,
    policy: &CurrentPolicy,
    permit: &Permit,
    entry: &Entry,
    request: Request<Upload>,
    head_bytes: u64,
    offer: Offer,
) -> Result<Response<Incoming>, Failure> {
    let progress = Arc::clone(entry.progress());
    let metrics = &scope.gateway.metrics;
    // What the gateway itself adds before the destination hears of the request.
    metrics.overhead(entry.elapsed());
    let sending = policy.forwarder.send(permit, request, offer, |via| {
        if !progress.connected() {
            head_left(scope, entry, head_bytes);
        }
        let connect = via.take_connect_time();
        if let Some(time) = connect {
            metrics.connect_took(time);
        }
        progress.upstream(via.address, connect.map(|time| time.as_micros() as f64 / 1000.0));
    });
    let timeout = scope.gateway.config.upstream.response_timeout;
    let sent = tokio::select! {
        sent = sending => sent,
        () = crate::passthrough::nothing_moves(&progress, timeout) => return Err(Failure::Timeout),
    };
    if sent.is_ok() {
        progress.timing(|timing| timing.first_byte = Some(entry.milliseconds()));
    }
    sent.map_err(|error| match progress.stopped() {
        Some(stop) => Failure::Stopped(stop.reason, stop.what),
        None => Failure::of(&error, permit.target()),
    })
}

/// Why there is no response.
pub enum Failure {
    /// The upload was stopped.
    Stopped(Reason, String),
    /// The dialler said so.
    Refused(Refusal),
    /// No response head in time.
    Timeout,
    /// The connection broke, or spoke no HTTP.
    Broken,
}

impl Failure {
    fn of(error: &hyper_util::client::legacy::Error, target: &Target) -> Failure {
        match dial_error(error) {
            Some(dial) => Failure::Refused(dial_refusal(dial, target)),
            None => Failure::Broken,
        }
    }

    fn refusal(self, target: &Target) -> Refusal {
        let host = &target.host;
        match self {
            Failure::Stopped(reason, what) => Refusal::plain(reason, what),
            Failure::Refused(refusal) => refusal,
            Failure::Timeout => {
                Refusal::plain(Reason::UpstreamTimeout, format!("{host} did not answer in time"))
            }
            Failure::Broken => {
                Refusal::plain(Reason::UpstreamUnreachable, format!("{host} broke the connection off"))
            }
        }
    }
}

/// A dialler's error in words for the client. Addresses inside are not told.
pub fn dial_refusal(error: &DialError, target: &Target) -> Refusal {
    let host = &target.host;
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
    Refusal::plain(reason, what)
}

/// The destination's response as the client gets it, or why there is none.
pub fn relay(
    scope: &Scope,
    entry: Entry,
    response: Result<Response<Incoming>, Failure>,
    permit: &Permit,
    audience: Audience,
) -> Response<ReplyBody> {
    let progress = Arc::clone(entry.progress());
    let response = match response {
        Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => Err(Failure::Broken),
        other => other,
    };
    let (mut parts, body) = match response {
        Ok(response) => response.into_parts(),
        Err(failure) => {
            let refusal = Refusal {
                destination: Some(permit.target().to_string()),
                class: permit.judgement().class,
                ..failure.refusal(permit.target())
            };
            return fail(entry, &refusal, audience);
        }
    };
    progress.status(parts.status.as_u16());
    progress.received.fetch_add(response_head_bytes(&parts.headers), Ordering::Relaxed);
    clean_response(&mut parts.headers);
    parts.version = Version::HTTP_11;
    let download = Download::new(scope, body, entry);
    Response::from_parts(parts, ReplyBody::Download(download))
}

/// Counts a head that has left.
fn head_left(scope: &Scope, entry: &Entry, bytes: u64) {
    entry.progress().sent.fetch_add(bytes, Ordering::Relaxed);
    scope.gateway.metrics.uploaded(entry.class(), entry.agent(), bytes);
}

fn response_head_bytes(headers: &HeaderMap) -> u64 {
    let fields: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    fields as u64 + 19
}

/// Ends an exchange that has no response of its destination.
pub fn fail(entry: Entry, refusal: &Refusal, audience: Audience) -> Response<ReplyBody> {
    entry.progress().stop(refusal.reason, refusal.what.clone());
    let failed = crate::entry::is_failure(refusal.reason);
    let kind = if failed { OutcomeKind::Failed } else { OutcomeKind::Completed };
    answer_refusal(entry, refusal, kind, audience, false)
}

fn answer_refusal(
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

/// Something that was not let through, or not to its end, and what is to be said of it.
pub struct Stopped {
    entry: Option<Entry>,
    refusal: Refusal,
    outcome: OutcomeKind,
    subject: Subject,
    close: bool,
}

impl Stopped {
    /// What was decided and recorded, and cannot be carried out.
    pub fn failed(entry: Entry, refusal: Refusal, subject: Subject) -> Stopped {
        entry.progress().stop(refusal.reason, refusal.what.clone());
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

/// What is asked about a connection that will not be read.
pub fn unread_request<'a>(
    client: &'a Client,
    kind: Kind,
    target: &'a Target,
) -> policy::request::Request<'a> {
    policy::request::Request {
        agent: &client.agent,
        kind,
        target,
        method: "",
        path: None,
        upload: 0,
        observe: client.observe,
    }
}

/// Decides a connection that will not be read, and commits the decision.
pub async fn permit_unread(
    scope: &Scope,
    subject: &Subject,
    started: Instant,
) -> Result<(Permit, Entry), Box<Stopped>> {
    let policy = scope.gateway.policy();
    let (Some(client), Some(target)) = (&subject.client, &subject.target) else {
        let refusal = Refusal::plain(Reason::MalformedRequest, "it names no host");
        let entry = record_refusal(scope, subject.clone(), &refusal, started).await;
        let (outcome, subject) = (OutcomeKind::Denied, subject.clone());
        return Err(Box::new(Stopped { entry, refusal, outcome, subject, close: true }));
    };
    let usage = scope.gateway.usage(&client.agent, &target.host);
    let request = unread_request(client, subject.kind, target);
    let verdict = policy.rules.decide(&request, &usage, &scope.gateway.grants(), clock::now());
    let (judgement, refusal) = match verdict {
        Verdict::Allow(permit) => return enter(scope, &policy, subject, permit, started).await,
        Verdict::Ask(question) => {
            let refusal = unattended(&question.judgement, target);
            (Judgement { action: Action::Deny, reason: refusal.reason, ..question.judgement }, refusal)
        }
        Verdict::Deny(denial) => {
            let refusal = denied(&denial, target);
            (denial.judgement, refusal)
        }
    };
    let entry = record(&scope.gateway, &policy, subject, &judgement, started).await;
    let (outcome, close) = (OutcomeKind::Denied, closes(subject, &refusal));
    Err(Box::new(Stopped { entry, refusal, outcome, subject: subject.clone(), close }))
}

/// Commits the decision for a connection that is allowed, unless the name it asks for gives a secret away.
async fn enter(
    scope: &Scope,
    policy: &CurrentPolicy,
    subject: &Subject,
    permit: Permit,
    started: Instant,
) -> Result<(Permit, Entry), Box<Stopped>> {
    let mut judgement = permit.judgement().clone();
    let secrets = inspect::host(policy, permit.target());
    judgement.findings.extend(secrets.findings);
    let decision = decision(policy, subject, &judgement);
    let progress = Arc::new(Progress::default());
    let Ok(entry) = Entry::commit(&scope.gateway, decision, progress, started).await else {
        let refusal = Refusal::plain(Reason::AuditUnavailable, "the decision cannot be recorded");
        let (outcome, subject) = (OutcomeKind::Denied, subject.clone());
        return Err(Box::new(Stopped { entry: None, refusal, outcome, subject, close: true }));
    };
    if secrets.misplaced.is_none() || permit.secrets() == SecretAction::Alert {
        return Ok((permit, entry));
    }
    if permit.enforces() {
        let refusal = Refusal::plain(Reason::SecretFound, "the name of the host holds a secret");
        return Err(Box::new(Stopped::failed(entry, refusal, subject.clone())));
    }
    entry.progress().would_stop(Reason::SecretFound);
    Ok((permit, entry))
}

/// Why no request to a tunnel's destination could be allowed, where that is certain already.
pub fn unreachable(policy: &CurrentPolicy, tunnel: &Tunnel) -> Option<Refusal> {
    if tunnel.client.observe {
        return None;
    }
    match policy.rules.reach(&tunnel.client.agent, &tunnel.target) {
        Reach::Never(denial) => Some(denied(&denial, &tunnel.target)),
        Reach::Possible => None,
    }
}

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

/// After a refused CONNECT or upgrade and after a framing error nothing more is read (RFC 9110, section 7.8;
/// RFC 9112, section 9.6): what follows was meant for somebody else.
fn closes(subject: &Subject, refusal: &Refusal) -> bool {
    let framing = matches!(refusal.reason, Reason::MalformedRequest | Reason::AuthorityMismatch);
    subject.version != Some("2") && (framing || subject.kind != Kind::Http)
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
    progress.timing(|timing| timing.decide = milliseconds(started));
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

async fn refuse_judged(
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

/// The answer where no row could be written: the one refusal that has none.
fn unrecorded(audience: Audience, subject: &Subject) -> Response<ReplyBody> {
    let refusal = Refusal {
        destination: subject.target.as_ref().map(ToString::to_string),
        ..Refusal::plain(Reason::AuditUnavailable, "the decision cannot be recorded")
    };
    refusal.response(Ulid::new(), audience, subject.kind != Kind::Http).map(ReplyBody::Full)
}

fn denied(denial: &Denial, target: &Target) -> Refusal {
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
    Refusal { allow_with: denial.allow_with.clone(), ..judged(judgement, target, what) }
}

fn unattended(judgement: &Judgement, target: &Target) -> Refusal {
    let what = format!("{} needs a person's approval and nobody is there to give it", target.host);
    let judgement = Judgement { reason: Reason::ApprovalUnattended, ..judgement.clone() };
    judged(&judgement, target, what)
}

fn judged(judgement: &Judgement, target: &Target, what: String) -> Refusal {
    Refusal {
        destination: Some(target.to_string()),
        class: judgement.class,
        rule: judgement.rule.as_deref().map(str::to_owned),
        ..Refusal::plain(judgement.reason, what)
    }
}

fn decision(policy: &CurrentPolicy, subject: &Subject, judgement: &Judgement) -> Decision {
    let redactor = &policy.redactor;
    let target = subject.target.as_ref();
    let host = |host: &Host| redactor.host(host.as_str());
    // A name by itself is spoken to in no way, and on no port.
    let spoken_to = target.filter(|_| subject.kind != Kind::Dns);
    Decision {
        id: Ulid::new(),
        time: clock::now(),
        session: subject.client.as_ref().and_then(|client| client.session),
        agent: subject
            .client
            .as_ref()
            .map_or_else(policy::identity::AgentName::anonymous, |c| c.agent.clone()),
        owner: subject.client.as_ref().and_then(|client| client.owner.clone()),
        kind: subject.kind,
        class: judgement.class,
        service: judgement.service.clone(),
        method: subject.method.as_deref().map(|method| redactor.text(method)),
        scheme: spoken_to.map(|target| target.scheme),
        host: target.map(|target| host(&target.host)),
        port: spoken_to.map(|target| target.port),
        domain: target.map(|target| redactor.host(registrable_domain(&target.host))),
        path: subject.path.as_deref().map(|path| redactor.path(path)),
        http_version: subject.version.map(Into::into),
        action: judgement.action,
        reason: judgement.reason,
        would: judgement.would.map(|(action, _)| action),
        would_reason: judgement.would.map(|(_, reason)| reason),
        rule: judgement.rule.as_deref().map(|rule| redactor.text(rule)),
        mode: judgement.mode,
        policy: policy.rules.digest().clone(),
        findings: judgement.findings.clone(),
    }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}

/// Puts back what a WebSocket handshake needs and [`strip_hop_by_hop`] took.
pub fn ask_for_websocket(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.remove("sec-websocket-extensions");
}

/// The model a request names, for its record.
pub fn named_model(policy: &CurrentPolicy, name: &str) -> Redacted {
    policy.redactor.text(name)
}
