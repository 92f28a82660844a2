//! The records verified by two programs that share no code: they agree on what is intact, and on what is not.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Output;

use serde_json::Value;
use sqlx::{Connection, Executor, SqliteConnection};

use crate::harness::{Request, Way, World, verify_audit};

const POLICY: &str = "allow = [\"allowed.test:{http}\", \"allowed.test:{tls}\"]";
const PAGE: &str = include_str!("../docs/audit-format.md");
/// Exports that are verified at once; Python takes its time to begin.
const TOUCHES_AT_ONCE: usize = 8;
/// Of the first test vector in RFC 8032.
const EXAMPLE_KEY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

#[tokio::test]
async fn the_other_verifier_tests_itself() {
    let Some(output) = verify_audit(&["--self-test".as_ref()]).await else { return };
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn the_worked_example_of_the_page_is_intact() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("example.jsonl");
    let example = PAGE.split("```jsonl\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    std::fs::write(&file, example).unwrap();
    let arguments: [&OsStr; 4] = ["--json".as_ref(), "--key".as_ref(), EXAMPLE_KEY.as_ref(), file.as_ref()];
    let Some(output) = verify_audit(&arguments).await else { return };
    assert_eq!(
        told(&output),
        (0, serde_json::json!({"intact": true, "records": 2, "checkpoints": 1, "first_bad": null}))
    );
    std::fs::write(&file, example.replace("0.1.0\"}}", "0.1.1\"}}")).unwrap();
    let output = verify_audit(&arguments).await.unwrap();
    assert_eq!((told(&output).0, first_bad(&output)), (3, Some(1)), "{output:?}");
}

#[tokio::test]
async fn both_verifiers_name_the_same_record() {
    let world = World::with_policy(POLICY).start().await;
    for host in ["allowed.test", "other.test", "allowed.test"] {
        world.send(Way::Http1, &Request::get(host, "/")).await;
    }
    let push = Request::get("allowed.test", "/app.git/info/refs?service=git-receive-pack");
    world.send(Way::Http1, &push).await;
    world.gate.decisions_reach(4).await;
    world.gate.told(&["agent", "add", "claude", "--owner", "ana", "--expires", "30d"]).await;
    world.gate.run(&["run", "--label", "fix-42", "--", "true"]).await;
    let mut gate = world.gate;
    assert!(gate.stop().await.success());
    let (file, whole) = (gate.data().join("outgate.db"), gate.data().join("whole.db"));
    std::fs::copy(&file, &whole).unwrap();
    let decision = "(SELECT min(seq) FROM records WHERE kind = 'decision')";
    let outcome = "(SELECT min(seq) FROM records WHERE kind = 'outcome')";
    let event = "(SELECT min(seq) FROM records WHERE kind = 'event')";
    let last = "(SELECT max(seq) FROM records)";
    let touches = [
        "SELECT 1".to_owned(),
        format!(
            "UPDATE records SET record = replace(record, 'allowed.test', 'other.test') WHERE seq = {decision}"
        ),
        format!("UPDATE records SET record = record || ' ' WHERE seq = {event}"),
        format!("UPDATE records SET hash = zeroblob(32) WHERE seq = {outcome}"),
        format!("UPDATE records SET kind = 'event' WHERE seq = {decision}"),
        format!("UPDATE records SET time = time + 1 WHERE seq = {event}"),
        format!("UPDATE records SET id = '01M7Q5CQKV0000000000000007' WHERE seq = {decision}"),
        format!("UPDATE records SET session = '01M7Q5CQKV0000000000000007' WHERE seq = {decision}"),
        format!("UPDATE records SET agent = 'other' WHERE seq = {decision}"),
        format!("UPDATE records SET class = 'model' WHERE seq = {decision}"),
        format!("UPDATE records SET host = 'other.test' WHERE seq = {decision}"),
        format!("UPDATE records SET domain = NULL WHERE seq = {decision}"),
        format!("UPDATE records SET host = 'other.test' WHERE seq = {outcome}"),
        format!("UPDATE records SET agent = 'other' WHERE seq = {event}"),
        format!("UPDATE records SET bytes = 1 WHERE seq = {decision}"),
        format!("UPDATE records SET findings = 1 WHERE seq = {decision}"),
        format!("UPDATE records SET bytes = bytes + 1 WHERE seq = {outcome}"),
        format!("UPDATE records SET fresh = 1 WHERE seq = {decision}"),
        format!("UPDATE records SET fresh = 2 WHERE seq = {decision}"),
        format!("UPDATE records SET fresh = 1 WHERE seq = {outcome}"),
        format!("UPDATE records SET fresh = 1 WHERE seq = {event}"),
        "UPDATE meta SET value = '1000000' WHERE name = 'filed'".to_owned(),
        format!("UPDATE records SET action = 'ask' WHERE seq = {decision}"),
        format!("UPDATE records SET reason = 'secret_found' WHERE seq = {decision}"),
        format!("UPDATE records SET decision = NULL WHERE seq = {outcome}"),
        format!("UPDATE records SET decision = {event} WHERE seq = {outcome}"),
        format!("UPDATE records SET decision = 1000 WHERE seq = {outcome}"),
        "DELETE FROM records WHERE seq = 1".to_owned(),
        format!("DELETE FROM records WHERE seq = {outcome}"),
        format!("DELETE FROM records WHERE seq = {last}"),
        format!("UPDATE records SET seq = seq + 1 WHERE seq = {last}"),
        "DELETE FROM records".to_owned(),
        "INSERT INTO meta VALUES ('pruned', '{}')".to_owned(),
        format!("INSERT INTO meta VALUES ('pruned', '{}')", stub_of_nobody(2)),
        "DELETE FROM found".to_owned(),
        format!("INSERT INTO found VALUES (7, {decision})"),
        "UPDATE agents SET owner = 'eve'".to_owned(),
        "UPDATE agents SET expires = NULL".to_owned(),
        "UPDATE agents SET revoked = 1".to_owned(),
        "DELETE FROM agents".to_owned(),
        "UPDATE sessions SET label = 'other'".to_owned(),
        "UPDATE sessions SET ended = NULL, exit_code = NULL, why = NULL".to_owned(),
        "UPDATE sessions SET exit_code = 1".to_owned(),
        "UPDATE sessions SET started = started - 1".to_owned(),
        "UPDATE sessions SET ended = ended + 1".to_owned(),
        "INSERT INTO sessions SELECT '01M7Q5CQKV0000000000000007', agent, label, tool, command, repo, branch, \
         commit_id, model, observe, implicit, started, ended, exit_code, why, provider FROM sessions LIMIT 1"
            .to_owned(),
        "INSERT INTO agents (name, owner, created) VALUES ('ghost', 'eve', 1)".to_owned(),
        "UPDATE agents SET created = created + 1".to_owned(),
        "UPDATE policies SET text = text || '# and more'".to_owned(),
        "UPDATE found SET seq = seq + 1".to_owned(),
        format!("UPDATE records SET host = host || char(0) || 'x' WHERE seq = {decision}"),
        format!("UPDATE records SET action = action || char(0) || 'x' WHERE seq = {decision}"),
        format!("UPDATE records SET agent = agent || char(31) || 'x' WHERE seq = {decision}"),
        format!(
            "UPDATE records SET record = record || char(30) || (SELECT record FROM records WHERE seq = {last}) \
             WHERE seq = {event}"
        ),
    ];
    for (number, touch) in touches.iter().enumerate() {
        std::fs::copy(&whole, &file).unwrap();
        execute(&file, touch).await;
        let ours = gate.run(&["audit", "verify", "--json"]).await;
        let Some(theirs) = verify_audit(&["--json".as_ref(), file.as_ref()]).await else { return };
        let intact = number == 0;
        assert_eq!(told(&ours).0, if intact { 0 } else { 3 }, "{touch}: {ours:?}");
        assert_eq!(told(&theirs).0, if intact { 0 } else { 3 }, "{touch}: {theirs:?}");
        assert_eq!(first_bad(&ours), first_bad(&theirs), "{touch}\n{ours:?}\n{theirs:?}");
        if intact {
            assert_eq!(told(&ours).1, told(&theirs).1, "{touch}");
        }
    }
}

/// What would stand for the first records, if somebody had signed it.
fn stub_of_nobody(through: u64) -> String {
    let (hash, signature) = ("00".repeat(32), "00".repeat(64));
    format!(
        r#"{{"hash":"{hash}","key":"{EXAMPLE_KEY}","records":{through},"signature":"{signature}","through":{through},"time":1}}"#
    )
}

/// A change to the lines of an export, in words, and what it leaves of them.
type Touched = (String, Vec<String>);

#[tokio::test]
async fn whatever_is_done_to_an_export_both_verifiers_name_it() {
    let world = World::with_policy(POLICY).config("[audit]\ncheckpoint_records = 4").start().await;
    world.gate.told(&["agent", "add", "claude", "--owner", "ana", "--expires", "30d"]).await;
    for host in ["allowed.test", "other.test", "allowed.test"] {
        world.send(Way::Http1, &Request::get(host, "/")).await;
    }
    world.gate.decisions_reach(3).await;
    let data = world.gate.data();
    let whole: Vec<String> = world.gate.told(&["audit", "export"]).await.lines().map(str::to_owned).collect();
    let (key, kept) = (data.join("audit.pub"), data.join("checkpoints.jsonl"));
    let evidence = outgate::evidence::Evidence {
        keys: outgate::signing::read_public_keys(&key).unwrap(),
        checkpoints: outgate::evidence::read_checkpoints(&kept).unwrap(),
    };
    let mut touches = vec![("nothing".to_owned(), whole.clone())];
    touches.extend(structural(&whole));
    touches.extend(field_by_field(&whole));
    assert!(touches.len() > 90, "{}", touches.len());
    let mut apart = Vec::new();
    for (batch, touches) in touches.chunks(TOUCHES_AT_ONCE).enumerate() {
        let files: Vec<_> =
            (0..touches.len()).map(|place| data.join(format!("touched-{place}.jsonl"))).collect();
        for (file, (_, lines)) in files.iter().zip(touches) {
            std::fs::write(file, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        }
        let theirs = files.iter().map(|file| {
            let options = ["--json".as_ref(), "--key".as_ref(), key.as_os_str(), "--checkpoints".as_ref()];
            let arguments = [&options[..], &[kept.as_os_str(), file.as_os_str()]].concat();
            async move { verify_audit(&arguments).await }
        });
        let theirs = futures_util::future::join_all(theirs).await;
        for (place, ((touch, _), theirs)) in touches.iter().zip(theirs).enumerate() {
            let Some(theirs) = theirs else { return };
            let ours = outgate::export::verify(&files[place], &evidence, |_| {}).unwrap();
            let intact = batch == 0 && place == 0;
            let named = ours.first_bad.as_ref().map(|bad| bad.seq);
            let agree = ours.intact == intact && told(&theirs).0 == if intact { 0 } else { 3 };
            if !agree || named != first_bad(&theirs) {
                apart.push(format!("{touch}\n{ours:?}\n{}", String::from_utf8_lossy(&theirs.stdout)));
            }
        }
    }
    assert!(apart.is_empty(), "{}", apart.join("\n"));
    world.finish().await;
}

/// Lines that are missing, doubled, swapped, put in between, cut off or brought again from elsewhere.
fn structural(whole: &[String]) -> Vec<Touched> {
    let last = whole.len() - 1;
    let mut touched = Vec::new();
    let mut touch = |words: &str, change: &dyn Fn(&mut Vec<String>)| {
        let mut lines = whole.to_vec();
        change(&mut lines);
        touched.push((words.to_owned(), lines));
    };
    for line in 0..=last {
        touch(&format!("line {line} deleted"), &|lines| drop(lines.remove(line)));
        touch(&format!("line {line} twice"), &|lines| lines.insert(line, lines[line].clone()));
        touch(&format!("all after line {line} cut off"), &|lines| lines.truncate(line));
        if line < last {
            touch(&format!("lines {line} and the next swapped"), &|lines| lines.swap(line, line + 1));
        }
    }
    touch("all before line 3 cut off", &|lines| drop(lines.drain(1..3)));
    touch("an early record again at the end", &|lines| lines.insert(last, lines[2].clone()));
    touch("an early record again under the next number", &|lines| {
        let seq = |line: usize| format!("\"seq\":{line},");
        lines.insert(last, lines[2].replace(&seq(2), &seq(last)));
    });
    touch("a record of nobody's put in between", &|lines| {
        let foreign = lines[3].replace("\"record\":{", "\"record\":{\"a\":1,");
        lines.insert(4, foreign);
    });
    touch("something after the end", &|lines| lines.push(String::new()));
    touch("the end of a shorter export", &|lines| {
        lines.truncate(5);
        lines.push(whole[last].clone());
    });
    touch("half a line", &|lines| {
        let half = lines[4].len() / 2;
        lines[4].truncate(half);
    });
    touched
}

/// Each field of one line of each kind, changed alone and written as it would have been.
fn field_by_field(whole: &[String]) -> Vec<Touched> {
    let is = |line: &&String, mark: &str| line.contains(mark);
    let find = |mark: &str| whole.iter().position(|line| is(&line, mark)).unwrap();
    let mut touched = Vec::new();
    for mark in [
        "\"kind\":\"decision\"",
        "\"kind\":\"outcome\"",
        "\"event\":\"checkpoint\"",
        "\"event\":\"agent_created\"",
        "\"event\":\"policy_in_force\"",
        "\"follows\":",
        "\"end\":",
    ] {
        let number = find(mark);
        let value: Value = serde_json::from_str(&whole[number]).unwrap();
        let mut paths = Vec::new();
        leaves(&value, &mut Vec::new(), &mut paths);
        for path in paths {
            let mut changed = value.clone();
            let pointer = format!("/{}", path.join("/"));
            if pointer == "/version" || pointer == "/export" {
                // Says who wrote the export, and is no record's.
                continue;
            }
            alter(changed.pointer_mut(&pointer).unwrap());
            let mut lines = whole.to_vec();
            lines[number] = written(&changed);
            touched.push((format!("{pointer} of line {number}"), lines));
        }
    }
    touched
}

/// The places in a value where something stands that is no object.
fn leaves(value: &Value, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                path.push(name.clone());
                leaves(value, path, found);
                path.pop();
            }
        }
        _ => found.push(path.clone()),
    }
}

fn alter(value: &mut Value) {
    *value = match value.take() {
        Value::String(text) if text.ends_with('0') => format!("{}1", &text[..text.len() - 1]).into(),
        Value::String(text) if text.len() >= 64 => format!("{}0", &text[..text.len() - 1]).into(),
        Value::String(text) => format!("{text}x").into(),
        Value::Number(number) => (number.as_i64().unwrap() + 1).into(),
        Value::Bool(flag) => (!flag).into(),
        Value::Null => Value::String("x".into()),
        Value::Array(list) if list.is_empty() => serde_json::json!([{"kind": "git_push"}]),
        _ => serde_json::json!([]),
    };
}

/// A line with its keys in the order of the format.
fn written(value: &Value) -> String {
    let Some(record) = value.get("record") else { return value.to_string() };
    format!(
        "{{\"hash\":{},\"kind\":{},\"previous\":{},\"seq\":{},\"record\":{record}}}",
        value["hash"], value["kind"], value["previous"], value["seq"]
    )
}

async fn execute(file: &Path, statement: &str) {
    let url = format!("sqlite://{}", file.display());
    let mut database = SqliteConnection::connect(&url).await.unwrap();
    database.execute(sqlx::AssertSqlSafe(statement)).await.unwrap();
    database.close().await.unwrap();
}

/// Exit code and report.
fn told(output: &Output) -> (i32, Value) {
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    (output.status.code().unwrap(), report)
}

fn first_bad(output: &Output) -> Option<u64> {
    told(output).1["first_bad"]["seq"].as_u64()
}
