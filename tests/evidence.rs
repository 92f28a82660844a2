//! Evidence through the real program: who did what is on record, the chain is signed, copied out, and cut short by rule.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::harness::{Origin, Request, TestCa, Way, World, eventually, reply};

const POLICY: &str = "allow = [\"allowed.test:{http}\", \"allowed.test:{tls}\"]\n[uploads]\nwindow_alert = \"1 GiB\"\nwindow_block = \"1 GiB\"";

/// Exports everything, and gives the lines.
async fn exported(world: &World) -> Vec<Value> {
    let text = world.gate.told(&["audit", "export"]).await;
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The events among the records, oldest first.
async fn events(world: &World) -> Vec<Value> {
    let records = exported(world).await.into_iter().map(|mut line| line["record"].take());
    records.filter(|record| record["event"].is_string()).collect()
}

/// The events of one name.
async fn of(world: &World, name: &str) -> Vec<Value> {
    events(world).await.into_iter().filter(|event| event["event"] == name).collect()
}

async fn exchanges(world: &World, number: usize) {
    for _ in 0..number {
        let answer = world.send(Way::Http1, &Request::get("allowed.test", "/")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

async fn verified(world: &World, arguments: &[&str]) -> Value {
    let arguments: Vec<&str> = ["audit", "verify", "--json"].iter().chain(arguments).copied().collect();
    let output = world.gate.run(&arguments).await;
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr)));
    let expected = if report["intact"] == true { 0 } else { 3 };
    assert_eq!(output.status.code(), Some(expected), "{report}");
    report
}

fn file(world: &World, name: &str) -> PathBuf {
    world.gate.data().join(name)
}

#[tokio::test]
async fn an_agents_life_is_on_record_with_who_did_what() {
    let world = World::with_policy(POLICY).start().await;
    let ana = |arguments: &[&str]| {
        let mut command = world.gate.command(arguments);
        command.env("USER", "ana");
        command
    };
    for arguments in [
        &["agent", "add", "claude", "--owner", "ana@example.com", "--purpose", "builds"][..],
        &["agent", "add", "brief", "--owner", "ana@example.com", "--expires", "2s"],
        &["agent", "rotate", "claude", "--grace", "1h"],
        &["agent", "revoke", "claude"],
    ] {
        let output = ana(arguments).output().await.unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let expired = eventually("the agent to expire on record", async || {
        of(&world, "agent_expired").await.into_iter().next()
    })
    .await;
    assert_eq!((&expired["agent"], &expired["by"]), (&json!("brief"), &Value::Null));
    let events = events(&world).await;
    let told: Vec<(&str, &str, &str)> = events
        .iter()
        .filter(|event| event["event"].as_str().unwrap().starts_with("agent_"))
        .map(|event| {
            let text = |key: &str| event[key].as_str().unwrap_or_default();
            (text("event"), text("agent"), text("by"))
        })
        .collect();
    assert_eq!(
        told,
        [
            ("agent_created", "claude", "ana"),
            ("agent_created", "brief", "ana"),
            ("agent_rotated", "claude", "ana"),
            ("agent_revoked", "claude", "ana"),
            ("agent_expired", "brief", ""),
        ]
    );
    let created = &events.iter().find(|event| event["event"] == "agent_created").unwrap();
    assert_eq!((&created["owner"], &created["purpose"]), (&json!("ana@example.com"), &json!("builds")));
    assert_eq!(verified(&world, &[]).await["intact"], true);
    world.finish().await;
}

#[tokio::test]
async fn the_token_before_a_rotation_is_taken_for_its_grace_and_no_longer() {
    let mut world = World::with_policy(POLICY).config("identity = \"required\"").start().await;
    let token = async |arguments: &[&str]| {
        let issued: Value = serde_json::from_str(&world.gate.told(arguments).await).unwrap();
        issued["token"].as_str().unwrap().to_owned()
    };
    let first = token(&["agent", "add", "claude", "--owner", "ana", "--json"]).await;
    let second = token(&["agent", "rotate", "claude", "--grace", "3s", "--json"]).await;
    let status = async |token: &str| {
        let agent = world.agent.known_as(&format!("claude:{token}"));
        agent.send(Way::Absolute, &Request::get("allowed.test", "/")).await.status
    };
    assert_eq!((status(&first).await, status(&second).await), (200, 200));
    eventually("the grace to end", async || (status(&first).await == 407).then_some(())).await;
    assert_eq!(status(&second).await, 200);
    for token in [first, second] {
        world.gate.plant(&token);
    }
    world.finish().await;
}

#[tokio::test]
async fn a_session_says_what_ran_where_and_which_model_it_asked() {
    let policy = "allow = [\"@anthropic\", \"allowed.test:{tls}\"]\n\
        [[service]]\nname = \"pretend\"\nclass = \"model\"\nkind = \"inference\"\nhosts = [\"model.test\"]\n\
        [[rule]]\nname = \"the model\"\naction = \"allow\"\nto = [\"model.test:{tls}\"]";
    let world = World::with_policy(policy).start().await;
    let checkout = tempfile::TempDir::new().unwrap();
    let git = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new("git");
        command.args([
            "-c",
            "user.name=a",
            "-c",
            "user.email=a@example.com",
            "-c",
            "init.defaultBranch=main",
        ]);
        let output = command.args(arguments).current_dir(checkout.path()).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    git(&["init"]).await;
    git(&["remote", "add", "origin", "https://ana:hunter2hunter2@forge.example/team/app.git"]).await;
    git(&["commit", "--allow-empty", "-m", "x"]).await;
    let commit = git(&["rev-parse", "HEAD"]).await;

    let url = format!("https://model.test:{}/v1/messages", world.origin.tls);
    let body = r#"{"model":"large-1","max_tokens":5,"messages":[{"role":"user","content":"hello"}]}"#;
    let curl = ["curl", "-sS", "-H", "content-type: application/json", "-d", body, &url];
    let mut arguments = vec!["run", "--label", "fix-42", "--"];
    arguments.extend(curl);
    let mut run = world.gate.command(&arguments);
    let output = run.current_dir(checkout.path()).env("USER", "ana").output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let sessions: Vec<Value> =
        serde_json::from_str(&world.gate.told(&["session", "list", "--json"]).await).unwrap();
    let session = &sessions[0];
    for (key, expected) in [
        ("label", json!("fix-42")),
        ("tool", json!("curl")),
        ("command", json!("curl")),
        ("repo", json!("https://forge.example/team/app.git")),
        ("branch", json!("main")),
        ("commit", json!(commit)),
        ("provider", json!("pretend")),
        ("model", json!("large-1")),
        ("exit_code", json!(0)),
        ("why", json!("exited")),
    ] {
        assert_eq!(session[key], expected, "{key} in {session}");
    }
    let opened = &of(&world, "session_opened").await[0];
    assert_eq!((&opened["session"], &opened["by"]), (&session["session"], &json!("ana")));
    assert_eq!(of(&world, "session_ended").await[0]["exit_code"], 0);
    let rows = world.gate.decisions_reach(1).await;
    assert_eq!(
        (rows[0].text("session"), rows[0].text("service")),
        (session["session"].as_str().unwrap(), "pretend")
    );
    let shown = world.gate.told(&["session", "show", rows[0].text("session")]).await;
    assert!(shown.contains("pretend") && shown.contains("large-1"), "{shown}");
    world.finish().await;
}

#[tokio::test]
async fn a_session_whose_run_was_killed_is_ended_as_lost() {
    let world = World::with_policy(POLICY).start().await;
    let mut run = world.gate.command(&["run", "--", "sleep", "60"]).stderr(Stdio::null()).spawn().unwrap();
    eventually("the session", async || (!of(&world, "session_opened").await.is_empty()).then_some(())).await;
    let child = eventually("its command", async || child_of(run.id().unwrap())).await;
    run.start_kill().unwrap();
    run.wait().await.unwrap();
    let ended =
        eventually("the session to end", async || of(&world, "session_ended").await.into_iter().next()).await;
    let _ = kill_process(child, Signal::KILL);
    assert_eq!((&ended["why"], &ended["exit_code"]), (&json!("lost"), &Value::Null));
    eventually("nothing to be left of it", async || {
        std::fs::read_dir(file(&world, "sessions")).unwrap().next().is_none().then_some(())
    })
    .await;
    assert_eq!(verified(&world, &[]).await["intact"], true);
    world.finish().await;
}

/// A child of a process, once it has one.
fn child_of(parent: u32) -> Option<Pid> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
}

#[tokio::test]
async fn starts_stops_settings_and_policies_are_on_record() {
    let mut world = World::with_policy(POLICY).config("[audit]\nexcerpt = \"1 KiB\"").start().await;
    let first_policy = of(&world, "policy_in_force").await[0]["policy"].clone();
    world.gate.write_policy(&world.policy("allow = []"));
    world.gate.reload().await;
    let changed = &of(&world, "policy_in_force").await[1];
    assert_eq!(changed["previous"], first_policy);
    assert_ne!(changed["policy"], first_policy);
    assert!(world.gate.stop().await.success());
    let config = world.gate.data().parent().unwrap().join("outgate.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("1 KiB", "2 KiB")).unwrap();
    world.gate = world.gate.again().await;
    let names: Vec<String> =
        events(&world).await.iter().map(|event| event["event"].as_str().unwrap().to_owned()).collect();
    let kept: Vec<&str> = names.iter().map(String::as_str).filter(|name| *name != "checkpoint").collect();
    assert_eq!(
        kept,
        [
            "started",
            "authority_in_force",
            "policy_in_force",
            "policy_in_force",
            "stopped",
            "configuration_changed",
            "started",
            "authority_in_force",
            "policy_in_force"
        ]
    );
    let settings = &of(&world, "configuration_changed").await[0];
    assert_eq!(settings["keys"], json!(["audit.excerpt"]));
    let starts = of(&world, "started").await;
    assert_ne!(starts[0]["configuration"], starts[1]["configuration"]);
    assert_eq!(settings["configuration"], starts[1]["configuration"]);
    assert_eq!(verified(&world, &[]).await["intact"], true);
}

#[tokio::test]
async fn the_end_that_was_cut_off_shows_in_the_checkpoints_kept_outside() {
    let mut world = World::with_policy(POLICY).config("[audit]\ncheckpoint_records = 5").start().await;
    exchanges(&world, 10).await;
    assert!(world.gate.stop().await.success());
    let kept = file(&world, "checkpoints.jsonl");
    let lines = std::fs::read_to_string(&kept).unwrap();
    let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    let whole = verified(&world, &[]).await;
    assert_eq!(whole["intact"], true);
    assert_eq!(whole["checkpoints"], lines.lines().count());

    // As somebody who knows the format would: the mark goes, too.
    let script = "import sqlite3,sys; d=sqlite3.connect(sys.argv[1]); d.execute('delete from records where seq > 12'); \
                  d.execute(\"delete from meta where name='mark'\"); d.execute(\"update records set action='allow' where seq<0\"); d.commit()";
    python(script, &file(&world, "outgate.db")).await;
    let cut = verified(&world, &[]).await;
    assert_eq!(cut["intact"], false);
    let problem = cut["first_bad"]["problem"].as_str().unwrap();
    assert!(problem.contains(&format!("record {} had been written", last["through"])), "{cut}");
}

async fn python(script: &str, path: &Path) {
    let mut command = tokio::process::Command::new("python3");
    let output = command.arg("-c").arg(script).arg(path).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn checkpoints_are_posted_to_who_is_named_and_again_until_they_are_taken() {
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let posted = Arc::clone(&bodies);
    let keeper = Origin::with_authority(&TestCa::new())
        .answering(move |asked| {
            let known = asked.path == "/keep" && asked.headers["content-type"] == "application/json";
            let mut bodies = posted.lock().unwrap();
            let status = if bodies.is_empty() { 503 } else { 200 };
            bodies.push(asked.body);
            async move { reply(if known { status } else { 404 }, "text/plain", "") }
        })
        .start()
        .await;
    let url = format!("http://{}:{}/keep", keeper.ip, keeper.http);
    let config = format!("[audit]\ncheckpoint_interval = \"1s\"\ncheckpoint_webhook = \"{url}\"");
    let world = World::with_policy(POLICY).config(&config).start().await;
    exchanges(&world, 3).await;
    eventually("a checkpoint to be taken", async || (bodies.lock().unwrap().len() >= 2).then_some(())).await;
    let posted: Value = serde_json::from_slice(&bodies.lock().unwrap()[1]).unwrap();
    let kept = std::fs::read_to_string(file(&world, "checkpoints.jsonl")).unwrap();
    let kept: Vec<Value> = kept.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(kept.contains(&posted), "{posted} is not among {kept:?}");
    world.finish().await;
}

#[tokio::test]
async fn an_export_verifies_far_from_its_store_and_by_its_key_alone() {
    let world = World::with_policy(POLICY).start().await;
    exchanges(&world, 5).await;
    world.gate.decisions_reach(5).await;
    let path = file(&world, "records.jsonl");
    let name = path.to_str().unwrap();
    world.gate.told(&["audit", "export", "-o", name]).await;
    let again = world.gate.run(&["audit", "export", "-o", name]).await;
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(again.status.code() == Some(1) && said.contains("is not overwritten"), "{said}");
    let key = file(&world, "audit.pub");
    let key = key.to_str().unwrap();
    let whole = verified(&world, &[name, "--key", key]).await;
    assert_eq!(whole["intact"], true);
    let lines = std::fs::read_to_string(&path).unwrap().lines().count();
    assert_eq!(whole["records"], lines - 2);
    let stranger = verified(&world, &[name, "--key", &"ab".repeat(32)]).await;
    assert!(stranger["first_bad"]["problem"].as_str().unwrap().contains("not trusted here"), "{stranger}");
    let wrong = world.gate.run(&["audit", "verify", name, "--key", "nokey"]).await;
    assert_eq!(wrong.status.code(), Some(2));

    let after = world.gate.told(&["audit", "export", "--after", "4"]).await;
    let part = file(&world, "part.jsonl");
    std::fs::write(&part, &after).unwrap();
    let part = verified(&world, &[part.to_str().unwrap(), "--key", key]).await;
    assert_eq!((&part["intact"], &part["first_bad"]), (&json!(true), &Value::Null), "{part}");
    let since: Vec<String> =
        world.gate.told(&["audit", "export", "--since", "1h"]).await.lines().map(str::to_owned).collect();
    assert!(since.len() > 2 && since[1].contains("\"seq\":1,"), "{}", since[1]);
    world.finish().await;
}

#[tokio::test]
async fn an_export_that_follows_is_a_copy_that_is_never_far_behind() {
    let world = World::with_policy(POLICY).start().await;
    let path = file(&world, "copy.jsonl");
    let name = path.to_str().unwrap();
    let mut follow = world.gate.command(&["audit", "export", "--follow", "-o", name]).spawn().unwrap();
    exchanges(&world, 5).await;
    let rows = world.gate.decisions_reach(5).await;
    let last = rows.iter().map(|row| row.number("outcome_seq")).max().unwrap();
    eventually("the copy to have come so far", async || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        text.contains(&format!("\"seq\":{last},")).then_some(())
    })
    .await;
    let unfinished = verified(&world, &[name]).await;
    assert!(
        unfinished["first_bad"]["problem"].as_str().unwrap().contains("still being written"),
        "{unfinished}"
    );
    kill_process(Pid::from_raw(follow.id().unwrap().cast_signed()).unwrap(), Signal::TERM).unwrap();
    assert!(follow.wait().await.unwrap().success());
    assert_eq!(verified(&world, &[name]).await["intact"], true);
    world.finish().await;
}

#[tokio::test]
async fn old_records_go_by_command_and_the_rest_verifies() {
    let world = World::with_policy(POLICY).start().await;
    exchanges(&world, 5).await;
    world.gate.decisions_reach(5).await;
    let none = world.gate.told(&["audit", "prune", "--before", "1h"]).await;
    assert!(none.contains("nothing is older"), "{none}");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let mut prune = world.gate.command(&["audit", "prune", "--before", "1s", "--json"]);
    let output = prune.env("USER", "ana").output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let pruned: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(pruned["records"].as_u64().unwrap() >= 12, "{pruned}");
    assert!(world.gate.decisions_now().await.is_empty());
    exchanges(&world, 1).await;
    assert_eq!(verified(&world, &[]).await["intact"], true);
    let told = &of(&world, "pruned").await[0];
    assert_eq!((&told["through"], &told["by"]), (&pruned["through"], &json!("ana")));
    let lines = exported(&world).await;
    assert_eq!(lines[0]["follows"]["through"], pruned["through"]);
    world.finish().await;
}

#[tokio::test]
async fn old_records_go_by_themselves() {
    let mut world = World::with_policy(POLICY).config("[audit]\nretention = \"1s\"").start().await;
    exchanges(&world, 5).await;
    assert!(world.gate.stop().await.success());
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let world = world.again().await;
    eventually("them to go", async || world.gate.decisions_now().await.is_empty().then_some(())).await;
    assert_eq!(of(&world, "pruned").await[0]["by"], "retention");
    assert_eq!(verified(&world, &[]).await["intact"], true);
    exchanges(&world, 1).await;
    world.finish().await;
}

#[tokio::test]
async fn without_a_gateway_a_command_drops_and_signs_itself() {
    let mut world = World::with_policy(POLICY).start().await;
    exchanges(&world, 3).await;
    assert!(world.gate.stop().await.success());
    world.gate.told(&["agent", "add", "claude", "--owner", "ana"]).await;
    let kept = || std::fs::read_to_string(file(&world, "checkpoints.jsonl")).unwrap();
    let last: Value = serde_json::from_str(kept().lines().last().unwrap()).unwrap();
    let created =
        exported(&world).await.into_iter().find(|line| line["record"]["event"] == "agent_created").unwrap();
    assert!(last["through"].as_u64() >= created["seq"].as_u64(), "the change is not covered: {last}");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let said = world.gate.told(&["audit", "prune", "--before", "1s"]).await;
    assert!(said.contains("dropped") && said.contains("signed stub"), "{said}");
    assert_eq!(verified(&world, &[]).await["intact"], true);
    let world = world.again().await;
    exchanges(&world, 1).await;
    assert_eq!(verified(&world, &[]).await["intact"], true);
    world.finish().await;
}
