//! TUN: what a tunnel may carry, and to whom.

use std::time::Duration;

use rustls::client::{EchGreaseConfig, EchMode};
use rustls::crypto::aws_lc_rs::hpke;
use rustls::crypto::hpke::Hpke;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Case, Finding, POLICY, Scene, case, ensure, family};
use crate::harness::{Flaw, Raw, Request, Way, World};

#[tokio::test]
async fn tunnels_carry_nothing_unread() {
    family("tunnels", World::with_policy(POLICY), CASES).await;
}

const CASES: &[Case] = &[
    case("TUN-01", "ports of mail and shells", |scene| Box::pin(ports(scene, &[22, 25]))),
    case("TUN-02", "ports of stores and name servers", |scene| {
        Box::pin(ports(scene, &[6379, 53, 3306, 5432]))
    }),
    case("TUN-03", "SSH where TLS was meant", |scene| Box::pin(refused_protocol(scene, b"SSH-2.0-x\r\n"))),
    case("TUN-04", "clear text where only TLS is allowed", |scene| {
        let text = b"POST /exfil HTTP/1.1\r\nHost: allowed.test:443\r\nContent-Length: 6\r\n\r\nSECRET";
        Box::pin(refused_protocol(scene, text))
    }),
    case("TUN-06", "a ClientHello in two pieces", |scene| Box::pin(split_hello(scene))),
    case("TUN-09", "another name in the handshake than in the CONNECT", |scene| {
        Box::pin(async move {
            let request = Request::get("allowed.test", "/");
            let attempt = scene.agent().tls_as(&request, "evil.test", b"http/1.1");
            let (opened, trace) = scene.trace(1, attempt).await;
            ensure(opened.is_err(), || "a certificate for evil.test was made".into())?;
            trace.must_be_one_refusal("authority_mismatch")
        })
    }),
    case("TUN-10", "no name in the handshake", |scene| Box::pin(without_name(scene))),
    case("TUN-11", "the name in capitals", |scene| {
        Box::pin(async move {
            let capitals = Request::get("ALLOWED.TEST", "/");
            let (_, trace) = scene.passes(Way::Http1, &capitals).await?;
            ensure(trace.rows[0].text("host") == "allowed.test", || format!("{trace:#?}"))
        })
    }),
    case("TUN-12", "another Host inside the tunnel", |scene| {
        Box::pin(async move {
            for way in [Way::Http1, Way::Http2, Way::WebSocket] {
                let request = Request::get("allowed.test", "/").claiming("evil.test");
                scene.denied(way, &request, "authority_mismatch").await?;
            }
            Ok(())
        })
    }),
    case("TUN-14", "another Host in the second request of a tunnel", |scene| Box::pin(second_request(scene))),
    case("TUN-16", "a request pipelined behind a CONNECT that will be refused", |scene| {
        Box::pin(async move {
            let text = "CONNECT evil.test:{tls} HTTP/1.1\r\nHost: evil.test:{tls}\r\n\r\n\
                        GET http://allowed.test:{http}/smuggled HTTP/1.1\r\nHost: allowed.test:{http}\r\n\r\n";
            let (said, trace) = scene.trace(1, async { scene.say(text).await.must_close().await }).await;
            ensure(!said.contains("hello"), || said.clone())?;
            ensure(trace.rows.iter().all(|row| row.text("action") == "deny"), || format!("{trace:#?}"))?;
            trace.must_reach_nobody()
        })
    }),
    case("TUN-18", "a CONNECT that another proxy passed on", |scene| {
        Box::pin(async move {
            let attempt = async {
                let mut raw = Raw::open(scene.world.gate.proxy).await;
                let authority = scene.fill("evil.test:{tls}");
                let answer = raw.connect_with(&authority, "Via: 1.1 relay\r\n").await;
                if answer.status != 200 {
                    return answer;
                }
                let config = scene.agent().tls_config(&[b"http/1.1"], true);
                let mut raw = raw.start_tls("evil.test", config).await.unwrap();
                raw.exchange("GET", &scene.agent().origin_form(&Request::get("evil.test", "/"))).await
            };
            let (answer, trace) = scene.trace(1, attempt).await;
            answer.must_be(403, "unknown_destination")?;
            trace.must_be_one_refusal("unknown_destination")
        })
    }),
    case("TUN-22", "a hello with a greased ECH", |scene| Box::pin(greased(scene))),
    case("TUN-25", "an address that no rule names, with an allowed name inside", |scene| {
        Box::pin(async move {
            let request = Request::get("127.0.0.2", "/");
            let attempt = async {
                match scene.agent().tls_as(&request, "allowed.test", b"http/1.1").await {
                    Ok(mut raw) => raw.exchange("GET", &scene.agent().origin_form(&request)).await.status,
                    Err(refused) => refused.status,
                }
            };
            let (status, trace) = scene.trace(1, attempt).await;
            ensure(status == 0 || status >= 400, || format!("answered with {status}"))?;
            ensure(trace.rows.iter().all(|row| row.text("action") == "deny"), || format!("{trace:#?}"))?;
            trace.must_reach_nobody()
        })
    }),
];

async fn ports(scene: &Scene, ports: &[u16]) -> Finding {
    for port in ports {
        scene.denied(Way::Http1, &Request::get("allowed.test", "/").port(*port), "port_refused").await?;
    }
    Ok(())
}

async fn refused_protocol(scene: &Scene, bytes: &[u8]) -> Finding {
    let attempt = async {
        let mut raw = Raw::open(scene.world.gate.proxy).await;
        let answer = raw.connect("allowed.test:443").await;
        raw.send(bytes).await;
        (answer.status, raw.read_to_close(Duration::from_secs(12)).await)
    };
    let ((status, said), trace) = scene.trace(1, attempt).await;
    ensure(status == 200, || format!("the CONNECT was answered with {status}"))?;
    ensure(said.as_deref() == Some(b""), || format!("not closed without a word: {said:?}"))?;
    trace.must_be_one_refusal("protocol_refused")?;
    ensure(trace.rows[0].text("kind") == "connect", || format!("{trace:#?}"))
}

/// Runs TLS through a pipe whose other end lets the first byte go ahead of the rest.
async fn split_hello(scene: &Scene) -> Finding {
    let request = Request::get("allowed.test", "/");
    let tunnel = scene.agent().tunnel(&request).await.map_err(|answer| format!("{answer:?}"))?;
    let (near, far) = tokio::io::duplex(64 << 10);
    let (mut far_read, mut far_write) = tokio::io::split(far);
    let (mut back, mut forth) = tokio::io::split(tunnel.into_stream());
    tokio::spawn(async move {
        let mut first = [0];
        far_read.read_exact(&mut first).await?;
        forth.write_all(&first).await?;
        forth.flush().await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
        tokio::io::copy(&mut far_read, &mut forth).await
    });
    tokio::spawn(async move { tokio::io::copy(&mut back, &mut far_write).await });
    let config = scene.agent().tls_config(&[b"http/1.1"], true);
    let attempt = async {
        let mut raw = Raw::over(Box::new(near)).start_tls("allowed.test", config).await?;
        std::io::Result::Ok(raw.exchange("GET", &scene.agent().origin_form(&request)).await)
    };
    let (answer, trace) = scene.trace(1, attempt).await;
    let answer = answer.map_err(|error| error.to_string())?;
    ensure(answer.status == 200, || format!("{answer:?}"))?;
    ensure(trace.reasons() == ["allowed_by_rule"], || format!("{trace:#?}"))
}

async fn without_name(scene: &Scene) -> Finding {
    let config = scene.agent().tls_config(&[b"http/1.1"], false);
    let request = Request::get("allowed.test", "/");
    let read = async {
        let tunnel = scene.agent().tunnel(&request).await.map_err(|answer| format!("{answer:?}"))?;
        let raw = tunnel.start_tls("allowed.test", config.clone()).await;
        let mut raw = raw.map_err(|error| format!("no certificate for the host of the CONNECT: {error}"))?;
        Ok::<_, String>(raw.exchange("GET", &scene.agent().origin_form(&request)).await)
    };
    let (answer, _) = scene.trace(1, read).await;
    ensure(answer.as_ref().is_ok_and(|answer| answer.status == 200), || format!("{answer:?}"))?;
    let unread = async {
        let tunnel = scene.agent().tunnel(&Request::get("pin.test", "/")).await;
        tunnel
            .map_err(|answer| format!("{answer:?}"))?
            .start_tls("pin.test", config)
            .await
            .map_err(|e| e.to_string())
    };
    let (opened, trace) = scene.trace(1, unread).await;
    ensure(opened.is_err(), || "a tunnel that is not read was opened without a name".into())?;
    ensure(trace.reasons() == ["authority_mismatch"] && trace.seen.is_empty(), || format!("{trace:#?}"))
}

async fn second_request(scene: &Scene) -> Finding {
    let good = Request::get("allowed.test", "/");
    let attempt = async {
        let mut raw = scene.agent().tls(&good, b"http/1.1").await.map_err(|answer| format!("{answer:?}"))?;
        let first = raw.exchange("GET", &scene.agent().origin_form(&good)).await;
        let other = good.clone().claiming("evil.test");
        let second = raw.exchange("GET", &scene.agent().origin_form(&other)).await;
        Ok::<_, String>((first.status, second))
    };
    let (result, trace) = scene.trace(2, attempt).await;
    let (first, second) = result?;
    ensure(first == 200, || format!("the first was answered with {first}"))?;
    second.must_be(421, "authority_mismatch")?;
    ensure(trace.reasons() == ["allowed_by_rule", "authority_mismatch"], || format!("{trace:#?}"))?;
    ensure(trace.seen.len() == 1, || format!("{trace:#?}"))
}

async fn greased(scene: &Scene) -> Finding {
    let suite = hpke::DH_KEM_X25519_HKDF_SHA256_AES_128;
    let (key, _) = suite.generate_key_pair().map_err(|error| error.to_string())?;
    let plain = scene.agent().tls_config(&[b"http/1.1"], true);
    let mut config = scene.agent().ech_config(EchMode::Grease(EchGreaseConfig::new(suite, key)));
    config.alpn_protocols = plain.alpn_protocols.clone();
    let request = Request::get("allowed.test", "/");
    let attempt = async {
        let tunnel = scene.agent().tunnel(&request).await.map_err(|answer| format!("{answer:?}"))?;
        let mut raw =
            tunnel.start_tls("allowed.test", config.into()).await.map_err(|error| error.to_string())?;
        Ok::<_, String>(raw.exchange("GET", &scene.agent().origin_form(&request)).await.status)
    };
    let (status, trace) = scene.trace(1, attempt).await;
    ensure(status == Ok(200), || format!("{status:?}"))?;
    ensure(trace.reasons() == ["allowed_by_rule"], || format!("{trace:#?}"))
}

#[tokio::test]
async fn tun_16_a_refused_connect_ends_the_connection() {
    let world = World::with_policy(POLICY).config("refuse = \"connect\"").start().await;
    let http = world.origin.http;
    let mut raw = Raw::open(world.gate.proxy).await;
    raw.send(format!(
        "CONNECT other.test:443 HTTP/1.1\r\nHost: other.test:443\r\n\r\n\
         GET http://allowed.test:{http}/smuggled HTTP/1.1\r\nHost: allowed.test:{http}\r\n\r\n"
    ))
    .await;
    let answer = raw.answer().await;
    assert_eq!((answer.status, answer.reason()), (403, Some("unknown_destination")), "{answer:?}");
    assert_eq!(raw.must_close().await, "");
    world.gate.only_decision().await.is("deny", "unknown_destination");
    world.origin.must_be_untouched();
    world.finish().await;
}

#[tokio::test]
async fn tun_19_a_closed_port_upstream_is_a_bad_gateway() {
    let policy = "allow = [\"closed.test:1\"]\naddresses = { allow = [\"127.0.0.2:1\"] }";
    let world = World::with_policy(policy).start().await;
    for way in Way::ALL {
        let answer = world.send(way, &Request::get("closed.test", "/").port(1)).await;
        assert_eq!(
            (answer.status, answer.reason()),
            (502, Some("upstream_unreachable")),
            "{way:?}: {answer:?}"
        );
    }
    for row in world.gate.decisions_reach(4).await {
        assert_eq!((row.text("reason"), row.text("outcome")), ("upstream_unreachable", "failed"), "{row:?}");
    }
    world.finish().await;
}

#[tokio::test]
async fn tun_23_an_upstream_that_cannot_prove_its_name_is_sent_nothing() {
    for flaw in [Flaw::Expired, Flaw::WrongName, Flaw::SelfSigned] {
        let world = World::with_policy(POLICY).origin(move |origin| origin.flawed(flaw)).start().await;
        for way in [Way::Http1, Way::Http2, Way::WebSocket] {
            let request = Request::get("allowed.test", "/").header("authorization", "Bearer of-somebody");
            let answer = world.send(way, &request).await;
            assert_eq!(
                (answer.status, answer.reason()),
                (502, Some("upstream_tls_failed")),
                "{flaw:?} {way:?}: {answer:?}"
            );
        }
        assert!(world.origin.requests().is_empty(), "{flaw:?}: {:#?}", world.origin.requests());
        for row in world.gate.decisions_reach(3).await {
            assert_eq!(
                (row.text("reason"), row.text("outcome")),
                ("upstream_tls_failed", "failed"),
                "{row:?}"
            );
        }
        world.finish().await;
    }
}
