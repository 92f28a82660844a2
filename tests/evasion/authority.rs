//! AUT: one host, read the same by everybody, or no request at all.

use super::{Case, POLICY, Scene, case, ensure, family};
use crate::harness::{Request, Way, World};

#[tokio::test]
async fn authorities_have_one_reading() {
    family("authorities", World::with_policy(POLICY), CASES).await;
}

const MALFORMED: &str = "malformed_request";

const CASES: &[Case] = &[
    case("AUT-01", "the target names a host that Host denies", |scene| {
        Box::pin(async move {
            let text = "GET http://evil.test:{http}/ HTTP/1.1\r\nHost: allowed.test:{http}\r\n\r\n";
            let (answer, trace) = scene.trace(1, async { scene.say(text).await.answer().await }).await;
            answer.must_be(421, "authority_mismatch")?;
            trace.must_be_one_refusal("authority_mismatch")?;
            ensure(trace.rows[0].text("host") == "evil.test", || format!("{trace:?}"))
        })
    }),
    case("AUT-02", "Host names a host that the target does not", |scene| {
        Box::pin(scene.refused(
            "GET http://allowed.test:{http}/ HTTP/1.1\r\nHost: evil.test\r\n\r\n",
            421,
            "authority_mismatch",
        ))
    }),
    case("AUT-03", "two Host headers", |scene| {
        Box::pin(scene.refused_and_closed(
            "GET http://allowed.test:{http}/ HTTP/1.1\r\nHost: allowed.test:{http}\r\nHost: evil.test\r\n\r\n",
            400,
            MALFORMED,
        ))
    }),
    case("AUT-04", "no Host header in HTTP/1.1", |scene| {
        Box::pin(scene.refused("GET http://allowed.test:{http}/ HTTP/1.1\r\n\r\n", 400, MALFORMED))
    }),
    case("AUT-05", "an allowed name as user information", |scene| {
        Box::pin(async move {
            let text = "GET http://allowed.test@evil.test:{http}/ HTTP/1.1\r\nHost: evil.test:{http}\r\n\r\n";
            let (answer, trace) = scene.trace(1, async { scene.say(text).await.answer().await }).await;
            answer.must_be(400, MALFORMED)?;
            trace.must_be_one_refusal(MALFORMED)?;
            ensure(!trace.rows[0].0.to_string().contains("allowed.test@"), || format!("{trace:?}"))
        })
    }),
    case("AUT-08", "a backslash before the user information", |scene| {
        Box::pin(scene.refused(
            "GET http://evil.test\\@allowed.test:{http}/ HTTP/1.1\r\nHost: allowed.test:{http}\r\n\r\n",
            400,
            MALFORMED,
        ))
    }),
    case("AUT-10", "a semicolon in the user information", |scene| {
        Box::pin(scene.refused(
            "GET http://evil.test;@allowed.test:{http}/ HTTP/1.1\r\nHost: allowed.test:{http}\r\n\r\n",
            400,
            MALFORMED,
        ))
    }),
    case("AUT-11", "one trailing dot is the same host everywhere", |scene| Box::pin(trailing_dot(scene))),
    case("AUT-12", "a denied host in other spellings", |scene| {
        Box::pin(async move {
            for host in ["denied.wild.test.", "DeNiEd.WILD.test", "denied.wild.test"] {
                let request = Request::get(host, "/");
                let mut raw = match scene.agent().tls_as(&request, "denied.wild.test", b"http/1.1").await {
                    Ok(raw) => raw,
                    Err(answer) => return Err(format!("{host}: {answer:?}")),
                };
                let plain = Request::get("denied.wild.test", "/");
                let pieces = scene.agent().origin_form(&plain);
                let (answer, trace) = scene.trace(1, raw.exchange("GET", &pieces)).await;
                answer.must_be(403, "denied_by_rule")?;
                trace.must_be_one_refusal("denied_by_rule")?;
                ensure(trace.rows[0].text("host") == "denied.wild.test", || format!("{trace:?}"))?;
            }
            Ok(())
        })
    }),
    case("AUT-13", "empty labels", |scene| {
        Box::pin(connects(scene, &["allowed.test..:443", ".allowed.test:443", "a..wild.test:443"]))
    }),
    case("AUT-14", "brackets round a name", |scene| {
        Box::pin(connects(scene, &["[allowed.test]:443", "[denied.wild.test]:443", "[::1].wild.test:443"]))
    }),
    case("AUT-16", "a NUL that ends the name for some", |scene| {
        Box::pin(connects(scene, &["evil.test\0.wild.test:443"]))
    }),
    case("AUT-18", "zone ids", |scene| {
        Box::pin(connects(scene, &["[::1%25.wild.test]:443", "[fe80::1%25eth0]:443", "[fe80::1%eth0]:443"]))
    }),
    case("AUT-19", "ports beyond 65535, or written otherwise", |scene| {
        Box::pin(async move {
            let beyond = format!("allowed.test:{}", 65536 + u32::from(scene.world.origin.tls));
            connects(scene, &[&beyond, "allowed.test:65979", "allowed.test:0", "allowed.test:+443"]).await?;
            connects(scene, &["allowed.test:0443", "allowed.test:", "allowed.test"]).await
        })
    }),
    case("AUT-21", "no host", |scene| Box::pin(connects(scene, &[":443"]))),
    case("AUT-24", "a Kelvin sign for a k", |scene| Box::pin(connects(scene, &["\u{212a}.test:443"]))),
    case("AUT-26", "a Cyrillic letter for a Latin one", |scene| {
        Box::pin(async move {
            let request = Request::get("xn--80a.test", "/");
            for way in Way::ALL {
                scene.denied(way, &request, "unknown_destination").await?;
            }
            Ok(())
        })
    }),
    case("AUT-28", "schemes that are not spoken here", |scene| {
        Box::pin(async move {
            for scheme in ["ftp", "gopher", "https"] {
                let text = format!(
                    "GET {scheme}://allowed.test:{{tls}}/ HTTP/1.1\r\nHost: allowed.test:{{tls}}\r\n\r\n"
                );
                let (answer, trace) = scene.trace(1, async { scene.say(&text).await.answer().await }).await;
                ensure((400..600).contains(&answer.status), || format!("{scheme}: {answer:?}"))?;
                ensure(trace.rows.len() == 1, || format!("{scheme}: {trace:#?}"))?;
                ensure(trace.rows[0].text("action") == "deny", || format!("{scheme}: {trace:#?}"))?;
                trace.must_reach_nobody()?;
            }
            Ok(())
        })
    }),
    case("AUT-30", "a destination told by Host alone", |scene| {
        Box::pin(scene.refused(
            "GET /latest/meta-data HTTP/1.1\r\nHost: allowed.test:{http}\r\n\r\n",
            400,
            MALFORMED,
        ))
    }),
    case("AUT-31", "a question to the server as a whole", |scene| {
        Box::pin(scene.refused("OPTIONS * HTTP/1.1\r\nHost: allowed.test:{http}\r\n\r\n", 400, MALFORMED))
    }),
    case("AUT-32", "characters that mean something to a shell or a list", |scene| {
        Box::pin(async move {
            for host in ["$(id)", "a,b", "a'b", "(x)", "a;b", "a!b", "a=b", "a&b", "a~b", "a%2eb"] {
                connects(scene, &[&format!("{host}.wild.test:443")]).await?;
            }
            Ok(())
        })
    }),
    case("AUT-33", "names that are too long", |scene| {
        Box::pin(async move {
            let (label, labels) = ("a".repeat(64), vec!["a"; 130].join("."));
            let name = vec!["a".repeat(50); 5].join(".");
            for host in [label, labels, name] {
                connects(scene, &[&format!("{host}.wild.test:443")]).await?;
            }
            Ok(())
        })
    }),
    case("AUT-34", "headers that steer other proxies", |scene| Box::pin(steering_headers(scene))),
];

/// Each authority is refused as the target of a CONNECT, and the connection closed.
async fn connects(scene: &Scene, authorities: &[&str]) -> super::Finding {
    for authority in authorities {
        let text = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
        scene
            .refused_and_closed(&text, 400, MALFORMED)
            .await
            .map_err(|problem| format!("`{}`: {problem}", authority.escape_debug()))?;
    }
    Ok(())
}

async fn trailing_dot(scene: &Scene) -> super::Finding {
    let dotted = Request::get("allowed.test.", "/");
    let mut raw = match scene.agent().tls_as(&dotted, "allowed.test", b"http/1.1").await {
        Ok(raw) => raw,
        Err(answer) => return Err(format!("{answer:?}")),
    };
    let pieces = scene.agent().origin_form(&dotted);
    let (answer, trace) = scene.trace(1, raw.exchange("GET", &pieces)).await;
    ensure(answer.status == 200, || format!("{answer:?}"))?;
    ensure(trace.rows[0].text("host") == "allowed.test", || format!("{trace:?}"))?;
    let authority = format!("allowed.test:{}", scene.world.origin.tls);
    ensure(trace.seen[0].authority == authority, || format!("{trace:?}"))?;
    let names = scene.world.origin.names();
    ensure(names.last() == Some(&Some("allowed.test".into())), || format!("{names:?}"))
}

async fn steering_headers(scene: &Scene) -> super::Finding {
    let evil = scene.world.evil.ports[0];
    let fields = format!(
        "X-Upstream-Https-Proxy: http://127.0.0.3:{evil}\r\nX-Unix-Socket: /var/run/docker.sock\r\n\
         X-Forwarded-Host: evil.test\r\nForwarded: host=evil.test\r\n"
    );
    let attempt = async {
        let mut raw = crate::harness::Raw::open(scene.world.gate.proxy).await;
        let authority = scene.fill("allowed.test:{tls}");
        let answer = raw.connect_with(&authority, &fields).await;
        if answer.status != 200 {
            return answer;
        }
        let config = scene.agent().tls_config(&[b"http/1.1"], true);
        let mut raw = raw.start_tls("allowed.test", config).await.unwrap();
        raw.exchange("GET", &scene.agent().origin_form(&Request::get("allowed.test", "/headers"))).await
    };
    let (answer, trace) = scene.trace(1, attempt).await;
    ensure(answer.status == 200, || format!("{answer:?}"))?;
    let told = answer.text().to_ascii_lowercase();
    ensure(!told.contains("evil.test") && !told.contains("x-unix-socket"), || told.clone())?;
    ensure(trace.rows.len() == 1, || format!("{trace:?}"))
}
