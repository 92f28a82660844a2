//! Real servers on loopback, clear text and TLS, HTTP/1.1 and HTTP/2, that remember everything they were sent.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::authority::{Flaw, TestCa};
use super::script;
use super::tally::Tally;

/// What an origin answers.
pub type Reply = http::Response<Payload>;
/// The body of an answer.
pub type Payload = UnsyncBoxBody<Bytes, io::Error>;
type Handler = Arc<dyn Fn(Asked) -> BoxFuture<'static, Reply> + Send + Sync>;

/// A request as a handler of a test's own gets it.
pub struct Asked {
    /// Method.
    pub method: String,
    /// `:authority`, or the `Host` header.
    pub authority: String,
    /// Path without query.
    pub path: String,
    /// Query, empty where there is none.
    pub query: String,
    /// Headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// A complete answer held in memory.
pub fn reply(status: u16, content_type: &str, body: impl Into<Bytes>) -> Reply {
    let body = script::full(body.into());
    http::Response::builder().status(status).header("content-type", content_type).body(body).unwrap()
}

/// How the request's body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It has not.
    Reading,
    /// As its framing said.
    Complete,
    /// Broken off.
    Aborted,
}

/// What the origin saw of one request.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// Method.
    pub method: String,
    /// `:authority`, or the `Host` header.
    pub authority: String,
    /// Path and query.
    pub path: String,
    /// Headers, in order.
    pub headers: Vec<(String, String)>,
    /// The body, and what came through a WebSocket.
    pub body: Tally,
    /// Trailers.
    pub trailers: Vec<(String, String)>,
    /// How the body ended.
    pub end: End,
}

impl Seen {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(seen, _)| seen == name).map(|(_, value)| &value[..])
    }
}

/// A server under test's control.
pub struct Origin {
    /// Where it listens.
    pub ip: IpAddr,
    /// Its clear-text port.
    pub http: u16,
    /// Its TLS port.
    pub tls: u16,
    log: Arc<Log>,
    _tasks: JoinSet<()>,
}

/// An origin about to be started.
pub struct OriginBuilder {
    ip: IpAddr,
    ports: (u16, u16),
    ca: Arc<TestCa>,
    flaw: Flaw,
    http1_only: bool,
    handler: Option<Handler>,
}

impl Origin {
    /// An origin on 127.0.0.2 whose certificates `ca` signs.
    pub fn with_authority(ca: &Arc<TestCa>) -> OriginBuilder {
        let ip = IpAddr::from([127, 0, 0, 2]);
        let standard = std::env::var(crate::clients::DESKS).is_ok_and(|desks| desks == "unaware");
        OriginBuilder {
            ip,
            ports: if standard { (80, 443) } else { (0, 0) },
            ca: ca.clone(),
            flaw: Flaw::None,
            http1_only: false,
            handler: None,
        }
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Seen> {
        self.log.seen.lock().unwrap().clone()
    }

    /// Every request after the first `count`.
    pub fn requests_after(&self, count: usize) -> Vec<Seen> {
        self.log.seen.lock().unwrap()[count..].to_vec()
    }

    /// The paths of the requests after the first `count`, of which nothing else is kept from then on.
    pub fn take_paths_after(&self, count: usize) -> Vec<String> {
        let mut seen = self.log.seen.lock().unwrap();
        let taken = seen[count..].iter_mut().map(|seen| {
            (seen.headers, seen.body) = (Vec::new(), Tally::default());
            (seen.method, seen.version, seen.authority) = Default::default();
            std::mem::take(&mut seen.path)
        });
        taken.collect()
    }

    /// Breaks every connection off.
    pub fn break_off(&self) {
        self.log.broken.notify_waiters();
    }

    /// The one request it saw.
    ///
    /// # Panics
    /// Where there were none or more.
    pub fn only_request(&self) -> Seen {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "the origin saw {requests:#?}");
        requests.into_iter().next().unwrap()
    }

    /// Connections so far.
    pub fn accepts(&self) -> u64 {
        self.log.accepts.load(Ordering::SeqCst)
    }

    /// Bytes received so far, below TLS.
    pub fn bytes(&self) -> u64 {
        self.log.bytes.load(Ordering::SeqCst)
    }

    /// Names that clients asked certificates for.
    pub fn names(&self) -> Vec<Option<String>> {
        self.log.names.lock().unwrap().clone()
    }

    /// The first mebibyte received, below TLS, all connections together.
    pub fn wire(&self) -> String {
        text(&self.log.wire.lock().unwrap())
    }

    /// Whether `text` arrived anywhere in a request: target, headers, the kept part of the body, trailers.
    pub fn saw(&self, text: &str) -> bool {
        self.requests().iter().any(|seen| {
            let mut pairs = seen.headers.iter().chain(&seen.trailers);
            seen.path.contains(text)
                || seen.body.text().contains(text)
                || pairs.any(|(name, value)| name.contains(text) || value.contains(text))
        })
    }

    /// Asserts that nobody connected.
    pub fn must_be_untouched(&self) {
        assert_eq!(self.accepts(), 0, "somebody connected to the origin: {:#?}", self.requests());
    }
}

impl OriginBuilder {
    /// Listens on this address instead.
    pub fn at(self, ip: &str) -> OriginBuilder {
        OriginBuilder { ip: ip.parse().unwrap(), ..self }
    }

    /// Listens on the usual ports, for clients that take no other; in a network of the test's own.
    pub fn on_standard_ports(self) -> OriginBuilder {
        OriginBuilder { ports: (80, 443), ..self }
    }

    /// Presents a certificate with this flaw.
    pub fn flawed(self, flaw: Flaw) -> OriginBuilder {
        OriginBuilder { flaw, ..self }
    }

    /// Does not offer HTTP/2.
    pub fn http1_only(self) -> OriginBuilder {
        OriginBuilder { http1_only: true, ..self }
    }

    /// Answers with `handler`, which gets whole requests, instead of by the script.
    pub fn answering<F, R>(self, handler: F) -> OriginBuilder
    where
        F: Fn(Asked) -> R + Send + Sync + 'static,
        R: Future<Output = Reply> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |asked| Box::pin(handler(asked)));
        OriginBuilder { handler: Some(handler), ..self }
    }

    /// Listens.
    pub async fn start(self) -> Origin {
        let http = TcpListener::bind((self.ip, self.ports.0)).await.unwrap();
        let tls = TcpListener::bind((self.ip, self.ports.1)).await.unwrap();
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let log = Arc::<Log>::default();
        let server = Arc::new(Server { log: log.clone(), handler: self.handler });
        let acceptor = acceptor(&self.ca, self.flaw, self.http1_only);
        let (http_port, tls_port) = (port(&http), port(&tls));
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(http, server.clone(), None));
        tasks.spawn(serve(tls, server, Some(acceptor)));
        Origin { ip: self.ip, http: http_port, tls: tls_port, log, _tasks: tasks }
    }
}

fn acceptor(ca: &Arc<TestCa>, flaw: Flaw, http1_only: bool) -> TlsAcceptor {
    let mut config = rustls::ServerConfig::builder_with_provider(super::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(ca.signer(flaw));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    if http1_only {
        config.alpn_protocols.remove(0);
    }
    TlsAcceptor::from(Arc::new(config))
}

#[derive(Default)]
struct Log {
    seen: Mutex<Vec<Seen>>,
    names: Mutex<Vec<Option<String>>>,
    wire: Mutex<Vec<u8>>,
    accepts: AtomicU64,
    bytes: AtomicU64,
    broken: Notify,
}

struct Server {
    log: Arc<Log>,
    handler: Option<Handler>,
}

async fn serve(listener: TcpListener, server: Arc<Server>, acceptor: Option<TlsAcceptor>) {
    while let Ok((stream, _)) = listener.accept().await {
        server.log.accepts.fetch_add(1, Ordering::SeqCst);
        let _ = stream.set_nodelay(true);
        let stream = Counted { stream, log: server.log.clone() };
        let (server, acceptor) = (server.clone(), acceptor.clone());
        tokio::spawn(async move {
            let log = server.log.clone();
            tokio::select! {
                () = serve_connection(stream, server, acceptor) => {}
                () = log.broken.notified() => {}
            }
        });
    }
}

async fn serve_connection(stream: Counted, server: Arc<Server>, acceptor: Option<TlsAcceptor>) {
    let Some(acceptor) = acceptor else {
        return serve_http(stream, server, "http", false).await;
    };
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let session = stream.get_ref().1;
    server.log.names.lock().unwrap().push(session.server_name().map(str::to_owned));
    let http2 = session.alpn_protocol() == Some(b"h2");
    serve_http(stream, server, "https", http2).await;
}

async fn serve_http<S>(stream: S, server: Arc<Server>, scheme: &'static str, http2: bool)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let server = server.clone();
        async move {
            let entry = Entry::open(&server.log, scheme, &request);
            let head = request.method() == http::Method::HEAD;
            let answer = match server.handler.clone() {
                None => script::respond(entry, request).await?,
                Some(handler) => handler(script::read_whole(entry, request).await?).await,
            };
            // The answer to HEAD has the headers of the body that a GET would get, and no body.
            Ok::<_, io::Error>(if head { answer.map(|_| script::full(Bytes::new())) } else { answer })
        }
    });
    let stream = TokioIo::new(stream);
    // What a connection ends with is the client's business here; the log holds what was seen.
    if http2 {
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = builder.serve_connection(stream, service).await;
    } else {
        let builder = hyper::server::conn::http1::Builder::new();
        let _ = builder.serve_connection(stream, service).with_upgrades().await;
    }
}

/// The place of one request in the log.
#[derive(Clone)]
pub(super) struct Entry {
    log: Arc<Log>,
    index: usize,
}

impl Entry {
    fn open(log: &Arc<Log>, scheme: &'static str, request: &http::Request<hyper::body::Incoming>) -> Entry {
        let seen = Seen {
            scheme,
            version: format!("{:?}", request.version()),
            method: request.method().to_string(),
            authority: authority(request),
            path: request.uri().path_and_query().map_or_else(String::new, ToString::to_string),
            headers: pairs(request.headers()),
            body: Tally::default(),
            trailers: Vec::new(),
            end: End::Reading,
        };
        let mut log_of_requests = log.seen.lock().unwrap();
        log_of_requests.push(seen);
        Entry { log: log.clone(), index: log_of_requests.len() - 1 }
    }

    pub(super) fn add(&self, piece: &[u8]) {
        self.log.seen.lock().unwrap()[self.index].body.add(piece);
    }

    pub(super) fn trailers(&self, trailers: &HeaderMap) {
        self.log.seen.lock().unwrap()[self.index].trailers = pairs(trailers);
    }

    pub(super) fn end(&self, end: End) {
        self.log.seen.lock().unwrap()[self.index].end = end;
    }
}

/// What the request names its host: in HTTP/2 by the target, in HTTP/1.1 by the header.
pub(super) fn authority<B>(request: &http::Request<B>) -> String {
    let host = || request.headers().get("host").map(|value| text(value.as_bytes()));
    request.uri().authority().map(ToString::to_string).or_else(host).unwrap_or_default()
}

fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| (name.to_string(), text(value.as_bytes()))).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A socket that counts what it receives, and keeps the beginning.
struct Counted {
    stream: TcpStream,
    log: Arc<Log>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        let read = &buffer.filled()[before..];
        self.log.bytes.fetch_add(read.len() as u64, Ordering::SeqCst);
        let mut wire = self.log.wire.lock().unwrap();
        if wire.len() < 1 << 20 {
            wire.extend_from_slice(read);
        }
        drop(wire);
        result
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
