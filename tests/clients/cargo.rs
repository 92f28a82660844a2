//! cargo, against a sparse registry.

use super::{Desk, all_allowed, archive, has};
use crate::harness::{Tally, World, reply};

#[tokio::test]
async fn cargo_fetches() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    if !has(&cargo) || !has("tar") {
        return;
    }
    let builder = World::with_policy("allow = [\"crates.test:{tls}\"]");
    let packed = tempfile::TempDir::new().unwrap();
    let file = packed.path().join("demo.crate");
    let served = file.clone();
    let world = builder
        .answering(move |asked| {
            let archive = std::fs::read(&served).unwrap();
            async move {
                match &asked.path[..] {
                    "/index/config.json" => {
                        reply(200, "application/json", format!("{{\"dl\":\"https://{}/crates\"}}", asked.authority))
                    }
                    "/index/de/mo/demo" => {
                        let sum = Tally::of(&archive).sha256();
                        let entry = format!(
                            "{{\"name\":\"demo\",\"vers\":\"1.0.0\",\"deps\":[],\"cksum\":\"{sum}\",\"features\":{{}},\"yanked\":false}}\n"
                        );
                        reply(200, "text/plain", entry)
                    }
                    "/crates/demo/1.0.0/download" => reply(200, "application/gzip", archive),
                    _ => reply(404, "text/plain", "no"),
                }
            }
        })
        .start()
        .await;
    let desk = Desk::in_front_of(&world).await;
    let manifest = "[package]\nname = \"demo\"\nversion = \"1.0.0\"\nedition = \"2024\"\n";
    let archived =
        archive(&desk, &[("demo-1.0.0/Cargo.toml", manifest), ("demo-1.0.0/src/lib.rs", "")]).await;
    std::fs::write(&file, archived).unwrap();
    let project = desk.path().join("project");
    std::fs::create_dir_all(project.join("src")).unwrap();
    std::fs::create_dir_all(project.join(".cargo")).unwrap();
    let manifest = "[package]\nname = \"user\"\nversion = \"1.0.0\"\nedition = \"2024\"\n\
                    [dependencies]\ndemo = { version = \"1\", registry = \"local\" }\n";
    std::fs::write(project.join("Cargo.toml"), manifest).unwrap();
    std::fs::write(project.join("src/lib.rs"), "").unwrap();
    let settings =
        format!("[registries.local]\nindex = \"sparse+https://crates.test:{}/index/\"\n", world.origin.tls);
    std::fs::write(project.join(".cargo/config.toml"), settings).unwrap();
    let home = desk.path().join("cargo-home");
    let mut fetch = desk.program(&cargo);
    fetch.current_dir(&project).env("CARGO_HOME", &home).arg("fetch");
    // The compiler on the path may be a shim that looks for itself in the home folder; the one beside cargo is not.
    let compiler = std::path::Path::new(&cargo).with_file_name("rustc");
    if compiler.is_file() {
        fetch.env("RUSTC", compiler);
    }
    super::run(&mut fetch).await.ok();
    let lock = std::fs::read_to_string(project.join("Cargo.lock")).unwrap();
    assert!(lock.contains("name = \"demo\""), "{lock}");
    all_allowed(&world).await;
    world.finish().await;
}
