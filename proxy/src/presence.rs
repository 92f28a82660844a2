//! Whether whoever connected is still there, while nothing is read from them.
//!
//! A request that waits for a person is not read on: its end would be noticed by nobody, behind a body that may be
//! long. The socket knows, and is asked.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use crate::rewind::Rewind;

/// How often one that is waited for is looked at.
pub const LOOK: Duration = Duration::from_millis(250);

/// What is lost with a connection, where the system tells it apart from a connection without data.
#[cfg(target_os = "linux")]
const ENDED: PollFlags = PollFlags::RDHUP.union(PollFlags::HUP).union(PollFlags::ERR);
#[cfg(not(target_os = "linux"))]
const ENDED: PollFlags = PollFlags::HUP.union(PollFlags::ERR);

/// A connection that can be asked whether its other end has gone.
pub trait Presence {
    /// Whether the other end will send no more.
    fn is_gone(&self) -> bool;
}

fn has_ended(socket: BorrowedFd<'_>) -> bool {
    let mut asked = [PollFd::new(&socket, ENDED)];
    // Where it cannot be told, it is there.
    poll(&mut asked, Some(&Timespec::default())).is_ok_and(|found| found > 0)
        && asked[0].revents().intersects(ENDED)
}

impl Presence for TcpStream {
    fn is_gone(&self) -> bool {
        has_ended(self.as_fd())
    }
}

impl Presence for UnixStream {
    fn is_gone(&self) -> bool {
        has_ended(self.as_fd())
    }
}

impl<L: Presence, R: Presence> Presence for Either<L, R> {
    fn is_gone(&self) -> bool {
        match self {
            Either::Left(stream) => stream.is_gone(),
            Either::Right(stream) => stream.is_gone(),
        }
    }
}

impl<S: Presence> Presence for Rewind<S> {
    fn is_gone(&self) -> bool {
        self.inner().is_gone()
    }
}

impl<S: Presence> Presence for TlsStream<S> {
    fn is_gone(&self) -> bool {
        self.get_ref().0.is_gone()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn who_closes_is_gone_also_behind_bytes_that_nobody_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        client.write_all(b"a body that waits").await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!server.is_gone(), "it has only said something");
        drop(client);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(server.is_gone());
    }
}
