//! The only place that opens a connection upstream: resolve once, judge every address, connect to a judged one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use policy::address::{AddressClass, AddressRules};
use policy::target::{Scheme, Target};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::ParentProxy;
use crate::metrics::Metrics;
use crate::resolve::{ResolveError, Resolver};

/// A second address is tried when the first has not answered within this time (RFC 8305, section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// The longest answer a parent proxy may give to a CONNECT, in bytes.
const PARENT_HEAD_LIMIT: usize = 16 * 1024;

/// Opens connections upstream.
pub struct Dialer {
    /// Names to addresses.
    pub resolver: Resolver,
    /// The gateway's own listeners, which are never dialled.
    pub own: Vec<SocketAddr>,
    /// From the lookup to the end of the handshake.
    pub timeout: Duration,
    /// A proxy that connections go through instead.
    pub parent: Option<ParentProxy>,
    /// Where handshakes are counted.
    pub metrics: Arc<Metrics>,
}

/// A connection and where it leads.
pub struct Dialled<S> {
    /// The stream.
    pub stream: S,
    /// The address that was judged and dialled; of the parent proxy where there is one.
    pub address: SocketAddr,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// One of the name's addresses may not be dialled.
    #[error("{address} is {class}")]
    Forbidden {
        /// The address.
        address: IpAddr,
        /// What it is.
        class: AddressClass,
    },
    /// The address is one of the gateway's own.
    #[error("{0} is this gateway itself")]
    Own(SocketAddr),
    /// The name has no addresses.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// Nothing accepted the connection.
    #[error("no connection: {0}")]
    Connect(std::io::Error),
    /// The parent proxy said no.
    #[error("the parent proxy answered {0}")]
    Parent(String),
    /// The handshake failed: certificate, name or protocol.
    #[error("tls: {0}")]
    Tls(std::io::Error),
    /// It took too long.
    #[error("timed out")]
    Timeout,
}

impl DialError {
    /// Whether it was not allowed, rather than not possible.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, DialError::Forbidden { .. } | DialError::Own(_))
    }
}

impl Dialer {
    /// Connects to `target` over TCP.
    ///
    /// # Errors
    /// As [`DialError`] says; nothing is connected where any address of the name is forbidden.
    pub async fn tcp(&self, target: &Target, rules: &AddressRules) -> Result<Dialled<TcpStream>, DialError> {
        tokio::time::timeout(self.timeout, self.tcp_unlimited(target, rules))
            .await
            .unwrap_or(Err(DialError::Timeout))
    }

    /// Connects to `target` and shakes hands, offering the protocols of `tls`.
    ///
    /// # Errors
    /// As [`Dialer::tcp`], and where the certificate does not hold.
    pub async fn tls(
        &self,
        target: &Target,
        rules: &AddressRules,
        tls: &Arc<ClientConfig>,
    ) -> Result<Dialled<TlsStream<TcpStream>>, DialError> {
        let deadline = Instant::now() + self.timeout;
        let tcp = self.tcp(target, rules).await?;
        let shaken = shake_hands(target, tcp.stream, tls, deadline).await;
        self.metrics.upstream_handshake(shaken.is_ok());
        shaken.map(|stream| Dialled { stream, address: tcp.address })
    }

    /// Connects to a place that the operator named, such as a webhook. What the operator names is not judged; no
    /// agent has a say in it.
    ///
    /// # Errors
    /// As [`DialError`] says.
    pub async fn named(&self, target: &Target) -> Result<TcpStream, DialError> {
        let dialled = async {
            if let Some(parent) = &self.parent {
                return dial_parent(parent, &self.resolver, target).await;
            }
            let addresses = self.addresses(target).await?;
            let addresses = addresses.iter().map(|address| SocketAddr::new(*address, target.port)).collect();
            let (stream, address) = connect_first(addresses).await.map_err(DialError::Connect)?;
            Ok(Dialled { stream, address })
        };
        let dialled = tokio::time::timeout(self.timeout, dialled).await.unwrap_or(Err(DialError::Timeout));
        dialled.map(|dialled| dialled.stream)
    }

    /// As [`Dialer::named`], over TLS.
    ///
    /// # Errors
    /// As [`Dialer::named`], and where the certificate does not hold.
    pub async fn named_tls(
        &self,
        target: &Target,
        tls: &Arc<ClientConfig>,
    ) -> Result<TlsStream<TcpStream>, DialError> {
        let deadline = Instant::now() + self.timeout;
        let stream = self.named(target).await?;
        shake_hands(target, stream, tls, deadline).await
    }

    /// Connects to a service of the host's loopback that the operator opened to fences. It is neither judged nor asked
    /// for at a parent proxy: this address and no other is what was meant.
    ///
    /// # Errors
    /// As [`DialError`] says; the gateway itself is never dialled.
    pub async fn forwarded(&self, address: SocketAddr) -> Result<TcpStream, DialError> {
        if self.is_own(address) {
            return Err(DialError::Own(address));
        }
        let dialled = tokio::time::timeout(self.timeout, self.connect(vec![address])).await;
        dialled.unwrap_or(Err(DialError::Timeout)).map(|dialled| dialled.stream)
    }

    /// Whether an address is one of the gateway's own listeners.
    pub fn is_own(&self, address: SocketAddr) -> bool {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        self.own.iter().any(|listener| same_listener(*listener, address, is_local))
    }

    async fn addresses(&self, target: &Target) -> Result<Vec<IpAddr>, DialError> {
        match target.host.ip() {
            Some(ip) => Ok(vec![ip]),
            None => Ok(self.resolver.resolve(target.host.as_str()).await?),
        }
    }

    async fn tcp_unlimited(
        &self,
        target: &Target,
        rules: &AddressRules,
    ) -> Result<Dialled<TcpStream>, DialError> {
        if let Some(parent) = &self.parent {
            // The parent resolves the name; a literal can still be judged here.
            if let Some(ip) = target.host.ip() {
                self.judge(&[ip], target.port, rules)?;
            }
            return dial_parent(parent, &self.resolver, target).await;
        }
        let addresses = self.addresses(target).await?;
        let judged = self.judge(&addresses, target.port, rules)?;
        self.connect(judged).await
    }

    /// Connects, and lets go before the first byte where the connection turns out to have come back to this gateway.
    async fn connect(&self, addresses: Vec<SocketAddr>) -> Result<Dialled<TcpStream>, DialError> {
        let (stream, address) = connect_first(addresses).await.map_err(DialError::Connect)?;
        let local = stream.local_addr().map_err(DialError::Connect)?;
        let peer = stream.peer_addr().map_err(DialError::Connect)?;
        match self.own.iter().any(|listener| came_back(*listener, local, peer)) {
            true => Err(DialError::Own(peer)),
            false => Ok(Dialled { stream, address }),
        }
    }

    /// All addresses of an answer are judged: a name that also points inside is not dialled at all, since which
    /// of its addresses answers first would be up to whoever wrote the zone.
    fn judge(
        &self,
        addresses: &[IpAddr],
        port: u16,
        rules: &AddressRules,
    ) -> Result<Vec<SocketAddr>, DialError> {
        for &address in addresses {
            let own = SocketAddr::new(address.to_canonical(), port);
            if self.is_own(own) {
                return Err(DialError::Own(own));
            }
            rules.judge(address, port).map_err(|class| DialError::Forbidden { address, class })?;
        }
        Ok(addresses.iter().map(|address| SocketAddr::new(*address, port)).collect())
    }
}

async fn shake_hands(
    target: &Target,
    stream: TcpStream,
    tls: &Arc<ClientConfig>,
    deadline: Instant,
) -> Result<TlsStream<TcpStream>, DialError> {
    let handshake = TlsConnector::from(Arc::clone(tls)).connect(server_name(target), stream);
    match tokio::time::timeout_at(deadline.into(), handshake).await {
        Err(_) => Err(DialError::Timeout),
        Ok(shaken) => shaken.map_err(DialError::Tls),
    }
}

/// A listener on the unspecified address listens on every local one: those of loopback, and of each interface.
fn same_listener(listener: SocketAddr, dialled: SocketAddr, is_local: impl Fn(IpAddr) -> bool) -> bool {
    let ip = dialled.ip();
    listener.port() == dialled.port()
        && (listener.ip().to_canonical() == ip
            || (listener.ip().is_unspecified() && (ip.is_loopback() || ip.is_unspecified() || is_local(ip))))
}

/// Whether an address is one of this machine's. Who dials one gets the same for its own end; a datagram socket tells
/// without sending anything.
fn is_local(ip: IpAddr) -> bool {
    let any: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // The port does not matter. Where there is no way to the address it is not ours.
    let own_end = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((ip, 9))?;
        socket.local_addr()
    });
    own_end.is_ok_and(|end| end.ip() == ip)
}

/// Whether a connection ends at this listener: both of its ends have one address, and the port is the listener's.
fn came_back(listener: SocketAddr, local: SocketAddr, peer: SocketAddr) -> bool {
    let (local, peer) = (local.ip().to_canonical(), SocketAddr::new(peer.ip().to_canonical(), peer.port()));
    same_listener(listener, peer, |ip| ip == local)
}

fn server_name(target: &Target) -> ServerName<'static> {
    match target.host.ip() {
        Some(ip) => ServerName::IpAddress(ip.into()),
        None => ServerName::try_from(target.host.as_str().to_owned())
            // A name that this grammar takes and the certificate grammar does not can match no certificate.
            .unwrap_or_else(|_| ServerName::IpAddress(IpAddr::from([0, 0, 0, 0]).into())),
    }
}

/// Connects to the first address that accepts, starting the next whenever one fails or is slow.
#[expect(clippy::disallowed_methods, reason = "this is the one place, and its addresses have been judged")]
async fn connect_first(addresses: Vec<SocketAddr>) -> std::io::Result<(TcpStream, SocketAddr)> {
    let mut waiting = interleave(addresses).into_iter();
    let mut attempts = JoinSet::new();
    let mut last_error = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    loop {
        match waiting.next() {
            Some(address) => {
                attempts.spawn(async move { (TcpStream::connect(address).await, address) });
            }
            None if attempts.is_empty() => return Err(last_error),
            None => {}
        }
        let more = waiting.len() > 0;
        let next = async {
            if more {
                tokio::time::timeout(ATTEMPT_DELAY, attempts.join_next()).await.unwrap_or(None)
            } else {
                attempts.join_next().await
            }
        };
        match next.await {
            Some(Ok((Ok(stream), address))) => {
                stream.set_nodelay(true)?;
                return Ok((stream, address));
            }
            Some(Ok((Err(error), _))) => last_error = error,
            Some(Err(join)) => last_error = std::io::Error::other(join),
            None => {}
        }
    }
}

/// Alternates families, beginning with the first one's, so that one broken family costs one delay only.
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut second = second.into_iter();
    let mut mixed = Vec::new();
    for address in first {
        mixed.push(address);
        mixed.extend(second.next());
    }
    mixed.extend(second);
    mixed
}

/// Asks a parent proxy for a tunnel. The operator named the parent, so its own address is not judged.
async fn dial_parent(
    parent: &ParentProxy,
    resolver: &Resolver,
    target: &Target,
) -> Result<Dialled<TcpStream>, DialError> {
    let addresses = match parent.host.ip() {
        Some(ip) => vec![ip],
        None => resolver.resolve(parent.host.as_str()).await?,
    };
    let addresses = addresses.into_iter().map(|ip| SocketAddr::new(ip, parent.port)).collect();
    let (mut stream, address) = connect_first(addresses).await.map_err(DialError::Connect)?;
    let authority = format!("{}:{}", target.host, target.port);
    let mut head = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
    if let Some(value) = &parent.authorization {
        head.push_str("Proxy-Authorization: ");
        head.push_str(value);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await.map_err(DialError::Connect)?;
    let status = read_parent_status(&mut stream).await.map_err(DialError::Connect)?;
    match status.split(' ').nth(1) {
        Some(code) if code.len() == 3 && code.starts_with('2') => Ok(Dialled { stream, address }),
        _ => Err(DialError::Parent(status.chars().filter(char::is_ascii_graphic).take(40).collect())),
    }
}

/// Reads the head byte by byte: what follows belongs to the tunnel and must stay in the socket.
async fn read_parent_status(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= PARENT_HEAD_LIMIT {
            return Err(std::io::Error::other("the parent proxy's answer is too long"));
        }
        head.push(stream.read_u8().await?);
    }
    let line = head.split(|b| *b == b'\r').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).into_owned())
}

/// Whether a target is spoken to over TLS.
pub fn is_tls(target: &Target) -> bool {
    target.scheme == Scheme::Https
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap_or_else(|_| panic!("`{text}` is an address"))
    }

    #[test]
    fn families_alternate() {
        let mixed = interleave(vec![
            address("192.0.2.1:1"),
            address("192.0.2.2:1"),
            address("[2001:db8::1]:1"),
            address("192.0.2.3:1"),
        ]);
        let text: Vec<String> = mixed.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["192.0.2.1:1", "[2001:db8::1]:1", "192.0.2.2:1", "192.0.2.3:1"]);
    }

    #[test]
    fn own_listeners_are_known_by_every_local_spelling() {
        for (listener, dialled, own) in [
            ("127.0.0.1:4480", "127.0.0.1:4480", true),
            ("127.0.0.1:4480", "127.0.0.1:4481", false),
            ("127.0.0.1:4480", "127.0.0.2:4480", false),
            ("0.0.0.0:4480", "127.0.0.2:4480", true),
            ("0.0.0.0:4480", "192.0.2.1:4480", false),
            ("0.0.0.0:4480", "192.0.2.2:4480", true),
            ("0.0.0.0:4480", "192.0.2.2:4481", false),
            ("[::]:4480", "192.0.2.2:4480", true),
            ("[::]:4480", "127.0.0.1:4480", true),
            ("[::]:4480", "[2001:db8::2]:4480", true),
            ("[::]:4480", "[2001:db8::1]:4480", false),
            ("192.0.2.2:4480", "192.0.2.2:4480", true),
            ("127.0.0.1:4480", "192.0.2.2:4480", false),
        ] {
            let of_an_interface = ["192.0.2.2:0", "[2001:db8::2]:0"].map(|ip| address(ip).ip());
            let found =
                same_listener(address(listener), address(dialled), |ip| of_an_interface.contains(&ip));
            assert_eq!(found, own, "{listener} {dialled}");
        }
    }

    #[test]
    fn an_address_of_this_machine_is_told_from_others() {
        assert!(is_local(IpAddr::from([127, 0, 0, 1])));
        assert!(!is_local(IpAddr::from([192, 0, 2, 1])));
        assert!(!is_local("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn a_connection_that_came_back_is_known_by_its_ends() {
        for (listener, local, peer, own) in [
            ("0.0.0.0:4481", "192.0.2.2:50000", "192.0.2.2:4481", true),
            ("[::]:4481", "[::ffff:192.0.2.2]:50000", "[::ffff:192.0.2.2]:4481", true),
            ("[::]:4481", "[2001:db8::2]:50000", "[2001:db8::2]:4481", true),
            ("0.0.0.0:4481", "192.0.2.2:50000", "192.0.2.1:4481", false),
            ("0.0.0.0:4481", "192.0.2.2:50000", "192.0.2.2:443", false),
            ("127.0.0.1:4481", "192.0.2.2:50000", "192.0.2.2:4481", false),
        ] {
            let found = came_back(address(listener), address(local), address(peer));
            assert_eq!(found, own, "{listener}: {local} to {peer}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_came_back_is_let_go_before_its_first_byte() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = listener.local_addr().unwrap();
        let dialer = |own: &[SocketAddr]| Dialer {
            resolver: Resolver::new(&[], HashMap::new(), Duration::from_secs(1)).unwrap(),
            own: own.to_vec(),
            timeout: Duration::from_secs(5),
            parent: None,
            metrics: Metrics::new(),
        };
        let everywhere = SocketAddr::new([0, 0, 0, 0].into(), there.port());
        let error = dialer(&[everywhere]).connect(vec![there]).await.err().map(|error| error.to_string());
        assert_eq!(error, Some(format!("{there} is this gateway itself")));
        let (mut accepted, _) = listener.accept().await.unwrap();
        assert_eq!(accepted.read(&mut [0]).await.unwrap_or(0), 0, "not a byte");
        assert!(dialer(&[]).connect(vec![there]).await.is_ok());
    }
}
