//! One connection that speaks HTTP: the client's own, or what was found inside a tunnel.
//!
//! hyper parses; what it answers by itself (400, 414, 431) leaves a row here, since no handler is called for it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use policy::identity::AgentName;
use policy::target::Target;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::accept::{Place, Stream};
use crate::body::{DownloadBroken, ReplyBody};
use crate::exchange;
use crate::gateway::Gateway;
use crate::identify::Client;
use crate::patience::{Patience, Serving, ServingGuard};
use crate::presence::Presence;
use crate::reply::{Malformed, Refusal};
use crate::slots::Slot;
use crate::streams::{GOODBYE, Stream as H2Stream, Streams, Taking};
use crate::tunnel;
use policy::verdict::Reason;

/// Streams that one HTTP/2 connection may have open.
const H2_STREAMS: u32 = 256;
/// Streams a peer may have reset while we still owe them work, before the connection is closed (CVE-2023-44487).
const H2_PENDING_RESETS: usize = 64;
/// Room for a request head in front of hyper's own limit, so that ours is the one that speaks.
const HEAD_ROOM: usize = 16 * 1024;

/// What every request of one connection shares.
#[derive(Clone)]
pub struct Scope {
    /// The gateway.
    pub gateway: Arc<Gateway>,
    /// The tunnel the connection runs in, `None` on the proxy port itself.
    pub tunnel: Option<Tunnel>,
    /// The connection's place among those that may be open.
    pub place: Place,
    /// What every request is identified by, whatever it says itself; where the listener is the identity.
    pub credentials: Option<HeaderValue>,
    /// On the proxy port itself: the place of the agent whose requests come this way.
    pub agent: Arc<Mutex<Option<(AgentName, Slot)>>>,
    /// Where requests are read one after another: told when one is held.
    pub serving: Option<Serving>,
}

impl Scope {
    /// A connection of which nobody knows yet whose it is.
    pub fn new(gateway: Arc<Gateway>, place: Place) -> Scope {
        Scope { gateway, tunnel: None, place, credentials: None, agent: Arc::default(), serving: None }
    }

    /// Who asks, on the proxy port itself.
    ///
    /// # Errors
    /// As [`Gateway::identify`].
    pub async fn identify(&self, headers: &HeaderMap) -> Result<Client, Refusal> {
        match &self.credentials {
            Some(credentials) => self.gateway.identify_by(Some(credentials)).await,
            None => self.gateway.identify(headers).await,
        }
    }

    /// Who asks, once it may: whoever had to wait may not be known any more.
    ///
    /// # Errors
    /// As [`Gateway::identify`].
    pub async fn identify_in_turn(&self, headers: &HeaderMap) -> Result<Client, Refusal> {
        let client = self.identify(headers).await?;
        if self.gateway.pace.wait(&client.agent).await { self.identify(headers).await } else { Ok(client) }
    }

    /// Whether an agent may use this connection: it counts among that agent's for as long as it is open.
    pub fn admits(&self, agent: &AgentName) -> bool {
        self.tunnel.is_some() || self.slot(agent).is_some()
    }

    /// The place among those of an agent that this connection has on the proxy port itself, one whatever it becomes.
    pub fn slot(&self, agent: &AgentName) -> Option<Slot> {
        let mut held = self.agent.lock().unwrap_or_else(PoisonError::into_inner);
        if held.as_ref().is_none_or(|(holder, _)| holder != agent) {
            *held = self.gateway.slots.claim(agent).map(|slot| (agent.clone(), slot));
        }
        let slot = held.as_ref().map(|(_, slot)| slot.clone());
        if slot.is_some() {
            self.place.is_known();
        }
        slot
    }
}

/// The tunnel a connection runs in.
#[derive(Clone)]
pub struct Tunnel {
    /// Who opened it.
    pub client: Client,
    /// Where it leads.
    pub target: Target,
    /// What it was opened with; has to hold for every request in it.
    pub credentials: Option<HeaderValue>,
    /// Holds the agent's place.
    pub slot: Slot,
}

/// Serves a client's connection to its end.
pub async fn serve(scope: Scope, stream: Stream) {
    let sent_away = scope.place.sent_away();
    tokio::select! {
        () = serve_http1(scope, stream) => {}
        () = sent_away.cancelled() => {}
    }
}

/// Serves HTTP/1.1 on a stream: the proxy port, a decrypted tunnel, or clear HTTP in a tunnel.
pub async fn serve_http1<S>(scope: Scope, stream: S)
where
    S: AsyncRead + AsyncWrite + Presence + Unpin + Send + 'static,
{
    let limits = &scope.gateway.config.limits;
    let serving = Serving::default();
    let handler = Arc::new(Scope { serving: Some(serving.clone()), ..scope.clone() });
    let idle = scope.gateway.config.upstream.idle_timeout;
    let stream = Patience::new(stream, serving.clone(), limits.header_timeout, idle);
    let taking = Taking::default();
    let turn = taking.clone();
    let service = service_fn(move |request| {
        let turn = Turn { serving: Some(serving.begin()), taking: turn.clone(), stream: None };
        answer(Arc::clone(&handler), turn, request)
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.keepalive_timeout)
        .max_headers(limits.headers + 1)
        .max_buf_size(limits.header_bytes + HEAD_ROOM);
    let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = scope.gateway.draining.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                result = connection => result,
                () = taking.stalled(idle, &scope.gateway.draining) => return,
            }
        }
    };
    if let Err(error) = result {
        record_parse_error(&scope, &error).await;
    }
}

/// Serves HTTP/2 on a decrypted tunnel.
pub async fn serve_http2<S>(scope: Scope, stream: S)
where
    S: AsyncRead + AsyncWrite + Presence + Unpin + Send + 'static,
{
    let limits = &scope.gateway.config.limits;
    let handler = Arc::new(Scope { serving: None, ..scope.clone() });
    let idle = scope.gateway.config.upstream.idle_timeout;
    // There are no heads to be timed here, only writes.
    let serving = Serving::default();
    serving.begin().keep();
    let stream = Patience::new(stream, serving, limits.header_timeout, idle);
    let streams = Streams::new(idle, scope.gateway.draining.clone());
    let begun = streams.clone();
    let service = service_fn(move |request| {
        let stream = begun.begin();
        let turn = Turn { serving: None, taking: stream.taking().clone(), stream: Some(stream) };
        answer(Arc::clone(&handler), turn, request)
    });
    let mut builder = hyper::server::conn::http2::Builder::new(streams.clone());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS)
        .max_pending_accept_reset_streams(H2_PENDING_RESETS)
        .max_header_list_size((limits.header_bytes + HEAD_ROOM) as u32)
        .adaptive_window(true)
        .keep_alive_interval(limits.keepalive_timeout / 4)
        .keep_alive_timeout(limits.header_timeout);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = streams.too_much() => return,
        () = streams.idle(limits.header_timeout, limits.keepalive_timeout) => {}
        () = scope.gateway.draining.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        _ = connection => {}
        // Everything is answered; what the client has not taken by now it does not want.
        () = streams.idle(GOODBYE, GOODBYE) => {}
    }
}

/// The connection is closed without a response.
#[derive(Debug, thiserror::Error)]
#[error("closed without a response")]
struct Closed;

/// What lasts until a response is complete.
struct Turn {
    serving: Option<ServingGuard>,
    taking: Taking,
    stream: Option<H2Stream>,
}

async fn answer(
    scope: Arc<Scope>,
    turn: Turn,
    request: Request<Incoming>,
) -> Result<Response<Reply>, Closed> {
    let connect = request.method() == Method::CONNECT;
    let slot = turn.stream.as_ref().zip(scope.tunnel.as_ref()).map(|(_, tunnel)| {
        // A connection of HTTP/2 carries many requests: they are limited as if each had one of its own.
        scope.gateway.streams.claim(&tunnel.client.agent)
    });
    let response = if slot.as_ref().is_some_and(Option::is_none) {
        exchange::overloaded(&scope, request, "this agent has too many requests open").await
    } else if scope.tunnel.is_none() && connect {
        tunnel::open(&scope, request).await
    } else {
        exchange::exchange(&scope, request).await
    };
    if response.extensions().get::<exchange::CloseInstead>().is_some() {
        return Err(Closed);
    }
    let upgraded =
        response.status() == StatusCode::SWITCHING_PROTOCOLS || (connect && response.status().is_success());
    let Turn { serving, taking, mut stream } = turn;
    stream.iter_mut().for_each(H2Stream::is_answered);
    let serving = match serving {
        Some(guard) if upgraded => {
            guard.keep();
            None
        }
        other => other,
    };
    taking.offered();
    Ok(response.map(|body| Reply { body, taking, _held: (serving, stream, slot) }))
}

/// A response body, and the notice that its request is being served and its response taken.
struct Reply {
    body: ReplyBody,
    taking: Taking,
    _held: (Option<ServingGuard>, Option<H2Stream>, Option<Option<Slot>>),
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.taking.asked();
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = DownloadBroken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DownloadBroken>>> {
        let this = self.get_mut();
        this.taking.asked();
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        if matches!(frame, Poll::Ready(Some(_))) {
            this.taking.offered();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// hyper refused a head without calling anyone: that too is a request the gateway answered.
async fn record_parse_error(scope: &Scope, error: &hyper::Error) {
    if !error.is_parse() {
        return;
    }
    let text = error.to_string();
    let (malformed, what) = if error.is_parse_too_large() && text.contains("URI") {
        (Malformed::Url, "its URL is too long")
    } else if error.is_parse_too_large() {
        (Malformed::Header, "its header section is too large")
    } else if error.is_parse_version_h2() {
        (Malformed::Syntax, "it is HTTP/2 without TLS")
    } else {
        (Malformed::Syntax, "its head is not HTTP/1.1")
    };
    let refusal = Refusal { malformed, ..Refusal::plain(Reason::MalformedRequest, what) };
    exchange::record_unparsed(scope, &refusal).await;
}
