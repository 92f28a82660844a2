//! What is allowed is forwarded as it is, while it happens.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::harness::{PATIENCE, Raw, Request, Way, World, eventually, secrets};

const POLICY: &str = "allow = [\"allowed.test:{http}\", \"allowed.test:{tls}\", \"allowed2.test:{tls}\"]";

#[tokio::test]
async fn events_arrive_while_they_are_made() {
    let world = World::with_policy(POLICY).start().await;
    let request = Request::get("allowed.test", "/sse/5/300");
    for way in [Way::Absolute, Way::Http1] {
        let (mut raw, pieces) = open(&world, way, &request).await;
        let begun = Instant::now();
        raw.send(pieces.concat()).await;
        let mut line = String::new();
        while !line.starts_with("data: event 0") {
            line.clear();
            timeout(PATIENCE, raw.input.read_line(&mut line)).await.unwrap().unwrap();
        }
        assert!(
            begun.elapsed() < Duration::from_millis(1200),
            "{way:?}: the first event took {:?}",
            begun.elapsed()
        );
    }
    let answer = world.send(Way::Http2, &request).await;
    assert_eq!(answer.text().matches("data: event").count(), 5, "{answer:?}");
    world.finish().await;
}

async fn open(world: &World, way: Way, request: &Request) -> (Raw, Vec<Vec<u8>>) {
    match way {
        Way::Absolute => (Raw::open(world.gate.proxy).await, world.agent.absolute(request)),
        _ => (world.agent.tls(request, b"http/1.1").await.unwrap(), world.agent.origin_form(request)),
    }
}

/// A gRPC call in both directions at once: each message comes back before the next one is sent, and the status comes
/// in the trailers.
#[tokio::test]
async fn grpc_goes_both_ways_at_once() {
    let world = World::with_policy(POLICY).start().await;
    let request = Request::get("allowed.test", "/grpc");
    let io = TokioIo::new(world.agent.tls(&request, b"h2").await.unwrap().into_stream());
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let (messages, receiver) = mpsc::channel::<Bytes>(1);
    let body = StreamBody::new(stream::unfold(receiver, |mut receiver| async {
        receiver
            .recv()
            .await
            .map(|message| (Ok::<_, std::convert::Infallible>(Frame::data(message)), receiver))
    }));
    let call = http::Request::post(format!("https://allowed.test:{}/grpc", world.origin.tls))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Box::pin(body))
        .unwrap();
    let mut answer = timeout(PATIENCE, sender.send_request(call)).await.unwrap().unwrap();
    for number in 0..5u8 {
        let message = Bytes::from(vec![0, 0, 0, 0, 1, number]);
        messages.send(message.clone()).await.unwrap();
        let back =
            timeout(PATIENCE, answer.frame()).await.expect("the message is held back").unwrap().unwrap();
        assert_eq!(back.into_data().unwrap(), message);
    }
    drop(messages);
    let end = timeout(PATIENCE, answer.frame()).await.unwrap().unwrap().unwrap();
    assert_eq!(end.into_trailers().unwrap()["grpc-status"], "0");
    world.gate.only_decision().await.is("allow", "allowed_by_rule");
    world.finish().await;
}

#[tokio::test]
async fn trailers_arrive_both_ways() {
    let world = World::with_policy(POLICY).start().await;
    for way in [Way::Absolute, Way::Http1, Way::Http2] {
        let request = Request::get("allowed.test", "/trailers").method("POST").header("te", "trailers");
        let request = request.header("trailer", "x-sum").pieces(["one", "two"]).trailer("x-sum", "6");
        let answer = world.send(way, &request).await;
        assert_eq!(answer.trailers, [("x-checksum".into(), "abc".into())], "{way:?}: {answer:?}");
        let seen = world.origin.requests().pop().unwrap();
        assert_eq!(seen.trailers, [("x-sum".into(), "6".into())], "{way:?}: {seen:?}");
    }
    world.finish().await;
}

/// Searches are asked for by a GET with a body; where nothing declares its length it must not be left out.
#[tokio::test]
async fn a_get_keeps_its_body_whether_its_length_is_declared_or_not() {
    for http1_only in [true, false] {
        let world = World::with_policy(POLICY);
        let world = if http1_only { world.origin(|origin| origin.http1_only()) } else { world };
        let world = world.start().await;
        for way in [Way::Absolute, Way::Http1, Way::Http2] {
            for method in ["GET", "DELETE", "POST"] {
                let declared = Request::post("allowed.test", "/echo", "one two").method(method);
                for request in [declared.clone(), declared.pieces(["one ", "two"])] {
                    let answer = world.send(way, &request).await;
                    assert_eq!(
                        (answer.status, answer.text()),
                        (200, "one two".into()),
                        "{way:?}: {request:?}"
                    );
                    let seen = world.origin.requests().pop().unwrap();
                    assert_eq!(seen.body.kept, b"one two", "{way:?}: {request:?} arrived as {seen:?}");
                }
            }
        }
        world.finish().await;
    }
}

#[tokio::test]
async fn a_body_is_asked_for_once_it_is_decided() {
    let world = World::with_policy(POLICY).start().await;
    for way in [Way::Absolute, Way::Http1] {
        let request =
            Request::post("allowed.test", "/echo", "x".repeat(50_000)).header("expect", "100-continue");
        let (mut raw, pieces) = open(&world, way, &request).await;
        raw.send(&pieces[0]).await;
        let mut line = String::new();
        timeout(PATIENCE, raw.input.read_line(&mut line)).await.expect("nobody asks for the body").unwrap();
        assert!(line.starts_with("HTTP/1.1 100"), "{way:?}: {line}");
        timeout(PATIENCE, raw.input.read_line(&mut line)).await.unwrap().unwrap();
        raw.send(&pieces[1]).await;
        let answer = raw.answer().await;
        assert_eq!((answer.status, answer.body.bytes), (200, 50_000), "{way:?}: {answer:?}");
    }
    world.finish().await;
}

#[tokio::test]
async fn answers_without_a_body_stay_so() {
    let world = World::with_policy(POLICY).start().await;
    for way in [Way::Absolute, Way::Http1, Way::Http2] {
        for (method, path, status) in [
            ("HEAD", "/bytes/1000", 200),
            ("GET", "/status/204", 204),
            ("GET", "/status/304", 304),
            ("DELETE", "/x", 200),
        ] {
            let answer = world.send(way, &Request::get("allowed.test", path).method(method)).await;
            assert_eq!(
                (answer.status, answer.complete),
                (status, true),
                "{way:?} {method} {path}: {answer:?}"
            );
            if method == "HEAD" {
                assert_eq!(
                    (answer.header("content-length"), answer.body.bytes),
                    (Some("1000"), 0),
                    "{way:?}: {answer:?}"
                );
            }
        }
    }
    world.finish().await;
}

#[tokio::test]
async fn what_breaks_off_upstream_breaks_off_here() {
    let world = World::with_policy(POLICY).start().await;
    for way in [Way::Absolute, Way::Http1, Way::Http2] {
        let answer = world.send(way, &Request::get("allowed.test", "/abort")).await;
        assert!(!answer.complete, "{way:?}: a broken answer was made a whole one: {answer:?}");
    }
    for row in world.gate.decisions_reach(3).await {
        assert_eq!((row.text("action"), row.text("outcome")), ("allow", "failed"), "{row:?}");
    }
    world.finish().await;
}

#[tokio::test]
async fn a_client_that_goes_ends_the_request_upstream() {
    let world = World::with_policy(POLICY).start().await;
    let request = Request::get("allowed.test", "/hang");
    for way in [Way::Absolute, Way::Http1] {
        let (mut raw, pieces) = open(&world, way, &request).await;
        let before = world.origin.requests().len();
        raw.send(pieces.concat()).await;
        eventually("the request to arrive", async || (world.origin.requests().len() > before).then_some(()))
            .await;
        drop(raw);
    }
    eventually("the rows to end", async || {
        let rows = world.gate.decisions_now().await;
        (rows.len() == 2 && rows.iter().all(|row| row.text("outcome") == "abandoned")).then_some(())
    })
    .await;
    for row in world.gate.decisions_now().await {
        assert!(row.number("request_bytes") > 0, "what had left is not in the record: {row:?}");
        assert_ne!(row.text("upstream"), "", "{row:?}");
    }
    world.finish().await;
}

/// A destination may answer before it has read everything. What leaves after its answer is in the record, and looked
/// into, like what left before.
#[tokio::test]
async fn what_leaves_after_the_answer_is_on_record_too() {
    let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = origin.local_addr().unwrap().to_string();
    let policy = format!("allow = [\"{host}\"]\naddresses = {{ allow = [\"{host}\"] }}");
    let world = World::with_policy(&policy).start().await;
    let mut raw = Raw::open(world.gate.proxy).await;
    raw.send(format!("POST http://{host}/ HTTP/1.1\r\nhost: {host}\r\ntransfer-encoding: chunked\r\n\r\n"))
        .await;
    raw.send("5\r\nfirst\r\n").await;
    let (mut early, _) = origin.accept().await.unwrap();
    let mut read = vec![0; 64 << 10];
    assert!(early.read(&mut read).await.unwrap() > 0);
    early.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    assert_eq!(raw.answer().await.status, 200);
    raw.send(format!("2710\r\n{}\r\n", "x".repeat(10_000))).await;
    let mut arrived = 0;
    while arrived < 10_000 {
        arrived += timeout(PATIENCE, early.read(&mut read)).await.unwrap().unwrap();
    }
    let key = secrets::anthropic_key();
    raw.send(format!("{:x}\r\n {key} \r\n0\r\n\r\n", key.len() + 2)).await;
    let row = world.gate.only_decision().await;
    row.is("deny", "secret_found");
    assert_eq!(row.text("outcome"), "cut", "{row:?}");
    assert!(row.number("request_bytes") > 10_000, "{row:?}");
    world.finish().await;
}

#[tokio::test]
async fn upstream_connections_are_kept_but_never_shared_between_hosts() {
    let world = World::with_policy(POLICY).start().await;
    for _ in 0..3 {
        assert_eq!(world.send(Way::Http1, &Request::get("allowed.test", "/")).await.status, 200);
    }
    assert_eq!(world.origin.accepts(), 1, "a connection was not used again");
    assert_eq!(world.send(Way::Http1, &Request::get("allowed2.test", "/")).await.status, 200);
    assert_eq!(world.origin.accepts(), 2, "a connection was used for another host");
    let names = world.origin.names();
    assert_eq!(names, [Some("allowed.test".into()), Some("allowed2.test".into())]);
    world.finish().await;
}

#[tokio::test]
async fn an_upstream_without_http2_serves_clients_with_it() {
    let world = World::with_policy(POLICY).origin(|origin| origin.http1_only()).start().await;
    for way in [Way::Http1, Way::Http2] {
        let answer = world.send(way, &Request::post("allowed.test", "/echo", "hello")).await;
        assert_eq!((answer.status, answer.text()), (200, "hello".into()), "{way:?}: {answer:?}");
    }
    assert!(world.origin.requests().iter().all(|seen| seen.version == "HTTP/1.1"));
    world.finish().await;
}

#[tokio::test]
async fn an_address_of_ipv6_is_a_host_like_any_other() {
    let policy = "allow = [\"[::1]:{http}\", \"[::1]:{tls}\"]\naddresses = { allow = [\"[::1]:{http}\", \"[::1]:{tls}\"] }";
    let world = World::with_policy(policy).origin(|origin| origin.at("::1")).start().await;
    let answer = world.send(Way::Absolute, &Request::post("[::1]", "/echo", "hello")).await;
    assert_eq!((answer.status, answer.text()), (200, "hello".into()), "{answer:?}");
    world.gate.only_decision().await.is("allow", "allowed_by_rule");
    world.finish().await;
}

#[tokio::test]
async fn a_passthrough_tunnel_is_the_upstreams_own() {
    let policy = "allow = [\"pin.test:{tls}\"]\ntls = { passthrough = [\"pin.test:{tls}\"] }";
    let world = World::with_policy(policy).start().await;
    let trusting = crate::harness::Agent::new(world.gate.proxy, &world.ca.pem(), world.agent.ports);
    let answer = trusting.send(Way::Http2, &Request::post("pin.test", "/echo", "hello")).await;
    assert_eq!((answer.status, answer.text()), (200, "hello".into()), "{answer:?}");
    let row = world.gate.only_decision().await;
    row.is("allow", "allowed_by_rule");
    assert_eq!(
        (row.text("kind"), row.text("host"), row.text("outcome")),
        ("connect", "pin.test", "completed"),
        "{row:?}"
    );
    assert!(row.number("request_bytes") > 500 && row.number("response_bytes") > 500, "{row:?}");
    let refused = trusting.send(Way::Http1, &Request::get("other.test", "/")).await;
    assert!(refused.error.is_some(), "what is not passed through is decrypted: {refused:?}");
    world.finish().await;
}
