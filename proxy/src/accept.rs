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

use crate::config::ListenAddress;
use crate::connection;
use crate::gateway::Gateway;

/// A client's socket.
pub type Stream = Either<TcpStream, UnixStream>;

/// How long to wait after the system refused to accept (no descriptors left), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
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
                .map_err(|error| anyhow::anyhow!("cannot listen on `{address}`: {error}")),
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
    let places = Arc::clone(&gateway.places);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = gateway.stopping.cancelled() => return,
        };
        match accepted {
            Ok(stream) => admit(&gateway, &places, stream),
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn admit(gateway: &Arc<Gateway>, places: &Arc<Semaphore>, stream: Stream) {
    match Arc::clone(places).try_acquire_owned() {
        Ok(place) => {
            gateway.tasks.spawn(connection::serve(Arc::clone(gateway), stream, Place::new(place)));
        }
        Err(_) => {
            gateway.metrics.connection_refused();
            gateway.tasks.spawn(turn_away(stream));
        }
    }
}

async fn turn_away(mut stream: Stream) {
    let _ = tokio::time::timeout(Duration::from_secs(1), stream.write_all(FULL)).await;
}

/// A connection's place among those that may be open; free again when the last part of the connection is gone.
#[derive(Clone)]
pub struct Place(#[expect(dead_code, reason = "held for its drop")] Arc<OwnedSemaphorePermit>);

impl Place {
    /// The place that a permit stands for.
    pub fn new(permit: OwnedSemaphorePermit) -> Place {
        Place(Arc::new(permit))
    }
}
