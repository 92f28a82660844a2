//! FRM: where one request ends and the next begins, read the same by everybody.

use std::time::Duration;

use super::{Case, Finding, POLICY, Scene, case, ensure, family};
use crate::harness::{End, Raw, Request, Way, World, secrets};

#[tokio::test]
async fn requests_end_where_everybody_thinks_they_end() {
    family("framing", World::with_policy(POLICY), CASES).await;
}

const MALFORMED: &str = "malformed_request";
/// The head of an allowed POST, up to its framing.
const POST: &str = "POST http://allowed.test:{http}/echo HTTP/1.1\r\nHost: allowed.test:{http}\r\n";
/// The head of an allowed GET, up to its further headers.
const GET: &str = "GET http://allowed.test:{http}/ HTTP/1.1\r\nHost: allowed.test:{http}\r\n";

const CASES: &[Case] = &[
    // RFC 9112, section 6.1: refused, or chunks win and the connection ends. The second request is never served.
    case("FRM-01", "both a length and chunks", |scene| {
        Box::pin(async move {
            let second = "GET http://evil.test:{http}/ HTTP/1.1\r\nHost: evil.test:{http}\r\n\r\n";
            for framing in [
                "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            ] {
                let text = format!("{POST}{framing}\r\n3\r\nabc\r\n0\r\n\r\n{second}");
                let (said, trace) = scene.trace(1, async { scene.say(&text).await.must_close().await }).await;
                ensure(said.matches("HTTP/1.1 ").count() == 1, || said.clone())?;
                ensure(trace.rows.len() == 1, || format!("{trace:#?}"))?;
                let clean = |seen: &crate::harness::Seen| {
                    seen.header("content-length").is_none() && seen.body.text() == "abc"
                };
                ensure(said.starts_with("HTTP/1.1 400") || trace.seen.iter().all(clean), || {
                    format!("{trace:#?}")
                })?;
            }
            Ok(())
        })
    }),
    case("FRM-03", "two lengths", |scene| {
        Box::pin(async move {
            for lengths in [
                "Content-Length: 5\r\nContent-Length: 3\r\n",
                "Content-Length: +5\r\n",
                "Content-Length: 5, 3\r\n",
            ] {
                scene.refused_and_closed(&format!("{POST}{lengths}\r\nabcde"), 400, MALFORMED).await?;
            }
            Ok(())
        })
    }),
    case("FRM-05", "a compressed transfer encoding", |scene| {
        Box::pin(
            scene.refused_and_closed_text(format!("{POST}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")),
        )
    }),
    case("FRM-07", "chunks in HTTP/1.0", |scene| {
        Box::pin(scene.refused_and_closed_text(format!(
            "{}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            POST.replace("HTTP/1.1", "HTTP/1.0")
        )))
    }),
    case("FRM-09", "bare line feeds", |scene| {
        Box::pin(async move {
            let text = "GET http://allowed.test:{http}/ HTTP/1.1\nHost: allowed.test:{http}\nX: y\n\n";
            let (answer, trace) = scene.trace(1, async { scene.say(text).await.answer().await }).await;
            ensure(matches!(answer.status, 200 | 400), || format!("{answer:?}"))?;
            ensure(trace.rows.len() == 1, || format!("{trace:#?}"))
        })
    }),
    case("FRM-10", "folds, spaces and control bytes in the head", |scene| {
        Box::pin(async move {
            for field in
                ["X: a\r\n b\r\n", " Y: b\r\n", "Content-Length : 5\r\n", "X: a\rb\r\n", "X: a\0b\r\n"]
            {
                let refused = scene.refused_and_closed(&format!("{GET}{field}\r\n"), 400, MALFORMED).await;
                refused.map_err(|problem| format!("{field:?}: {problem}"))?;
            }
            Ok(())
        })
    }),
    case("FRM-11", "chunk sizes that are none", |scene| {
        Box::pin(async move {
            for size in ["0x3", "-1", "FFFFFFFFFFFFFFFFF", "3 3", ""] {
                bad_chunk(scene, size).await.map_err(|problem| format!("`{size}`: {problem}"))?;
            }
            Ok(())
        })
    }),
    case("FRM-13", "a secret in a chunk extension", |scene| {
        Box::pin(async move {
            let secret = secrets::anthropic_key();
            let text =
                format!("{POST}Transfer-Encoding: chunked\r\n\r\n3;exfil={secret}\r\nabc\r\n0\r\n\r\n");
            scene.trace(1, async { scene.say(&text).await.answer().await }).await;
            ensure(!scene.world.origin.wire().contains(&secrets::heart(&secret)), || "it arrived".into())
        })
    }),
    case("FRM-14", "trailers that leak, or would have framed", |scene| Box::pin(trailers(scene))),
    case("FRM-16", "a GET with a body", |scene| {
        Box::pin(async move {
            let text = format!("{GET}Content-Length: 6\r\n\r\nSECRET");
            let (answer, trace) = scene.trace(1, async { scene.say(&text).await.answer().await }).await;
            ensure(answer.status == 200, || format!("{answer:?}"))?;
            ensure(trace.seen[0].body.text() == "SECRET", || format!("{trace:#?}"))?;
            ensure(trace.rows[0].number("request_bytes") > 6, || format!("{trace:#?}"))
        })
    }),
    case("FRM-17", "a body that waits to be asked for, to a refused host", |scene| {
        Box::pin(async move {
            let text = "POST http://other.test:{http}/ HTTP/1.1\r\nHost: other.test:{http}\r\n\
                        Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n";
            let (answer, trace) = scene.trace(1, async { scene.say(text).await.answer().await }).await;
            answer.must_be(403, "unknown_destination")?;
            ensure(answer.informational.is_empty(), || format!("{answer:?}"))?;
            trace.must_be_one_refusal("unknown_destination")
        })
    }),
    case("FRM-18", "an expectation nobody knows", |scene| {
        Box::pin(async move {
            let text = format!("{POST}Expect: y 100-continue\r\nContent-Length: 1\r\n\r\nx");
            let (answer, trace) = scene.trace(1, async { scene.say(&text).await.answer().await }).await;
            ensure((400..500).contains(&answer.status), || format!("{answer:?}"))?;
            ensure(trace.rows.len() == 1, || format!("{trace:#?}"))?;
            trace.must_reach_nobody()
        })
    }),
    case("FRM-19", "a body before an upgrade", |scene| {
        Box::pin(async move {
            let text = format!(
                "{GET}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nContent-Length: 3\r\n\r\n\
                 abcGET http://evil.test:{{http}}/ HTTP/1.1\r\nHost: evil.test:{{http}}\r\n\r\n"
            );
            scene.refused_and_closed(&text, 400, MALFORMED).await
        })
    }),
    case("FRM-21", "a refused request pipelined behind an allowed one", |scene| {
        Box::pin(async move {
            let text = format!(
                "{GET}\r\nGET http://evil.test:{{http}}/2 HTTP/1.1\r\nHost: evil.test:{{http}}\r\n\r\n"
            );
            let attempt = async {
                let mut raw = scene.say(&text).await;
                (raw.answer().await, raw.answer().await)
            };
            let ((first, second), trace) = scene.trace(2, attempt).await;
            ensure(first.status == 200, || format!("{first:?}"))?;
            second.must_be(403, "unknown_destination")?;
            ensure(trace.reasons() == ["allowed_by_rule", "unknown_destination"], || format!("{trace:#?}"))
        })
    }),
    case("FRM-22", "headers meant for the next hop alone", |scene| Box::pin(hop_by_hop(scene))),
    case("FRM-23", "framing headers with underscores", |scene| {
        Box::pin(async move {
            for field in ["Content_Length: 5", "Transfer_Encoding: chunked"] {
                let text = format!("{GET}{field}\r\nConnection: close\r\n\r\nabcde");
                let (answer, trace) = scene.trace(1, async { scene.say(&text).await.answer().await }).await;
                let name = field.split(':').next().unwrap_or_default().to_ascii_lowercase();
                let dropped = trace.seen.iter().all(|seen| seen.header(&name).is_none());
                ensure(answer.status == 400 || dropped, || format!("{answer:?}\n{trace:#?}"))?;
            }
            Ok(())
        })
    }),
    case("FRM-24", "an upgrade that nobody asked for", |scene| {
        Box::pin(async move {
            for way in [Way::Absolute, Way::Http1] {
                let request = Request::get("allowed.test", "/unsolicited-101");
                let (answer, trace) = scene.trace(1, scene.agent().send(way, &request)).await;
                ensure(answer.status == 502, || format!("{way:?}: {answer:?}"))?;
                ensure(trace.rows.len() == 1 && trace.rows[0].text("outcome") == "failed", || {
                    format!("{trace:#?}")
                })?;
            }
            Ok(())
        })
    }),
    case("FRM-26", "paths that climb", |scene| {
        Box::pin(async move {
            for path in [
                "/public/../secret",
                "/public/%2e%2e/secret",
                "/public/.%2E/secret",
                "/public/..;/secret",
                "/public/..%2fsecret",
                "/public/..%5csecret",
                "/./secret",
            ] {
                for way in [Way::Absolute, Way::Http1, Way::Http2] {
                    let denied = scene.denied(way, &Request::get("allowed.test", path), MALFORMED).await;
                    denied.map_err(|problem| format!("{path}: {problem}"))?;
                }
            }
            Ok(())
        })
    }),
];

impl Scene {
    async fn refused_and_closed_text(&self, text: String) -> Finding {
        self.refused_and_closed(&text, 400, MALFORMED).await
    }
}

/// The request before the bad chunk may have begun upstream; it must not be completed there.
async fn bad_chunk(scene: &Scene, size: &str) -> Finding {
    let text = format!("{POST}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n{size}\r\nabc\r\n0\r\n\r\n");
    let attempt = async {
        let mut raw = scene.say(&text).await;
        raw.read_to_close(Duration::from_secs(5)).await
    };
    let (closed, trace) = scene.trace(1, attempt).await;
    ensure(closed.is_some(), || "the connection stays open".into())?;
    ensure(trace.seen.iter().all(|seen| seen.end != End::Complete), || format!("{trace:#?}"))?;
    ensure(trace.rows.len() == 1, || format!("{trace:#?}"))?;
    ensure(trace.rows[0].text("outcome") != "completed", || format!("{trace:#?}"))
}

async fn trailers(scene: &Scene) -> Finding {
    let secret = secrets::anthropic_key();
    let head = format!("{POST}Transfer-Encoding: chunked\r\nTrailer: x-leak\r\n\r\n3\r\nabc\r\n0\r\n");
    let text = format!("{head}x-leak: {secret}\r\n\r\n");
    let (_, trace) = scene.trace(1, async { scene.say(&text).await.answer().await }).await;
    ensure(!scene.world.origin.wire().contains(&secrets::heart(&secret)), || "the secret arrived".into())?;
    ensure(trace.reasons() == ["secret_found"], || format!("{trace:#?}"))?;
    let text = format!("{head}host: evil.test\r\ncontent-length: 5\r\n\r\n");
    let (_, trace) = scene.trace(1, async { scene.say(&text).await.answer().await }).await;
    let framing = |seen: &crate::harness::Seen| {
        seen.trailers.iter().any(|(name, _)| name == "host" || name == "content-length")
    };
    ensure(!trace.seen.iter().any(framing), || format!("{trace:#?}"))
}

async fn hop_by_hop(scene: &Scene) -> Finding {
    let text = format!(
        "{GET}Connection: close, x-policy, authorization\r\nX-Policy: a\r\nAuthorization: Bearer b\r\n\
         Proxy-Authorization: Basic YTpi\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\nKeep-Alive: timeout=5\r\n\
         X-Kept: c\r\n\r\n"
    );
    let (answer, trace) = scene.trace(1, async { scene.say(&text).await.answer().await }).await;
    // The credentials are nobody's; what matters is that they, and what Connection names, stay here.
    if answer.status == 407 {
        return trace.must_be_one_refusal("identity_unknown");
    }
    let Some(seen) = trace.seen.first() else { return Err(format!("{answer:?}")) };
    ensure(seen.header("x-kept") == Some("c"), || format!("{seen:#?}"))?;
    let names = ["x-policy", "authorization", "proxy-authorization", "proxy-connection", "keep-alive"];
    let left = names.iter().find(|name| seen.header(name).is_some());
    ensure(left.is_none(), || format!("{left:?} arrived"))
}

#[tokio::test]
async fn frm_22_connection_names_headers_that_stay_here() {
    let world = World::with_policy(POLICY).start().await;
    let http = world.origin.http;
    let mut raw = Raw::open(world.gate.proxy).await;
    raw.send(format!(
        "GET http://allowed.test:{http}/ HTTP/1.1\r\nHost: allowed.test:{http}\r\n\
         Connection: keep-alive, X-Policy, Authorization\r\nX-Policy: a\r\nAuthorization: Bearer b\r\nX-Kept: c\r\n\r\n"
    ))
    .await;
    assert_eq!(raw.answer().await.status, 200);
    let seen = world.origin.only_request();
    assert_eq!(
        (seen.header("x-kept"), seen.header("x-policy"), seen.header("authorization")),
        (Some("c"), None, None)
    );
    world.finish().await;
}
