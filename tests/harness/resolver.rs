//! A scripted name server on loopback, over UDP and TCP, that logs every question.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

const A: u16 = 1;
const AAAA: u16 = 28;

/// What a name is answered with.
#[derive(Clone, Debug)]
pub enum Reply {
    /// These addresses, IPv4 to A and IPv6 to AAAA questions, with a TTL of 0.
    Addresses(Vec<IpAddr>),
    /// No such name.
    NoName,
    /// The server failed.
    Failure,
    /// Nothing at all.
    Silence,
}

impl Reply {
    /// Addresses as text.
    pub fn at(addresses: &[&str]) -> Reply {
        Reply::Addresses(addresses.iter().map(|text| text.parse().unwrap()).collect())
    }
}

/// The name server.
pub struct Resolver {
    /// Where it listens, UDP and TCP alike.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct State {
    /// Scripts of names, and of suffixes where the key begins with a dot.
    scripts: HashMap<String, Vec<Reply>>,
    /// How many questions of each kind a name was asked.
    asked: HashMap<(String, u16), usize>,
    log: Vec<(String, u16)>,
}

impl Resolver {
    /// Listens on a free port; knows no names yet.
    pub async fn start() -> Resolver {
        for _ in 0..20 {
            let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let address = udp.local_addr().unwrap();
            // The same number must be free for TCP too; another test may hold it.
            let Ok(tcp) = TcpListener::bind(address).await else { continue };
            let state = Arc::<Mutex<State>>::default();
            let mut tasks = JoinSet::new();
            tasks.spawn(serve_udp(udp, state.clone()));
            tasks.spawn(serve_tcp(tcp, state.clone()));
            return Resolver { address, state, _tasks: tasks };
        }
        panic!("no port was free for both UDP and TCP");
    }

    /// Answers `name` (or, beginning with a dot, every name below it) with `reply`, always.
    pub fn answers(&self, name: &str, reply: Reply) {
        self.answers_in_turn(name, vec![reply]);
    }

    /// Answers the first question with the first reply, and so on; the last one stays.
    pub fn answers_in_turn(&self, name: &str, replies: Vec<Reply>) {
        self.state.lock().unwrap().scripts.insert(name.into(), replies);
    }

    /// How often the address of `name` was asked for (questions for IPv4).
    pub fn lookups(&self, name: &str) -> usize {
        self.state.lock().unwrap().asked.get(&(name.into(), A)).copied().unwrap_or(0)
    }

    /// Every name asked for, in order, each once a question.
    pub fn log(&self) -> Vec<String> {
        self.state.lock().unwrap().log.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Asserts that nobody asked for `name`, or for anything below it.
    pub fn must_not_know(&self, name: &str) {
        let asked = self.log();
        let below = format!(".{name}");
        assert!(
            !asked.iter().any(|seen| seen == name || seen.ends_with(&below)),
            "`{name}` was looked up; the log is {asked:?}"
        );
    }
}

impl State {
    fn reply(&mut self, name: &str, kind: u16) -> Reply {
        self.log.push((name.into(), kind));
        let asked = self.asked.entry((name.into(), kind)).or_default();
        let turn = *asked;
        *asked += 1;
        let suffixes = name.match_indices('.').map(|(dot, _)| &name[dot..]);
        let script = std::iter::once(name).chain(suffixes).find_map(|key| self.scripts.get(key));
        script.map_or(Reply::NoName, |replies| replies[turn.min(replies.len() - 1)].clone())
    }
}

async fn serve_udp(socket: UdpSocket, state: Arc<Mutex<State>>) {
    let mut packet = [0; 1500];
    while let Ok((length, from)) = socket.recv_from(&mut packet).await {
        let answer = answer(&packet[..length], &state);
        if let Some(answer) = answer {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, state: Arc<Mutex<State>>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve_connection(stream, state.clone()));
    }
}

async fn serve_connection(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    while let Ok(length) = stream.read_u16().await {
        let mut packet = vec![0; length.into()];
        if stream.read_exact(&mut packet).await.is_err() {
            return;
        }
        let Some(answer) = answer(&packet, &state) else { continue };
        let length = u16::try_from(answer.len()).unwrap();
        if stream.write_u16(length).await.is_err() || stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

/// Reads the first question of a message (RFC 1035, section 4) and writes the scripted answer to it.
fn answer(packet: &[u8], state: &Mutex<State>) -> Option<Vec<u8>> {
    let (name, end) = question_name(packet)?;
    let kind = u16::from_be_bytes([*packet.get(end)?, *packet.get(end + 1)?]);
    let question = packet.get(12..end + 4)?;
    let (code, addresses) = match state.lock().unwrap().reply(&name, kind) {
        Reply::Addresses(addresses) => (0, addresses),
        Reply::Failure => (2, vec![]),
        Reply::NoName => (3, vec![]),
        Reply::Silence => return None,
    };
    let records: Vec<Vec<u8>> = addresses.iter().filter_map(|ip| record(*ip, kind)).collect();
    let count = u8::try_from(records.len()).ok()?;
    let mut message = packet[..2].to_vec();
    // A response, recursion desired and available; one question, `count` answers, nothing else.
    message.extend([0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
    message.extend_from_slice(question);
    message.extend(records.concat());
    Some(message)
}

fn question_name(packet: &[u8]) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join(".").to_ascii_lowercase(), at));
        }
        labels.push(String::from_utf8_lossy(packet.get(at..at + length)?).into_owned());
        at += length;
    }
}

fn record(ip: IpAddr, kind: u16) -> Option<Vec<u8>> {
    let data = match (ip, kind) {
        (IpAddr::V4(v4), A) => v4.octets().to_vec(),
        (IpAddr::V6(v6), AAAA) => v6.octets().to_vec(),
        _ => return None,
    };
    // The name is a pointer to the question; class IN; TTL 0, so that every look-up is a new question.
    let mut record = vec![0xc0, 12];
    record.extend(kind.to_be_bytes());
    record.extend([0, 1, 0, 0, 0, 0]);
    record.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
    record.extend(data);
    Some(record)
}
