//! Many connections: idle, silent, or coming and going.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{Arena, MIB};
use crate::harness::{Agent, Raw, Request, Way, eventually};

/// Tunnels that are wanted.
const TUNNELS: u64 = 10_000;
/// How many of them have TLS inside: a handshake of a program that is not optimised takes its time.
const WITH_TLS: usize = 200;
/// Descriptors of the test for everything else, other tests beside it included.
const OTHERS: u64 = 2_000;
/// What the gateway may need for an idle tunnel.
const PER_TUNNEL: u64 = 40 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_tunnels_are_nothing_much() {
    let tunnels = possible_tunnels();
    let config = format!(
        "[limits]\nconnections = {}\nconnections_per_agent = {}\nheader_timeout = \"10m\"",
        tunnels + 50,
        tunnels + 10
    );
    let mut arena = Arena::start(&config).await;
    let mut read = Vec::new();
    for _ in 0..WITH_TLS {
        read.push(arena.attacker.tls(&Request::get("allowed.test", "/"), b"http/1.1").await.unwrap());
    }
    let mut tasks = JoinSet::new();
    let head = connect_head(&arena.attacker);
    for share in 0..16 {
        let (proxy, head) = (arena.attacker.proxy, head.clone());
        let count = (tunnels - WITH_TLS as u64) / 16 + u64::from(share < (tunnels - WITH_TLS as u64) % 16);
        tasks.spawn_on(
            async move {
                let mut open = Vec::new();
                for _ in 0..count {
                    open.push(bare_tunnel(proxy, &head).await);
                }
                open
            },
            arena.attackers(),
        );
    }
    let open: Vec<TcpStream> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(open.len() + read.len(), tunnels as usize);
    arena.holds(&format!("{tunnels} idle tunnels"), tunnels * PER_TUNNEL).await;
    arena.lets_in("idle tunnels").await;
    drop((open, read));
    arena.finish(0..=0).await;
}

/// As many as this process and the gateway have descriptors for.
fn possible_tunnels() -> u64 {
    let hard = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard });
    // The gateway keeps one more for each, to go on upstream.
    let possible = hard.map_or(TUNNELS, |hard| (hard.saturating_sub(OTHERS)).min((hard - 64) / 2 - 50));
    let tunnels = TUNNELS.min(possible);
    if tunnels < TUNNELS {
        eprintln!("SCALED: the hard limit on descriptors allows {tunnels} of {TUNNELS} idle tunnels");
    }
    tunnels
}

fn connect_head(agent: &Agent) -> Vec<u8> {
    let request = Request::get("allowed.test", "/");
    let head = String::from_utf8(agent.absolute(&request)[0].clone()).unwrap();
    let identity = head.lines().find(|line| line.starts_with("Proxy-Authorization")).unwrap();
    let authority = format!("allowed.test:{}", agent.ports.1);
    format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{identity}\r\n\r\n").into_bytes()
}

/// A tunnel without any of the vocabulary's comfort, which would take more memory than it.
async fn bare_tunnel(proxy: std::net::SocketAddr, head: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    stream.write_all(head).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "the tunnel was not opened");
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_say_nothing_make_room_for_those_that_do() {
    let mut arena = Arena::start("[limits]\nconnections = 100").await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(Raw::open(arena.attacker.proxy).await);
    }
    let mut flood = JoinSet::new();
    for _ in 0..8 {
        let proxy = arena.attacker.proxy;
        flood.spawn_on(
            async move {
                loop {
                    drop(TcpStream::connect(proxy).await);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            },
            arena.attackers(),
        );
    }
    for _ in 0..20 {
        arena.lets_in("a flood of connections").await;
    }
    arena.holds("a flood of connections", 32 * MIB).await;
    let turned_away = arena.world.gate.metric("outgate_connections_refused_total", &[]).await;
    assert!(turned_away >= 200.0, "{turned_away} were turned away");
    flood.shutdown().await;
    drop(silent);
    arena.finish(0..=0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_that_never_end_are_given_up() {
    let mut arena = Arena::start("[limits]\nheader_timeout = \"2s\"").await;
    let mut slow = JoinSet::new();
    for _ in 0..200 {
        let proxy = arena.attacker.proxy;
        slow.spawn_on(
            async move {
                loop {
                    let mut raw = Raw::open(proxy).await;
                    raw.send("GET http://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\nX-Long: ").await;
                    while raw.read_to_close(Duration::from_millis(200)).await.is_none() {
                        raw.send("a").await;
                    }
                }
            },
            arena.attackers(),
        );
    }
    arena.holds("slow heads", 32 * MIB).await;
    slow.shutdown().await;
    arena.finish(0..=0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_takes_all_its_places_takes_no_others() {
    let mut arena = Arena::start("[limits]\nconnections_per_agent = 50").await;
    let mut held = Vec::new();
    for _ in 0..50 {
        held.push(arena.attacker.tunnel(&Request::get("allowed.test", "/")).await.unwrap());
    }
    let refused = arena.attacker.send(Way::Http1, &Request::get("allowed.test", "/")).await;
    assert_eq!((refused.status, refused.reason()), (503, Some("overloaded")), "{refused:?}");
    arena.lets_in("another's places are full").await;
    arena.holds("an agent with all its places taken", 16 * MIB).await;
    drop(held);
    eventually("the places to be free again", async || {
        let answer = arena.attacker.send(Way::Http1, &Request::get("allowed.test", "/")).await;
        (answer.status == 200).then_some(())
    })
    .await;
    arena.finish(2..).await;
}

/// A name that was never asked for costs a certificate, and a request to it a connection upstream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_made_up_at_random_do_not_fill_memory() {
    let mut arena = Arena::start("[limits]\ncertificates = 64\nconnections = 100").await;
    let descriptors = open_files(arena.world.gate.pid());
    let mut names = JoinSet::new();
    for client in 0..4 {
        let attacker = arena.attacker.clone();
        names.spawn_on(
            async move {
                for number in 0..100 {
                    let request = Request::get(&format!("n{client}-{number}.wild.test"), "/");
                    assert_eq!(attacker.send(Way::Http1, &request).await.status, 200);
                }
            },
            arena.attackers(),
        );
    }
    arena.holds("random names", 48 * MIB).await;
    names.join_all().await;
    let minted = arena.world.gate.metric("outgate_certificates_minted_total", &[]).await;
    assert!(minted >= 400.0, "{minted} were minted");
    let kept = open_files(arena.world.gate.pid()).saturating_sub(descriptors);
    assert!(kept < 200, "{kept} descriptors are still in use");
    arena.finish(400..=400).await;
}

/// Where there is room for many: what is kept for later takes memory all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_connections_are_kept_for_later_however_many_destinations_there_were() {
    let arena = Arena::start("").await;
    let descriptors = open_files(arena.world.gate.pid());
    for number in 0..300 {
        let request = Request::get(&format!("n{number}.wild.test"), "/");
        assert_eq!(arena.attacker.send(Way::Http1, &request).await.status, 200);
    }
    let kept = open_files(arena.world.gate.pid()).saturating_sub(descriptors);
    assert!(kept < 160, "{kept} descriptors are still in use");
    arena.finish(300..=300).await;
}

fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}
