//! The commands: what they say, where they say it, and how they end.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::harness::{Request, Way, World, command, eventually};

const POLICY: &str = "allow = [\"allowed.test:{http}\", \"allowed.test:{tls}\"]";

/// The program on a data folder.
fn outgate(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = command();
    command.arg("--data-dir").arg(folder.join("data")).args(arguments);
    command
}

async fn ended(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    told(&outgate(folder, arguments).output().await.unwrap())
}

fn told(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Stops the gateway that a command left running on a folder.
pub async fn stop_the_gateway_of(data: &Path) {
    let Ok(note) = std::fs::read(data.join("gateway.json")) else { return };
    let note: Value = serde_json::from_slice(&note).unwrap();
    let pid = i32::try_from(note["pid"].as_i64().unwrap()).unwrap();
    let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM);
    eventually("the gateway to stop", async || (!data.join("gateway.json").exists()).then_some(())).await;
}

#[tokio::test]
async fn every_end_has_its_exit_code_and_its_words() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("good.toml"), "version = 1\nallow = [\"@github\"]\n").unwrap();
    std::fs::write(path("bad.toml"), "version = 1\nalow = [\"@github\"]\nask = [\"@gitbuh\"]\n").unwrap();
    let (good, bad, missing) = (path("good.toml"), path("bad.toml"), path("missing.toml"));
    for (arguments, code, words) in [
        (&["policy", "check", &good][..], 0, "ok: 1 rule"),
        (&["policy", "check", &bad], 3, "alow"),
        (&["policy", "check", &bad], 3, "@github"),
        (&["policy", "check", &missing], 1, "missing.toml"),
        (&["policy", "services", "githbu"], 2, "did you mean `@github`?"),
        (&["policy", "explain", "api.github.com"], 2, "write `https://host/path`"),
        (&["policy", "explain", "https://api.github.com/"], 0, "allowed_by_rule"),
        (&["policy", "allow", "https://evil.example/x"], 2, "`evil.example`"),
        (&["policy", "allow", "evil.example"], 0, "allowed evil.example"),
        (&["policy", "allow", "evil.example"], 0, "already"),
        (&["agent", "rotate", "claude"], 1, "there is no agent `claude`"),
        (&["agent", "add", "claude", "--owner", "ana"], 0, "og_"),
        (&["agent", "rotate", "clude"], 1, "did you mean `claude`?"),
        (&["agent", "add", "late", "--owner", "ana", "--expires", "0s"], 1, "has passed"),
        (&["session", "show", "01K5C3ZJ8V7B5Q2M4N6P8R0T1W"], 1, "outgate session list"),
        (&["audit", "verify"], 0, "intact"),
        (&["log"], 0, ""),
        (&["ca", "show"], 0, "sha-256"),
        (&["run", "--fence", "requre", "--", "true"], 2, "[possible values: auto, require, off]"),
        (&["run", "--publish", "0", "--", "true"], 2, "--publish"),
        (&["env", "--agent", "claude"], 2, "OUTGATE_TOKEN"),
        (&["completions", "bash"], 0, "_outgate"),
        (&["man"], 0, ".TH outgate"),
        (&["--config", &bad, "ca", "show"], 1, "alow"),
        (&["serve", "--listen", "nowhere"], 2, "--listen"),
        (&["serv"], 2, "'serve'"),
        (&["log", "--since", "yesterday"], 2, "2026-11-21T06:00:00Z"),
    ] {
        let (ended, stdout, stderr) = ended(folder.path(), arguments).await;
        assert_eq!(ended, Some(code), "{arguments:?}: {stdout}{stderr}");
        assert!(format!("{stdout}{stderr}").contains(words), "{arguments:?}: {stdout}{stderr}");
        let failed = code != 0 && code != 3;
        assert!(!failed || stdout.is_empty(), "{arguments:?} complains on the wrong stream: {stdout}");
    }
}

#[tokio::test]
async fn what_changes_something_is_refused_inside_a_session() {
    let folder = TempDir::new().unwrap();
    for arguments in [
        &["policy", "allow", "evil.example"][..],
        &["agent", "add", "claude", "--owner", "ana"],
        &["agent", "rotate", "claude"],
        &["agent", "revoke", "claude"],
        &["ca", "rotate"],
        &["approvals", "approve", "x"],
        &["approvals", "deny", "x"],
        &["run", "--", "true"],
    ] {
        let mut command = outgate(folder.path(), arguments);
        let output = command.env("OUTGATE_SESSION", "01K5C3ZJ8V7B5Q2M4N6P8R0T1W").output().await.unwrap();
        let (code, _, stderr) = told(&output);
        assert_eq!(code, Some(1), "{arguments:?}");
        assert!(stderr.contains("is refused inside a session"), "{arguments:?}: {stderr}");
        assert!(!folder.path().join("data").exists(), "{arguments:?} left something behind");
    }
}

#[tokio::test]
async fn top_shows_who_goes_where_and_what_was_refused() {
    let world = World::with_policy(POLICY).start().await;
    for host in ["allowed.test", "allowed.test", "other.test"] {
        world.send(Way::Http1, &Request::get(host, "/")).await;
    }
    world.gate.decisions_reach(3).await;
    let said = world.gate.told(&["top", "--window", "1h"]).await;
    let port = world.origin.tls;
    for words in
        ["3 requests in", "1 refused", "anonymous", &format!("allowed.test:{port}"), "unknown_destination"]
    {
        assert!(said.contains(words), "`{words}` in\n{said}");
    }
    assert!(!said.contains('\u{1b}'), "no terminal, no control: {said}");
    world.finish().await;
}

#[tokio::test]
async fn colours_are_for_terminals_and_readers_may_go() {
    let folder = TempDir::new().unwrap();
    for arguments in [&["policy", "services"][..], &["policy", "explain", "https://a.example/"], &["--help"]]
    {
        let (_, stdout, _) = ended(folder.path(), arguments).await;
        assert!(!stdout.contains('\u{1b}'), "{arguments:?}");
    }
    // A reader that has gone before the first line is no failure.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = outgate(folder.path(), &["policy", "services"]);
    let (code, _, stderr) = told(&command.stdout(writer).stderr(Stdio::piped()).output().await.unwrap());
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn serve_says_where_it_is_and_refuses_to_be_two() {
    let world = World::with_policy(POLICY).start().await;
    let said = world.gate.stdout();
    assert_eq!(said, format!("proxy http://{}\nadmin http://{}\n", world.gate.proxy, world.gate.admin));
    eventually("the advice", async || world.gate.stderr().contains("export HTTP_PROXY=").then_some(())).await;
    let (code, _, stderr) = told(&world.gate.second_serve().await);
    assert_eq!(code, Some(1));
    assert!(stderr.contains(&format!("process {}", world.gate.pid())), "{stderr}");
    world.finish().await;
}

#[tokio::test]
async fn run_ends_as_its_command_does_and_tells_what_it_came_to() {
    let world = World::with_policy(POLICY).start().await;
    let url = |host: &str| format!("https://{host}:{}/x", world.origin.tls);
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143)] {
        let output = world.gate.run(&["run", "--", "sh", "-c", script]).await;
        assert_eq!(output.status.code(), Some(code), "`{script}`: {output:?}");
        assert_eq!(output.stdout, b"", "`{script}`");
    }
    let curl =
        format!("curl -s -o /dev/null {}; curl -s -o /dev/null {}", url("allowed.test"), url("other.test"));
    let output = world.gate.run(&["run", "--label", "issue-42", "--", "sh", "-c", &curl]).await;
    let (_, _, stderr) = told(&output);
    let other = format!("other.test:{}", world.origin.tls);
    for words in [
        format!("reached  1 request: allowed.test:{} 1×", world.origin.tls),
        format!("denied   {other} 1×, unknown_destination; to allow it: outgate policy allow {other}"),
        "outgate log --session 01".to_owned(),
    ] {
        assert!(stderr.contains(&words), "`{words}` in: {stderr}");
    }
    let sessions: Value =
        serde_json::from_str(&world.gate.told(&["session", "list", "--json"]).await).unwrap();
    let session = &sessions[0];
    assert_eq!((session["label"].as_str(), session["tool"].as_str()), (Some("issue-42"), Some("sh")));
    assert_eq!(session["command"].as_str(), Some("sh"), "arguments hold prompts and passwords");
    let rows = world.gate.decisions_reach(2).await;
    assert!(rows.iter().all(|row| row["session"] == session["session"]), "{rows:#?}");
    world.finish().await;
}

#[tokio::test]
async fn run_gives_its_command_the_variables_and_a_session_of_its_own() {
    let world = World::with_policy(POLICY).start().await;
    let output = world.gate.run(&["run", "--fence", "off", "--", "env"]).await;
    let (_, stdout, stderr) = told(&output);
    assert!(!stderr.contains("fence"), "nothing was asked of it: {stderr}");
    let value = |name: &str| {
        stdout.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
    };
    let proxy = value("HTTPS_PROXY");
    assert!(
        proxy.starts_with("http://anonymous:og_") && proxy.ends_with(&world.gate.proxy.to_string()),
        "{proxy}"
    );
    for name in ["HTTP_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"] {
        assert_eq!(value(name), proxy, "{name}");
    }
    assert_eq!(value("NO_PROXY"), "localhost,127.0.0.1,::1");
    assert_eq!(value("NODE_USE_ENV_PROXY"), "1");
    assert_eq!(value("OUTGATE_SESSION").len(), 26);
    for name in
        ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "CARGO_HTTP_CAINFO"]
    {
        let bundle = std::fs::read_to_string(value(name)).unwrap();
        assert!(bundle.contains(world.gate.ca().await.trim()), "{name}");
    }
    // The session ended with its command, and its token with it.
    let credentials = proxy.strip_prefix("http://").unwrap().split('@').next().unwrap();
    eventually("the session's end", async || {
        let answer =
            world.agent.known_as(credentials).send(Way::Http1, &Request::get("allowed.test", "/")).await;
        (answer.reason() == Some("identity_expired")).then_some(())
    })
    .await;
    world.finish().await;
}

#[tokio::test]
async fn signals_to_run_reach_its_command() {
    let world = World::with_policy(POLICY).start().await;
    let folder = TempDir::new().unwrap();
    for (signal, name, code) in [(Signal::TERM, "TERM", 5), (Signal::HUP, "HUP", 6)] {
        let ready = folder.path().join(name);
        let script = format!("trap 'exit {code}' {name}; : > '{}'; sleep 30 & wait", ready.display());
        let mut run = world.gate.command(&["run", "--", "sh", "-c", &script]);
        let mut run = run.stderr(Stdio::null()).spawn().unwrap();
        eventually("the trap", async || ready.exists().then_some(())).await;
        kill_process(Pid::from_raw(run.id().unwrap().cast_signed()).unwrap(), signal).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(10), run.wait()).await.unwrap().unwrap();
        assert_eq!(ended.code(), Some(code), "{name}");
    }
    world.finish().await;
}

#[tokio::test]
async fn run_starts_a_gateway_where_none_runs_and_refuses_another_policy() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    // The usual ports may be taken on this machine.
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("outgate.toml"), "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n").unwrap();
    let (code, stdout, stderr) = ended(folder.path(), &["run", "--", "sh", "-c", "echo out; exit 3"]).await;
    assert_eq!((code, stdout.as_str()), (Some(3), "out\n"), "{stderr}");
    assert!(data.join("gateway.json").exists(), "the gateway stays for the next session");
    let other = folder.path().join("other.toml");
    std::fs::write(&other, "").unwrap();
    let other = other.display().to_string();
    for flag in ["--policy", "--config"] {
        let (code, _, stderr) = ended(folder.path(), &[flag, &other, "run", "--", "true"]).await;
        assert_eq!(code, Some(2), "{flag}: {stderr}");
        assert!(stderr.contains(&other) && stderr.contains(&data.display().to_string()), "{flag}: {stderr}");
    }
    stop_the_gateway_of(&data).await;
}

#[tokio::test]
async fn log_follows_and_filters() {
    let world = World::with_policy(POLICY).start().await;
    let mut follow = world.gate.command(&["log", "--follow", "--json", "--action", "deny"]);
    let mut follow = follow.stdout(Stdio::piped()).spawn().unwrap();
    for host in ["allowed.test", "other.test"] {
        world.send(Way::Http1, &Request::get(host, "/seen")).await;
    }
    let mut lines =
        tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(follow.stdout.take().unwrap()));
    let line =
        tokio::time::timeout(Duration::from_secs(10), lines.next_line()).await.unwrap().unwrap().unwrap();
    let followed: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((followed["host"].as_str(), followed["action"].as_str()), (Some("other.test"), Some("deny")));
    follow.kill().await.unwrap();
    world.gate.decisions_reach(2).await;
    for (filter, hosts) in [
        (&["--action", "allow"][..], &["allowed.test"][..]),
        (&["--reason", "unknown_destination"], &["other.test"]),
        (&["--host", "allowed.test"], &["allowed.test"]),
        (&["--host", "*.test"], &["allowed.test", "other.test"]),
        (&["--class", "model"], &[]),
        (&["--agent", "anonymous", "--limit", "1"], &["other.test"]),
        (&["--since", "1h", "--finding", "secret"], &[]),
        (&["--since", "2020-01-01"], &["allowed.test", "other.test"]),
    ] {
        let text = world.gate.told(&[&["log", "--json"], filter].concat()).await;
        let found: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let found: Vec<&str> = found.iter().filter_map(|row| row["host"].as_str()).collect();
        assert_eq!(found, hosts, "{filter:?}");
    }
    let table = world.gate.told(&["log"]).await;
    assert!(table.contains("unknown_destination") && table.contains("/seen"), "{table}");
    world.finish().await;
}

#[tokio::test]
async fn a_host_that_is_allowed_is_allowed_within_two_seconds() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("outgate.toml"), "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n").unwrap();
    let probe = "curl -s -o /dev/null -w '%{http_code}' http://new.invalid/";
    let (_, before, stderr) = ended(folder.path(), &["run", "--", "sh", "-c", probe]).await;
    assert_eq!(before, "403", "{stderr}");
    assert!(stderr.contains("to allow it: outgate policy allow new.invalid"), "{stderr}");
    assert_eq!(ended(folder.path(), &["policy", "allow", "new.invalid"]).await.0, Some(0));
    let allowed = Instant::now();
    eventually("the new policy", async || {
        let (_, after, _) = ended(folder.path(), &["run", "--", "sh", "-c", probe]).await;
        (after == "502").then_some(())
    })
    .await;
    assert!(allowed.elapsed() < Duration::from_secs(4), "it took {:?}", allowed.elapsed());
    stop_the_gateway_of(&data).await;
}

#[tokio::test]
async fn the_demo_shows_everything_in_ten_seconds() {
    let folder = TempDir::new().unwrap();
    let began = Instant::now();
    let (code, stdout, stderr) = ended(folder.path(), &["demo"]).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
    for words in [
        "allowed_by_rule",
        "unknown_destination",
        "upload_too_large",
        "secret_found",
        "allowed_by_observe",
        "looks like github.com",
        "outgate policy allow paste.example",
        "outgate run -- claude",
    ] {
        assert!(stdout.contains(words), "`{words}` in: {stdout}");
    }
    let seen = stdout.split("What the model got to see").nth(1).unwrap();
    assert!(seen.contains("What is this for?") && !seen.contains("AKIA"), "{seen}");
    assert!(!folder.path().join("data").exists(), "the demo keeps to its own folder");
}

#[tokio::test]
async fn doctor_proves_that_it_works_or_says_what_does_not() {
    let hosts = "[dns]\nhosts = { \"example.com\" = [\"127.0.0.2\"] }\n";
    let world = World::with_policy(POLICY).start().await;
    let output = world.gate.run(&["doctor", "--json"]).await;
    let checks: Value = serde_json::from_slice(&output.stdout).unwrap();
    let check = |name: &str| checks.as_array().unwrap().iter().find(|check| check["check"] == name).cloned();
    for name in [
        "settings",
        "folder",
        "policy",
        "certificates",
        "clock",
        "records",
        "gateway",
        "refusal",
        "variables",
    ] {
        let check = check(name).unwrap_or_else(|| panic!("`{name}` is not checked: {checks:#}"));
        assert_eq!(check["ok"], true, "{check:#}");
        assert_eq!(check["mend"], Value::Null, "{check:#}");
    }
    world.finish().await;

    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("outgate.toml"), hosts).unwrap();
    let policy = data.join("policy.toml");
    // What `serve` would not start with, for what is in it or for who may write it.
    for (text, mode, words) in
        [("version = 1\nalow = []\n", 0o600, "alow"), ("version = 1\n", 0o666, "policy.toml")]
    {
        std::fs::write(&policy, text).unwrap();
        std::fs::set_permissions(&policy, std::fs::Permissions::from_mode(mode)).unwrap();
        let (code, stdout, _) = ended(folder.path(), &["doctor", "--json"]).await;
        assert_eq!(code, Some(3), "{stdout}");
        let checks: Value = serde_json::from_str(&stdout).unwrap();
        let wrong = || checks.as_array().unwrap().iter().filter(|check| check["ok"] == false);
        let names: Vec<&str> = wrong().filter_map(|check| check["check"].as_str()).collect();
        assert_eq!(names, ["policy", "gateway"], "{checks:#}");
        assert!(wrong().next().unwrap()["detail"].as_str().unwrap().contains(words), "{checks:#}");
    }
}
