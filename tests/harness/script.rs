//! What an origin answers by itself, by path.
//!
//! `/echo` the body · `/stream` the body while it arrives · `/headers` the request's headers · `/bytes/N` ·
//! `/status/N` · `/sse/COUNT/MILLISECONDS`, and anything behind it · `/grpc` messages and trailers · `/slow/MILLISECONDS` · `/redirect` to
//! `evil.test` · `/hang` · `/early` without reading the body · `/abort` mid-body · `/unsolicited-101` ·
//! `/alt-svc` · `/own-headers` · `/trailers`. Anything else is greeted, and any path can become a WebSocket.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;

use super::origin::{Asked, End, Entry, Payload, Reply, authority, reply};
use super::tally;
use super::websocket::{self, Opcode};

type Pieces = mpsc::Sender<io::Result<Frame<Bytes>>>;

/// Answers by path.
pub(super) async fn respond(entry: Entry, request: Request<Incoming>) -> io::Result<Reply> {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    if request.headers().get("upgrade").is_some_and(|protocol| protocol == "websocket") {
        return Ok(accept_websocket(entry, request));
    }
    let answer = match parts[..] {
        ["stream" | "grpc"] => return Ok(stream_back(entry, request)),
        ["early"] => return Ok(reply(200, "text/plain", "early")),
        ["echo"] => {
            let content_type = request.headers().get("content-type").cloned();
            let asked = read_whole(entry, request).await?;
            let mut answer = reply(200, "application/octet-stream", asked.body);
            content_type.map(|value| answer.headers_mut().insert("content-type", value));
            answer
        }
        _ => {
            let headers = request.headers().clone();
            read_through(entry, request.into_body()).await?;
            fixed(&parts, &headers).await
        }
    };
    Ok(answer)
}

/// Answers that do not depend on the body.
async fn fixed(parts: &[&str], headers: &HeaderMap) -> Reply {
    let plain = |body: &str| reply(200, "text/plain", body.to_owned());
    let with = |mut answer: Reply, name: &'static str, value: &'static str| {
        answer.headers_mut().insert(name, value.parse().unwrap());
        answer
    };
    match *parts {
        ["headers"] => {
            plain(&headers.iter().map(|(name, value)| format!("{name}: {value:?}\n")).collect::<String>())
        }
        ["bytes", n] => bytes(n.parse().unwrap()),
        ["status", n] => reply(n.parse().unwrap(), "text/plain", "as asked"),
        ["sse", count, pause, ..] => {
            events(count.parse().unwrap(), Duration::from_millis(pause.parse().unwrap()))
        }
        ["slow", pause] => {
            tokio::time::sleep(Duration::from_millis(pause.parse().unwrap())).await;
            plain("at last")
        }
        ["hang"] => std::future::pending().await,
        ["redirect"] => with(reply(302, "text/plain", ""), "location", "http://evil.test/"),
        ["alt-svc"] => with(plain("hello"), "alt-svc", "h3=\":443\"; ma=86400"),
        ["own-headers"] => with(plain("hello"), "x-outgate-decision", "allow"),
        ["unsolicited-101"] => {
            Response::builder().status(101).header("upgrade", "other").body(empty()).unwrap()
        }
        ["abort"] => abort(),
        ["trailers"] => trailers(),
        _ => plain("hello"),
    }
}

/// A body held in memory.
pub(super) fn full(bytes: Bytes) -> Payload {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// Reads the whole request, for a handler.
pub(super) async fn read_whole(entry: Entry, request: Request<Incoming>) -> io::Result<Asked> {
    let authority = authority(&request);
    let (head, body) = request.into_parts();
    let mut whole = Vec::new();
    let mut body = Reading::new(entry, body);
    while let Some(piece) = body.next().await? {
        whole.extend_from_slice(&piece);
    }
    Ok(Asked {
        method: head.method.to_string(),
        authority,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body: whole.into(),
    })
}

async fn read_through(entry: Entry, body: Incoming) -> io::Result<()> {
    let mut body = Reading::new(entry, body);
    while body.next().await?.is_some() {}
    Ok(())
}

/// A body being read into the log. Dropped before its end, it was broken off: so hyper drops what a client leaves.
struct Reading {
    entry: Entry,
    body: Incoming,
    end: End,
}

impl Reading {
    fn new(entry: Entry, body: Incoming) -> Reading {
        Reading { entry, body, end: End::Aborted }
    }

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while let Some(frame) = self.body.frame().await {
            match frame.map_err(io::Error::other)?.into_data() {
                Ok(piece) => {
                    self.entry.add(&piece);
                    return Ok(Some(piece));
                }
                Err(frame) => {
                    let _ = frame.into_trailers().map(|trailers| self.entry.trailers(&trailers));
                }
            }
        }
        self.end = End::Complete;
        Ok(None)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.entry.end(self.end);
    }
}

/// A body fed through a channel by `feed`; small, so that nothing is far ahead of its reader.
fn fed<F>(feed: impl FnOnce(Pieces) -> F) -> Payload
where
    F: Future<Output = ()> + Send + 'static,
{
    let (pieces, receiver) = mpsc::channel(4);
    tokio::spawn(feed(pieces));
    let frames = stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|frame| (frame, receiver))
    });
    BodyExt::boxed_unsync(StreamBody::new(frames))
}

fn empty() -> Payload {
    full(Bytes::new())
}

fn bytes(length: u64) -> Reply {
    let body = fed(move |pieces| async move {
        for piece in tally::stream(length) {
            if pieces.send(Ok(Frame::data(piece))).await.is_err() {
                return;
            }
        }
    });
    Response::builder()
        .header("content-type", "application/octet-stream")
        .header("content-length", length)
        .body(body)
        .unwrap()
}

fn events(count: u32, pause: Duration) -> Reply {
    let body = fed(move |pieces| async move {
        for number in 0..count {
            let event = format!("id: {number}\ndata: event {number}\n\n");
            if pieces.send(Ok(Frame::data(event.into()))).await.is_err() {
                return;
            }
            tokio::time::sleep(pause).await;
        }
    });
    Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
}

/// Sends every piece back as it arrives; a gRPC call ends with its status in the trailers.
fn stream_back(entry: Entry, request: Request<Incoming>) -> Reply {
    let content_type = request.headers().get("content-type").cloned();
    let body = fed(move |pieces| async move {
        let mut body = Reading::new(entry, request.into_body());
        let end = loop {
            match body.next().await {
                Ok(Some(piece)) => drop(pieces.send(Ok(Frame::data(piece))).await),
                Ok(None) => {
                    break Ok(Frame::trailers([("grpc-status", "0")].map(header).into_iter().collect()));
                }
                Err(broken) => break Err(broken),
            }
        };
        let _ = pieces.send(end).await;
    });
    let mut answer = Response::new(body);
    content_type.map(|value| answer.headers_mut().insert("content-type", value));
    answer
}

fn trailers() -> Reply {
    let body = fed(|pieces| async move {
        let _ = pieces.send(Ok(Frame::data("hello".into()))).await;
        let trailers = [("x-checksum", "abc")].map(header).into_iter().collect();
        let _ = pieces.send(Ok(Frame::trailers(trailers))).await;
    });
    Response::builder().header("trailer", "x-checksum").body(body).unwrap()
}

fn abort() -> Reply {
    let body = fed(|pieces| async move {
        let _ = pieces.send(Ok(Frame::data("half".into()))).await;
        // Once the first half is on its way, so that the client has seen a head and a beginning.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let _ = pieces.send(Err(io::Error::other("the origin gives up"))).await;
    });
    Response::builder().header("content-length", 8).body(body).unwrap()
}

fn header((name, value): (&'static str, &'static str)) -> (http::HeaderName, http::HeaderValue) {
    (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
}

/// Becomes a WebSocket that sends every message back; `code:N` asks for a close with that code.
fn accept_websocket(entry: Entry, mut request: Request<Incoming>) -> Reply {
    let Some(key) = request.headers().get("sec-websocket-key").cloned() else {
        return reply(426, "text/plain", "only WebSockets here");
    };
    let protocol = request.headers().get("sec-websocket-protocol").cloned();
    tokio::spawn(async move {
        if let Ok(upgraded) = hyper::upgrade::on(&mut request).await {
            let end = echo_frames(&entry, TokioIo::new(upgraded)).await;
            entry.end(if end.is_ok() { End::Complete } else { End::Aborted });
        }
    });
    let mut answer = Response::builder()
        .status(101)
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-accept", websocket::accept(key.to_str().unwrap()));
    if let Some(protocol) = protocol {
        answer = answer.header("sec-websocket-protocol", protocol);
    }
    answer.body(empty()).unwrap()
}

async fn echo_frames(entry: &Entry, mut io: TokioIo<hyper::upgrade::Upgraded>) -> io::Result<()> {
    loop {
        let mut frame = websocket::Frame::read(&mut io).await?;
        match frame.opcode {
            Opcode::Close => return frame.write(&mut io, false).await,
            Opcode::Ping => frame.opcode = Opcode::Pong,
            Opcode::Pong => continue,
            _ => entry.add(&frame.payload),
        }
        let code = str::from_utf8(&frame.payload).ok().and_then(|text| text.strip_prefix("code:"));
        if let Some(code) = code.and_then(|code| code.parse().ok()) {
            return websocket::Frame::close(code).write(&mut io, false).await;
        }
        frame.write(&mut io, false).await?;
    }
}
