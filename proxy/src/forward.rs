//! Sends a permitted request: pooled connections to judged addresses, never shared between destinations.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::{Request, Response, Uri, Version};
use hyper::body::{Body, Incoming};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{
    CaptureConnection, Connect, Connected, Connection, capture_connection,
};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use policy::decide::Policy;
use policy::target::{Scheme, Target};
use policy::verdict::Permit;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use crate::body::Upload;
use crate::dial::{DialError, Dialer};
use crate::tls::UpstreamTls;

/// How long an unused connection is kept for the next request.
const POOL_IDLE: Duration = Duration::from_secs(60);
/// How many unused connections are kept for one destination.
const POOL_PER_DESTINATION: usize = 32;
/// How many are kept for all: each takes some 50 KiB, and whoever needs one of so many again resumes its session.
const POOL: usize = 128;
/// The longest response head, in bytes; generous, since some destinations set very large cookies.
const RESPONSE_HEAD_LIMIT: usize = 256 * 1024;

/// Which protocols are offered upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// HTTP/2 or HTTP/1.1, as the destination likes.
    Any,
    /// HTTP/1.1 alone: WebSockets.
    Http1,
}

/// Sends requests upstream.
pub struct Forwarder {
    any: Pool,
    http1: Pool,
    open: Arc<AtomicUsize>,
    most: usize,
}

/// Connections kept for the next request.
struct Pool {
    client: ArcSwap<Client<Connector, Upload>>,
    connector: Connector,
}

impl Pool {
    fn new(connector: Connector) -> Pool {
        Pool { client: ArcSwap::from_pointee(client(connector.clone())), connector }
    }

    /// Closes what is not in use.
    fn drain(&self) {
        self.client.store(Arc::new(client(self.connector.clone())));
    }
}

/// What is known of the connection a request went out on.
#[derive(Clone, Debug)]
pub struct Via {
    /// The address that was judged and dialled.
    pub address: SocketAddr,
    /// How long resolving, connecting and handshaking took; once, for the request that needed the connection.
    pub connect: Duration,
    used: Arc<AtomicBool>,
}

impl Via {
    /// How long connecting took, for the first who asks.
    pub fn take_connect_time(&self) -> Option<Duration> {
        let first = !self.used.swap(true, Ordering::Relaxed);
        first.then_some(self.connect)
    }
}

impl Forwarder {
    /// A forwarder with an empty pool. A new policy gets a new one: addresses it forbids must not live on in a pool.
    /// Unused connections are closed where `most` are open: however many names a client thinks of, there are
    /// descriptors left.
    pub fn new(dialer: &Arc<Dialer>, policy: &Arc<Policy>, tls: &UpstreamTls, most: usize) -> Forwarder {
        let open = Arc::<AtomicUsize>::default();
        let connector = |tls: &Arc<ClientConfig>| Connector {
            dialer: Arc::clone(dialer),
            policy: Arc::clone(policy),
            tls: Arc::clone(tls),
            open: Arc::clone(&open),
        };
        let (any, http1) = (connector(&tls.any), connector(&tls.http1));
        Forwarder { any: Pool::new(any), http1: Pool::new(http1), open, most }
    }

    /// Closes unused connections where there are too many, while so many requests are under way.
    pub fn make_room(&self, under_way: usize) {
        let open = self.open.load(Ordering::Relaxed);
        // Requests that share a connection, or have none yet, make this too few.
        let unused = open.saturating_sub(under_way);
        if open >= self.most || unused >= POOL {
            self.any.drain();
            self.http1.drain();
        }
    }

    /// Sends `request` where `permit` says. Its URI, `Host` and version are set here. `on_connection` is told of the
    /// connection before the request is written to it: whoever drops this future later still knows that it left.
    ///
    /// # Errors
    /// What hyper says; [`dial_error`] finds the reason where no connection came about.
    pub async fn send(
        &self,
        permit: &Permit,
        mut request: Request<Upload>,
        offer: Offer,
        on_connection: impl Fn(&Via),
    ) -> Result<Response<Incoming>, Error> {
        // The version is the client's; upstream it is whatever the connection speaks.
        *request.version_mut() = Version::HTTP_11;
        let mut captured = capture_connection(&mut request);
        debug_assert_eq!(request.uri().host(), Some(permit.target().host.as_str()));
        let client = match offer {
            Offer::Any => self.any.client.load_full(),
            Offer::Http1 => self.http1.client.load_full(),
        };
        let sending = client.request(request);
        tokio::pin!(sending);
        let first = tokio::select! {
            biased;
            response = &mut sending => {
                via(&response, &captured).as_ref().map(&on_connection);
                return response;
            }
            () = had(&mut captured) => told(&captured),
        };
        first.as_ref().map(&on_connection);
        let response = sending.await;
        // A pooled connection may turn out to be dead; then the request went out on another.
        let last = via(&response, &captured)
            .filter(|last| first.is_none_or(|first| !Arc::ptr_eq(&first.used, &last.used)));
        last.as_ref().map(&on_connection);
        response
    }
}

/// Returns once a connection was had.
async fn had(captured: &mut CaptureConnection) {
    drop(captured.wait_for_connection_metadata().await);
}

/// The connection that a response came by, which it carries with it, or that was had last where there is none.
fn via(response: &Result<Response<Incoming>, Error>, captured: &CaptureConnection) -> Option<Via> {
    let carried = response.as_ref().ok().and_then(|response| response.extensions().get().cloned());
    carried.or_else(|| told(captured))
}

/// The connection that was had last.
fn told(captured: &CaptureConnection) -> Option<Via> {
    let mut extensions = http::Extensions::new();
    captured.connection_metadata().as_ref()?.get_extras(&mut extensions);
    extensions.remove()
}

/// The client that everything is sent with.
pub fn client<C, B>(connector: C) -> Client<C, B>
where
    C: Connect + Clone,
    B: Body<Data: Send> + Send,
{
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(POOL_PER_DESTINATION)
        .http1_max_buf_size(RESPONSE_HEAD_LIMIT)
        .http2_max_header_list_size(RESPONSE_HEAD_LIMIT as u32)
        .http2_keep_alive_interval(Duration::from_secs(30))
        .http2_adaptive_window(true)
        .build(connector)
}

/// The URI that a request to `target` is sent with.
///
/// # Errors
/// Where the path is not one; the canonical path always is.
pub fn upstream_uri(target: &Target, path: &str) -> Result<Uri, http::Error> {
    Uri::builder().scheme(target.scheme.as_str()).authority(target.authority()).path_and_query(path).build()
}

/// Why no connection came about, where that was it.
pub fn dial_error(error: &Error) -> Option<&DialError> {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(dial) = inner.downcast_ref::<DialError>() {
            return Some(dial);
        }
        source = inner.source();
    }
    None
}

/// Dials for the pool.
#[derive(Clone)]
struct Connector {
    dialer: Arc<Dialer>,
    policy: Arc<Policy>,
    tls: Arc<ClientConfig>,
    open: Arc<AtomicUsize>,
}

impl Service<Uri> for Connector {
    type Response = UpstreamStream;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<UpstreamStream, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let started = Instant::now();
            let target = target_of(&uri)?;
            let policy = Arc::clone(&this.policy);
            let (stream, address) = if target.scheme == Scheme::Https {
                let dialled = this.dialer.tls(&target, policy.addresses(), &this.tls).await?;
                (Transport::Tls(Box::new(TokioIo::new(dialled.stream))), dialled.address)
            } else {
                let dialled = this.dialer.tcp(&target, policy.addresses()).await?;
                (Transport::Clear(TokioIo::new(dialled.stream)), dialled.address)
            };
            let via = Via { address, connect: started.elapsed(), used: Arc::default() };
            Ok(UpstreamStream { stream, via, _open: Open::one_more(&this.open) })
        })
    }
}

/// The pool hands back the URI it was given, so this only fails if [`upstream_uri`] and the grammar disagree.
fn target_of(uri: &Uri) -> Result<Target, DialError> {
    let scheme = if uri.scheme_str() == Some("https") { Scheme::Https } else { Scheme::Http };
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    Target::from_authority(scheme, authority.as_bytes())
        .map_err(|error| DialError::Connect(std::io::Error::other(error)))
}

/// A connection upstream with the address it leads to.
pub struct UpstreamStream {
    stream: Transport,
    via: Via,
    _open: Open,
}

/// Counts a connection for as long as it lives.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn one_more(open: &Arc<AtomicUsize>) -> Open {
        open.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(open))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

enum Transport {
    Clear(TokioIo<TcpStream>),
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
}

impl Connection for UpstreamStream {
    fn connected(&self) -> Connected {
        let connected = Connected::new().extra(self.via.clone());
        match &self.stream {
            Transport::Tls(tls) if tls.inner().get_ref().1.alpn_protocol() == Some(b"h2") => {
                connected.negotiated_h2()
            }
            _ => connected,
        }
    }
}

macro_rules! delegate {
    ($self:ident, $stream:ident => $call:expr) => {
        match &mut $self.get_mut().stream {
            Transport::Clear($stream) => $call,
            Transport::Tls($stream) => $call,
        }
    };
}

impl Read for UpstreamStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl Write for UpstreamStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        delegate!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Transport::Clear(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        delegate!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }
}
