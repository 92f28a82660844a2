//! ADM: what steers the gateway is out of its clients' reach.

use std::os::unix::fs::{PermissionsExt, symlink};

use x509_parser::parse_x509_certificate;
use x509_parser::pem::parse_x509_pem;

use super::{Case, Finding, POLICY, Scene, case, ensure, family};
use crate::harness::{Gate, Request, Way, World};

#[tokio::test]
async fn clients_do_not_steer() {
    family("administration", World::with_policy(POLICY), CASES).await;
}

const CASES: &[Case] = &[
    case("ADM-01", "the admin listener through the proxy", |scene| {
        Box::pin(async move {
            let admin = scene.world.gate.admin.port();
            for way in [Way::Absolute, Way::Http1] {
                let request = Request::get("127.0.0.1", "/metrics").port(admin);
                scene.denied(way, &request, "unknown_destination").await?;
            }
            Ok(())
        })
    }),
    case("ADM-03", "the admin listener without its token", |scene| {
        Box::pin(async move {
            asked(scene, "/api/decisions", "", 401).await?;
            asked(scene, "/api/decisions", "Authorization: Bearer guessed\r\n", 401).await?;
            let token = format!("Authorization: Bearer {}\r\n", scene.world.gate.admin_token());
            asked(scene, "/api/decisions", &token, 200).await
        })
    }),
    case("ADM-05", "the admin listener by another name", |scene| {
        Box::pin(async move {
            let token = scene.world.gate.admin_token();
            let mut raw = crate::harness::Raw::open(scene.world.gate.admin).await;
            raw.send(format!(
                "GET /api/decisions HTTP/1.1\r\nHost: evil.test\r\nAuthorization: Bearer {token}\r\n\r\n"
            ))
            .await;
            let answer = raw.answer().await;
            ensure(answer.status == 403, || format!("{answer:?}"))
        })
    }),
    case("ADM-07", "the admin listener from another site's page", |scene| {
        Box::pin(async move {
            let token = scene.world.gate.admin_token();
            asked(
                scene,
                "/api/decisions",
                &format!("Origin: http://evil.test\r\nAuthorization: Bearer {token}\r\n"),
                403,
            )
            .await
        })
    }),
    case("ADM-08", "headers that claim to come from here", |scene| {
        Box::pin(asked(
            scene,
            "/api/decisions",
            "X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\nForwarded: for=127.0.0.1\r\n",
            401,
        ))
    }),
    case("ADM-09", "pages of the gateway on the proxy's port", |scene| {
        Box::pin(async move {
            for path in ["/metrics", "/config", "/api/decisions", "/ca.key", "/ca.pem"] {
                let text = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", scene.world.gate.proxy);
                scene.refused(&text, 400, "malformed_request").await?;
            }
            Ok(())
        })
    }),
    case("ADM-10", "many hosts do not make many series", |scene| {
        Box::pin(async move {
            let attempt = |number: u32| async move {
                let request = Request::get(&format!("r{number}.random{number}.test"), &format!("/{number}"));
                scene.agent().send(Way::Absolute, &request.method(&format!("M{number}"))).await.status
            };
            attempt(0).await;
            let before = series(scene).await;
            for number in 1..100 {
                let status = attempt(number).await;
                ensure(status == 403, || format!("request {number} was answered with {status}"))?;
            }
            let after = series(scene).await;
            ensure(before == after, || format!("{before} series before, {after} after"))
        })
    }),
    case("ADM-12", "an upstream that speaks in the gateway's name", |scene| {
        Box::pin(async move {
            for way in [Way::Absolute, Way::Http1, Way::Http2] {
                let (answer, _) = scene.passes(way, &Request::get("allowed.test", "/own-headers")).await?;
                ensure(answer.header("x-outgate-decision") != Some("allow"), || format!("{answer:?}"))?;
            }
            Ok(())
        })
    }),
    case("ADM-17", "a host that is no longer allowed, on a connection from before", |scene| {
        Box::pin(withdrawn(scene))
    }),
];

async fn asked(scene: &Scene, path: &str, fields: &str, status: u16) -> Finding {
    let answer = scene.world.gate.admin(path, fields).await;
    ensure(answer.status == status, || format!("{path} {fields:?}: {answer:?}"))
}

async fn series(scene: &Scene) -> usize {
    scene.world.gate.metrics().await.lines().filter(|line| !line.starts_with('#')).count()
}

async fn withdrawn(scene: &Scene) -> Finding {
    let request = Request::get("allowed.test", "/");
    let pieces = scene.agent().origin_form(&request);
    let mut raw = scene.agent().tls(&request, b"http/1.1").await.map_err(|answer| format!("{answer:?}"))?;
    let before = raw.exchange("GET", &pieces).await;
    ensure(before.status == 200, || format!("{before:?}"))?;
    scene.world.gate.write_policy(&scene.world.policy("allow = []"));
    scene.world.gate.reload().await;
    let (after, trace) = scene.trace(1, raw.exchange("GET", &pieces)).await;
    scene.world.gate.write_policy(&scene.world.policy(POLICY));
    scene.world.gate.reload().await;
    after.must_be(403, "unknown_destination")?;
    trace.must_be_one_refusal("unknown_destination")
}

#[tokio::test]
async fn adm_13_a_key_that_others_may_read_stops_the_start() {
    for loosen in [
        |key: &std::path::Path| std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o644)),
        |key: &std::path::Path| {
            std::fs::rename(key, key.with_extension("elsewhere"))?;
            symlink(key.with_extension("elsewhere"), key)
        },
        // TUN-20: without its key the gateway does not fall back to tunnels it cannot read.
        |key: &std::path::Path| std::fs::remove_file(key),
        |key: &std::path::Path| std::fs::write(key, "no key"),
    ] {
        let mut gate = Gate::with_policy("allow = []").start().await;
        gate.stop().await;
        let key = gate.data().join("ca.key");
        loosen(&key).unwrap();
        let output = gate.second_serve().await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("ca.key"), "{said}");
    }
}

#[tokio::test]
async fn adm_15_certificates_are_narrow() {
    let world = World::with_policy(POLICY).start().await;
    let ca = world.gate.ca().await;
    let (_, pem) = parse_x509_pem(ca.as_bytes()).unwrap();
    let ca = pem.parse_x509().unwrap();
    let constraints = ca.basic_constraints().unwrap().unwrap().value;
    assert!(constraints.ca && constraints.path_len_constraint == Some(0), "{constraints:?}");
    let mut serials = Vec::new();
    for host in ["allowed.test", "a.test", "k.test"] {
        let raw = world.agent.tls(&Request::get(host, "/"), b"http/1.1").await.unwrap();
        let (_, leaf) = parse_x509_certificate(raw.certificate.as_ref().unwrap()).unwrap();
        let validity = leaf.validity();
        let days = (validity.not_after.timestamp() - validity.not_before.timestamp()) / 86_400;
        assert!(days <= 7, "{host} is valid for {days} days");
        assert!(leaf.extended_key_usage().unwrap().unwrap().value.server_auth);
        assert!(!leaf.is_ca());
        assert_ne!(leaf.public_key().raw, ca.public_key().raw, "the leaf has the authority's key");
        serials.push(leaf.raw_serial().to_vec());
    }
    serials.sort();
    serials.dedup();
    assert_eq!(serials.len(), 3, "serial numbers repeat");
}
