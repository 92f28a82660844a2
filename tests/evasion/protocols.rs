//! PRO: HTTP/2, WebSockets, and what is neither.

use std::time::Duration;

use tokio::time::timeout;

use super::{Case, Finding, POLICY, Scene, case, ensure, family};
use crate::harness::{Frame, Opcode, PATIENCE, Raw, Request, Way, World, secrets};

#[tokio::test]
async fn other_protocols_are_read_or_refused() {
    family("protocols", World::with_policy(POLICY), CASES).await;
}

const CASES: &[Case] = &[
    case("PRO-01", "HTTP/2 without TLS to the proxy itself", |scene| {
        Box::pin(closed(scene, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"))
    }),
    case("PRO-02", "an upgrade to HTTP/2", |scene| {
        Box::pin(async move {
            let text = "GET http://allowed.test:{http}/ HTTP/1.1\r\nHost: allowed.test:{http}\r\n\
                        Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
            let (answer, trace) = scene.trace(1, async { scene.say(text).await.answer().await }).await;
            ensure(matches!(answer.status, 200 | 400), || format!("{answer:?}"))?;
            let stripped = |seen: &crate::harness::Seen| {
                seen.header("upgrade").is_none() && seen.header("http2-settings").is_none()
            };
            ensure(trace.seen.iter().all(stripped), || format!("{trace:#?}"))
        })
    }),
    case("PRO-04", "a stream to another authority", |scene| {
        Box::pin(
            scene.denied_http2(Request::get("allowed.test", "/").claiming("evil.test"), "authority_mismatch"),
        )
    }),
    case("PRO-07", "a tunnel inside the tunnel", |scene| Box::pin(inner_connect(scene))),
    case("PRO-09", "an upstream that steers to QUIC", |scene| {
        Box::pin(async move {
            for way in [Way::Absolute, Way::Http1, Way::Http2] {
                let (answer, _) = scene.passes(way, &Request::get("allowed.test", "/alt-svc")).await?;
                ensure(answer.header("alt-svc").is_none(), || format!("{way:?}: {answer:?}"))?;
            }
            Ok(())
        })
    }),
    case("PRO-11", "a secret over two frames of a message", |scene| Box::pin(split_secret(scene))),
    case("PRO-13", "compressed messages", |scene| Box::pin(compressed_messages(scene))),
    case("PRO-14", "SOCKS, and TLS, to the proxy's port", |scene| {
        Box::pin(async move {
            closed(scene, b"\x05\x01\0").await?;
            closed(scene, b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03").await
        })
    }),
    case("PRO-15", "a TRACE that would show the credentials", |scene| {
        Box::pin(async move {
            let text = "TRACE http://allowed.test:{http}/headers HTTP/1.1\r\nHost: allowed.test:{http}\r\n\
                        Proxy-Authorization: Basic dHJhY2U6ZA==\r\nConnection: close\r\n\r\n";
            let (answer, trace) = scene.trace(1, async { scene.say(text).await.answer().await }).await;
            ensure(!answer.text().contains("dHJhY2U6ZA=="), || format!("{answer:?}"))?;
            ensure(trace.seen.iter().all(|seen| seen.header("proxy-authorization").is_none()), || {
                format!("{trace:#?}")
            })
        })
    }),
];

impl Scene {
    async fn denied_http2(&self, request: Request, reason: &str) -> Finding {
        self.denied(Way::Http2, &request, reason).await
    }
}

/// Bytes that are no request are answered with nothing worth having, recorded once, and the connection is closed.
async fn closed(scene: &Scene, bytes: &[u8]) -> Finding {
    let attempt = async {
        let mut raw = scene.say_bytes(bytes).await;
        raw.finish_sending().await;
        raw.read_to_close(Duration::from_secs(12)).await
    };
    let (said, trace) = scene.trace(1, attempt).await;
    let said = said.ok_or("the connection stays open")?;
    ensure(said.is_empty() || said.starts_with(b"HTTP/1.1 400"), || format!("{said:?}"))?;
    trace.must_be_one_refusal("malformed_request")
}

async fn inner_connect(scene: &Scene) -> Finding {
    let request = Request::get("allowed.test", "/");
    let attempt = async {
        let raw = scene.agent().tls(&request, b"h2").await.map_err(|answer| format!("{answer:?}"))?;
        let stream = hyper_util::rt::TokioIo::new(raw.into_stream());
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, stream)
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        let connect = http::Request::connect("evil.test:443").body(String::new()).unwrap();
        timeout(PATIENCE, sender.send_request(connect)).await.map_err(|error| error.to_string())
    };
    let (answer, trace) = scene.trace(1, attempt).await;
    ensure(answer?.map_or(true, |answer| answer.status().as_u16() >= 400), || "it was accepted".into())?;
    ensure(trace.rows.len() == 1 && trace.rows[0].text("action") == "deny", || format!("{trace:#?}"))?;
    trace.must_reach_nobody()
}

/// RFC 8441 is not offered: a client that asks for it all the same loses that stream and nothing else.
#[tokio::test]
async fn an_extended_connect_ends_its_stream_alone() {
    let world = World::with_policy(POLICY).start().await;
    let origin = Request::get("allowed.test", "/");
    let raw = world.agent.tls(&origin, b"h2").await.unwrap();
    let (sender, connection) = h2::client::handshake(raw.into_stream()).await.unwrap();
    tokio::spawn(connection);
    let mut sender = timeout(PATIENCE, sender.ready()).await.unwrap().unwrap();
    let uri = |path: &str| format!("https://allowed.test:{}{path}", world.origin.tls);
    let request = |method: &str, path: &str| {
        http::Request::builder()
            .method(method)
            .uri(uri(path))
            .version(http::Version::HTTP_2)
            .body(())
            .unwrap()
    };
    let (answer, mut upload) = sender.send_request(request("POST", "/echo"), false).unwrap();
    upload.send_data("before, ".into(), false).unwrap();
    let mut extended = request("CONNECT", "/socket");
    extended.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    let (refused, _) = sender.send_request(extended, false).unwrap();
    let refused = timeout(PATIENCE, refused).await.expect("the stream was left open");
    let answered = refused.as_ref().map(|answer| answer.status().as_u16());
    assert!(answered.as_ref().map_or_else(|error| error.is_reset(), |status| *status >= 400), "{refused:?}");
    assert!(!sender.is_extended_connect_protocol_enabled());
    upload.send_data("after".into(), true).unwrap();
    let answer = timeout(PATIENCE, answer).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    let mut echoed = Vec::new();
    while let Some(piece) = timeout(PATIENCE, body.data()).await.unwrap() {
        echoed.extend_from_slice(&piece.unwrap());
    }
    assert_eq!(echoed, b"before, after");
    let (answer, _) = sender.send_request(request("GET", "/"), true).unwrap();
    assert_eq!(timeout(PATIENCE, answer).await.unwrap().unwrap().status(), 200);
    let methods: Vec<String> = world.origin.requests().iter().map(|seen| seen.method.clone()).collect();
    assert_eq!(methods, ["POST", "GET"]);
    let rows = world.gate.decisions_reach(2 + usize::from(answered.is_ok())).await;
    let denied = rows.iter().filter(|row| row.text("action") == "deny").count();
    assert_eq!((rows.len() - denied, denied), (2, usize::from(answered.is_ok())), "{rows:#?}");
    world.finish().await;
}

/// A WebSocket to the allowed host, with further header lines in its handshake.
async fn websocket(scene: &Scene, fields: &str) -> Result<(Raw, crate::harness::Answer), String> {
    let request = Request::get("allowed.test", "/socket");
    let mut raw = scene.agent().tls(&request, b"http/1.1").await.map_err(|answer| format!("{answer:?}"))?;
    let head = format!(
        "GET /socket HTTP/1.1\r\nHost: allowed.test:{{tls}}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
    );
    raw.send(scene.fill(&head)).await;
    let answer = raw.answer().await;
    if answer.status == 101 { Ok((raw, answer)) } else { Err(format!("{answer:?}")) }
}

async fn split_secret(scene: &Scene) -> Finding {
    let secret = secrets::anthropic_key();
    let (first, second) = secret.split_at(30);
    let attempt = async {
        let (mut raw, _) = websocket(scene, "").await?;
        let begin = Frame { last: false, ..Frame::text(first) };
        let end = Frame { opcode: Opcode::Continuation, ..Frame::text(second) };
        for frame in [begin, end] {
            let _ = frame.write(&mut raw.output, true).await;
        }
        // What is not the secret may be echoed first.
        loop {
            match timeout(PATIENCE, Frame::read(&mut raw.input)).await {
                Ok(Ok(frame)) if frame.close_code().is_none() => {}
                Ok(Ok(frame)) => return Ok(frame.close_code()),
                other => return Err(format!("{other:?}")),
            }
        }
    };
    let (code, trace) = scene.trace(1, attempt).await;
    ensure(code == Ok(Some(1008)), || format!("closed with {code:?}"))?;
    ensure(trace.reasons() == ["secret_found"], || format!("{trace:#?}"))?;
    let seen = &trace.seen[0].body;
    ensure(!seen.text().contains(&secrets::heart(&secret)), || format!("{seen:?}"))
}

async fn compressed_messages(scene: &Scene) -> Finding {
    let attempt = async {
        let (mut raw, answer) = websocket(scene, "Sec-WebSocket-Extensions: permessage-deflate\r\n").await?;
        let compressed = Frame { rsv1: true, ..Frame::text("not even deflate") };
        let _ = compressed.write(&mut raw.output, true).await;
        let back = timeout(PATIENCE, Frame::read(&mut raw.input)).await.map_err(|error| error.to_string())?;
        Ok::<_, String>((answer, back.ok().and_then(|frame| frame.close_code())))
    };
    let (result, trace) = scene.trace(1, attempt).await;
    let (answer, code) = result?;
    ensure(answer.header("sec-websocket-extensions").is_none(), || format!("{answer:?}"))?;
    ensure(trace.seen[0].header("sec-websocket-extensions").is_none(), || format!("{trace:#?}"))?;
    ensure(code == Some(1002), || format!("closed with {code:?}"))
}
