//! Starting, being told something new, and stopping.

use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::harness::{Answer, Frame, Gate, Raw, Request, Way, World, command, eventually};

const POLICY: &str = "allow = [\"allowed.test:{http}\", \"allowed.test:{tls}\"]";

#[tokio::test]
async fn an_empty_folder_is_enough() {
    let begun = Instant::now();
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let mut serve = command();
    serve.arg("--data-dir").arg(&data).args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let mut child = serve.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = tokio::io::BufReader::new(child.stdout.take().unwrap());
    let mut said = String::new();
    while !said.contains("admin http://") {
        use tokio::io::AsyncBufReadExt;
        let read =
            tokio::time::timeout(Duration::from_secs(10), lines.read_line(&mut said)).await.unwrap().unwrap();
        assert_ne!(read, 0, "it ended, having said {said}");
    }
    assert!(begun.elapsed() < Duration::from_secs(3), "it took {:?}", begun.elapsed());
    for file in ["ca.pem", "ca.key", "policy.toml", "admin.token", "outgate.db"] {
        assert!(data.join(file).exists(), "`{file}` was not made");
    }
    child.kill().await.unwrap();
}

#[tokio::test]
async fn it_is_healthy_and_says_so() {
    let world = World::with_policy(POLICY).start().await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(world.gate.admin(path, "").await.status, 200, "{path}");
    }
    world.finish().await;
}

#[tokio::test]
async fn a_changed_policy_is_read_within_two_seconds() {
    let world = World::with_policy(POLICY).start().await;
    let request = Request::get("other.test", "/");
    assert_eq!(world.send(Way::Http1, &request).await.status, 403);
    world.gate.write_policy(&world.policy("allow = [\"other.test:{tls}\"]"));
    let changed = Instant::now();
    eventually("the new policy", async || {
        (world.send(Way::Http1, &request).await.status == 200).then_some(())
    })
    .await;
    assert!(changed.elapsed() < Duration::from_secs(3), "it took {:?}", changed.elapsed());
    world.finish().await;
}

#[tokio::test]
async fn an_open_websocket_ends_when_the_policy_no_longer_allows_it() {
    let world = World::with_policy(POLICY).start().await;
    let request = Request::get("allowed.test", "/socket")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let mut raw = world.agent.tls(&request, b"http/1.1").await.unwrap();
    let answer = raw.exchange("GET", &world.agent.origin_form(&request)).await;
    assert_eq!(answer.status, 101, "{answer:?}");
    world.gate.write_policy(&world.policy("allow = [\"allowed.test:{tls}\", \"other.test:{tls}\"]"));
    world.gate.reload().await;
    Frame::text("still here").write(&mut raw.output, true).await.unwrap();
    let echo = Frame::read(&mut raw.input).await.unwrap();
    assert_eq!(echo.payload, b"still here", "a policy that still allows it changes nothing");
    world.gate.write_policy(&world.policy("allow = [\"other.test:{tls}\"]"));
    world.gate.reload().await;
    let ended = tokio::time::timeout(Duration::from_secs(10), Frame::read(&mut raw.input)).await.unwrap();
    assert!(ended.is_err() || ended.is_ok_and(|frame| frame.close_code().is_some()));
    world.gate.decisions_reach(1).await;
    world.gate.only_decision().await.is("deny", "denied_by_rule");
    world.finish().await;
}

/// Whoever saves a file empties it first; what nobody meant to be in force must not be.
#[tokio::test]
async fn a_policy_that_is_being_written_is_not_in_force() {
    let world = World::with_policy(POLICY).start().await;
    let request = Request::get("allowed.test", "/");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        for text in ["version = 1", &*world.policy(POLICY)] {
            world.gate.write_policy(text);
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(world.send(Way::Http1, &request).await.status, 200, "{}", world.gate.stderr());
        }
    }
    world.finish().await;
}

/// The agent may write the file that its secrets are in.
#[tokio::test]
async fn a_value_that_was_known_stays_known_whatever_becomes_of_its_file() {
    let policy = format!("{POLICY}\n[secrets]\nknown = [\"dotenv:.env\"]");
    let mut world = World::with_policy(&policy)
        .gate(|gate| {
            gate.file(".env", "PASSWORD=correct-horse-battery\nOTHER=staple-of-the-house\n");
            gate
        })
        .start()
        .await;
    let file = world.gate.files().join(".env");
    let blocked = async |world: &World| {
        let request = Request::post("allowed.test", "/", "it is correct-horse-battery");
        let answer = world.send(Way::Http1, &request).await;
        (answer.status, answer.reason().map(str::to_owned))
    };
    let secret = (403, Some("secret_found".to_owned()));
    assert_eq!(blocked(&world).await, secret);
    for (put, warned) in [
        ("nothing", "holds less than before; values that have gone from it: 2"),
        ("a pipe", "`dotenv:.env` cannot be read: it is a pipe, not a plain file"),
        ("no end", "`dotenv:.env` cannot be read: it is a device, not a plain file"),
    ] {
        std::fs::remove_file(&file).unwrap();
        match put {
            "a pipe" => mknodat(CWD, &file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap(),
            "no end" => std::os::unix::fs::symlink("/dev/zero", &file).unwrap(),
            _ => std::fs::write(&file, "").unwrap(),
        }
        world.gate.reload().await;
        assert!(world.gate.stderr().contains(warned), "{put}: {}", world.gate.stderr());
        assert_eq!(blocked(&world).await, secret, "{put}");
    }
    // Until the policy names the file no more. It is read though the file cannot be.
    world.gate.write_policy(&world.policy(POLICY));
    world.gate.reload().await;
    assert_eq!(blocked(&world).await, (200, None));
    world.gate.write_policy(&world.policy(&policy));
    world.gate.reload().await;
    assert!(world.gate.stop().await.success(), "a file that cannot be read holds no end up");
    let mut world = world.again().await;
    assert_eq!(blocked(&world).await, (200, None), "it starts, and knows no more than it can read");
    assert!(world.gate.stop().await.success());
}

#[tokio::test]
async fn an_agent_has_its_share_of_connections_whatever_they_carry() {
    let world = World::with_policy(POLICY).config("[limits]\nconnections_per_agent = 2").start().await;
    let authority = format!("allowed.test:{}", world.origin.http);
    let request = format!("GET http://{authority}/ HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut raw = Raw::open(world.gate.proxy).await;
        raw.send(&request).await;
        assert_eq!(raw.answer().await.status, 200);
        held.push(raw);
    }
    let refused = eventually("the third to be refused", async || {
        let answer = world.send(Way::Absolute, &Request::get("allowed.test", "/")).await;
        (answer.status == 503).then_some(answer)
    })
    .await;
    assert_eq!(refused.header("x-outgate-reason"), Some("overloaded"));
    drop(held);
    eventually("the places to be free again", async || {
        (world.send(Way::Absolute, &Request::get("allowed.test", "/")).await.status == 200).then_some(())
    })
    .await;
    world.finish().await;
}

#[tokio::test]
async fn agents_are_who_they_say_they_are() {
    let world = World::with_policy(POLICY).config("identity = \"required\"").start().await;
    let added = world.gate.told(&["agent", "add", "claude", "--owner", "ana@example.com", "--json"]).await;
    let added: serde_json::Value = serde_json::from_str(&added).unwrap();
    let token = added["token"].as_str().unwrap().to_owned();
    let request = Request::get("allowed.test", "/");
    for (credentials, reason) in [
        (format!("claude:{token}"), None),
        (format!("claude+review-7:{token}"), None),
        (format!("claude:{token}x"), Some("identity_unknown")),
        (format!("other:{token}"), Some("identity_unknown")),
        ("claude:".to_owned(), Some("identity_unknown")),
    ] {
        for way in Way::ALL {
            let answer = world.agent.known_as(&credentials).send(way, &request).await;
            assert_eq!(answer.reason(), reason, "{way:?}: {answer:?}");
            assert_eq!(answer.status == 407, reason.is_some(), "{way:?}: {answer:?}");
        }
    }
    let bearer = world.agent.authorized_by(&format!("Bearer {token}")).send(Way::Http1, &request).await;
    assert_eq!(bearer.status, 200, "{bearer:?}");
    assert!(world.origin.requests().iter().all(|seen| seen.header("proxy-authorization").is_none()));
    let rows = world.gate.decisions_reach(21).await;
    let known =
        rows.iter().filter(|row| row.text("agent") == "claude" && row.text("owner") == "ana@example.com");
    assert!(known.count() >= 9, "{rows:#?}");
    let known = world.agent.known_as(&format!("claude:{token}"));
    let mut open = known.tls(&request, b"http/1.1").await.unwrap();
    let pieces = known.origin_form(&request);
    assert_eq!(open.exchange("GET", &pieces).await.status, 200);
    world.gate.told(&["agent", "revoke", "claude"]).await;
    let after = open.exchange("GET", &pieces).await;
    assert_eq!(
        (after.status, after.reason()),
        (407, Some("identity_expired")),
        "in an open tunnel: {after:?}"
    );
    eventually("the revocation", async || {
        let answer = world.agent.known_as(&format!("claude:{token}")).send(Way::Http1, &request).await;
        (answer.reason() == Some("identity_expired")).then_some(())
    })
    .await;
    let mut gate = world.gate;
    gate.plant(&token);
    gate.finish().await;
}

#[tokio::test]
async fn a_refusal_tells_a_program_what_to_do() {
    let world = World::with_policy(POLICY).start().await;
    let answer = world.send(Way::Http2, &Request::get("other.test", "/path?secret=1")).await;
    let told: serde_json::Value = serde_json::from_str(&answer.text()).unwrap();
    let row = world.gate.only_decision().await;
    let error = &told["error"];
    assert_eq!(error["code"], "unknown_destination");
    assert_eq!(error["decision"], row["id"]);
    assert_eq!(error["class"], "unknown");
    assert_eq!(error["destination"], format!("https://other.test:{}", world.origin.tls));
    assert!(error["rule"].is_null());
    let message = error["message"].as_str().unwrap();
    assert!(
        message.starts_with("outgate refused this request: ") && message.contains("outgate policy allow"),
        "{message}"
    );
    let headers = |answer: &Answer, name: &str| answer.header(name).unwrap_or_default().to_owned();
    assert_eq!(headers(&answer, "content-type"), "application/json");
    assert_eq!(headers(&answer, "cache-control"), "no-store");
    assert_eq!(headers(&answer, "x-outgate-decision"), row.text("id"));
    world.finish().await;
}

#[tokio::test]
async fn metrics_are_there_from_the_start_and_count_the_last_word() {
    let world = World::with_policy(POLICY).start().await;
    let page = world.gate.metrics().await;
    for name in [
        "outgate_decisions_total",
        "outgate_requests_in_flight",
        "outgate_upload_bytes_total",
        "outgate_download_bytes_total",
        "outgate_upload_alerts_total",
        "outgate_findings_total",
        "outgate_redactions_total",
        "outgate_overhead_seconds",
        "outgate_decide_seconds",
        "outgate_upstream_connect_seconds",
        "outgate_tls_handshakes_total",
        "outgate_certificates_minted_total",
        "outgate_audit_commits_total",
        "outgate_audit_failures_total",
        "outgate_audit_queue_depth",
        "outgate_approvals_pending",
        "outgate_approvals_total",
        "outgate_sessions_active",
        "outgate_policy_reloads_total",
        "outgate_alerts_sent_total",
        "outgate_build_info",
        "process_resident_memory_bytes",
    ] {
        let line = page.lines().find(|line| line.starts_with(name));
        assert!(line.is_some(), "`{name}` is not on the page");
    }
    assert_eq!(world.send(Way::Http1, &Request::get("allowed.test", "/")).await.status, 200);
    assert_eq!(world.send(Way::Http1, &Request::get("other.test", "/")).await.status, 403);
    world.gate.decisions_reach(2).await;
    for (action, reason) in [("allow", "allowed_by_rule"), ("deny", "unknown_destination")] {
        let labels =
            [format!("action=\"{action}\""), format!("reason=\"{reason}\""), "class=\"unknown\"".into()];
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        assert_eq!(world.gate.metric("outgate_decisions_total", &labels).await, 1.0, "{action} {reason}");
    }
    assert_eq!(world.gate.metric("outgate_decisions_total", &[]).await, 2.0);
    world.finish().await;
}

#[tokio::test]
async fn windows_are_remembered_over_a_restart() {
    let policy = format!(
        "{POLICY}\n[uploads]\nrequest_block = \"60 KiB\"\nrequest_alert = \"50 KiB\"\nwindow_alert = \"80 KiB\"\nwindow_block = \"100 KiB\""
    );
    let mut world = World::with_policy(&policy).start().await;
    let request = Request::post("allowed.test", "/", vec![b'x'; 55 << 10]);
    assert_eq!(world.send(Way::Http1, &request).await.status, 200);
    world.gate.decisions_reach(1).await;
    world.gate.kill9().await;
    world.gate = world.gate.again().await;
    world.agent.proxy = world.gate.proxy;
    let answer = world.send(Way::Http1, &request).await;
    assert_eq!((answer.status, answer.reason()), (413, Some("upload_window_exceeded")), "{answer:?}");
    world.finish().await;
}

#[tokio::test]
async fn the_demo_explains_itself_without_the_internet() {
    let folder = tempfile::TempDir::new().unwrap();
    let begun = Instant::now();
    let mut demo = command();
    demo.arg("--data-dir").arg(folder.path().join("data")).arg("demo");
    let output = tokio::time::timeout(Duration::from_secs(30), demo.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
    for word in ["allowed_by_rule", "unknown_destination", "upload_too_large", "secret_found"] {
        assert!(said.contains(word), "`{word}` is not in:\n{said}");
    }
}

#[tokio::test]
async fn a_gateway_in_use_is_not_started_twice() {
    let gate = Gate::with_policy("allow = []").start().await;
    let second = gate.second_serve().await;
    assert_eq!(second.status.code(), Some(1));
    assert!(!second.stderr.is_empty());
    gate.finish().await;
}
