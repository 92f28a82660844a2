//! npm, and programs on Node.

use aws_lc_rs::digest::{SHA512, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Desk, all_allowed, archive, has, installed};
use crate::harness::{World, reply};

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
