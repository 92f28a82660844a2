//! `outgate report`: what really happened, in every form, and a page that a real browser takes for what it is.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::clients::{has, run};
use crate::harness::{Request, Way, World, command, secrets};

/// What somebody would write who wants a report to be more than text.
const HOSTILE: &str = "</title><img src=x onerror=alert(1)>`|@team](javascript:alert(1))";

const POLICY: &str = r#"
allow = ["allowed.test:{http}", "allowed.test:{tls}"]

[[rule]]
name = "</title><img src=x onerror=alert(1)>`|@team](javascript:alert(1))"
action = "deny"
to = ["denied.test:{http}", "denied.test:{tls}"]

[uploads]
request_block = "64 KiB"

[secrets]
action = "block"
"#;

/// A world in which a session asked for something allowed, unknown, denied, too large and secret, and its session.
async fn world_with_a_session() -> (World, String) {
    let mut world = World::with_policy(POLICY).start().await;
    let told = world.gate.told(&["agent", "add", "claude", "--owner", HOSTILE, "--json"]).await;
    let agent: Value = serde_json::from_str(&told).unwrap();
    let token = agent["token"].as_str().unwrap();
    let secret = secrets::aws_access_key();
    world.gate.plant(&secrets::heart(&secret));
    let client = world.agent.known_as(&format!("claude+fix-42:{token}"));
    for (request, reason) in [
        (Request::get("allowed.test", "/seen"), None),
        (Request::get("unknown.test", "/"), Some("unknown_destination")),
        (Request::get("denied.test", "/"), Some("denied_by_rule")),
        (Request::post("allowed.test", "/big", vec![b'.'; 70 << 10]), Some("upload_too_large")),
        (Request::post("allowed.test", "/leak", format!("the key is {secret}")), Some("secret_found")),
    ] {
        let answer = client.send(Way::Http1, &request).await;
        assert_eq!(answer.reason(), reason, "{answer:?}");
    }
    // Of nobody's session: not in its report.
    world.send(Way::Http1, &Request::get("elsewhere.test", "/")).await;
    let rows = world.gate.decisions_reach(6).await;
    let session = rows[0].text("session").to_owned();
    (world, session)
}

#[tokio::test]
async fn a_session_is_told_as_data() {
    let (world, session) = world_with_a_session().await;
    // The end of its id is enough, in any case.
    let end = &*session[session.len() - 8..].to_ascii_lowercase();
    for arguments in [["session", "show", end], ["log", "--session", end]] {
        let told = world.gate.told(&arguments).await;
        assert!(
            told.contains(if arguments[0] == "log" { "claude" } else { &session }),
            "{arguments:?}: {told}"
        );
    }
    let told = world.gate.told(&["report", "--session", end, "--format", "json"]).await;
    let report: Value = serde_json::from_str(&told).unwrap();
    let tls = world.origin.tls;
    let (allowed, unknown) = (format!("allowed.test:{tls}"), format!("unknown.test:{tls}"));
    for (pointer, expected) in [
        ("/scope/session", Value::from(&session[..])),
        ("/totals/requests", 5.into()),
        ("/totals/allowed", 1.into()),
        ("/totals/denied", 4.into()),
        ("/totals/secrets", 1.into()),
        ("/totals/secrets_stopped", 1.into()),
        ("/totals/uploads_over_limits", 1.into()),
        ("/sessions/rows/0/label", "fix-42".into()),
        ("/sessions/rows/0/requests", 5.into()),
        ("/agents/rows/0/agent", "claude".into()),
        ("/agents/rows/0/owner", HOSTILE.into()),
        ("/agents/rows/0/status", "active".into()),
        ("/reached/0/class", "unknown".into()),
        ("/reached/0/services/rows/0/requests", 1.into()),
        ("/secrets/rows/0/detector", "aws-access-key".into()),
        ("/secrets/rows/0/where", "body".into()),
        ("/secrets/rows/0/fate", "stopped".into()),
        ("/secrets/rows/0/destination", allowed[..].into()),
        ("/uploads/rows/0/of", "request_block".into()),
        ("/uploads/rows/0/limit", 65_536.into()),
        ("/uploads/rows/0/fate", "stopped".into()),
        ("/policies/rows/0/requests", 5.into()),
        ("/chain/intact", true.into()),
    ] {
        assert_eq!(report.pointer(pointer), Some(&expected), "{pointer} of {report:#}");
    }
    let denied = report["denied"]["rows"].as_array().unwrap();
    let row = |reason: &str| denied.iter().find(|row| row["reason"] == reason).unwrap();
    assert_eq!(denied.len(), 4, "{denied:#?}");
    assert_eq!(row("unknown_destination")["allow"], format!("outgate policy allow {unknown}"));
    assert_eq!(row("denied_by_rule")["rule"], HOSTILE);
    let domains: Vec<&str> = report["new_domains"]["rows"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|row| row["domain"].as_str())
        .collect();
    assert_eq!(domains, ["allowed.test", "unknown.test", "denied.test"]);
    let everything: Value =
        serde_json::from_str(&world.gate.told(&["report", "--format", "json"]).await).unwrap();
    assert_eq!(everything["totals"]["requests"], 6, "{everything:#}");
    assert_eq!(everything["policy_changes"]["rows"].as_array().unwrap().len(), 1, "{everything:#}");
    let changes = everything["changes"]["rows"].as_array().unwrap();
    assert!(changes.iter().any(|row| row["event"] == "agent_created"), "{changes:#?}");
    world.finish().await;
}

#[tokio::test]
async fn a_session_is_told_as_text_for_a_pull_request() {
    let (world, session) = world_with_a_session().await;
    let file = world.gate.data().join("session.md");
    let output = world.gate.run(&["report", "--session", &session, "-o", file.to_str().unwrap()]).await;
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with(&format!("wrote `{}`: 5 requests to ", file.display())), "{said}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&file).unwrap();
    let rule = "``</title><img src=x onerror=alert(1)>`\\|@team](javascript:alert(1))``";
    for words in [
        "5 requests to 3 destinations; 4 denied; 1 secret stopped; 1 upload over a limit; record intact.",
        "- Label: `fix-42`",
        rule,
        "| `aws-access-key` | `body` |",
        "| one request, block | 64.0 KiB |",
        "outgate policy allow unknown.test:",
        "Records ",
    ] {
        assert!(text.contains(words), "`{words}` in: {text}");
    }
    assert!(!text.contains("elsewhere.test"), "{text}");
    world.finish().await;
}

#[tokio::test]
async fn a_browser_takes_the_page_for_text_and_tables() {
    if !has("chromium") {
        return;
    }
    let (world, session) = world_with_a_session().await;
    let file = world.gate.data().join("session.html");
    let output = world.gate.run(&["report", "--session", &session, "-o", file.to_str().unwrap()]).await;
    assert!(output.status.success(), "{output:?}");
    let page = std::fs::read_to_string(&file).unwrap();
    let dom = as_a_browser_reads_it(&file).await;
    for (element, count) in [("<img", 0), ("<script", 0), ("<title", 3), ("<svg", 3), ("<h1", 1)] {
        assert_eq!(dom.matches(element).count(), count, "{element} in: {dom}");
    }
    for element in ["<table", "<tr", "<td", "<th ", "<section", "<rect", "<time", "<code"] {
        assert_eq!(dom.matches(element).count(), page.matches(element).count(), "{element}");
    }
    for words in [
        "fix-42",
        "unknown destination",
        "secret found",
        "upload too large",
        "record intact",
        "aws-access-key",
    ] {
        assert!(dom.contains(words), "`{words}` in: {dom}");
    }
    assert!(dom.contains("&lt;/title&gt;&lt;img src=x onerror=alert(1)&gt;"), "{dom}");
    world.finish().await;
}

/// What headless Chromium makes of a file.
async fn as_a_browser_reads_it(file: &Path) -> String {
    let profile = TempDir::new().unwrap();
    let mut browser = Command::new("chromium");
    browser.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
    browser.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    browser.arg(format!("--user-data-dir={}", profile.path().display())).env("HOME", profile.path());
    browser.arg("--dump-dom").arg(format!("file://{}", file.display())).kill_on_drop(true);
    run(&mut browser).await.ok()
}

#[tokio::test]
async fn every_end_of_report_has_its_exit_code_and_its_words() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (here, nowhere, file) = (path(""), path("no/report.html"), path("report.html"));
    for (arguments, code, words) in [
        (&["report"][..], 0, "No request was recorded"),
        (&["report", "--format", "json"], 0, "\"requests\": 0"),
        (&["report", "--format", "markdown"], 0, "**No request was recorded"),
        (&["report", "-o", &file], 0, "wrote `"),
        (&["report", "-o", &file], 0, "wrote `"),
        (&["report", "-o", "-", "--format", "json"], 0, "\"requests\": 0"),
        (&["report", "-o", &here], 1, "it is a folder; name a file in it"),
        (&["report", "-o", &nowhere], 1, "its folder does not exist"),
        (&["report", "--session", "01K5C3ZJ8V7B5Q2M4N6P8R0T1W"], 1, "outgate session list"),
        (&["report", "--session", "x"], 1, "`x` is not a session; `outgate session list` lists them"),
        (&["report", "-o", "r.pdf"], 2, "`.html`, `.md` or `.json`"),
        (&["report", "--since", "1h", "--until", "2h"], 2, "`--since` is after `--until`"),
        (&["report", "--format", "pdf"], 2, "markdown"),
        (&["report", "--help"], 0, "outgate report --session 01K5C3ZJ8V7B5Q2M4N6P8R0T1W -o session.html"),
    ] {
        let mut outgate = command();
        let output =
            outgate.arg("--data-dir").arg(folder.path().join("data")).args(arguments).output().await.unwrap();
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stdout}{stderr}");
        assert!(format!("{stdout}{stderr}").contains(words), "{arguments:?}: {stdout}{stderr}");
        assert!(code == 0 || stdout.is_empty(), "{arguments:?} complains on the wrong stream: {stdout}");
    }
}
