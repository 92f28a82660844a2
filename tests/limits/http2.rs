//! What HTTP/2 lets one connection do: many streams, streams taken back, streams that are not read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{SendRequest, handshake};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Arena, MIB};
use crate::harness::{Agent, PATIENCE, Request, World, eventually};

const ALLOWED: &str = "allowed.test";

/// A connection of HTTP/2, and whether it still lives.
struct Client {
    sender: SendRequest<Bytes>,
    connection: tokio::task::JoinHandle<Result<(), h2::Error>>,
    authority: String,
}

impl Client {
    async fn of(agent: &Agent) -> Client {
        let raw = agent.tls(&Request::get(ALLOWED, "/"), b"h2").await.unwrap();
        let (sender, connection) = handshake(raw.into_stream()).await.unwrap();
        let connection = tokio::spawn(connection);
        Client { sender, connection, authority: format!("{ALLOWED}:{}", agent.ports.1) }
    }

    fn get(&self, path: &str) -> http::Request<()> {
        http::Request::get(format!("https://{}{path}", self.authority)).body(()).unwrap()
    }

    /// Status and reason of an answer; its body is not read.
    async fn status(&self, path: &str) -> (u16, String) {
        let mut sender = self.sender.clone().ready().await.unwrap();
        let (answer, _) = sender.send_request(self.get(path), true).unwrap();
        let answer = timeout(PATIENCE, answer).await.unwrap().unwrap();
        let reason = answer.headers().get("x-outgate-reason").map_or("", |value| value.to_str().unwrap());
        (answer.status().as_u16(), reason.to_owned())
    }
}

/// CVE-2023-44487.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_taken_back_at_once_cost_their_sender_the_connection() {
    let mut arena = Arena::start("").await;
    let connections = Arc::<AtomicUsize>::default();
    let mut resets = JoinSet::new();
    for _ in 0..2 {
        let (attacker, connections) = (arena.attacker.clone(), Arc::clone(&connections));
        resets.spawn_on(
            async move {
                loop {
                    let client = Client::of(&attacker).await;
                    connections.fetch_add(1, Ordering::Relaxed);
                    loop {
                        let Ok(mut sender) = client.sender.clone().ready().await else { break };
                        let Ok((_, mut stream)) = sender.send_request(client.get("/hang"), true) else {
                            break;
                        };
                        stream.send_reset(h2::Reason::CANCEL);
                        tokio::task::yield_now().await;
                    }
                    client.connection.abort();
                }
            },
            arena.attackers(),
        );
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    arena.holds("rapid reset", 64 * MIB).await;
    // Two were open at first, and new ones wait.
    let used_up = || (connections.load(Ordering::Relaxed) > 8).then_some(());
    eventually("connections to be used up", async || used_up()).await;
    resets.shutdown().await;
    arena.finish(0..).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_has_its_share_of_requests_on_however_few_connections() {
    let mut arena = Arena::start("[limits]\nconnections_per_agent = 100").await;
    let mut open = Vec::new();
    for _ in 0..4 {
        let client = Client::of(&arena.attacker).await;
        for _ in 0..50 {
            let mut sender = client.sender.clone().ready().await.unwrap();
            open.push(sender.send_request(client.get("/hang"), true).unwrap());
        }
    }
    let beyond = Client::of(&arena.attacker).await;
    eventually("its share to be used up", async || {
        (beyond.status("/").await == (503, "overloaded".to_owned())).then_some(())
    })
    .await;
    arena.holds("a flood of streams", 32 * MIB).await;
    arena.lets_in("a flood of streams").await;
    drop(open);
    let client = Client::of(&arena.attacker).await;
    eventually("its requests to be over", async || (client.status("/").await.0 == 200).then_some(())).await;
    arena.finish(202..).await;
}

#[tokio::test]
async fn a_connection_on_which_nothing_is_asked_is_closed_whatever_it_answers() {
    let config = "[limits]\nkeepalive_timeout = \"1s\"";
    let world = World::with_policy("allow = [\"allowed.test:{tls}\"]").config(config).start().await;
    let client = Client::of(&world.agent).await;
    assert_eq!(client.status("/").await.0, 200);
    let begun = Instant::now();
    // It goes on answering pings.
    let _ = timeout(PATIENCE, client.connection).await.expect("it is left open");
    assert!(begun.elapsed() > Duration::from_millis(900), "it took only {:?}", begun.elapsed());
    let client = Client::of(&world.agent).await;
    let mut sender = client.sender.clone().ready().await.unwrap();
    let (answer, _) = sender.send_request(client.get("/sse/6/500"), true).unwrap();
    let _events = timeout(PATIENCE, answer).await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(!client.connection.is_finished(), "a stream is open");
    world.finish().await;
}

/// The client reads the connection and answers pings, but never opens the window of one stream.
#[tokio::test]
async fn a_response_that_nobody_takes_is_broken_off_and_the_others_are_not() {
    let config = "[upstream]\nidle_timeout = \"1s\"";
    let world = World::with_policy("allow = [\"allowed.test:{tls}\"]").config(config).start().await;
    let client = Client::of(&world.agent).await;
    let mut sender = client.sender.clone().ready().await.unwrap();
    let (answer, _) = sender.send_request(client.get("/bytes/10000000"), true).unwrap();
    let mut untaken = timeout(PATIENCE, answer).await.unwrap().unwrap().into_body();
    let ended = timeout(PATIENCE, async {
        loop {
            match untaken.data().await {
                // Read, and not released.
                Some(Ok(_)) => {}
                Some(Err(error)) => return error,
                None => panic!("it came whole"),
            }
        }
    });
    let error = ended.await.expect("it is left open");
    assert!(error.is_reset(), "{error}");
    assert_eq!(client.status("/").await.0, 200, "on the same connection");
    let rows = world.gate.decisions_reach(2).await;
    let row = rows.iter().find(|row| row.text("path") == "/bytes/10000000").unwrap();
    assert_eq!(row.text("outcome"), "abandoned", "{row:?}");
    world.finish().await;
}

#[tokio::test]
async fn stopping_does_not_wait_for_clients_that_take_nothing() {
    let mut world =
        World::with_policy("allow = [\"allowed.test:{tls}\", \"allowed.test:{http}\"]").start().await;
    let client = Client::of(&world.agent).await;
    let mut sender = client.sender.clone().ready().await.unwrap();
    let (answer, _) = sender.send_request(client.get("/bytes/10000000"), true).unwrap();
    let _untaken = timeout(PATIENCE, answer).await.unwrap().unwrap();
    // The same without HTTP/2: more than sockets hold, and nobody reads.
    let mut raw = crate::harness::Raw::open(world.gate.proxy).await;
    raw.send(world.agent.absolute(&Request::get(ALLOWED, "/bytes/100000000")).concat()).await;
    eventually("both to be under way", async || (world.origin.requests().len() == 2).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let begun = Instant::now();
    assert!(world.gate.stop().await.success());
    assert!(begun.elapsed() < Duration::from_secs(12), "it took {:?}", begun.elapsed());
    assert!(!world.gate.stderr().contains("panicked at"), "{}", world.gate.stderr());
}
