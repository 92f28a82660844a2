//! What people watch the gateway with: rules that a real Prometheus takes, and dashboards whose every panel shows
//! something once there is traffic.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::harness::{Raw, Request, Way, World, eventually, secrets};

fn file(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(name)
}

/// Whether a program is there. In CI it must be.
async fn is_there(program: &str) -> bool {
    let found =
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().await;
    let found = found.is_ok_and(|status| status.success());
    assert!(
        found || std::env::var("CI").is_err(),
        "`{program}` is missing; `bash .ci/run tests` installs it"
    );
    if !found {
        eprintln!("skipped: there is no `{program}`");
    }
    found
}

async fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool").args(arguments).current_dir(file("dashboards/prometheus")).output();
    let output = output.await.unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "`promtool {}`: {said}", arguments.join(" "));
}

#[tokio::test]
async fn the_rules_are_sound_and_fire_when_they_should() {
    if !is_there("promtool").await {
        return;
    }
    promtool(&["check", "rules", "recording.yml", "alerting.yml"]).await;
    promtool(&["test", "rules", "tests/alerting_test.yml"]).await;
}

#[test]
fn every_alert_has_a_test_each_way_and_a_section_of_the_runbooks() {
    let rules = std::fs::read_to_string(file("dashboards/prometheus/alerting.yml")).unwrap();
    let tests = std::fs::read_to_string(file("dashboards/prometheus/tests/alerting_test.yml")).unwrap();
    let runbooks = std::fs::read_to_string(file("docs/runbooks.md")).unwrap();
    let names: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() >= 15, "{names:?}");
    for name in &names {
        assert!(tests.contains(&format!("name: {name} fires")), "`{name}` has no test that it fires");
        assert!(tests.contains(&format!("name: {name} is quiet")), "`{name}` has no test that it is quiet");
        assert!(runbooks.contains(&format!("\n## {name}\n")), "`{name}` has no runbook");
        let link = format!("runbook_url: docs/runbooks.md#{}", name.to_lowercase());
        assert!(rules.contains(&link), "`{name}` does not say where its runbook is");
    }
    let sections = runbooks.lines().filter_map(|line| line.strip_prefix("## "));
    for section in sections {
        assert!(names.contains(&section), "`{section}` is the runbook of no alert");
    }
}

/// A Prometheus that scrapes one gateway.
struct Prometheus {
    address: SocketAddr,
    _child: Child,
    _folder: TempDir,
}

impl Prometheus {
    async fn start(gateway: SocketAddr) -> Prometheus {
        let folder = TempDir::new().unwrap();
        // Taken by nobody a moment ago; should somebody take it now, the test fails and says so.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let rules = ["recording.yml", "alerting.yml"].map(|name| file("dashboards/prometheus").join(name));
        let rules =
            rules.iter().map(|path| format!("  - {}\n", std::fs::canonicalize(path).unwrap().display()));
        let settings = format!(
            "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\nrule_files:\n{}scrape_configs:\n  - job_name: outgate\n    static_configs:\n      - targets: ['{gateway}']\n",
            rules.collect::<String>()
        );
        let path = folder.path().join("prometheus.yml");
        std::fs::write(&path, settings).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", path.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let prometheus = Prometheus { address, _child: child, _folder: folder };
        eventually("prometheus to be ready", async || prometheus.get("/-/ready").await).await;
        prometheus
    }

    async fn get(&self, path: &str) -> Option<String> {
        let mut raw = Raw::try_open(self.address).await.ok()?;
        raw.send(format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address)).await;
        let answer = raw.answer().await;
        (answer.status == 200).then(|| answer.text())
    }

    /// How many series an expression gives.
    async fn series(&self, expression: &str) -> usize {
        let encode = |byte: u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        };
        let query: String = expression.bytes().map(encode).collect();
        let Some(text) = self.get(&format!("/api/v1/query?query={query}")).await else { return 0 };
        let answer: Value = serde_json::from_str(&text).unwrap();
        answer["data"]["result"].as_array().map_or(0, Vec::len)
    }
}

/// Everything that panels show, with Grafana's variables filled in.
fn expressions() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(file("dashboards/grafana")).unwrap() {
        let path = entry.unwrap().path();
        let board: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for panel in board["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let expression = target["expr"].as_str().unwrap();
                let expression = expression
                    .replace("$__rate_interval", "1m")
                    .replace("$agent", ".*")
                    .replace("$job", "outgate");
                assert!(!expression.contains('$'), "{expression}");
                let name = path.file_name().unwrap().to_string_lossy();
                found.push((format!("{name}: {}", panel["title"]), expression));
            }
        }
    }
    let boards: BTreeSet<&str> = found.iter().map(|(panel, _)| panel.split(':').next().unwrap()).collect();
    assert_eq!(boards.len(), 3, "{boards:?}");
    found
}

/// A little of everything that can be counted.
async fn traffic(world: &World) {
    let key = secrets::aws_access_key();
    for (request, status) in [
        (Request::get("allowed.test", "/x?q=1"), 200),
        (Request::post("api.anthropic.com", "/v1/messages", "{}"), 200),
        (Request::post("allowed.test", "/large", vec![b'a'; 3000]), 200),
        (Request::post("allowed.test", "/too-large", vec![b'a'; 100_000]), 413),
        (Request::post("allowed.test", "/secret", format!("key={key}")), 403),
        (Request::get("githuub.com", "/"), 403),
        (Request::get("other.test", "/"), 403),
        (Request::get("gone.test", "/").port(1), 502),
    ] {
        let answer = world.send(Way::Http1, &request).await;
        assert_eq!(answer.status, status, "{}: {answer:?}", request.host);
    }
}

#[tokio::test]
async fn every_panel_shows_something_once_there_is_traffic() {
    if !is_there("prometheus").await {
        return;
    }
    let policy = "allow = [\"allowed.test:{tls}\", \"@anthropic:{tls}\", \"gone.test:1\"]\n\
        [uploads]\nrequest_alert = \"2 KiB\"\nrequest_block = \"64 KiB\"\n\
        [addresses]\nallow = [\"127.0.0.0/8\"]";
    let world = World::with_policy(policy).start().await;
    let here = crate::harness::NameReply::at(&[&world.origin.ip.to_string()]);
    world.resolver.answers("api.anthropic.com", here);
    let prometheus = Prometheus::start(world.gate.admin).await;
    let mut missing = expressions();
    // The rules are loaded, what they compute is there, and an alert fires.
    for rule in [
        "outgate:decisions:rate5m",
        "outgate:overhead_seconds:p99_5m",
        "outgate:agent_upload_bytes:rate10m",
        "ALERTS{alertname=\"OutgateSecretFound\", alertstate=\"firing\"}",
    ] {
        missing.push(("rules".to_owned(), rule.to_owned()));
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !missing.is_empty() && tokio::time::Instant::now() < deadline {
        traffic(&world).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut left = Vec::new();
        for (panel, expression) in missing {
            if prometheus.series(&expression).await == 0 {
                left.push((panel, expression));
            }
        }
        missing = left;
    }
    assert!(missing.is_empty(), "these show nothing: {missing:#?}");
    world.finish().await;
}
