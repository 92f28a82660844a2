//! Sending what is permitted: recorded, metered, forwarded, and its response relayed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use policy::record::OutcomeKind;
use policy::request::Kind;
use policy::target::Target;
use policy::verdict::{Permit, Reason, SecretAction};

use super::refusing::{answer_refusal, dial_refusal, fail, linger, unrecorded};
use super::subject::{Subject, decision};
use crate::body::{Download, Meter, ReplyBody, Upload};
use crate::connection::Scope;
use crate::entry::{Entry, Progress};
use crate::forward::{Offer, dial_error, upstream_uri};
use crate::gateway::CurrentPolicy;
use crate::head::{Head, clean_response, join_cookies, strip_hop_by_hop};
use crate::inspect;
use crate::reply::{Audience, Refusal};
use crate::websocket;

/// A request that may be sent, with everything sending it takes.
pub(super) struct Permitted {
    pub(super) parts: Parts,
    pub(super) body: Option<Incoming>,
    pub(super) head: Head,
    pub(super) permit: Permit,
    pub(super) upgrade: OnUpgrade,
    pub(super) audience: Audience,
    pub(super) started: Instant,
}

/// Records the decision, then sends the request and relays the response.
pub(super) async fn send(
    scope: &Scope,
    policy: &Arc<CurrentPolicy>,
    subject: Subject,
    mut request: Permitted,
) -> Response<ReplyBody> {
    let progress = Arc::new(Progress::default());
    subject.time(&progress, request.started);
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

/// The request as it leaves: canonical path, its own `Host`, nothing of the client's connection.
pub fn outgoing<B: Body>(parts: &Parts, head: &Head, upload: B) -> Result<Request<B>, http::Error> {
    let declared = parts.headers.contains_key(CONTENT_LENGTH) || upload.size_hint().exact().is_some();
    let chunked = !upload.is_end_stream() && !declared;
    let mut request = Request::new(upload);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = upstream_uri(&head.target, &head.path.forwarded())?;
    *request.headers_mut() = parts.headers.clone();
    request.headers_mut().remove(HOST);
    join_cookies(request.headers_mut());
    if chunked {
        // Without it the HTTP library takes it that a GET has no body, and leaves it out. HTTP/2 has no such field, and
        // does not send it.
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
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
    metrics.overhead(entry.elapsed().saturating_sub(progress.held()));
    policy.forwarder.make_room(metrics.in_flight());
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

/// Counts a head that has left.
fn head_left(scope: &Scope, entry: &Entry, bytes: u64) {
    entry.progress().sent.fetch_add(bytes, Ordering::Relaxed);
    scope.gateway.metrics.uploaded(entry.class(), entry.agent(), bytes);
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

/// Puts back what a WebSocket handshake needs and [`strip_hop_by_hop`] took.
pub fn ask_for_websocket(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.remove("sec-websocket-extensions");
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

fn response_head_bytes(headers: &HeaderMap) -> u64 {
    let fields: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    fields as u64 + 19
}
