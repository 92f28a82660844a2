//! Bodies larger than memory go through unchanged, and the gateway stays small.
//!
//! 4 GiB each way where `CI` is `true` or `OUTGATE_TEST_BIG` is set, 256 MiB otherwise.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::harness::{Request, Tally, Watch, World, tally};

const POLICY: &str = r#"
    allow = ["allowed.test:{tls}"]
    [uploads]
    request_block = "8 GiB"
    window_block = "16 GiB"
    window_block_agent = "16 GiB"
"#;

/// How much more memory the gateway may use while it carries any amount.
const GROWTH: u64 = 64 << 20;
/// Longest that either direction may take.
const LIMIT: Duration = Duration::from_secs(900);

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, std::convert::Infallible>;

fn size() -> u64 {
    let full = std::env::var("CI").as_deref() == Ok("true") || std::env::var_os("OUTGATE_TEST_BIG").is_some();
    if full { 4 << 30 } else { 256 << 20 }
}

/// Sends a request inside a tunnel, with a body of any length, and tallies the answer.
async fn send(world: &World, http2: bool, path: &str, upload: u64) -> (u16, Tally) {
    let request = Request::get("allowed.test", path);
    let alpn: &[u8] = if http2 { b"h2" } else { b"http/1.1" };
    let io = TokioIo::new(world.agent.tls(&request, alpn).await.unwrap().into_stream());
    let authority = format!("allowed.test:{}", world.origin.tls);
    let body: Body = match upload {
        0 => Empty::new().boxed_unsync(),
        _ => StreamBody::new(stream::iter(tally::stream(upload).map(|piece| Ok(Frame::data(piece)))))
            .boxed_unsync(),
    };
    let method = if upload == 0 { "GET" } else { "POST" };
    let target = if http2 { format!("https://{authority}{path}") } else { path.to_owned() };
    let message =
        http::Request::builder().method(method).uri(target).header("host", authority).body(body).unwrap();
    let answer = if http2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(message).await
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(message).await
    };
    let mut answer = answer.unwrap();
    let mut told = Tally::default();
    while let Some(frame) = answer.frame().await {
        if let Ok(piece) = frame.unwrap().into_data() {
            told.add(&piece);
        }
    }
    (answer.status().as_u16(), told)
}

fn expected(length: u64) -> Tally {
    let mut tally = Tally::default();
    tally::stream(length).for_each(|piece| tally.add(&piece));
    tally
}

async fn large_bodies_pass(http2: bool) {
    let world = World::with_policy(POLICY).start().await;
    // Once round before measuring: what is made for the first request is not growth.
    send(&world, http2, "/bytes/1000000", 0).await;
    let (size, watch) = (size(), Watch::over(&world.gate));
    let down = tokio::time::timeout(LIMIT, send(&world, http2, &format!("/bytes/{size}"), 0)).await.unwrap();
    let up = tokio::time::timeout(LIMIT, send(&world, http2, "/status/201", size)).await.unwrap();
    let growth = watch.growth();
    let whole = expected(size);
    assert_eq!((down.0, down.1.bytes, down.1.sha256()), (200, size, whole.sha256()));
    let seen = world.origin.requests().pop().unwrap().body;
    assert_eq!((up.0, seen.bytes, seen.sha256()), (201, size, whole.sha256()));
    eprintln!("{size} bytes each way, HTTP/2 {http2}: memory grew by {} KiB", growth >> 10);
    assert!(growth < GROWTH, "memory grew by {growth} bytes");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_pass_over_http1() {
    large_bodies_pass(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_pass_over_http2() {
    large_bodies_pass(true).await;
}
