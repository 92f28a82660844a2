//! The console, as a real browser and a person's hands have it. The walks themselves are in `tests/console/*.mjs`.
//!
//! `tests/setup.sh` installs what drives the browser. What every page looks like is left as pictures under
//! `target/console/`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use outgate::store::{Entry, Store};
use policy::record::{BodyExcerpt, Decision, Finding, Outcome, OutcomeKind, Timing};
use policy::redact::Redacted;
use policy::request::Kind;
use policy::target::Scheme;
use policy::verdict::{Action, Class, Mode, Reason};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use ulid::Ulid;

use crate::clients::{has, installed};
use crate::harness::{Gate, Raw, Request, Way, World, secrets};
use crate::scale::{fill, with_store_of};

/// Longest that one walk may take.
const LIMIT: Duration = Duration::from_secs(240);

/// What somebody would write who wants the console to be more than text.
const HOSTILE: &str = "</td><img src=x onerror=\"globalThis.pwned=1;alert(1)\"><script>globalThis.pwned=1</script>\u{202e}\u{200b}{{7*7}}'\"javascript:alert(1)";

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

fn walks() -> bool {
    has("chromium") && has("node") && has(installed().join("node/node_modules/playwright-core"))
}

fn pictures() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("console")
}

/// Takes a walk through the console of a gateway.
async fn walk(name: &str, gate: &Gate) {
    walk_told(name, gate, &[]).await;
}

/// As [`walk`], with more that it has to know.
async fn walk_told(name: &str, gate: &Gate, told: &[(&str, String)]) {
    let walks = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/console"));
    let mut node = Command::new("node");
    node.arg(walks.join(name)).kill_on_drop(true);
    node.env("PLAYWRIGHT", installed().join("node/node_modules/playwright-core"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let chromium =
        std::env::split_paths(&path).map(|folder| folder.join("chromium")).find(|file| file.exists());
    node.env("CHROMIUM", chromium.unwrap()).env("SHOTS", pictures());
    node.env("ADMIN", format!("http://{}", gate.admin)).env("PROXY", format!("http://{}", gate.proxy));
    node.env("TOKEN", gate.admin_token()).envs(told.iter().map(|(name, value)| (name, value)));
    let output = tokio::time::timeout(LIMIT, node.output()).await.expect("the walk does not end").unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}: {out}\n{err}");
    eprint!("{out}");
}

/// A gateway with a little of everything on record, and much of it hostile.
async fn world_with_everything() -> World {
    let world = World::with_policy(POLICY).start().await;
    let told = world.gate.told(&["agent", "add", "claude", "--owner", HOSTILE, "--json"]).await;
    let agent: serde_json::Value = serde_json::from_str(&told).unwrap();
    let client = world.agent.known_as(&format!("claude+fix-42:{}", agent["token"].as_str().unwrap()));
    let secret = secrets::aws_access_key();
    for request in [
        Request::get("allowed.test", "/seen"),
        Request::get("unknown.test", "/repos/example/app/contents/src/main.rs?ref=main"),
        Request::get("denied.test", "/"),
        Request::post("allowed.test", "/big", vec![b'.'; 70 << 10]),
        Request::post("allowed.test", "/leak", format!("the key is {secret}")),
        Request::post("unknown.test", "/v1/chat/completions", "{\"model\":\"x\",\"messages\":[]}"),
    ] {
        client.send(Way::Http1, &request).await;
    }
    world.gate.decisions_reach(6).await;
    let (_, mut writer) = Store::open_beside(&world.gate.data()).await.unwrap();
    let mut entries = Vec::new();
    for number in 0..40 {
        let (decision, outcome) = exchange(number);
        entries.extend([Entry::decision(&decision), Entry::outcome(&outcome)]);
    }
    writer.commit(&entries).await.unwrap();
    writer.close().await;
    world
}

/// Exchanges of the last hours, every fourth of them hostile in each field that holds text.
fn exchange(number: u64) -> (Decision, Outcome) {
    let text = |text: &str| Some(Redacted::from_store(text.to_owned()));
    let hostile = number % 4 == 3;
    let long = format!("{}.example", "a-label-as-long-as-any-may-be-and-then-some".repeat(5));
    let (class, host, path) = match number % 4 {
        0 => (Class::Model, "api.anthropic.com".to_owned(), "/v1/messages".to_owned()),
        1 => (Class::Tool, "api.github.com".to_owned(), "/repos/example/app/pulls".to_owned()),
        2 => (Class::Unknown, long, format!("/{}", "very/long/".repeat(200))),
        _ => (Class::Unknown, HOSTILE.to_owned(), HOSTILE.to_owned()),
    };
    let denied = class == Class::Unknown;
    let (action, reason) = match denied {
        true => (Action::Deny, Reason::UnknownDestination),
        false => (Action::Allow, Reason::AllowedByRule),
    };
    let now = outgate::clock::now();
    let time = now - i64::try_from(40 - number).unwrap() * 20 * 60_000_000;
    let mut findings = Vec::new();
    if hostile {
        findings.push(Finding::LookalikeDomain { of: HOSTILE.into() });
        findings.push(Finding::Secret {
            detector: HOSTILE.into(),
            count: 2,
            place: HOSTILE.into(),
            key: "hmac:00".into(),
        });
    } else if number.is_multiple_of(8) {
        findings.push(Finding::LargeUpload { bytes: 9 << 20, limit: 8 << 20, of: "request_alert".into() });
    }
    let decision = Decision {
        action,
        agent: ["claude", "codex", "ci"][(number % 3) as usize].parse().unwrap(),
        class,
        domain: text(&host),
        findings,
        host: text(&host),
        http_version: Some("2".into()),
        id: Ulid::from_parts(u64::try_from(time).unwrap() / 1000, number.into()),
        kind: Kind::Http,
        method: if hostile { text(HOSTILE) } else { text("POST") },
        mode: Mode::Enforce,
        owner: if hostile { text(HOSTILE) } else { text("ana@example.com") },
        path: text(&path),
        policy: "sha256:1f0b2c3d4e5f60718293a4b5c6d7e8f90123456789abcdef0123456789abcdef".into(),
        port: Some(443),
        reason,
        rule: if denied { None } else { text(if number % 8 == 1 { HOSTILE } else { "allow \"@github\"" }) },
        scheme: Some(Scheme::Https),
        service: match class {
            Class::Model => Some("anthropic".into()),
            Class::Tool => Some("github".into()),
            Class::Unknown => None,
        },
        session: None,
        time,
        would: None,
        would_reason: None,
    };
    let body = BodyExcerpt {
        content_type: if hostile { text(HOSTILE) } else { text("application/json") },
        excerpt: Redacted::from_store(format!("{{\"a\":\n{HOSTILE}}}")),
        truncated: true,
    };
    let outcome = Outcome {
        action,
        body: (class != Class::Model).then_some(body),
        decided: None,
        decision: decision.id,
        findings: Vec::new(),
        model: None,
        ms: Timing { decide: 0.02, held: 0.0, connect: Some(12.5), first_byte: Some(80.1), total: 220.7 },
        outcome: if denied { OutcomeKind::Denied } else { OutcomeKind::Completed },
        reason,
        request_bytes: if denied { 0 } else { 40_000 * (number + 1) },
        response_bytes: if denied { 0 } else { 5000 },
        status: Some(if denied { 403 } else { 200 }),
        time: time + 220_700,
        upstream: None,
        would: None,
        would_reason: None,
    };
    (decision, outcome)
}

#[tokio::test]
async fn every_page_shows_whatever_was_said_as_text() {
    if !walks() {
        return;
    }
    let world = world_with_everything().await;
    let session =
        serde_json::json!({ "label": HOSTILE, "tool": HOSTILE, "command": HOSTILE, "branch": HOSTILE });
    assert_eq!(post(&world.gate, "/api/sessions", &session.to_string()).await, 201);
    walk("pages.mjs", &world.gate).await;
    world.finish().await;
}

/// Posts to the API with the token; gives the status.
async fn post(gate: &Gate, path: &str, body: &str) -> u16 {
    post_to(gate.admin, &gate.admin_token(), path, body).await
}

async fn post_to(host: SocketAddr, token: &str, path: &str, body: &str) -> u16 {
    let mut raw = Raw::open(host).await;
    let length = body.len();
    raw.send(format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    ))
    .await;
    raw.answer().await.status
}

#[tokio::test]
async fn who_has_the_token_signs_in_and_out() {
    if !walks() {
        return;
    }
    let world = World::with_policy(POLICY).start().await;
    walk("signin.mjs", &world.gate).await;
    assert!(world.gate.stderr().contains("Console: http://"), "{}", world.gate.stderr());
    assert!(!world.gate.stderr().contains("#code="), "a link that signs in got into a log");
    world.finish().await;
}

#[tokio::test]
async fn a_terminal_shows_a_link_that_signs_in_once() {
    if !has("script") {
        return;
    }
    let folder = tempfile::Builder::new().prefix("outgate-test-").tempdir().unwrap();
    let data = folder.path().join("data");
    let serve = format!(
        "{} --data-dir {} serve --listen 127.0.0.1:0 --admin 127.0.0.1:0",
        env!("CARGO_BIN_EXE_outgate"),
        data.display()
    );
    let mut script = Command::new("script");
    script.args(["-qec", &serve, "/dev/null"]).kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut script = script.spawn().unwrap();
    let mut told = BufReader::new(script.stdout.take().unwrap()).lines();
    let link = async {
        loop {
            let line = told.next_line().await.unwrap().expect("it ends");
            if let Some(link) = line.trim().strip_prefix("Console: http://") {
                return link.to_owned();
            }
        }
    };
    let link = tokio::time::timeout(Duration::from_secs(20), link).await.expect("there is no link");
    let (admin, code) = link.split_once("/login#code=").unwrap();
    let admin = admin.parse().unwrap();
    let body = serde_json::json!({ "code": code }).to_string();
    let token = std::fs::read_to_string(data.join("admin.token")).unwrap();
    for status in [200, 401] {
        assert_eq!(post_to(admin, token.trim(), "/login", &body).await, status);
    }
    let note: serde_json::Value =
        serde_json::from_slice(&std::fs::read(data.join("gateway.json")).unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(note["pid"].as_i64().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    tokio::time::timeout(Duration::from_secs(20), script.wait()).await.expect("it does not stop").unwrap();
}

#[tokio::test]
async fn decisions_arrive_and_keys_and_filters_work() {
    if !walks() {
        return;
    }
    let world = World::with_policy(POLICY).start().await;
    walk("live.mjs", &world.gate).await;
    world.finish().await;
}

#[tokio::test]
async fn a_refusal_is_answered_where_it_is_seen() {
    if !walks() {
        return;
    }
    let policy = "ask = [\"held.test:{http}\"]";
    let world = World::with_policy(policy).gate(|gate| gate.own_policy()).start().await;
    let folder = world.gate.data().join("policy.d").display().to_string();
    let told = [("POLICY", folder), ("ORIGIN", world.origin.http.to_string())];
    walk_told("story.mjs", &world.gate, &told).await;
    let events = world.gate.told(&["audit", "export"]).await;
    let answers: Vec<&str> = events.lines().filter(|line| line.contains("\"approval_answered\"")).collect();
    assert_eq!(answers.len(), 6, "{events}");
    assert!(answers.iter().all(|answer| answer.contains("\"by\":\"console\"")), "{answers:#?}");
    world.finish().await;
}

#[tokio::test]
async fn a_hundred_thousand_decisions_are_scrolled_smoothly() {
    if !walks() {
        return;
    }
    let folder = tempfile::Builder::new().prefix("outgate-test-").tempdir().unwrap();
    fill(folder.path(), 202_000, outgate::clock::now()).await;
    let store = folder.path().to_owned();
    let mut world = World::with_policy(POLICY).gate(move |gate| with_store_of(gate, &store)).start().await;
    walk("large.mjs", &world.gate).await;
    // Not `finish`: it reads every decision there is.
    assert!(world.gate.stop().await.success());
}
