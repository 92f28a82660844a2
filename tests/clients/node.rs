//! npm, and programs on Node.

use aws_lc_rs::digest::{SHA512, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Desk, Run, all_allowed, archive, has, installed, starter};
use crate::harness::{NameReply, World, reply, secrets};

#[tokio::test]
async fn npm_installs() {
    if !has("npm") || !has("tar") {
        return;
    }
    let packed = tempfile::TempDir::new().unwrap();
    let file = packed.path().join("demo.tgz");
    let served = file.clone();
    let world = World::with_policy("allow = [\"packages.test:{tls}\"]")
        .answering(move |asked| {
            let archive = std::fs::read(&served).unwrap();
            async move {
                match &asked.path[..] {
                    "/demo" => {
                        let integrity = format!("sha512-{}", STANDARD.encode(digest(&SHA512, &archive)));
                        let dist = serde_json::json!({
                            "tarball": format!("https://{}/demo/-/demo-1.0.0.tgz", asked.authority),
                            "integrity": integrity,
                        });
                        let version = serde_json::json!({ "name": "demo", "version": "1.0.0", "dist": dist });
                        let document = serde_json::json!({
                            "name": "demo", "dist-tags": { "latest": "1.0.0" }, "versions": { "1.0.0": version },
                        });
                        reply(200, "application/json", document.to_string())
                    }
                    "/demo/-/demo-1.0.0.tgz" => reply(200, "application/octet-stream", archive),
                    _ => reply(404, "application/json", "{}"),
                }
            }
        })
        .start()
        .await;
    let desk = Desk::in_front_of(&world).await;
    let manifest = "{\"name\":\"demo\",\"version\":\"1.0.0\",\"main\":\"index.js\"}";
    let archived = archive(&desk, &[("package/package.json", manifest), ("package/index.js", "")]).await;
    std::fs::write(&file, archived).unwrap();
    let registry = format!("--registry=https://packages.test:{}/", world.origin.tls);
    let mut npm = desk.program("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--no-update-notifier", &registry, "demo"]);
    super::run(npm.env("npm_config_userconfig", desk.path().join("npmrc"))).await.ok();
    assert!(desk.path().join("node_modules/demo/package.json").exists());
    all_allowed(&world).await;
    world.finish().await;
}

/// The host of npm's own registry.
fn npm_registry() -> String {
    ["registry", "npmjs", "org"].join(".")
}

/// A world behind the starter policy with a registry at npm's own host and at `packages.test`, for those who know
/// the token.
async fn registry(token: &str) -> World {
    let own = npm_registry();
    let expected = format!("Bearer {token}");
    let mut world = World::with_policy(&starter(&[&format!("{own}:{{tls}}"), "packages.test:{tls}"]))
        .answering(move |asked| {
            let known = asked.headers.get("authorization").is_some_and(|value| *value == expected[..]);
            async move {
                match (known, &asked.method[..], &asked.path[..]) {
                    (false, ..) => reply(401, "application/json", "{}"),
                    (true, "GET", "/-/whoami") => {
                        reply(200, "application/json", "{\"username\":\"somebody\"}")
                    }
                    (true, "PUT", "/demo") => reply(201, "application/json", "{\"ok\":true}"),
                    _ => reply(404, "application/json", "{}"),
                }
            }
        })
        .start()
        .await;
    world.resolver.answers(&own, NameReply::at(&[&world.origin.ip.to_string()]));
    world.gate.plant(&secrets::heart(token));
    world
}

/// Runs an npm command on a small package, with the token in `.npmrc` for the registry at `host`.
async fn npm(world: &World, token: &str, host: &str, command: &str) -> Run {
    let desk = Desk::in_front_of(world).await;
    let registry = format!("//{host}:{}/", world.origin.tls);
    std::fs::write(desk.path().join(".npmrc"), format!("{registry}:_authToken={token}\n")).unwrap();
    std::fs::write(desk.path().join("package.json"), "{\"name\":\"demo\",\"version\":\"1.0.0\"}").unwrap();
    let registry = format!("--registry=https:{registry}");
    desk.run("npm", &[command, "--no-update-notifier", "--fetch-retries=0", &registry]).await
}

#[tokio::test]
async fn npm_publishes_with_a_token_of_its_registry() {
    if !has("npm") {
        return;
    }
    let token = secrets::token("npm-token");
    let world = registry(&token).await;
    assert_eq!(npm(&world, &token, &npm_registry(), "whoami").await.ok(), "somebody\n");
    npm(&world, &token, &npm_registry(), "publish").await.ok();
    let published = world.origin.requests().iter().any(|seen| seen.method == "PUT" && seen.path == "/demo");
    assert!(published, "{:#?}", world.origin.requests());
    for row in world.gate.decisions_reach(2).await {
        row.is("allow", "allowed_by_rule");
        assert_eq!((row.text("class"), row.text("service")), ("tool", "npm"), "{row:?}");
        assert!(row.findings().contains(&"credential_used"), "{row:?}");
    }
    world.finish().await;
}

#[tokio::test]
async fn a_token_of_npm_is_refused_anywhere_else() {
    if !has("npm") {
        return;
    }
    let token = secrets::token("npm-token");
    let world = registry(&token).await;
    for command in ["whoami", "publish"] {
        let run = npm(&world, &token, "packages.test", command).await;
        assert_ne!(run.code, 0, "npm {command}: {}", run.out);
        assert!(run.err.contains("403"), "npm {command}: {}", run.err);
    }
    for row in world.gate.decisions_reach(2).await {
        row.is("deny", "secret_found");
    }
    world.origin.must_be_untouched();
    world.finish().await;
}

#[tokio::test]
async fn a_program_on_node_fetches() {
    let undici = installed().join("node/node_modules/undici");
    if !has("node") || !has(&undici) {
        return;
    }
    let world = World::with_policy("allow = [\"allowed.test:{tls}\", \"allowed.test:{http}\"]").start().await;
    let desk = Desk::in_front_of(&world).await;
    let script = r#"
        const { EnvHttpProxyAgent, fetch, setGlobalDispatcher } = require(process.argv[1]);
        setGlobalDispatcher(new EnvHttpProxyAgent());
        (async () => {
            for (const url of process.argv.slice(2)) {
                const answer = await fetch(url, { method: "POST", body: "hello" });
                console.log(answer.status, await answer.text());
            }
        })();
    "#;
    let urls = [
        format!("https://allowed.test:{}/echo", world.origin.tls),
        format!("http://allowed.test:{}/echo", world.origin.http),
        "https://other.test/".to_owned(),
    ];
    let mut node = desk.program("node");
    let said = super::run(node.args(["-e", script]).arg(&undici).args(&urls)).await.ok();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..2], ["200 hello", "200 hello"], "{said}");
    assert!(lines[2].starts_with("403 {\"error\":{\"code\":\"unknown_destination\""), "{said}");
    world.finish().await;
}
