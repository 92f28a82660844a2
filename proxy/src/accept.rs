//! Listeners: TCP and Unix sockets, limits on what is open, one task a connection.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use crate::config::ListenAddress;
use crate::connection::{self, Scope};
use crate::gateway::Gateway;
use crate::strangers::{Stranger, Strangers};

/// A client's socket.
pub type Stream = Either<TcpStream, UnixStream>;

/// How long to wait after the system refused to accept (no descriptors left), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long whoever is sent away may take to be gone.
const ROOM_WAIT: Duration = Duration::from_secs(1);
/// What a client is told when every place is taken. Not recorded row by row: a flood would become a flood of rows;
/// `outgate_decisions_total{reason="overloaded"}` counts it.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nx-outgate-reason: overloaded\r\nretry-after: 1\r\n\
    cache-control: no-store\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// A socket that takes connections.
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket, removed when the listener goes.
    Unix(UnixListener, PathBuf),
}

/// What helps where another program has the address.
fn way_out(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; --listen 127.0.0.1:0 takes a port that is free, and --admin 127.0.0.1:0 one for the console"
        }
        _ => "",
    }
}

impl Listener {
    /// Binds `address`.
    ///
    /// # Errors
    /// Where the address is taken or may not be bound; the message names it.
    pub async fn bind(address: &ListenAddress) -> anyhow::Result<Listener> {
        match address {
            ListenAddress::Tcp(address) => TcpListener::bind(address)
                .await
                .map(Listener::Tcp)
                .map_err(|error| anyhow::anyhow!("cannot listen on `{address}`: {error}{}", way_out(&error))),
            ListenAddress::Unix(path) => bind_unix(path)
                .map(|listener| Listener::Unix(listener, path.clone()))
                .map_err(|error| anyhow::anyhow!("cannot listen on `unix:{}`: {error}", path.display())),
        }
    }

    /// The address bound, `None` for a Unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(..) => None,
        }
    }

    /// The next connection.
    pub async fn accept(&self) -> io::Result<Stream> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Either::Left(stream))
            }
            Listener::Unix(listener, _) => Ok(Either::Right(listener.accept().await?.0)),
        }
    }
}

impl crate::admin::Arrivals for Listener {
    async fn next(&self) -> io::Result<Stream> {
        self.accept().await
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Binds a socket that only its owner may connect to. A file left over by a dead process is replaced.
pub(crate) fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_err() && path.exists() {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Takes connections until the gateway stops.
pub async fn run(gateway: Arc<Gateway>, listener: Listener) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = gateway.stopping.cancelled() => return,
        };
        match accepted {
            Ok(stream) => {
                gateway.tasks.spawn(admit(Arc::clone(&gateway), stream));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn admit(gateway: Arc<Gateway>, stream: Stream) {
    match find_place(&gateway).await {
        Some(place) => connection::serve(Scope::new(gateway, place), stream).await,
        None => turn_away(stream).await,
    }
}

/// A place for one more connection. Where there is none, the oldest stranger makes room; `None` where there is no
/// stranger either, or it does not go.
pub(crate) async fn find_place(gateway: &Gateway) -> Option<Place> {
    match Place::free(&gateway.places, &gateway.strangers) {
        Some(place) => Some(place),
        None => {
            gateway.metrics.connection_refused();
            Place::made(&gateway.places, &gateway.strangers).await
        }
    }
}

async fn turn_away(mut stream: Stream) {
    let _ = tokio::time::timeout(Duration::from_secs(1), stream.write_all(FULL)).await;
}

/// A connection's place among those that may be open; free again when the last part of the connection is gone.
#[derive(Clone)]
pub struct Place(Arc<Held>);

struct Held {
    _permit: OwnedSemaphorePermit,
    stranger: Stranger,
}

impl Place {
    /// The place that a permit stands for.
    pub fn new(permit: OwnedSemaphorePermit, strangers: &Strangers) -> Place {
        Place(Arc::new(Held { _permit: permit, stranger: strangers.welcome() }))
    }

    /// One that nobody has.
    pub fn free(places: &Arc<Semaphore>, strangers: &Strangers) -> Option<Place> {
        let permit = Arc::clone(places).try_acquire_owned().ok()?;
        Some(Place::new(permit, strangers))
    }

    /// One that the oldest stranger leaves; `None` where there is no stranger, or it does not go.
    pub async fn made(places: &Arc<Semaphore>, strangers: &Strangers) -> Option<Place> {
        if !strangers.send_away_oldest() {
            return None;
        }
        let room = tokio::time::timeout(ROOM_WAIT, Arc::clone(places).acquire_owned()).await;
        room.ok().and_then(Result::ok).map(|permit| Place::new(permit, strangers))
    }

    /// The connection has said whose it is.
    pub fn is_known(&self) {
        self.0.stranger.is_known();
    }

    /// Cancelled when the connection has to make room for another.
    pub fn sent_away(&self) -> CancellationToken {
        self.0.stranger.sent_away()
    }
}
