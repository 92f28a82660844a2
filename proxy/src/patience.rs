//! How long a client may take over a request head, and how long it may say nothing between two requests.
//!
//! hyper has one timer for both. A head that dribbles in has to be short-lived, an idle connection not, so the
//! difference is made here, where bytes arrive: from the first byte of a head to its end counts `head`, everything
//! else is hyper's own timer. Nor has it one for a client that does not read: what is written here has to move on
//! within `write`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::presence::Presence;

/// Whether a request is being served on a connection; shared between its stream and its handler.
///
/// Counts up at the begin and at the end of each request, so that it is odd while one is served.
#[derive(Clone, Default)]
pub struct Serving(Arc<Turns>);

#[derive(Default)]
struct Turns {
    served: AtomicU64,
    /// Requests that wait for a person, and are not read on.
    held: AtomicU64,
}

impl Serving {
    /// From here until the guard is dropped a request is served.
    pub fn begin(&self) -> ServingGuard {
        self.0.served.fetch_add(1, Ordering::Relaxed);
        ServingGuard(Some(self.clone()))
    }

    /// From here until the guard is dropped nothing is read, and the client has to show otherwise that it is there.
    pub fn hold(&self) -> HeldGuard {
        self.0.held.fetch_add(1, Ordering::Relaxed);
        HeldGuard(self.clone())
    }
}

/// A request is served for as long as this lives.
pub struct ServingGuard(Option<Serving>);

impl ServingGuard {
    /// The connection has become something else, in which there are no more heads.
    pub fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for ServingGuard {
    fn drop(&mut self) {
        if let Some(Serving(turns)) = &self.0 {
            turns.served.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A request is held for as long as this lives.
pub struct HeldGuard(Serving);

impl Drop for HeldGuard {
    fn drop(&mut self) {
        self.0.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream whose reads fail when a head takes too long, and whose writes fail when nobody reads them, or when the
/// client has gone whose request is held.
pub struct Patience<S> {
    inner: S,
    serving: Serving,
    /// The turn of `serving` at the last read.
    turn: u64,
    head: Duration,
    /// Runs while a head is coming in.
    deadline: Option<Pin<Box<Sleep>>>,
    write: Duration,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Patience<S> {
    /// The first head is awaited from now on.
    pub fn new(inner: S, serving: Serving, head: Duration, write: Duration) -> Patience<S> {
        let deadline = Some(Box::pin(tokio::time::sleep(head)));
        Patience { inner, serving, turn: 0, head, deadline, write, stalled: None }
    }

    /// Gives a write its time.
    fn timed<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let write = self.write;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(write)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }

    /// The stream itself, for a connection that has become something else.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patience<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let turn = this.serving.0.served.load(Ordering::Relaxed);
        if std::mem::replace(&mut this.turn, turn) != turn {
            // The head that was timed has been read to its end.
            this.deadline = None;
        }
        if turn % 2 == 1 {
            return Pin::new(&mut this.inner).poll_read(cx, buf);
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(cx, buf);
        if buf.filled().len() > before && this.deadline.is_none() {
            this.deadline = Some(Box::pin(tokio::time::sleep(this.head)));
        }
        let late = this.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready());
        if late {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the request head took too long",
            )));
        }
        read
    }
}

impl<S: AsyncWrite + Presence + Unpin> AsyncWrite for Patience<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.timed(cx, written)
    }

    /// hyper comes by here whenever the request it serves has been looked at.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.serving.0.held.load(Ordering::Relaxed) > 0 && self.inner.is_gone() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, "the client has gone")));
        }
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.timed(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.timed(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    impl Presence for tokio::io::DuplexStream {
        fn is_gone(&self) -> bool {
            false
        }
    }

    const HEAD: Duration = Duration::from_millis(100);

    #[tokio::test]
    async fn a_head_that_dribbles_is_cut_and_an_idle_connection_is_not() {
        let (mut client, server) = duplex(64);
        let serving = Serving::default();
        let mut stream = Patience::new(server, serving.clone(), HEAD, HEAD);
        let mut buffer = [0; 8];

        client.write_all(b"G").await.unwrap();
        assert_eq!(stream.read(&mut buffer).await.unwrap(), 1);
        // A request is served: what it sends meanwhile is its body, however slow.
        let serve = serving.begin();
        tokio::time::sleep(HEAD * 2).await;
        client.write_all(b"body").await.unwrap();
        assert_eq!(stream.read(&mut buffer).await.unwrap(), 4);
        drop(serve);
        let idle = tokio::time::timeout(HEAD * 3, stream.read(&mut buffer)).await;
        assert!(idle.is_err(), "nothing was said, and nothing was cut");

        client.write_all(b"P").await.unwrap();
        assert_eq!(stream.read(&mut buffer).await.unwrap(), 1);
        let error = stream.read(&mut buffer).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "the second head began and did not end");
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_at_all_is_cut() {
        let (_client, server) = duplex(64);
        let mut stream = Patience::new(server, Serving::default(), HEAD, HEAD);
        let error = stream.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_cut() {
        let (mut client, server) = duplex(64);
        let mut stream = Patience::new(server, Serving::default(), HEAD * 10, HEAD);
        stream.write_all(&[0; 64]).await.unwrap();
        client.read_exact(&mut [0; 64]).await.unwrap();
        let error = stream.write_all(&[0; 65]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "more than the client takes");
    }

    #[tokio::test]
    async fn what_a_connection_has_become_has_no_heads() {
        let (mut client, server) = duplex(64);
        let serving = Serving::default();
        let mut stream = Patience::new(server, serving.clone(), HEAD, HEAD);
        serving.begin().keep();
        client.write_all(b"frame").await.unwrap();
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 5);
        let later = tokio::time::timeout(HEAD * 3, stream.read(&mut [0; 8])).await;
        assert!(later.is_err(), "no deadline runs");
    }
}
