//! What `outgate run` does for a fence, by hand: a session, and the sockets that are handed over for it.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

use outgate::fence::gate;
use outgate::fence::pass::{self, HandOver, Role, Taken};
use policy::identity::SessionId;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Child;

use super::{Gate, Raw};

/// A session that lasts until it is dropped.
pub struct Session {
    /// Its id.
    pub id: String,
    /// What opens the gateway for it.
    pub token: String,
    child: Child,
}

impl Session {
    /// Opens one for an agent.
    pub async fn start(gate: &Gate, agent: &str) -> Session {
        let script = "echo $OUTGATE_SESSION $HTTPS_PROXY; read end";
        let mut command =
            gate.command(&["run", "--fence", "off", "--agent", agent, "--", "sh", "-c", script]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
        let (id, proxy) = line.trim().split_once(' ').unwrap();
        let token = proxy.split_once("@").unwrap().0.rsplit_once(':').unwrap().1;
        Session { id: id.into(), token: token.into(), child }
    }

    /// Ends it.
    pub async fn end(mut self) {
        let mut stdin = self.child.stdin.take().unwrap();
        stdin.write_all(b"\n").await.unwrap();
        drop(stdin);
        self.child.wait().await.unwrap();
    }

    /// What a fence of this session hands over.
    pub fn brings(&self, sockets: Vec<Role>) -> HandOver {
        HandOver { session: SessionId(self.id.parse().unwrap()), token: self.token.clone(), sockets }
    }
}

/// Hands sockets over as `outgate run` does; the connection holds the fence.
pub async fn hand_over(gate: &Gate, brought: HandOver, sockets: Vec<OwnedFd>) -> (Taken, UnixStream) {
    let data = gate.data();
    let handing = tokio::task::spawn_blocking(move || {
        let stream = gate::connect(&data).unwrap();
        pass::send(&stream, &brought, &pass::borrowed(&sockets)).unwrap();
        let (taken, _) = pass::receive::<Taken>(&stream).unwrap().expect("an answer");
        (taken, stream)
    });
    handing.await.unwrap()
}

/// A listener on a free port, and where it is.
pub fn listener() -> (OwnedFd, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener.into(), address)
}

/// A question for the addresses of a kind that a name has (RFC 1035).
pub fn question(name: &str, kind: u8) -> Vec<u8> {
    let mut packet = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        packet.push(u8::try_from(label.len()).unwrap());
        packet.extend_from_slice(label.as_bytes());
    }
    packet.extend_from_slice(&[0, 0, kind, 0, 1]);
    packet
}

/// Asks by packet: the code, and the last four bytes where there is a record.
pub async fn ask(server: SocketAddr, name: &str, kind: u8) -> (u8, Option<[u8; 4]>) {
    let packet = question(name, kind);
    let asking = tokio::task::spawn_blocking(move || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.send_to(&packet, server).unwrap();
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).unwrap();
        let record = (buffer[7] == 1).then(|| buffer[length - 4..length].try_into().unwrap());
        (buffer[3] & 0x0f, record)
    });
    asking.await.unwrap()
}

/// The one address that programs in [`Inlets`] are told, which the network of a test has (RFC 2544).
pub const STAND_IN: &str = "198.18.0.2";

/// The ways out of a fence for programs that know no proxy, each of which leads to the first name that is asked for.
pub struct Inlets {
    names: SocketAddr,
    _session: Session,
    _fence: UnixStream,
}

impl Inlets {
    /// Opens them. Needs a network of its own.
    pub async fn open(gate: &Gate) -> Inlets {
        let session = Session::start(gate, "anonymous").await;
        let names = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = names.local_addr().unwrap();
        let bind = |port: u16| OwnedFd::from(TcpListener::bind((STAND_IN, port)).unwrap());
        let brought = session.brings(vec![Role::Names, Role::Http, Role::Https]);
        let (taken, fence) = hand_over(gate, brought, vec![names.into(), bind(80), bind(443)]).await;
        assert!(matches!(taken, Taken::Serving), "{taken:?}");
        Inlets { names: server, _session: session, _fence: fence }
    }

    /// Connects as a program does that knows no proxy; `None` where there is no such name.
    pub async fn connect(&self, name: &str, port: u16) -> Option<Raw> {
        let (code, address) = ask(self.names, name, 1).await;
        assert!([0, 3].contains(&code), "{name} was answered with code {code}");
        Some(Raw::open((address?, port).into()).await)
    }
}
