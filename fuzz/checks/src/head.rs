//! The head of a request: what was judged is what a strict reader reads of the bytes that are sent.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Ready;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use outgate::config::{Config, Limits};
use outgate::exchange::outgoing;
use outgate::forward::client;
use outgate::head::{Head, strip_hop_by_hop};
use policy::path::RequestPath;
use policy::target::Target;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf};

use crate::sent::{self, Sent};

static LIMITS: LazyLock<Limits> = LazyLock::new(|| Config::default().limits);

thread_local! {
    static RUNTIME: tokio::runtime::Runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("threads need nothing for it");
}

/// Takes a byte that says where it arrives, and the bytes of a request.
pub fn check(input: &[u8]) {
    let [place, wire @ ..] = input else { return };
    let tunnel = ["", "a.test:443", "a.test:8443", "[::1]:443"][usize::from(place & 3)];
    let tunnel = Target::from_connect(tunnel.as_bytes()).ok();
    RUNTIME.with(|runtime| {
        let Some(Arrived { mut parts, body, declared }) = runtime.block_on(arrive(wire)) else { return };
        let Ok(head) = Head::read(&parts, tunnel.as_ref(), &LIMITS) else { return };
        strip_hop_by_hop(&mut parts.headers);
        let request = outgoing(&parts, &head, Upload { body: body.clone(), declared });
        let request = request.expect("a canonical path makes a URL");
        let sent = runtime.block_on(send(request));
        assert!(!sent.is_empty(), "what was judged cannot be sent: {head:?}");
        let sent = sent::read(&sent).unwrap_or_else(|why| panic!("{why}: {}", sent.escape_ascii()));
        same(&head, &parts, &sent, body.as_deref());
    });
}

/// A request as hyper delivered it.
struct Arrived {
    parts: Parts,
    /// `None` where there is none at all.
    body: Option<Vec<u8>>,
    declared: Option<u64>,
}

/// The first request in these bytes, where it is complete.
async fn arrive(wire: &[u8]) -> Option<Arrived> {
    let arrived = Rc::new(RefCell::new(None));
    let service = service_fn(|request: Request<Incoming>| {
        let arrived = Rc::clone(&arrived);
        async move {
            let (parts, body) = request.into_parts();
            let (none, declared) = (body.is_end_stream(), body.size_hint().exact());
            if let Ok(read) = body.collect().await {
                let body = (!none).then(|| read.to_bytes().to_vec());
                let first = arrived.borrow_mut().is_none();
                if first {
                    *arrived.borrow_mut() = Some(Arrived { parts, body, declared });
                }
            }
            Ok::<_, Infallible>(
                Response::builder()
                    .header("connection", "close")
                    .body(Empty::<Bytes>::new())
                    .expect("a response"),
            )
        }
    });
    let io = TokioIo::new(tokio::io::join(wire, tokio::io::sink()));
    let mut server = hyper::server::conn::http1::Builder::new();
    server.max_headers(LIMITS.headers + 1).max_buf_size(LIMITS.header_bytes + 16 * 1024);
    let _ = server.serve_connection(io, service).await;
    arrived.take()
}

/// What was judged against what is sent.
fn same(head: &Head, parts: &Parts, sent: &Sent, body: Option<&[u8]>) {
    assert_eq!(head.methods.first(), Some(&sent.method));
    assert_eq!(head.path.forwarded(), sent.target);
    assert_eq!(RequestPath::parse(sent.target.as_bytes()).as_ref(), Ok(&head.path));
    let host = sent.only("host").expect("a host");
    assert_eq!(Target::from_authority(head.target.scheme, host.as_bytes()).as_ref(), Ok(&head.target));
    assert_eq!(sent.body, body.unwrap_or_default(), "another body is sent");
    if let Some(declared) = head.declared {
        assert_eq!(declared, sent.body.len() as u64, "another length than the one judged");
    }
    for name in ["connection", "proxy-authorization", "proxy-connection", "keep-alive", "upgrade"] {
        assert_eq!(sent.only(name), None, "`{name}` belongs to the client's connection");
    }
    let credentials = parts.headers.get_all(AUTHORIZATION).iter().count();
    assert_eq!(sent.all("authorization").count(), credentials);
    let fields = parts
        .headers
        .iter()
        .filter(|(name, _)| **name != HOST)
        .map(|(name, value)| name.as_str().len() + value.len());
    // What is sent was read as Latin-1: a character is a byte.
    let length = |text: &str| text.chars().count();
    let written: usize = sent.fields.iter().map(|(name, value)| length(name) + length(value)).sum();
    assert!(written <= fields.sum::<usize>() + 300, "more is sent than came");
}

/// A body as the gateway's own tells of itself.
struct Upload {
    body: Option<Vec<u8>>,
    declared: Option<u64>,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = self.body.take().filter(|body| !body.is_empty());
        Poll::Ready(frame.map(|body| Ok(Frame::data(body.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.body, self.declared) {
            (None, _) => SizeHint::with_exact(0),
            (Some(_), Some(declared)) => SizeHint::with_exact(declared),
            (Some(_), None) => SizeHint::default(),
        }
    }
}

/// Sends a request with the client that the gateway sends with, and gives the bytes it wrote.
async fn send(request: Request<Upload>) -> Vec<u8> {
    let written = Arc::new(Mutex::new(Vec::new()));
    let answer = client::<_, Upload>(Upstream(Arc::clone(&written))).request(request).await;
    drop(answer);
    std::mem::take(&mut *written.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Connects to nothing but a place where bytes are kept.
#[derive(Clone)]
struct Upstream(Arc<Mutex<Vec<u8>>>);

impl tower_service::Service<Uri> for Upstream {
    type Response = TokioIo<Kept>;
    type Error = Infallible;
    type Future = Ready<Result<TokioIo<Kept>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let written = Arc::clone(&self.0);
        tokio::spawn(async move {
            loop {
                let mut bytes = Vec::new();
                if !matches!(far.read_buf(&mut bytes).await, Ok(1..)) {
                    return;
                }
                let complete = {
                    let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
                    written.extend_from_slice(&bytes);
                    sent::is_complete(&written)
                };
                if complete {
                    let _ = far.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await;
                }
            }
        });
        std::future::ready(Ok(TokioIo::new(Kept(near))))
    }
}

/// The near end of a connection.
struct Kept(DuplexStream);

impl Connection for Kept {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Kept {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Kept {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
