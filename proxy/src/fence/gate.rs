//! The gateway's side of a fence: takes the sockets that were made inside and serves them for as long as it stands.
//!
//! `DATA_DIR/gateway.sock` takes one connection a fence. What comes over a fence's sockets belongs to its session;
//! when the connection closes the sockets are dropped, and connections under way end as any other.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderValue;
use policy::identity::SessionId;
use rustix::net::{AddressFamily, SocketType, sockopt};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::sync::OwnedSemaphorePermit;

use super::inlets::{self, Fence};
use super::names::Names;
use super::pass::{self, HandOver, Role, Taken};
use super::rows::Rows;
use crate::accept::{self, Listener};
use crate::gateway::Gateway;

/// The control socket, in the data folder.
const SOCKET: &str = "gateway.sock";
/// The longest path that the address of a Unix socket has room for.
const PATH_LIMIT: usize = 107;
/// How long a fence may take to say what it brings.
const HAND_OVER: Duration = Duration::from_secs(5);
/// How long to wait after the system refused to accept, so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where fences come to.
pub struct Gate {
    listener: Listener,
}

impl Gate {
    /// Makes the control socket of a data folder, in place of one that a dead gateway left.
    ///
    /// # Errors
    /// A socket that cannot be made; the message names it.
    pub fn open(data_dir: &Path) -> anyhow::Result<Gate> {
        let path = data_dir.join(SOCKET);
        let bound = reachable(data_dir).and_then(|(address, _folder)| accept::bind_unix(&address));
        match bound {
            Ok(listener) => Ok(Gate { listener: Listener::Unix(listener, path) }),
            Err(error) => Err(anyhow::anyhow!("cannot listen on `{}`: {error}", path.display())),
        }
    }
}

/// Connects to the gateway of a data folder, to hand a fence's sockets to it.
///
/// # Errors
/// Where no gateway listens there.
pub fn connect(data_dir: &Path) -> io::Result<StdUnixStream> {
    let (address, _folder) = reachable(data_dir)?;
    StdUnixStream::connect(address)
}

/// The control socket by a path that fits an address. A long one is led to through the folder, held open meanwhile.
fn reachable(data_dir: &Path) -> io::Result<(PathBuf, Option<File>)> {
    let path = data_dir.join(SOCKET);
    if path.as_os_str().len() <= PATH_LIMIT {
        return Ok((path, None));
    }
    let folder = File::open(data_dir)?;
    let address = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()));
    Ok((address, Some(folder)))
}

/// Takes fences until the gateway stops.
pub async fn run(gateway: Arc<Gateway>, gate: Gate) {
    let Listener::Unix(listener, _) = &gate.listener else { return };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = gateway.stopping.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => admit(&gateway, stream),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a fence");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn admit(gateway: &Arc<Gateway>, stream: UnixStream) {
    let own = rustix::process::geteuid().as_raw();
    if stream.peer_cred().map(|peer| peer.uid()).ok() != Some(own) {
        return tracing::warn!("another user came to the control socket and was sent away");
    }
    let Ok(place) = Arc::clone(&gateway.fences).try_acquire_owned() else {
        return tracing::warn!("there are too many fences; one more was sent away");
    };
    gateway.tasks.spawn(serve(Arc::clone(gateway), stream, place));
}

/// One fence, from what it brings to its end.
async fn serve(gateway: Arc<Gateway>, stream: UnixStream, place: OwnedSemaphorePermit) {
    let received = tokio::select! {
        received = receive(stream) => received,
        () = gateway.stopping.cancelled() => return,
    };
    let (stream, taken) = match received {
        Ok(Some((stream, brought, descriptors))) => (stream, take(&gateway, brought, descriptors).await),
        Ok(None) => return,
        Err(error) => return tracing::warn!(%error, "a fence's sockets could not be taken"),
    };
    let answer = match &taken {
        Ok(_) => Taken::Serving,
        Err(why) => Taken::Refused(why.clone()),
    };
    match taken {
        Ok((fence, inlets)) => {
            for inlet in inlets {
                gateway.tasks.spawn(inlets::serve(Arc::clone(&fence), inlet));
            }
            gateway.tasks.spawn(inlets::tell_unfollowed(Arc::clone(&fence)));
            let _ends = fence.ended.clone().drop_guard();
            match reply(stream, answer).await {
                Ok(stream) => gone(&gateway, stream).await,
                Err(error) => tracing::warn!(%error, "a fence did not hear that it is served"),
            }
        }
        Err(why) => {
            tracing::warn!("a fence was refused: {why}");
            let _ = reply(stream, answer).await;
        }
    }
    drop(place);
}

/// Receives what a fence brings, aside from the connections, for as long as that may take.
async fn receive(stream: UnixStream) -> io::Result<Option<(StdUnixStream, HandOver, Vec<OwnedFd>)>> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(HAND_OVER))?;
    stream.set_write_timeout(Some(HAND_OVER))?;
    let receiving = tokio::task::spawn_blocking(move || {
        let received = pass::receive::<HandOver>(&stream)?;
        Ok(received.map(|(brought, descriptors)| (stream, brought, descriptors)))
    });
    // Somebody who sends byte by byte would never meet the limit of one read.
    match tokio::time::timeout(HAND_OVER, receiving).await {
        Ok(received) => received.map_err(io::Error::other)?,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn reply(stream: StdUnixStream, answer: Taken) -> io::Result<StdUnixStream> {
    let replying = tokio::task::spawn_blocking(move || pass::send(&stream, &answer, &[]).map(|()| stream));
    replying.await.map_err(io::Error::other)?
}

/// Returns when the fence is gone, or the gateway stops. A fence has nothing to say after its first message.
async fn gone(gateway: &Gateway, stream: StdUnixStream) {
    let watched = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream));
    let Ok(mut stream) = watched else { return };
    tokio::select! {
        _ = stream.read_u8() => {}
        () = gateway.stopping.cancelled() => {}
    }
}

type Inlet = (Role, OwnedFd);

/// Checks what a fence brings. The error is for whoever started it.
async fn take(
    gateway: &Arc<Gateway>,
    brought: HandOver,
    descriptors: Vec<OwnedFd>,
) -> Result<(Arc<Fence>, Vec<Inlet>), String> {
    let HandOver { session, token, sockets } = brought;
    let (credentials, client) = identify(gateway, session, &token).await?;
    if sockets.len() != descriptors.len() {
        return Err(format!("it names {} sockets and brings {}", sockets.len(), descriptors.len()));
    }
    let inlets: Vec<Inlet> = sockets.into_iter().zip(descriptors).collect();
    for (role, descriptor) in &inlets {
        check(gateway, *role, descriptor)?;
    }
    let fence = Fence {
        share: gateway.slots.half(&client.agent),
        gateway: Arc::clone(gateway),
        credentials,
        opener: client,
        names: Mutex::new(Names::default()),
        rows: tokio::sync::Mutex::new(Rows::new(Instant::now())),
        ended: gateway.stopping.child_token(),
    };
    Ok((Arc::new(fence), inlets))
}

/// Whose fence it is: the session must be the token's own.
async fn identify(
    gateway: &Gateway,
    session: SessionId,
    token: &str,
) -> Result<(HeaderValue, crate::identify::Client), String> {
    let unknown = || "the session's token is not known".to_owned();
    let mut credentials = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| unknown())?;
    credentials.set_sensitive(true);
    let client = gateway.identify_by(Some(&credentials)).await.map_err(|refusal| refusal.what)?;
    if client.session == Some(session) { Ok((credentials, client)) } else { Err(unknown()) }
}

/// Whether a socket is what it is said to be, and may be served.
fn check(gateway: &Gateway, role: Role, descriptor: &OwnedFd) -> Result<(), String> {
    let wanted = match role {
        // A service that programs know by its IPv6 address is forwarded from there.
        Role::Forward { to: SocketAddr::V6(_) } => (AddressFamily::INET6, SocketType::STREAM, true),
        Role::Proxy | Role::Https | Role::Http | Role::NamesStream | Role::Forward { .. } => {
            (AddressFamily::INET, SocketType::STREAM, true)
        }
        Role::Names => (AddressFamily::INET, SocketType::DGRAM, false),
        Role::Packets => (AddressFamily::PACKET, SocketType::DGRAM, false),
    };
    let found = sockopt::socket_domain(descriptor).and_then(|family| {
        let kind = sockopt::socket_type(descriptor)?;
        Ok((family, kind, kind == SocketType::STREAM && sockopt::socket_acceptconn(descriptor)?))
    });
    if found != Ok(wanted) {
        return Err(format!("a socket is not what it is said to be: {role:?}"));
    }
    match role {
        Role::Forward { to } => may_forward(gateway, to),
        _ => Ok(()),
    }
}

fn may_forward(gateway: &Gateway, to: SocketAddr) -> Result<(), String> {
    if !gateway.config.fence.forward.contains(&to) {
        return Err(format!("`fence.forward` of the running gateway does not name `{to}`"));
    }
    if gateway.dialer.is_own(to) {
        return Err(format!("`fence.forward` names `{to}`, which is the gateway itself"));
    }
    Ok(())
}

impl Fence {
    /// The names that were asked for inside.
    pub(super) fn names(&self) -> std::sync::MutexGuard<'_, Names> {
        // The table is whole after any panic.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_may_lie_deeper_than_an_address_reaches() {
        let folder = tempfile::tempdir().unwrap();
        for depth in [0, 3] {
            let data_dir = (0..depth).fold(folder.path().to_owned(), |path, _| path.join("a".repeat(60)));
            std::fs::create_dir_all(&data_dir).unwrap();
            let gate = Gate::open(&data_dir).unwrap();
            connect(&data_dir).unwrap();
            assert!(Gate::open(&data_dir).is_err(), "another one listens there");
            assert!(data_dir.join(SOCKET).exists());
            drop(gate);
            assert!(!data_dir.join(SOCKET).exists());
            assert!(connect(&data_dir).is_err());
        }
    }
}
