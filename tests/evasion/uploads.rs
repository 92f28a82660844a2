//! UPL: what leaves is counted, however it is cut up, wrapped or compressed.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::future::join_all;

use super::{Case, POLICY, case, ensure, family};
use crate::harness::{End, Raw, Request, Row, Way, World, tally};

#[tokio::test]
async fn uploads_are_counted_however_they_are_made() {
    family("uploads", World::with_policy(&POLICY.replace("256 KiB", "256 MiB")), CASES).await;
}

const TOO_LARGE: &str = "upload_too_large";

const CASES: &[Case] = &[
    case("UPL-01", "a declared length over the limit", |scene| {
        Box::pin(async move {
            // Not a byte of the body is sent: the refusal must not wait for it.
            let text = "POST http://allowed.test:{http}/echo HTTP/1.1\r\nHost: allowed.test:{http}\r\n\
                        Content-Length: 10485760\r\n\r\n";
            scene.refused(text, 413, TOO_LARGE).await
        })
    }),
    case("UPL-02", "ten mebibytes in chunks", |scene| {
        Box::pin(async move {
            let pieces: Vec<_> = tally::stream(10 << 20).collect();
            let request = Request::get("allowed.test", "/echo").method("POST").pieces(pieces);
            for way in [Way::Absolute, Way::Http1, Way::Http2] {
                let (answer, trace) = scene.trace(1, scene.agent().send(way, &request)).await;
                ensure(matches!(answer.status, 413 | 0), || format!("{way:?}: {answer:?}"))?;
                ensure(trace.reasons() == [TOO_LARGE], || format!("{trace:#?}"))?;
                ensure(trace.rows[0].number("request_bytes") <= 64 << 10, || format!("{trace:#?}"))?;
                let short =
                    |seen: &crate::harness::Seen| seen.end == End::Aborted && seen.body.bytes <= 64 << 10;
                ensure(trace.seen.iter().all(short), || format!("{way:?}: {trace:#?}"))?;
            }
            Ok(())
        })
    }),
    case("UPL-07", "sixty kibibytes in the query", |scene| {
        Box::pin(async move {
            let text = format!(
                "GET http://allowed.test:{{http}}/?d={} HTTP/1.1\r\nHost: allowed.test:{{http}}\r\n\r\n",
                "QUJD".repeat(15 << 10)
            );
            scene.refused(&text, 414, "malformed_request").await
        })
    }),
    case("UPL-08", "ninety kibibytes in headers", |scene| {
        Box::pin(async move {
            let fields: String = (0..90).map(|n| format!("X-{n}: {}\r\n", "a".repeat(1024))).collect();
            let cookie = format!("Cookie: {}\r\n", "a".repeat(70 << 10));
            for fields in [fields, cookie] {
                let text = format!(
                    "GET http://allowed.test:{{http}}/ HTTP/1.1\r\nHost: allowed.test:{{http}}\r\n{fields}\r\n"
                );
                scene.refused(&text, 431, "malformed_request").await?;
            }
            Ok(())
        })
    }),
    case("UPL-10", "compression hides nothing, either way", |scene| {
        Box::pin(async move {
            let small = gzip(&vec![b'a'; 1 << 20]);
            let large = gzip(&tally::stream(256 << 10).flatten().collect::<Vec<u8>>());
            for (body, reasons) in [(small, [TOO_LARGE]), (large, [TOO_LARGE])] {
                let request = Request::post("allowed.test", "/echo", body).header("content-encoding", "gzip");
                let (answer, trace) = scene.trace(1, scene.agent().send(Way::Http1, &request)).await;
                ensure(matches!(answer.status, 413 | 0), || format!("{answer:?}"))?;
                ensure(trace.reasons() == reasons, || format!("{trace:#?}"))?;
                ensure(trace.seen.iter().all(|seen| seen.end != End::Complete), || format!("{trace:#?}"))?;
            }
            Ok(())
        })
    }),
    case("UPL-12", "a form of many small parts", |scene| {
        Box::pin(async move {
            let part =
                format!("--b\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\n{}\r\n", "x".repeat(2048));
            let body = part.repeat(200) + "--b--\r\n";
            let request = Request::get("allowed.test", "/echo").method("POST");
            let request = request.header("content-type", "multipart/form-data; boundary=b").pieces([body]);
            let (answer, trace) = scene.trace(1, scene.agent().send(Way::Http1, &request)).await;
            ensure(matches!(answer.status, 413 | 0), || format!("{answer:?}"))?;
            ensure(trace.reasons() == [TOO_LARGE], || format!("{trace:#?}"))
        })
    }),
    case("UPL-15", "more body than was declared", |scene| {
        Box::pin(async move {
            let text = format!(
                "POST http://allowed.test:{{http}}/echo HTTP/1.1\r\nHost: allowed.test:{{http}}\r\n\
                 Content-Length: 10\r\n\r\n0123456789{}",
                "x".repeat(128 << 10)
            );
            let attempt = async {
                let mut raw = scene.say(&text).await;
                (raw.answer().await, raw.must_close().await)
            };
            let ((first, rest), trace) = scene.trace(2, attempt).await;
            ensure(first.status == 200 && first.text() == "0123456789", || format!("{first:?}"))?;
            ensure(rest.is_empty() || rest.starts_with("HTTP/1.1 4"), || rest.clone())?;
            ensure(trace.seen.len() == 1 && trace.seen[0].body.bytes == 10, || format!("{trace:#?}"))
        })
    }),
];

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Sends requests one after the other on one connection until one is refused, and gives how many were not.
async fn until_refused(world: &World, request: &Request, most: usize) -> usize {
    let pieces = world.agent.absolute(request);
    let mut raw = Raw::open(world.agent.proxy).await;
    for sent in 0..most {
        let answer = raw.exchange(&request.method, &pieces).await;
        if answer.status == 413 {
            assert_eq!(answer.reason(), Some("upload_window_exceeded"), "{answer:?}");
            return sent;
        }
        assert_eq!(answer.status, 200, "request {sent}: {answer:?}");
    }
    panic!("none of {most} requests was refused");
}

fn left(rows: &[Row]) -> u64 {
    rows.iter().map(|row| row.number("request_bytes")).sum()
}

#[tokio::test]
async fn upl_04_small_uploads_add_up() {
    let world = World::with_policy(POLICY).start().await;
    let sent = until_refused(&world, &Request::post("allowed.test", "/", vec![b'x'; 1024]), 500).await;
    assert!((200..256).contains(&sent), "{sent} requests of a kibibyte and a head fitted into 256 KiB");
    // Another host of the same registrable domain is in the same window; another domain is not.
    let other = Request::post("allowed2.test", "/", vec![b'x'; 1024]);
    assert_eq!(world.send(Way::Http1, &other).await.status, 200);
    let rows = world.gate.decisions_reach(sent + 2).await;
    assert!(left(&rows[..=sent]) <= 256 << 10, "{} bytes left", left(&rows));
    rows[sent].is("deny", "upload_window_exceeded");
    world.finish().await;
}

/// A handshake that the destination does not take is a request that left all the same.
#[tokio::test]
async fn refused_websocket_handshakes_add_up() {
    let world = World::with_policy(POLICY).start().await;
    let mut fields =
        String::from("connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n");
    fields.push_str(&format!(
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nx-load: {}\r\n",
        "x".repeat(40 << 10)
    ));
    let host = format!("allowed.test:{}", world.origin.http);
    let handshake = format!("GET http://{host}/ HTTP/1.1\r\nhost: {host}\r\n{fields}\r\n");
    let mut sent = 0;
    loop {
        let answer =
            Raw::open(world.agent.proxy).await.exchange("GET", &[handshake.clone().into_bytes()]).await;
        if answer.reason() == Some("upload_window_exceeded") {
            break;
        }
        sent += 1;
        assert!(sent < 10, "{sent} handshakes of 40 KiB passed: {answer:?}");
    }
    assert!(world.origin.bytes() <= 256 << 10, "{} bytes left", world.origin.bytes());
    assert!(left(&world.gate.decisions_reach(sent + 1).await) <= 256 << 10);
    world.finish().await;
}

#[tokio::test]
async fn requests_at_once_do_not_share_one_allowance() {
    let world = World::with_policy(POLICY).start().await;
    let request = Request::get("allowed.test", "/").header("x-load", &"x".repeat(40 << 10));
    let answers = join_all((0..100).map(|_| world.send(Way::Absolute, &request))).await;
    let passed = answers.iter().filter(|answer| answer.status == 200).count();
    assert!((1..=6).contains(&passed), "{passed} requests of 40 KiB passed through 256 KiB");
    let rows = world.gate.decisions_reach(100).await;
    assert!(left(&rows) <= 256 << 10, "{} bytes left", left(&rows));
    world.finish().await;
}

/// The longest length there is, added to a head, is not a short one.
#[tokio::test]
async fn a_length_that_overflows_is_too_large() {
    let world = World::with_policy(POLICY).start().await;
    let host = format!("allowed.test:{}", world.origin.http);
    let head = format!(
        "POST http://{host}/ HTTP/1.1\r\nhost: {host}\r\ncontent-length: 18446744073709551613\r\n\r\n"
    );
    let answer = Raw::open(world.agent.proxy).await.exchange("POST", &[head.into_bytes()]).await;
    assert_eq!((answer.status, answer.reason()), (413, Some("upload_too_large")), "{answer:?}");
    world.gate.only_decision().await.is("deny", "upload_too_large");
    world.origin.must_be_untouched();
    world.finish().await;
}

#[tokio::test]
async fn upl_09_addresses_alone_add_up() {
    let world = World::with_policy(
        &POLICY
            .replace("256 KiB", "128 KiB")
            .replace("\"128 KiB\"\n    window_b", "\"64 KiB\"\n    window_b"),
    )
    .start()
    .await;
    let request = Request::get("allowed.test", &format!("/{}", "r4nd0m".repeat(60)));
    let sent = until_refused(&world, &request, 1000).await;
    let rows = world.gate.decisions_reach(sent + 1).await;
    assert!((1..=128 << 10).contains(&left(&rows)), "{} bytes left in {sent} requests", left(&rows));
    world.finish().await;
}

#[tokio::test]
async fn upl_13_ranges_of_one_upload_add_up() {
    let world = World::with_policy(POLICY).start().await;
    let request = Request::post("allowed.test", "/", vec![b'x'; 60 << 10])
        .method("PUT")
        .header("content-range", "bytes 0-61439/10485760");
    let sent = until_refused(&world, &request, 10).await;
    assert_eq!(sent, 4, "of 60 KiB each fit into 256 KiB");
    world.finish().await;
}

#[tokio::test]
async fn upl_17_a_tunnel_that_is_not_read_is_counted() {
    let world = World::with_policy(POLICY).start().await;
    // What a client in a passthrough tunnel sees is the origin's own certificate.
    let request = Request::get("pin.test", "/echo").method("POST").pieces(tally::stream(10 << 20));
    let trusting = crate::harness::Agent::new(world.gate.proxy, &world.ca.pem(), world.agent.ports);
    let answer = trusting.send(Way::Http1, &request).await;
    assert!(!answer.complete, "{answer:?}");
    let row = world.gate.only_decision().await;
    row.is("deny", "upload_too_large");
    assert_eq!((row.text("kind"), row.text("outcome")), ("connect", "cut"), "{row:?}");
    assert!(row.number("request_bytes") <= 64 << 10, "{row:?}");
    assert!(world.origin.bytes() <= 64 << 10, "{} bytes arrived", world.origin.bytes());
    world.finish().await;
}

#[tokio::test]
async fn messages_of_a_websocket_add_up() {
    let world = World::with_policy(POLICY).start().await;
    let request = Request::get("allowed.test", "/socket").pieces(vec![vec![b'x'; 4096]; 40]);
    let answer = world.send(Way::WebSocket, &request).await;
    assert_eq!(answer.status, 101, "{answer:?}");
    assert_eq!(answer.close_code, Some(1008), "{answer:?}");
    world.gate.only_decision().await.is("deny", "upload_too_large");
    assert!(world.origin.only_request().body.bytes <= 64 << 10);
    world.finish().await;
}
