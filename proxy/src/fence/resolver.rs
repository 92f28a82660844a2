//! The name stub of a fence: takes questions over UDP and TCP, has them decided and recorded, and answers.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use policy::decide::LookUp;
use policy::record::OutcomeKind;
use policy::request::Kind;
use policy::target::{Host, Scheme, Target};
use policy::verdict::{Action, Judgement, Reason};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::inlets::{Fence, listener, next};
use super::names::{self, Answer, Note};
use super::rows::{About, Turn};
use crate::exchange::{self, Subject};
use crate::gateway::CurrentPolicy;
use crate::identify::Client;
use crate::inspect;
use crate::reply::Refusal;

/// Questions by packet that may wait for their record; more are dropped, and asked again by whoever asked.
const WAITING: usize = 64;
/// Connections that may ask at once.
const STREAMS: usize = 32;
/// How long a connection may take for a question, or to take its answer.
const STREAM_PATIENCE: Duration = Duration::from_secs(10);
/// The largest packet that is read. Questions are smaller; what is longer is cut, and so not one.
const PACKET: usize = 4096;
/// How long to wait after a packet could not be received.
const ERROR_PAUSE: Duration = Duration::from_millis(10);
/// How often names are looked for that nothing connected to.
const SWEEP: Duration = Duration::from_secs(5);
/// How many of them are told of at a time.
const TOLD: usize = 64;

/// Answers questions that come by packet.
pub(super) async fn serve_packets(fence: &Arc<Fence>, socket: OwnedFd) -> io::Result<()> {
    let socket = std::net::UdpSocket::from(socket);
    socket.set_nonblocking(true)?;
    let socket = Arc::new(UdpSocket::from_std(socket)?);
    let waiting = Arc::new(Semaphore::new(WAITING));
    let mut buffer = vec![0; PACKET];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            () = fence.ended.cancelled() => return Ok(()),
        };
        let Ok((length, from)) = received else {
            // What notices (ICMP) leave on the socket is of no consequence; what stays must not make this spin.
            tokio::time::sleep(ERROR_PAUSE).await;
            continue;
        };
        let Ok(turn) = Arc::clone(&waiting).try_acquire_owned() else { continue };
        let (fence, socket, query) = (Arc::clone(fence), Arc::clone(&socket), buffer[..length].to_vec());
        let tasks = fence.gateway.tasks.clone();
        tasks.spawn(async move {
            answer_packet(&fence, &socket, &query, from).await;
            drop(turn);
        });
    }
}

async fn answer_packet(fence: &Fence, socket: &UdpSocket, query: &[u8], from: SocketAddr) {
    if let Some(packet) = answer(fence, query).await {
        let _ = socket.send_to(&packet, from).await;
    }
}

/// Answers questions that come by connection, each after its length (RFC 7766).
pub(super) async fn serve_streams(fence: &Arc<Fence>, socket: OwnedFd) -> io::Result<()> {
    let listener = listener(socket)?;
    let places = Arc::new(Semaphore::new(STREAMS));
    while let Some(stream) = next(fence, &listener).await {
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let fence = Arc::clone(fence);
        let tasks = fence.gateway.tasks.clone();
        tasks.spawn(async move {
            tokio::select! {
                _ = answer_stream(&fence, stream) => {}
                () = fence.ended.cancelled() => {}
            }
            drop(place);
        });
    }
    Ok(())
}

async fn answer_stream(fence: &Fence, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let query = tokio::time::timeout(STREAM_PATIENCE, async {
            let mut query = vec![0; usize::from(stream.read_u16().await?)];
            stream.read_exact(&mut query).await?;
            io::Result::Ok(query)
        });
        let query = query.await??;
        let Some(packet) = answer(fence, &query).await else { return Ok(()) };
        // An answer stays below 512 bytes.
        let length = u16::try_from(packet.len()).unwrap_or_default().to_be_bytes();
        tokio::time::timeout(STREAM_PATIENCE, stream.write_all(&[&length[..], &packet].concat())).await??;
    }
}

/// The answer to a question, once what has to be recorded is on record; nothing is ever asked of anybody else.
async fn answer(fence: &Fence, query: &[u8]) -> Option<Vec<u8>> {
    let policy = fence.gateway.policy();
    let client = match fence.identify().await {
        Ok(client) => client,
        Err(refusal) => {
            let judgement = exchange::refused_unjudged(&policy, None, &refusal);
            fence.refuse(About::Nobody, &about_name(None, &fence.opener), &judgement).await;
            return names::failure(query);
        }
    };
    let mut looked = None;
    let answer = names::answer(query, &mut fence.names(), Instant::now(), |host| {
        let look_up = exchange::look_up(&fence.gateway, &policy, &client, host);
        let answered = matches!(look_up, LookUp::Answered(_));
        looked = Some(look_up);
        answered
    });
    let Answer { packet, note } = answer?;
    let Some(note) = note else { return Some(packet) };
    let (host, judgement) = judged(&policy, &note, looked);
    let subject = about_name(host.as_ref(), &client);
    let judgement = with_secrets(&policy, &subject, judgement);
    if fence.refuse(About::Name(note), &subject, &judgement).await {
        Some(packet)
    } else {
        names::failure(query)
    }
}

/// What a record says of a question that has one.
fn judged(policy: &CurrentPolicy, note: &Note, looked: Option<LookUp>) -> (Option<Host>, Judgement) {
    let plain = |host: Option<&Host>, reason, what: &str| {
        let target = host.map(target_of);
        exchange::refused_unjudged(policy, target.as_ref(), &Refusal::plain(reason, what))
    };
    match (note, looked) {
        (Note::Refused(host, _), Some(LookUp::Refused(denial))) => (Some(host.clone()), denial.judgement),
        (Note::Refused(host, _), _) => {
            (Some(host.clone()), plain(Some(host), Reason::UnknownDestination, "it is not on the allowlist"))
        }
        (Note::Unserved(host, _), _) => {
            let what = "names are looked up inside the fence for their addresses alone";
            (Some(host.clone()), plain(Some(host), Reason::ProtocolRefused, what))
        }
        (Note::Unreadable, _) => {
            (None, plain(None, Reason::MalformedRequest, "it is no question for a name"))
        }
        (Note::Full, _) => (None, plain(None, Reason::Overloaded, "the fence asked for too many names")),
    }
}

/// A name leaves no fence; but who looks one up that holds a secret meant it to.
fn with_secrets(policy: &CurrentPolicy, subject: &Subject, mut judgement: Judgement) -> Judgement {
    if let Some(target) = &subject.target {
        judgement.findings.extend(inspect::host(policy, target).findings);
    }
    judgement
}

fn target_of(host: &Host) -> Target {
    Target { scheme: Scheme::Https, host: host.clone(), port: 443 }
}

fn about_name(host: Option<&Host>, client: &Client) -> Subject {
    let target = host.map(target_of);
    Subject { kind: Kind::Dns, ..Subject::connect(target, Some(client.clone())) }
}

/// Records names that were answered and that nothing connected to, some time later or when the fence ends.
pub(super) async fn tell_unfollowed(fence: Arc<Fence>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(SWEEP) => {}
            () = fence.ended.cancelled() => break,
        }
        let names = fence.names().unfollowed(Instant::now(), false, TOLD);
        tell(&fence, names).await;
    }
    loop {
        let names = fence.names().unfollowed(Instant::now(), true, TOLD);
        if names.is_empty() {
            return;
        }
        tell(&fence, names).await;
    }
}

/// Side by side, so that they are written together; no more of them than a fence may cause rows.
async fn tell(fence: &Arc<Fence>, names: Vec<Host>) {
    let mut rows = fence.rows.lock().await;
    let mut telling = JoinSet::new();
    for host in names {
        match rows.turn(&About::Unfollowed(host.clone()), Instant::now()) {
            Turn::Write => {
                telling.spawn(tell_one(Arc::clone(fence), host));
            }
            Turn::Known => {}
            Turn::TooMany => {
                let what = "the fence looked up too many names that nothing connected to";
                fence.tell_too_many(&mut rows, Kind::Dns, what).await;
            }
        }
    }
    drop(rows);
    while telling.join_next().await.is_some() {}
}

async fn tell_one(fence: Arc<Fence>, host: Host) {
    let policy = fence.gateway.policy();
    let client = fence.opener.clone();
    let judgement = match exchange::look_up(&fence.gateway, &policy, &client, &host) {
        LookUp::Answered(judgement) => judgement,
        // It was answered under another policy.
        LookUp::Refused(denial) => denial.judgement,
    };
    let denied = judgement.action == Action::Deny;
    let outcome = if denied { OutcomeKind::Denied } else { OutcomeKind::Completed };
    let subject = about_name(Some(&host), &client);
    let judgement = with_secrets(&policy, &subject, judgement);
    fence.write(&subject, &judgement, outcome).await;
}
