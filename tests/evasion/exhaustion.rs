//! RES: what a client can use up is limited, and the others do not notice.

use std::io::Write;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::POLICY;
use crate::harness::{Raw, Request, Way, World, eventually};

#[tokio::test]
async fn res_01_a_head_that_does_not_come_is_not_waited_for() {
    let world = World::with_policy(POLICY).config("limits = { header_timeout = \"1s\" }").start().await;
    let begun = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(Raw::open(world.gate.proxy).await);
    }
    let mut slow = Raw::open(world.gate.proxy).await;
    let dribble =
        b"GET http://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\nX-Long: aaaaaaaaaaaaaaaaaaaaaaaaa";
    let pieces: Vec<&[u8]> = dribble.chunks(4).collect();
    slow.send_slowly(&pieces, Duration::from_millis(200)).await;
    assert_eq!(world.send(Way::Http1, &Request::get("allowed.test", "/")).await.status, 200);
    slow.must_close().await;
    for mut raw in silent {
        raw.must_close().await;
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
    world.finish().await;
}

#[tokio::test]
async fn res_03_too_many_headers_are_refused() {
    let world = World::with_policy(POLICY).start().await;
    let fields: String = (0..150).map(|n| format!("X-{n}: {n}\r\n")).collect();
    let mut raw = Raw::open(world.gate.proxy).await;
    raw.send(format!("GET http://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\n{fields}\r\n")).await;
    assert_eq!(raw.answer().await.status, 431);
    world.gate.only_decision().await.is("deny", "malformed_request");
    world.finish().await;
}

#[tokio::test]
async fn res_05_a_small_body_that_decodes_to_a_large_one_is_not_unpacked_whole() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let zeros = vec![0; 1 << 20];
    for _ in 0..256 {
        encoder.write_all(&zeros).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    let policy = POLICY.replace("64 KiB", "1 MiB").replace("128 KiB", "64 MiB").replace("256 KiB", "128 MiB");
    let world = World::with_policy(&policy).start().await;
    let before = world.gate.resident();
    let request = Request::post("allowed.test", "/echo", bomb).header("content-encoding", "gzip");
    let begun = Instant::now();
    let answer = world.send(Way::Http1, &request).await;
    assert!(answer.status >= 400, "{answer:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
    world.gate.only_decision().await.is("deny", "upload_too_large");
    let grown = world.gate.resident().saturating_sub(before);
    assert!(grown < 32 << 20, "memory grew by {grown} bytes");
    world.finish().await;
}

#[tokio::test]
async fn res_09_10_connections_beyond_the_limit_are_turned_away() {
    let world = World::with_policy(POLICY).config("limits = { connections = 20 }").start().await;
    let mut open = Vec::new();
    for _ in 0..20 {
        let mut raw = Raw::open(world.gate.proxy).await;
        assert_eq!(raw.connect(&format!("allowed.test:{}", world.origin.tls)).await.status, 200);
        open.push(raw);
    }
    let mut beyond = Raw::open(world.gate.proxy).await;
    beyond.send("GET http://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\n\r\n").await;
    let answer = beyond.answer().await;
    assert!(answer.status == 0 || answer.reason() == Some("overloaded"), "{answer:?}");
    assert_eq!(world.gate.admin("/healthz", "").await.status, 200);
    drop(open);
    eventually("there to be room again", async || {
        (world.send(Way::Http1, &Request::get("allowed.test", "/")).await.status == 200).then_some(())
    })
    .await;
    world.finish().await;
}

#[tokio::test]
async fn res_13_running_out_of_descriptors_is_survived() {
    let world = World::with_policy(POLICY).start().await;
    let pid = Pid::from_raw(world.gate.pid().cast_signed());
    let few = Rlimit { current: Some(100), maximum: Some(100) };
    prlimit(pid, Resource::Nofile, few).unwrap();
    let mut open = Vec::new();
    for _ in 0..200 {
        open.push(Raw::open(world.gate.proxy).await);
    }
    let before = processor_time(world.gate.pid());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let used = processor_time(world.gate.pid()) - before;
    assert!(used < 50, "it used {used} of 100 ticks while it could do nothing");
    drop(open);
    eventually("it to recover", async || {
        (world.send(Way::Http1, &Request::get("allowed.test", "/")).await.status == 200).then_some(())
    })
    .await;
    world.finish().await;
}

/// User and system time of a process, in ticks of 10 ms.
fn processor_time(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}
