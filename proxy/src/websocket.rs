//! WebSockets: the handshake is a request like any other, then every frame of the client is counted and scanned.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::UPGRADE;
use http::{Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use policy::frame::{ClientFrames, FrameError, FrameEvent, server_close};
use policy::record::OutcomeKind;
use policy::scan::Scanner;
use policy::verdict::{Permit, Reason};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, WriteHalf};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::body::{Meter, ReplyBody, Upload};
use crate::connection::Scope;
use crate::entry::Entry;
use crate::exchange::{self, Failure, Subject, WebSocketRequest};
use crate::forward::Offer;
use crate::gateway::CurrentPolicy;
use crate::head::clean_response;
use crate::inspect;
use crate::passthrough::nothing_moves;

/// Size of one relayed read.
const BUFFER: usize = 16 * 1024;
/// How long a close frame may take.
const GOODBYE: Duration = Duration::from_secs(1);
/// Close codes (RFC 6455, section 7.4.1).
const GOING_AWAY: u16 = 1001;
const PROTOCOL_ERROR: u16 = 1002;
const POLICY_VIOLATION: u16 = 1008;

/// Sends the handshake; on 101 relays until either side ends.
pub async fn open(
    scope: &Scope,
    policy: &Arc<CurrentPolicy>,
    subject: Subject,
    entry: Entry,
    request: WebSocketRequest,
) -> Response<ReplyBody> {
    let WebSocketRequest { mut parts, head, permit, upgrade, audience, meter } = request;
    exchange::ask_for_websocket(&mut parts.headers);
    let outgoing = match exchange::outgoing(&parts, &head, Upload::empty()) {
        Ok(outgoing) => outgoing,
        Err(_) => return exchange::relay(scope, entry, Err(Failure::Broken), &permit, audience),
    };
    let response =
        exchange::forward(scope, policy, &permit, &entry, outgoing, head.bytes, Offer::Http1).await;
    let mut response = match response {
        Ok(response) if accepts(&response) => response,
        other => return exchange::relay(scope, entry, other, &permit, audience),
    };
    let progress = Arc::clone(entry.progress());
    progress.status(StatusCode::SWITCHING_PROTOCOLS.as_u16());
    let upstream = hyper::upgrade::on(&mut response);
    let (mut answer, _) = response.into_parts();
    clean_response(&mut answer.headers);
    exchange::ask_for_websocket(&mut answer.headers);
    let scanner = inspect::scanner(policy, &permit, policy::scan::Place::Websocket);
    let permit = Arc::new(permit);
    let seen = Seen { scanner, permit: Arc::clone(&permit) };
    let idle = scope.gateway.config.upstream.idle_timeout;
    let draining = scope.gateway.draining.clone();
    let scope = scope.clone();
    let tasks = scope.gateway.tasks.clone();
    tasks.spawn(async move {
        let (Ok(client), Ok(upstream)) = (upgrade.await, upstream.await) else { return };
        let relayed = relay(TokioIo::new(client), TokioIo::new(upstream), seen, meter, &draining);
        let withdrawn = async {
            match &subject.client {
                Some(client) => {
                    exchange::no_longer_allowed(&scope, client, head.request(client), &permit).await
                }
                None => std::future::pending().await,
            }
        };
        let kind = tokio::select! {
            kind = relayed => kind,
            () = nothing_moves(&progress, idle) => OutcomeKind::Completed,
            () = withdrawn => {
                progress.stop(Reason::DeniedByRule, "the policy no longer allows it");
                OutcomeKind::Completed
            }
        };
        entry.finish(kind);
    });
    Response::from_parts(answer, ReplyBody::empty())
}

/// Whether the destination switched to what was asked for, and to nothing else.
fn accepts(response: &Response<Incoming>) -> bool {
    response.status() == StatusCode::SWITCHING_PROTOCOLS
        && response
            .headers()
            .get(UPGRADE)
            .is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Why the client's direction ended.
enum End {
    /// A side closed.
    Closed,
    /// What the client sent is refused: a close frame with this code tells it.
    Refused(u16, &'static str),
}

async fn relay<C, U>(
    client: C,
    upstream: U,
    seen: Seen,
    meter: Meter,
    draining: &CancellationToken,
) -> OutcomeKind
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let progress = Arc::clone(meter.progress());
    let (client_read, client_write) = tokio::io::split(client);
    let (upstream_read, upstream_write) = tokio::io::split(upstream);
    let client_write = Mutex::new(client_write);
    let mut outbound = Outbound { frames: ClientFrames::default(), seen, meter };
    let up = outbound.run(client_read, upstream_write);
    let down = copy_down(upstream_read, &client_write, &progress);
    tokio::pin!(up, down);
    let end = tokio::select! {
        end = &mut up => {
            if matches!(end, End::Closed) {
                // The destination may still have its side of the closing handshake to say.
                let _ = tokio::time::timeout(GOODBYE, &mut down).await;
            }
            end
        }
        () = &mut down => End::Closed,
        () = draining.cancelled() => End::Refused(GOING_AWAY, "outgate: stopping"),
    };
    if let End::Refused(code, reason) = end {
        let goodbye = async {
            let mut client = client_write.lock().await;
            let _ = client.write_all(&server_close(code, reason)).await;
            let _ = client.shutdown().await;
        };
        // A client that does not read is not waited for.
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    }
    OutcomeKind::Completed
}

/// What looks into the client's direction, and what it was permitted to do.
struct Seen {
    scanner: Scanner,
    permit: Arc<Permit>,
}

/// The client's direction.
struct Outbound {
    frames: ClientFrames,
    seen: Seen,
    meter: Meter,
}

impl Outbound {
    async fn run<R, W>(&mut self, mut client: R, mut upstream: WriteHalf<W>) -> End
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite,
    {
        let mut buffer = BytesMut::with_capacity(BUFFER);
        loop {
            buffer.reserve(BUFFER);
            match client.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => {
                    let _ = upstream.shutdown().await;
                    return End::Closed;
                }
                Ok(_) => {}
            }
            let mut out = BytesMut::new();
            let checked = self.check(buffer.split().freeze(), &mut out);
            if upstream.write_all(&out).await.is_err() || upstream.flush().await.is_err() {
                return End::Closed;
            }
            if let Err(end) = checked {
                return end;
            }
        }
    }

    /// Collects in `out` what may go; what may not is the error.
    fn check(&mut self, input: Bytes, out: &mut BytesMut) -> Result<(), End> {
        if !self.meter.release(input.len() as u64) {
            return Err(End::Refused(POLICY_VIOLATION, "outgate: upload limit reached"));
        }
        let mut events = Vec::new();
        let framed = self.frames.push(input, &mut events);
        for event in events {
            let mut released = Vec::new();
            let scanned = match event {
                FrameEvent::Payload(payload) => self.seen.scanner.push(payload, &mut released),
                FrameEvent::MessageEnd => self.seen.scanner.flush(&mut released),
            };
            self.frames.release(&released, out);
            if scanned.is_err() {
                self.meter.progress().stop(Reason::SecretFound, "it sends a secret over a WebSocket");
                return Err(End::Refused(POLICY_VIOLATION, "outgate: secret found"));
            }
        }
        framed.map_err(|error| {
            self.meter.progress().stop(Reason::MalformedRequest, describe(error));
            End::Refused(PROTOCOL_ERROR, "outgate: not a valid frame")
        })
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        inspect::note_secrets(&self.seen.scanner, &self.seen.permit, self.meter.progress());
    }
}

fn describe(error: FrameError) -> &'static str {
    match error {
        FrameError::ReservedBits => "a WebSocket frame has a reserved bit set",
        FrameError::Opcode(_) => "a WebSocket frame has an unknown opcode",
        FrameError::Unmasked => "a WebSocket frame of the client is not masked",
        FrameError::Control => "a WebSocket control frame is too long or fragmented",
        FrameError::Length => "a WebSocket frame's length is not in its shortest form",
    }
}

/// The destination's direction: counted, not looked into.
async fn copy_down<R, W>(mut upstream: R, client: &Mutex<WriteHalf<W>>, progress: &crate::entry::Progress)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite,
{
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = match upstream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        progress.received.fetch_add(read as u64, Ordering::Relaxed);
        let mut client = client.lock().await;
        if client.write_all(&buffer[..read]).await.is_err() || client.flush().await.is_err() {
            return;
        }
    }
    let _ = client.lock().await.shutdown().await;
}
