//! Messages without end or measure: bodies, heads, frames, requests before their answers.

use std::io::Write;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::{Arena, MIB};
use crate::harness::{Raw, Request, Way, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_dribble_or_never_come_hold_up_nobody_else() {
    let mut arena = Arena::start("[upstream]\nresponse_timeout = \"3s\"").await;
    let head = &arena.attacker.absolute(&Request::post("allowed.test", "/echo", vec![b'x'; 1000]))[0];
    let mut slow = JoinSet::new();
    for _ in 0..100 {
        let (proxy, head) = (arena.attacker.proxy, head.clone());
        slow.spawn_on(
            async move {
                let mut raw = Raw::open(proxy).await;
                raw.send(head).await;
                loop {
                    raw.send("x").await;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            arena.attackers(),
        );
    }
    let mut silent = Vec::new();
    for _ in 0..100 {
        let mut raw = Raw::open(arena.attacker.proxy).await;
        raw.send(head).await;
        silent.push(raw);
    }
    arena.holds("slow bodies and none", 32 * MIB).await;
    for raw in &mut silent {
        let answer = raw.answer_to("POST").await;
        assert_eq!((answer.status, answer.reason()), (504, Some("upstream_timeout")), "{answer:?}");
    }
    drop(silent);
    slow.shutdown().await;
    arena.finish(200..=200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_of_a_mebibyte_are_not_kept() {
    let mut arena = Arena::start("").await;
    let field = format!("X-Large: {}\r\n", "x".repeat(4000));
    let head =
        String::from_utf8(arena.attacker.absolute(&Request::get("allowed.test", "/"))[0].clone()).unwrap();
    let bomb = head.replace("\r\n\r\n", &format!("\r\n{}\r\n", field.repeat(256)));
    let mut bombs = JoinSet::new();
    for _ in 0..16 {
        let (proxy, bomb) = (arena.attacker.proxy, bomb.clone());
        bombs.spawn_on(
            async move {
                for _ in 0..20 {
                    let mut raw = Raw::open(proxy).await;
                    raw.send(&bomb).await;
                    let answer = raw.answer().await;
                    assert!([0, 431].contains(&answer.status), "{answer:?}");
                }
            },
            arena.attackers(),
        );
    }
    arena.holds("heads of a mebibyte", 48 * MIB).await;
    bombs.join_all().await;
    // Whose they are was not read.
    let unread = arena.world.gate.metric("outgate_decisions_total", &["reason=\"malformed_request\""]).await;
    assert_eq!(unread, 320.0, "each is on record");
    arena.finish(0..=0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_decode_to_much_are_not_unpacked_whole() {
    let mut arena = Arena::start("").await;
    let mut bombs = JoinSet::new();
    for (coding, bomb) in [("gzip", gzip_bomb()), ("zstd", zstd_bomb())] {
        for _ in 0..8 {
            let attacker = arena.attacker.clone();
            let request = Request::post("allowed.test", "/echo", bomb.clone());
            let request = request.header("content-encoding", coding);
            bombs.spawn_on(
                async move {
                    for _ in 0..5 {
                        let answer = attacker.send(Way::Http1, &request).await;
                        assert_eq!(
                            (answer.status, answer.reason()),
                            (413, Some("upload_too_large")),
                            "{answer:?}"
                        );
                    }
                },
                arena.attackers(),
            );
        }
    }
    arena.holds("compression bombs", 64 * MIB).await;
    bombs.join_all().await;
    arena.finish(80..=80).await;
}

/// 256 MiB of zeros.
fn gzip_bomb() -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let zeros = vec![0; 1 << 20];
    for _ in 0..256 {
        encoder.write_all(&zeros).unwrap();
    }
    encoder.finish().unwrap()
}

/// 256 MiB of zeros, as blocks of one byte that is repeated (RFC 8878, section 3.1.1.2).
fn zstd_bomb() -> Vec<u8> {
    let block = |last: u32| {
        let header = (128 << 10) << 3 | 1 << 1 | last;
        [&header.to_le_bytes()[..3], &[0]].concat()
    };
    // The magic number, no content size, a window of 2 MiB.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58];
    for _ in 0..2047 {
        frame.extend(block(0));
    }
    frame.extend(block(1));
    frame
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_message_of_any_length_passes_through_a_small_gateway() {
    let mut arena = Arena::start("").await;
    let upgrade = Request::get("sink.test", "/ws")
        .port(arena.sink)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let mut sending = JoinSet::new();
    for _ in 0..4 {
        let mut raw = Raw::open(arena.attacker.proxy).await;
        let answer = raw.exchange("GET", &arena.attacker.absolute(&upgrade)).await;
        assert_eq!(answer.status, 101, "{answer:?}");
        sending.spawn_on(
            async move {
                // One frame of 2^40 bytes, masked with zeros.
                let mut header = vec![0x82, 0xff];
                header.extend((1_u64 << 40).to_be_bytes());
                header.extend([0; 4]);
                raw.send(header).await;
                let piece = vec![0xa5; 64 << 10];
                let mut sent = 0;
                while sent < 64 << 20 && raw.output.write_all(&piece).await.is_ok() {
                    sent += piece.len();
                }
                sent
            },
            arena.attackers(),
        );
    }
    arena.holds("WebSocket messages without end", 48 * MIB).await;
    for sent in sending.join_all().await {
        assert!(sent < 64 << 20, "{sent} bytes were taken, though the policy allows 1 MiB at once");
    }
    arena.finish(4..=4).await;
}

/// Requests sent without waiting for the answers, which nobody reads until the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_before_their_answers_are_answered_in_turn() {
    const EACH: usize = 500;
    let mut arena = Arena::start("").await;
    let head = arena.attacker.absolute(&Request::get("allowed.test", "/bytes/2000"))[0].clone();
    let mut open = Vec::new();
    for _ in 0..4 {
        let stream = tokio::net::TcpStream::connect(arena.attacker.proxy).await.unwrap();
        let (mut input, mut output) = stream.into_split();
        let head = head.clone();
        let writer = arena.attackers().spawn(async move {
            for _ in 0..EACH {
                output.write_all(&head).await.unwrap();
            }
            output
        });
        open.push(async move {
            let mut answers = Vec::new();
            let (mut counted, mut from) = (0, 0);
            let _output = writer.await.unwrap();
            while counted < EACH {
                let read = tokio::time::timeout(Duration::from_secs(30), input.read_buf(&mut answers));
                assert_ne!(read.await.unwrap().unwrap(), 0, "it was closed");
                counted += answers[from..].windows(12).filter(|window| *window == b"HTTP/1.1 200").count();
                from = answers.len().saturating_sub(11);
            }
        });
    }
    let mut readers = JoinSet::new();
    arena.holds("requests before their answers", 32 * MIB).await;
    open.into_iter().for_each(|reader| drop(readers.spawn_on(reader, arena.attackers())));
    readers.join_all().await;
    arena.finish(4 * EACH as i64..=4 * EACH as i64).await;
}

/// What is refused is on record as well, and one agent's refusals do not keep another's requests from theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_refused_requests_delays_nobody_elses() {
    let mut arena = Arena::start("").await;
    let mut flood = JoinSet::new();
    for _ in 0..32 {
        let attacker = arena.attacker.clone();
        flood.spawn_on(
            async move {
                let request = Request::get("nobody.test", "/");
                let mut raw = Raw::open(attacker.proxy).await;
                let mut answered = 0;
                while answered < 2000 {
                    let answer = raw.exchange("GET", &attacker.absolute(&request)).await;
                    assert_eq!(
                        (answer.status, answer.reason()),
                        (403, Some("unknown_destination")),
                        "{answer:?}"
                    );
                    answered += 1;
                }
            },
            arena.attackers(),
        );
    }
    let denied =
        async |arena: &Arena| arena.world.gate.metric("outgate_decisions_total", &["action=\"deny\""]).await;
    eventually("the flood to begin", async || (denied(&arena).await > 1000.0).then_some(())).await;
    let (before, begun) = (denied(&arena).await, Instant::now());
    arena.holds("a flood of refused requests", 48 * MIB).await;
    let (refused, took) = (denied(&arena).await - before, begun.elapsed().as_secs_f64());
    // A hundred a second, one that each connection had waiting, and what came while the other had nothing open.
    assert!(refused < 300.0 + 110.0 * took, "{refused} were refused within {took} s");
    flood.shutdown().await;
    arena.finish(1000..).await;
}
