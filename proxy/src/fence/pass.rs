//! Messages between the parts of the fence: JSON with descriptors beside it, over a Unix socket.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use policy::identity::SessionId;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The longest message, in bytes.
const MESSAGE_LIMIT: usize = 64 * 1024 * 1024;
/// Descriptors that one message may carry; the kernel's own limit is 253.
pub const DESCRIPTORS: usize = 128;

/// What `outgate run` hands to the gateway over `DATA_DIR/gateway.sock`: the sockets made inside one fence. The
/// connection then stays open for as long as the fence stands; when it closes, the gateway drops them.
#[derive(Debug, Serialize, Deserialize)]
pub struct HandOver {
    /// The session that everything that comes over these sockets belongs to.
    pub session: SessionId,
    /// The session's token.
    pub token: String,
    /// What each of the descriptors beside the message is, in their order.
    pub sockets: Vec<Role>,
}

/// What a socket made inside a fence is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Listens for programs that know the proxy, `127.0.0.1:4480` inside.
    Proxy,
    /// Listens on `0.0.0.0:443` for programs that know nothing of it.
    Https,
    /// Listens on `0.0.0.0:80`, likewise.
    Http,
    /// Takes questions about names, UDP `127.0.0.1:53`.
    Names,
    /// Listens for questions about names, TCP `127.0.0.1:53`.
    NamesStream,
    /// A packet socket on the loopback device that sees first packets to addresses of names, for ports nobody serves.
    Packets,
    /// Listens inside for a service of the host's loopback.
    Forward {
        /// Where the service is on the host.
        to: SocketAddr,
    },
}

/// The gateway's answer to a [`HandOver`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Taken {
    /// The sockets are served from now on.
    Serving,
    /// They are not, and why.
    Refused(String),
}

/// Sends a message and descriptors beside it.
///
/// # Errors
/// A peer that is gone, and whatever else keeps the socket from sending.
pub fn send(stream: &UnixStream, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // The descriptors travel with the first byte. All in one call: whoever shares the socket may send meanwhile.
    let prefix = length.to_le_bytes();
    let sent =
        sendmsg(stream, &[IoSlice::new(&prefix), IoSlice::new(&body)], &mut beside, SendFlags::NOSIGNAL)?;
    let mut stream = stream;
    stream.write_all(prefix.get(sent..).unwrap_or_default())?;
    stream.write_all(body.get(sent.saturating_sub(prefix.len())..).unwrap_or_default())
}

/// Receives a message and the descriptors beside it, which close when a program is executed; `None` where the peer has
/// closed.
///
/// # Errors
/// A message that is none, is too long or was cut short; a time limit set on the socket.
pub fn receive<T: DeserializeOwned>(stream: &UnixStream) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut prefix = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(stream, &mut [IoSliceMut::new(&mut prefix)], &mut beside, RecvFlags::CMSG_CLOEXEC)?.bytes;
    if received == 0 {
        return Ok(None);
    }
    let descriptors = beside
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    let mut stream = stream;
    stream.read_exact(&mut prefix[received..])?;
    let length = usize::try_from(u32::from_le_bytes(prefix)).unwrap_or(usize::MAX);
    if length > MESSAGE_LIMIT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some((serde_json::from_slice(&body)?, descriptors)))
}

/// Descriptors to send beside a message.
pub fn borrowed(descriptors: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    descriptors.iter().map(AsFd::as_fd).collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn descriptors_arrive_in_the_order_of_their_roles() {
        let (here, there) = UnixStream::pair().unwrap();
        let listeners =
            [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
        let addresses = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
        let roles = vec![Role::Proxy, Role::Forward { to: addresses[0] }];
        send(&here, &roles, &borrowed(&listeners.map(OwnedFd::from))).unwrap();
        drop(here);
        let (arrived, descriptors) = receive::<Vec<Role>>(&there).unwrap().unwrap();
        assert_eq!(arrived, roles);
        let again: Vec<_> =
            descriptors.into_iter().map(|fd| TcpListener::from(fd).local_addr().unwrap()).collect();
        assert_eq!(again, addresses);
        assert!(receive::<Vec<Role>>(&there).unwrap().is_none(), "the peer has closed");
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_before_it_is_read() {
        let (mut here, there) = UnixStream::pair().unwrap();
        here.write_all(&u32::MAX.to_le_bytes()).unwrap();
        let error = receive::<Role>(&there).unwrap_err();
        assert_eq!(error.to_string(), "the message is too long");
    }
}
