//! The network inside: a loopback device, the addresses that stand for names, and the sockets the gateway is handed.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, socket_with};
use socket2::{Domain, Socket, Type};

use super::pass::Role;
use super::sys;

/// Where programs that know the proxy find it inside.
pub const PROXY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4480);
/// The first usable address of the range that stands for names, RFC 2544's for benchmarks: nothing real is there.
const NAMES: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const NAMES_MASK: Ipv4Addr = Ipv4Addr::new(255, 254, 0, 0);
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
/// IPv4 in an Ethernet frame, as `AF_PACKET` takes it.
const ETH_P_IP: u32 = (0x0800_u16).to_be() as u32;

/// Configures the network of the namespace this process is in.
///
/// # Errors
/// A namespace that is not our own.
pub(super) fn prepare() -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    sys::bring_up(&socket, "lo")?;
    // An address on the loopback device makes its whole network local: every name's address is answered here.
    sys::set_network(&socket, "lo:0", NAMES, NAMES_MASK)
}

/// The sockets that everything inside has to go through, with what each is for.
///
/// # Errors
/// A forwarded port that one of the others has.
pub(super) fn sockets(forward: &[SocketAddr]) -> io::Result<Vec<(Role, OwnedFd)>> {
    let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let names = SocketAddr::from((Ipv4Addr::LOCALHOST, 53));
    let mut sockets = vec![
        (Role::Proxy, listen(PROXY)?),
        (Role::Https, listen(any(443))?),
        (Role::Http, listen(any(80))?),
        (Role::Names, datagrams(names)?),
        (Role::NamesStream, listen(names)?),
        (Role::Packets, packets()?),
    ];
    for to in forward {
        let listener = listen(*to).map_err(|error| {
            io::Error::new(error.kind(), format!("`[fence] forward` cannot have {to} inside: {error}"))
        })?;
        sockets.push((Role::Forward { to: *to }, listener));
    }
    Ok(sockets)
}

fn listen(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn datagrams(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A socket that sees the first packet of every connection to a name's address, also where no port listens: the kernel
/// refuses those by itself, and this is how they get into the record.
fn packets() -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, Some(protocol(ETH_P_IP)?))?;
    sys::attach_filter(&socket, &mut first_packets())?;
    Ok(socket)
}

fn protocol(number: u32) -> io::Result<Protocol> {
    let number = std::num::NonZeroU32::new(number).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(Protocol::from_raw(number))
}

/// A classic BPF program over IPv4 packets: on their way in, to 198.18.0.0/15, not a later fragment, and either UDP or
/// a SYN that is no answer.
fn first_packets() -> [libc::sock_filter; 16] {
    use libc::{BPF_ABS, BPF_ALU, BPF_AND, BPF_B, BPF_H, BPF_IND, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD};
    use libc::{BPF_LDX, BPF_MSH, BPF_RET, BPF_W};
    /// Where the kernel says what kind of packet it is: offset of its own data, and within it (`SKF_AD_PKTTYPE`).
    const KIND: u32 = 0xffff_f000 + 4;
    const OUTGOING: u32 = 4;
    let op = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let drop = |at: u8| 15 - at - 1;
    let keep = |at: u8| 14 - at - 1;
    [
        op(BPF_LD | BPF_W | BPF_ABS, 0, 0, KIND),
        op(BPF_JMP | BPF_JEQ | BPF_K, drop(1), 0, OUTGOING),
        op(BPF_LD | BPF_W | BPF_ABS, 0, 0, 16), // destination
        op(BPF_ALU | BPF_AND | BPF_K, 0, 0, u32::from(NAMES_MASK)),
        op(BPF_JMP | BPF_JEQ | BPF_K, 0, drop(4), u32::from(NAMES) & u32::from(NAMES_MASK)),
        op(BPF_LD | BPF_H | BPF_ABS, 0, 0, 6), // fragment offset
        op(BPF_JMP | BPF_JSET | BPF_K, drop(6), 0, 0x1fff),
        op(BPF_LD | BPF_B | BPF_ABS, 0, 0, 9), // protocol
        op(BPF_JMP | BPF_JEQ | BPF_K, keep(8), 0, libc::IPPROTO_UDP as u32),
        op(BPF_JMP | BPF_JEQ | BPF_K, 0, drop(9), libc::IPPROTO_TCP as u32),
        op(BPF_LDX | BPF_B | BPF_MSH, 0, 0, 0), // length of the IP header
        op(BPF_LD | BPF_B | BPF_IND, 0, 0, 13), // TCP flags
        op(BPF_ALU | BPF_AND | BPF_K, 0, 0, 0x12),
        op(BPF_JMP | BPF_JEQ | BPF_K, keep(13), drop(13), 0x02), // SYN without ACK
        op(BPF_RET | BPF_K, 0, 0, 128),                          // as many bytes of it
        op(BPF_RET | BPF_K, 0, 0, 0),
    ]
}
