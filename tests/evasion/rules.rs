//! PAT: a rule means what it says and no more, and a policy that does not load never opens anything.

use super::{Case, POLICY, Scene, case, ensure, family};
use crate::harness::{Gate, Request, Way, World};

#[tokio::test]
async fn rules_mean_what_they_say() {
    family("rules", World::with_policy(POLICY), CASES).await;
}

const CASES: &[Case] = &[
    case("PAT-01", "a wildcard does not match its own apex", |scene| {
        Box::pin(unknown(scene, &["wild.test"]))
    }),
    case("PAT-02", "a name that merely ends like an allowed one", |scene| {
        Box::pin(unknown(
            scene,
            &["evilwild.test", "evil-allowed.test", "allowed.test.evil.test", "notallowed.test"],
        ))
    }),
    case("PAT-11", "what one rule denies no other allows", |scene| {
        Box::pin(async move {
            for way in Way::ALL {
                scene
                    .denied(
                        way,
                        &Request::get("secret.wild.test", "/").port(scene.world.origin.tls),
                        "denied_by_rule",
                    )
                    .await?;
            }
            Ok(())
        })
    }),
    case("PAT-13", "an allowed host on another port", |scene| {
        Box::pin(async move {
            for way in Way::ALL {
                scene.denied(way, &Request::get("allowed.test", "/").port(9999), "port_refused").await?;
            }
            Ok(())
        })
    }),
    case("PAT-14", "a broken policy does not replace the one that runs", |scene| {
        Box::pin(broken_policy(scene))
    }),
    case("PAT-15", "reloading for another reason opens nothing", |scene| {
        Box::pin(async move {
            scene.world.gate.write_policy(&scene.world.policy(&POLICY.replace("128 KiB", "129 KiB")));
            scene.world.gate.reload().await;
            unknown(scene, &["other.test"]).await
        })
    }),
];

async fn unknown(scene: &Scene, hosts: &[&str]) -> super::Finding {
    for host in hosts {
        scene.denied(Way::Http1, &Request::get(host, "/"), "unknown_destination").await?;
    }
    Ok(())
}

async fn broken_policy(scene: &Scene) -> super::Finding {
    let failed = ["result=\"failed\""];
    let before = scene.world.gate.metric("outgate_policy_reloads_total", &failed).await;
    scene.world.gate.write_policy("allow = [");
    scene.world.gate.reload().await;
    let after = scene.world.gate.metric("outgate_policy_reloads_total", &failed).await;
    ensure(after > before, || format!("{before} failed reloads before, {after} after"))?;
    unknown(scene, &["other.test"]).await?;
    scene.passes(Way::Http1, &Request::get("allowed.test", "/")).await.map(drop)
}

#[tokio::test]
async fn pat_04_05_09_what_cannot_be_meant_is_refused_at_start() {
    for (policy, quoted) in [
        ("allow = [\"*.0.0.1\"]", "*.0.0.1"),
        ("allow = [\"*.com\"]", "*.com"),
        ("allow = [\"*.co.uk\"]", "*.co.uk"),
        ("allow = [\"*.github.io\"]", "*.github.io"),
        ("allow = [\"*\"]", "*"),
        ("alow = [\"allowed.test\"]", "allow"),
        ("mode = \"enfroce\"", "enforce"),
        ("allow = []\nallow = [\"allowed.test\"]", "allow"),
        ("allow = [\"\u{212a}.test\"]", "k.test"),
    ] {
        let output = Gate::with_policy(policy).refuses().await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "`{policy}`: {said}");
        assert!(said.contains(quoted) && said.contains("policy.toml"), "`{policy}`: {said}");
    }
}

#[tokio::test]
async fn pat_07_an_empty_list_allows_nothing() {
    let world = World::with_policy("allow = []").start().await;
    for way in Way::ALL {
        let answer = world.send(way, &Request::get("allowed.test", "/")).await;
        assert_eq!(answer.reason(), Some("unknown_destination"), "{way:?}: {answer:?}");
    }
    world.origin.must_be_untouched();
    world.finish().await;
}

#[tokio::test]
async fn pat_11_an_allowed_name_below_a_denied_wildcard_is_denied() {
    let policy = "allow = [\"secret.wild.test:{tls}\"]\ndeny = [\"*.wild.test:{tls}\"]";
    let world = World::with_policy(policy).start().await;
    let answer = world.send(Way::Http2, &Request::get("secret.wild.test", "/")).await;
    assert_eq!(answer.reason(), Some("denied_by_rule"), "{answer:?}");
    world.origin.must_be_untouched();
    world.finish().await;
}

#[tokio::test]
async fn pat_17_a_policy_that_others_may_write_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    for mode in [0o666, 0o620, 0o602] {
        let gate = Gate::with_policy("allow = []");
        std::fs::set_permissions(gate.policy_file(), std::fs::Permissions::from_mode(mode)).unwrap();
        let output = gate.refuses().await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{mode:o}: {said}");
        assert!(said.contains("policy.toml"), "{mode:o}: {said}");
    }
}
