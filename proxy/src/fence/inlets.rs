//! What comes in by a fence's sockets: each belongs to the fence's session, and leads to where its kind says.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::HeaderValue;
use policy::record::OutcomeKind;
use policy::request::Kind;
use policy::target::{Host, Scheme, Target};
use policy::verdict::{Judgement, Reason};
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::MissedTickBehavior;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use super::names::Names;
use super::packets::{self, Transport};
use super::pass::Role;
use super::resolver;
use super::rows::{About, Rows, Turn};
use super::sys;
use crate::accept::{Place, find_place};
use crate::connection::{self, Scope, Tunnel};
use crate::exchange::{self, Subject};
use crate::gateway::Gateway;
use crate::identify::Client;
use crate::passthrough;
use crate::reply::Refusal;
use crate::slots::{Share, Slot};
use crate::tunnel;

pub(super) use super::resolver::tell_unfollowed;

/// How long to wait after the system refused to accept, so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The largest packet of the loopback device.
const PACKET: usize = 65_536;
/// Room for packets that wait to be told of, in bytes; the system gives less (`net.core.rmem_max`).
const WATCH_BUFFER: usize = 4 << 20;
/// How often it is asked whether packets were lost, while there are any.
const LOOK: Duration = Duration::from_secs(1);

/// A fence that stands.
pub(super) struct Fence {
    pub(super) gateway: Arc<Gateway>,
    /// By which everything that comes out of it is identified, again each time.
    pub(super) credentials: HeaderValue,
    /// Whom they named when the fence was handed over.
    pub(super) opener: Client,
    /// Its connections.
    pub(super) share: Share,
    pub(super) names: Mutex<Names>,
    pub(super) rows: tokio::sync::Mutex<Rows>,
    /// Its listeners are dropped.
    pub(super) ended: CancellationToken,
}

/// Serves one socket until the fence ends.
pub(super) async fn serve(fence: Arc<Fence>, (role, socket): (Role, OwnedFd)) {
    let served = match role {
        Role::Names => resolver::serve_packets(&fence, socket).await,
        Role::NamesStream => resolver::serve_streams(&fence, socket).await,
        Role::Packets => watch(&fence, socket).await,
        Role::Proxy | Role::Https | Role::Http | Role::Forward { .. } => accept(&fence, role, socket).await,
    };
    if let Err(error) = served {
        tracing::warn!(%error, ?role, "a socket of a fence is no longer served");
    }
}

/// A listener that was handed over.
pub(super) fn listener(socket: OwnedFd) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// The next connection; `None` once the fence has ended.
pub(super) async fn next(fence: &Fence, listener: &TcpListener) -> Option<TcpStream> {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = fence.ended.cancelled() => return None,
        };
        match accepted.and_then(|(stream, _)| stream.set_nodelay(true).map(|()| stream)) {
            Ok(stream) => return Some(stream),
            Err(error) => {
                tracing::warn!(%error, "cannot accept inside a fence");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept(fence: &Arc<Fence>, role: Role, socket: OwnedFd) -> io::Result<()> {
    let listener = listener(socket)?;
    while let Some(stream) = next(fence, &listener).await {
        // The socket says whose it is: a fence that says nothing must not take the places of others.
        match fence.share.claim() {
            Some(slot) => {
                fence.gateway.tasks.spawn(admit(Arc::clone(fence), role, stream, slot));
            }
            None => {
                drop(stream);
                fence.refuse_crowd().await;
            }
        }
    }
    Ok(())
}

async fn admit(fence: Arc<Fence>, role: Role, stream: TcpStream, slot: Slot) {
    let Some(place) = find_place(&fence.gateway).await else { return };
    place.is_known();
    let scope = fence.scope(place, slot.clone());
    match role {
        Role::Https => lead(fence, stream, scope, slot, 443).await,
        Role::Http => lead(fence, stream, scope, slot, 80).await,
        Role::Forward { to } => forward(fence, stream, scope, slot, to).await,
        _ => connection::serve(scope, Either::Left(stream)).await,
    }
}

/// Serves a connection of a program that knows nothing of the proxy: it leads to the name whose address it was
/// made to.
async fn lead(fence: Arc<Fence>, stream: TcpStream, scope: Scope, slot: Slot, port: u16) {
    let Ok(address) = stream.local_addr() else { return };
    let IpAddr::V4(address) = address.ip().to_canonical() else { return };
    let Some(host) = fence.names().follow(address) else {
        // Closed before it is told: a record that waits must not keep the client waiting.
        drop(stream);
        return fence.refuse_address(address, port).await;
    };
    let target = Target { scheme: Scheme::Https, host, port };
    let Some(tunnel) = fence.tunnel(&scope, slot, Kind::Connect, target).await else { return };
    tunnel::serve_stream(scope, tunnel, Either::Left(stream)).await;
}

/// Serves a connection to a service of the host.
async fn forward(fence: Arc<Fence>, stream: TcpStream, scope: Scope, slot: Slot, to: SocketAddr) {
    let started = Instant::now();
    let target = Target { scheme: Scheme::Tcp, host: Host::from_address(to.ip()), port: to.port() };
    let Some(tunnel) = fence.tunnel(&scope, slot, Kind::Tcp, target).await else { return };
    let client = tunnel.client.clone();
    let subject =
        Subject { kind: Kind::Tcp, ..Subject::connect(Some(tunnel.target.clone()), Some(client.clone())) };
    let (permit, entry) =
        match exchange::permit_unread(&scope, &subject, tunnel.credentials.as_ref(), Some(&stream), started)
            .await
        {
            Ok(permitted) => permitted,
            Err(stopped) => return stopped.close(),
        };
    match fence.gateway.dialer.forwarded(to).await {
        Ok(upstream) => {
            entry.progress().upstream(to, Some(crate::entry::milliseconds(started)));
            passthrough::copy_while_allowed(&scope, &client, &permit, Kind::Tcp, entry, stream, upstream)
                .await;
        }
        Err(error) => {
            let refusal = exchange::dial_refusal(&error, permit.target());
            exchange::Stopped::failed(entry, refusal, subject).close();
        }
    }
}

/// Tells of packets to names on ports that nobody serves. The kernel has refused them already.
async fn watch(fence: &Arc<Fence>, socket: OwnedFd) -> io::Result<()> {
    // Receiving is the same for every socket of datagrams, whatever its addresses.
    let socket = std::net::UdpSocket::from(socket);
    socket.set_nonblocking(true)?;
    let socket = UdpSocket::from_std(socket)?;
    // As much as the system gives: what comes while a row is written waits here.
    let _ = sockopt::set_socket_recv_buffer_size(&socket, WATCH_BUFFER);
    let mut buffer = vec![0; PACKET];
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look = true;
    loop {
        let received = tokio::select! {
            received = socket.recv(&mut buffer) => received,
            _ = looks.tick(), if look => {
                look = false;
                tell_dropped(fence, &socket).await;
                continue;
            }
            () = fence.ended.cancelled() => {
                tell_dropped(fence, &socket).await;
                return Ok(());
            }
        };
        // Where some are lost, others came.
        look = true;
        let Ok(length) = received else {
            // The device went down, or the like; it may come back.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        if let Some(attempt) = packets::read(&buffer[..length]).filter(|attempt| !attempt.is_served()) {
            fence.refuse_packet(attempt).await;
        }
    }
}

/// A flood hides what is in it: that packets came faster than they were read is on record at least.
async fn tell_dropped(fence: &Fence, socket: &UdpSocket) {
    if sys::dropped_packets(socket).is_ok_and(|dropped| dropped > 0) {
        let what = "packets to names came faster than they could be read";
        fence.tell_too_many(&mut *fence.rows.lock().await, Kind::Tcp, what).await;
    }
}

impl Fence {
    /// What a connection out of this fence shares.
    fn scope(&self, place: Place, slot: Slot) -> Scope {
        Scope {
            credentials: Some(self.credentials.clone()),
            agent: Arc::new(Mutex::new(Some((self.opener.agent.clone(), slot)))),
            ..Scope::new(Arc::clone(&self.gateway), place)
        }
    }

    /// Whose fence it is, as of now.
    pub(super) async fn identify(&self) -> Result<Client, Refusal> {
        self.gateway.identify_by(Some(&self.credentials)).await
    }

    /// The tunnel for a connection that leads somewhere by itself; `None` where that is refused, and recorded.
    async fn tunnel(&self, scope: &Scope, slot: Slot, kind: Kind, target: Target) -> Option<Tunnel> {
        let refusal = match self.identify().await {
            Ok(client) => {
                return Some(Tunnel { client, target, credentials: scope.credentials.clone(), slot });
            }
            Err(refusal) => refusal,
        };
        let subject = Subject { kind, ..Subject::connect(Some(target), Some(self.opener.clone())) };
        if let Some(entry) = exchange::record_refusal(scope, subject, &refusal, Instant::now()).await {
            entry.finish(OutcomeKind::Denied);
        }
        None
    }

    /// Records that a connection was closed as one too many.
    async fn refuse_crowd(&self) {
        self.gateway.metrics.connection_refused();
        let what = "this fence, or its agent, has too many connections open";
        let (subject, judgement) = self.overloaded(Kind::Connect, what);
        self.refuse(About::Crowd, &subject, &judgement).await;
    }

    async fn refuse_address(&self, address: Ipv4Addr, port: u16) {
        let host = Host::from_address(address.into());
        self.refuse_port(About::Address(address, port), host, port, None).await;
    }

    async fn refuse_packet(&self, attempt: packets::Attempt) {
        let host = self.names().follow(attempt.to);
        let host = host.unwrap_or_else(|| Host::from_address(attempt.to.into()));
        let method = (attempt.transport == Transport::Udp).then(|| "UDP".to_owned());
        self.refuse_port(About::Packet(attempt), host, attempt.port, method).await;
    }

    /// Records a port that nobody serves.
    async fn refuse_port(&self, about: About, host: Host, port: u16, method: Option<String>) {
        let policy = self.gateway.policy();
        let target = Target { scheme: Scheme::Tcp, host, port };
        let refusal = Refusal::plain(Reason::PortRefused, "nothing inside the fence leads to this port");
        let judgement = exchange::refused_unjudged(&policy, Some(&target), &refusal);
        let subject =
            Subject { kind: Kind::Tcp, method, ..Subject::connect(Some(target), Some(self.opener.clone())) };
        self.refuse(about, &subject, &judgement).await;
    }

    /// Records a refusal, unless there is one like it or there are too many; whether it is on record.
    pub(super) async fn refuse(&self, about: About, subject: &Subject, judgement: &Judgement) -> bool {
        // Held while it is written: whoever asks the same meanwhile must not be told that it is on record.
        let mut rows = self.rows.lock().await;
        match rows.turn(&about, Instant::now()) {
            Turn::Known => true,
            Turn::TooMany => {
                self.tell_too_many(&mut rows, subject.kind, "the fence causes too many records").await;
                false
            }
            Turn::Write => {
                let written = self.write(subject, judgement, OutcomeKind::Denied).await;
                if !written {
                    rows.failed(&about);
                }
                written
            }
        }
    }

    /// Records that not everything is on record, once a minute.
    pub(super) async fn tell_too_many(&self, rows: &mut Rows, kind: Kind, what: &str) {
        if rows.turn(&About::TooMany, Instant::now()) != Turn::Write {
            return;
        }
        let (subject, judgement) = self.overloaded(kind, what);
        if !self.write(&subject, &judgement, OutcomeKind::Denied).await {
            rows.failed(&About::TooMany);
        }
    }

    fn overloaded(&self, kind: Kind, what: &str) -> (Subject, Judgement) {
        let refusal = Refusal::plain(Reason::Overloaded, what);
        let judgement = exchange::refused_unjudged(&self.gateway.policy(), None, &refusal);
        (Subject { kind, ..Subject::connect(None, Some(self.opener.clone())) }, judgement)
    }

    /// Records something that is over with its decision.
    pub(super) async fn write(&self, subject: &Subject, judgement: &Judgement, outcome: OutcomeKind) -> bool {
        let policy = self.gateway.policy();
        match exchange::record(&self.gateway, &policy, subject, judgement, Instant::now()).await {
            Some(entry) => {
                entry.finish(outcome);
                true
            }
            None => false,
        }
    }
}
