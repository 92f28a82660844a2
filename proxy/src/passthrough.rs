//! Tunnels that are not decrypted: decided by host, opened by SNI, counted byte by byte.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::Response;
use hyper::upgrade::OnUpgrade;
use policy::record::OutcomeKind;
use policy::request::Kind;
use policy::target::Host;
use policy::verdict::{Permit, Reason};
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::accept::Stream;
use crate::body::{Meter, ReplyBody};
use crate::connection::{Scope, Tunnel};
use crate::entry::Entry;
use crate::exchange::{self, Stopped, Subject};
use crate::identify::Client;
use crate::presence::Presence;
use crate::reply::Audience;
use crate::rewind::Rewind;
use crate::tunnel::{UNRECOGNIZED_NAME, raw};

/// The longest ClientHello that is waited for, in bytes; larger ones are split over records by nobody honest.
const HELLO_LIMIT: usize = 64 * 1024;
/// A fatal `access_denied` alert (RFC 8446, section 6.2) in a TLS 1.2 record, which every version reads.
const ACCESS_DENIED: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x31];
/// Size of one relayed read.
const BUFFER: usize = 16 * 1024;

/// Answers a CONNECT to a passthrough destination: 200 only once its upstream is connected.
pub async fn open(
    scope: &Scope,
    tunnel: Tunnel,
    upgrade: OnUpgrade,
    audience: Audience,
    started: Instant,
) -> Response<ReplyBody> {
    let Opened { permit, entry, upstream } = match connect(scope, &tunnel, None, started).await {
        Ok(opened) => opened,
        Err(stopped) => return stopped.response(audience),
    };
    entry.progress().status(200);
    let scope = scope.clone();
    let tasks = scope.gateway.tasks.clone();
    tasks.spawn(async move {
        if let Some(stream) = raw(upgrade).await {
            relay(&scope, &tunnel, &permit, entry, stream, upstream).await;
        }
    });
    Response::new(ReplyBody::empty())
}

/// Serves a connection to a passthrough destination that nobody asked for by CONNECT: it can be refused by a TLS
/// alert only.
pub async fn serve(scope: &Scope, tunnel: &Tunnel, mut stream: Rewind<Stream>) {
    match connect(scope, tunnel, Some(&stream), Instant::now()).await {
        Ok(Opened { permit, entry, upstream }) => {
            relay(scope, tunnel, &permit, entry, stream, upstream).await;
        }
        Err(stopped) => {
            stopped.close();
            // What is left unread would turn the end of the connection into a reset, which takes the alert with it.
            let deadline = scope.gateway.config.limits.header_timeout;
            let _ = tokio::time::timeout(deadline, read_hello(&mut stream)).await;
            let _ = stream.write_all(&ACCESS_DENIED).await;
            let _ = stream.shutdown().await;
        }
    }
}

/// A tunnel whose other end is connected.
struct Opened {
    permit: Permit,
    entry: Entry,
    upstream: TcpStream,
}

async fn connect(
    scope: &Scope,
    tunnel: &Tunnel,
    socket: Option<&(dyn Presence + Sync)>,
    started: Instant,
) -> Result<Opened, Box<Stopped>> {
    let subject = Subject::connect(Some(tunnel.target.clone()), Some(tunnel.client.clone()));
    let (permit, entry) =
        exchange::permit_unread(scope, &subject, tunnel.credentials.as_ref(), socket, started).await?;
    let policy = scope.gateway.policy();
    match scope.gateway.dialer.tcp(permit.target(), policy.rules.addresses()).await {
        Ok(dialled) => {
            entry.progress().upstream(dialled.address, Some(crate::entry::milliseconds(started)));
            Ok(Opened { permit, entry, upstream: dialled.stream })
        }
        Err(error) => {
            let refusal = exchange::dial_refusal(&error, permit.target());
            Err(Box::new(Stopped::failed(entry, refusal, subject)))
        }
    }
}

async fn relay(
    scope: &Scope,
    tunnel: &Tunnel,
    permit: &Permit,
    entry: Entry,
    mut client: Rewind<Stream>,
    upstream: TcpStream,
) {
    let deadline = scope.gateway.config.limits.header_timeout;
    let hello = tokio::time::timeout(deadline, read_hello(&mut client)).await;
    let (hello, named) = match hello {
        Ok(Some(read)) => read,
        _ => {
            entry.progress().stop(Reason::ProtocolRefused, "the tunnel does not begin with a TLS hello");
            return entry.finish(OutcomeKind::Denied);
        }
    };
    if named.as_ref() != Some(&permit.target().host) {
        let _ = client.write_all(&UNRECOGNIZED_NAME).await;
        let _ = client.shutdown().await;
        entry.progress().stop(
            Reason::AuthorityMismatch,
            "the server name of its TLS hello is not the host of the CONNECT",
        );
        return entry.finish(OutcomeKind::Denied);
    }
    copy_while_allowed(
        scope,
        &tunnel.client,
        permit,
        Kind::Connect,
        entry,
        Rewind::new(hello, client),
        upstream,
    )
    .await;
}

/// Relays until either end is done, nothing moves, or the policy no longer allows it; and writes the outcome.
pub async fn copy_while_allowed(
    scope: &Scope,
    caller: &Client,
    permit: &Permit,
    kind: Kind,
    entry: Entry,
    client: impl AsyncRead + AsyncWrite + Unpin,
    upstream: TcpStream,
) {
    let meter = Meter::new(&scope.gateway, permit, &entry);
    let idle = scope.gateway.config.upstream.idle_timeout;
    let request = exchange::unread_request(caller, kind, permit.target());
    let progress = Arc::clone(entry.progress());
    let kind = tokio::select! {
        kind = copy_both(client, upstream, meter, idle) => kind,
        () = exchange::no_longer_allowed(scope, caller, request, permit) => {
            progress.stop(Reason::DeniedByRule, "the policy no longer allows it");
            OutcomeKind::Completed
        }
    };
    entry.finish(kind);
}

/// Reads up to the end of the ClientHello: the bytes, and the name it asks for.
pub async fn read_hello(client: &mut (impl AsyncRead + Unpin)) -> Option<(Bytes, Option<Host>)> {
    let mut seen = BytesMut::new();
    let mut acceptor = Acceptor::default();
    loop {
        let from = seen.len();
        if client.read_buf(&mut seen).await.ok()? == 0 || seen.len() > HELLO_LIMIT {
            return None;
        }
        let mut fresh = &seen[from..];
        while !fresh.is_empty() {
            acceptor.read_tls(&mut fresh).ok()?;
        }
        if let Some(accepted) = acceptor.accept().ok()? {
            let name =
                accepted.client_hello().server_name().and_then(|name| Host::parse(name.as_bytes()).ok());
            return Some((seen.freeze(), name));
        }
    }
}

/// Relays both ways until both ends are done, the limit is met, or nothing has moved for `idle`.
async fn copy_both(
    client: impl AsyncRead + AsyncWrite + Unpin,
    upstream: TcpStream,
    mut meter: Meter,
    idle: Duration,
) -> OutcomeKind {
    let progress = Arc::clone(meter.progress());
    let (mut client_read, mut client_write) = tokio::io::split(client);
    let (mut upstream_read, mut upstream_write) = upstream.into_split();
    let up = async {
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = client_read.read(&mut buffer).await?;
            if read == 0 {
                return upstream_write.shutdown().await;
            }
            if !meter.release(read as u64) {
                return Err(std::io::Error::other("upload limit"));
            }
            upstream_write.write_all(&buffer[..read]).await?;
        }
    };
    let down_progress = Arc::clone(&progress);
    let down = async move {
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = upstream_read.read(&mut buffer).await?;
            if read == 0 {
                return client_write.shutdown().await;
            }
            down_progress.received.fetch_add(read as u64, Ordering::Relaxed);
            client_write.write_all(&buffer[..read]).await?;
        }
    };
    let both = async { tokio::try_join!(up, down) };
    let finished = tokio::select! {
        finished = both => finished.is_ok(),
        () = nothing_moves(&progress, idle) => true,
    };
    if finished || progress.stopped().is_some() { OutcomeKind::Completed } else { OutcomeKind::Abandoned }
}

/// Returns when the counters have stood still for `idle`.
pub async fn nothing_moves(progress: &crate::entry::Progress, idle: Duration) {
    let moved = || progress.sent.load(Ordering::Relaxed) + progress.received.load(Ordering::Relaxed);
    loop {
        let before = moved();
        tokio::time::sleep(idle).await;
        if moved() == before {
            return;
        }
    }
}
