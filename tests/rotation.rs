//! The certificate authority: replaced while the gateway runs, kept in memory, never read where it lies open.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{Agent, Gate, Request, Way, World, eventually};

const POLICY: &str = "allow = [\"allowed.test:{http}\", \"allowed.test:{tls}\"]";

async fn trusting(world: &World) -> Agent {
    Agent::new(world.gate.proxy, &world.gate.ca().await, world.agent.ports)
}

fn events(lines: &str, name: &str) -> Vec<serde_json::Value> {
    let lines = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.map(|mut line| line["record"].take()).filter(|record| record["event"] == name).collect()
}

#[tokio::test]
async fn a_running_gateway_takes_over_a_new_authority() {
    let world = World::with_policy(POLICY).start().await;
    let request = Request::get("allowed.test", "/");
    let before = world.agent.clone();
    let fingerprint = async || {
        let shown = world.gate.told(&["ca", "show", "--json"]).await;
        serde_json::from_str::<serde_json::Value>(&shown).unwrap()["fingerprint"].clone()
    };
    let old = fingerprint().await;
    let mut open = before.tls(&request, b"http/1.1").await.unwrap();
    let pieces = before.origin_form(&request);
    assert_eq!(open.exchange("GET", &pieces).await.status, 200);
    world.gate.told(&["ca", "rotate"]).await;
    let new = fingerprint().await;
    let after = trusting(&world).await;
    eventually("the new authority to sign", async || {
        (after.send(Way::Http1, &request).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(after.send(Way::Http2, &request).await.status, 200);
    let refused = before.send(Way::Http1, &request).await;
    assert!(refused.error.is_some(), "the old authority still signs: {refused:?}");
    assert_eq!(open.exchange("GET", &pieces).await.status, 200, "what was open goes on");
    let bundle = std::fs::read_to_string(world.gate.data().join("bundle.pem")).unwrap();
    let certificate = std::fs::read_to_string(world.gate.data().join("ca.pem")).unwrap();
    assert!(bundle.starts_with(certificate.trim_end()), "the bundle is the old one");
    let exported = world.gate.told(&["audit", "export"]).await;
    let recorded = events(&exported, "authority_in_force");
    assert_eq!(recorded.len(), 2, "{recorded:?}");
    assert_eq!((&recorded[0]["fingerprint"], &recorded[0]["previous"]), (&old, &serde_json::Value::Null));
    assert_eq!((&recorded[1]["fingerprint"], &recorded[1]["previous"]), (&new, &old));
    let verified = world.gate.run(&["audit", "verify"]).await;
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    world.finish().await;
}

/// A pair that is not fit for use does not replace one that is, and is taken once it was mended.
#[tokio::test]
async fn an_unfit_authority_replaces_none() {
    let world = World::with_policy(POLICY).start().await;
    let request = Request::get("allowed.test", "/");
    world.gate.told(&["ca", "rotate"]).await;
    let after = trusting(&world).await;
    eventually("the new authority to sign", async || {
        (after.send(Way::Http1, &request).await.status == 200).then_some(())
    })
    .await;
    let (certificate, key) = (world.gate.data().join("ca.pem"), world.gate.data().join("ca.key"));
    let good = std::fs::read_to_string(&certificate).unwrap();
    std::fs::write(&certificate, "nothing").unwrap();
    eventually("it to complain", async || world.gate.stderr().contains("is not a certificate").then_some(()))
        .await;
    assert_eq!(after.send(Way::Http1, &request).await.status, 200, "the old one goes on");
    std::fs::write(&certificate, good).unwrap();
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    world.gate.signal(Signal::HUP);
    eventually("it to complain", async || {
        world.gate.stderr().contains("is a secret that others may read").then_some(())
    })
    .await;
    assert_eq!(after.send(Way::Http1, &request).await.status, 200, "the old one goes on");
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    world.finish().await;
}

#[tokio::test]
async fn a_key_that_lies_open_or_behind_a_link_is_not_used() {
    for (damage, words) in [(0, "is a secret that others may read"), (1, "is not a plain file")] {
        let mut gate = Gate::with_policy("allow = []").start().await;
        let key = gate.data().join("ca.key");
        assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(gate.stop().await.success());
        if damage == 0 {
            std::fs::set_permissions(&key, PermissionsExt::from_mode(0o640)).unwrap();
        } else {
            std::fs::rename(&key, gate.data().join("elsewhere")).unwrap();
            symlink(gate.data().join("elsewhere"), &key).unwrap();
        }
        let Err((_, refusal)) = gate.try_again().await else { panic!("it started: {words}") };
        assert_eq!(refusal.code, Some(1));
        assert!(refusal.stderr.contains(words), "{}", refusal.stderr);
    }
}

#[tokio::test]
async fn a_key_in_memory_is_in_no_file_and_new_with_each_start() {
    let world = World::with_policy(POLICY).config("[ca]\nkey = \"memory\"").start().await;
    let request = Request::get("allowed.test", "/");
    assert_eq!(world.send(Way::Http2, &request).await.status, 200);
    assert!(!world.gate.data().join("ca.key").exists());
    for file in std::fs::read_dir(world.gate.data()).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        // The key that signs the record is another matter.
        let holds = text.is_ok_and(|text| text.contains("BEGIN PRIVATE KEY"));
        assert!(!holds || path.ends_with("audit.key"), "{} holds a key", path.display());
    }
    let rotated = world.gate.run(&["ca", "rotate"]).await;
    assert_eq!(rotated.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&rotated.stderr).contains("start the gateway again"), "{rotated:?}");
    let mut before = world.agent.clone();
    let mut world = world;
    assert!(world.gate.stop().await.success());
    let world = world.again().await;
    before.proxy = world.gate.proxy;
    let refused = before.send(Way::Http1, &request).await;
    assert!(refused.error.is_some(), "{refused:?}");
    assert_eq!(world.send(Way::Http1, &request).await.status, 200);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(!world.gate.stderr().contains("authority"), "{}", world.gate.stderr());
    world.finish().await;
}
