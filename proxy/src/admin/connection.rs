//! The admin listener's connections: HTTP/1.1 alone, few of them, none for long without a request.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;

use super::guard::Arrived;
use super::{Admin, feed, router};
use crate::accept::Place;
use crate::strangers::Strangers;

/// Connections at once; operators, a scraper and commands.
const CONNECTIONS: usize = 256;
/// Header fields of one request.
const HEADERS: usize = 64;
/// Bytes of one request head; the HTTP library takes no less.
const HEADER_BYTES: usize = 16 * 1024;
/// How long to wait after the system refused to accept, so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long answers under way may take once the gateway stops.
const DRAIN: Duration = Duration::from_secs(5);

/// Where connections come from.
pub trait Arrivals: Send + Sync + 'static {
    /// The next one.
    fn next(&self) -> impl Future<Output = io::Result<Either<TcpStream, UnixStream>>> + Send;
}

impl Arrivals for TcpListener {
    async fn next(&self) -> io::Result<Either<TcpStream, UnixStream>> {
        self.accept().await.map(|(stream, _)| Either::Left(stream))
    }
}

/// Serves until `stopping` is cancelled, then lets answers under way end.
pub async fn run(admin: Arc<Admin>, arrivals: impl Arrivals, stopping: CancellationToken) {
    run_with(CONNECTIONS, admin, arrivals, stopping).await;
}

/// As [`run`], with at most so many connections.
pub(super) async fn run_with(
    connections: usize,
    admin: Arc<Admin>,
    arrivals: impl Arrivals,
    stopping: CancellationToken,
) {
    let router = router(&admin);
    let (places, strangers) = (Arc::new(Semaphore::new(connections)), Strangers::default());
    let tasks = TaskTracker::new();
    tasks.spawn(feed::run(Arc::clone(&admin), stopping.clone()));
    loop {
        let accepted = tokio::select! {
            accepted = arrivals.next() => accepted,
            () = stopping.cancelled() => break,
        };
        match accepted {
            Ok(stream) => {
                // Where all are taken the oldest that has shown no token makes room, so that nobody can keep the
                // operator out by opening connections.
                let place = match Place::free(&places, &strangers) {
                    Some(place) => Some(place),
                    None => Place::made(&places, &strangers).await,
                };
                let Some(place) = place else { continue };
                tasks.spawn(serve(router.clone(), stream, admin.header_timeout, place, stopping.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "the admin listener cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    tasks.close();
    // Past the deadline connections are simply cut; there is nobody left to tell.
    let _ = tokio::time::timeout(DRAIN, tasks.wait()).await;
}

async fn serve(
    router: Router,
    stream: Either<TcpStream, UnixStream>,
    header_timeout: Duration,
    place: Place,
    stopping: CancellationToken,
) {
    let arrived = match &stream {
        Either::Left(tcp) => Arrived { peer: tcp.peer_addr().ok(), local: tcp.local_addr().ok() },
        Either::Right(_) => Arrived { peer: None, local: None },
    };
    // A TCP socket that does not say where it is from has gone; `None` would make it pass for a Unix socket.
    if matches!(stream, Either::Left(_)) && (arrived.peer.is_none() || arrived.local.is_none()) {
        return;
    }
    let sent_away = place.sent_away();
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(arrived);
        request.extensions_mut().insert(place.clone());
        let mut router = router.clone();
        async move { router.call(request.map(Body::new)).await.map_err(|never: Infallible| never) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_headers(HEADERS)
        .max_header_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = sent_away.cancelled() => return,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an admin connection ended early");
    }
}
