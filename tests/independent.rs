//! The records verified by two programs that share no code: they agree on what is intact, and on what is not.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Output;

use serde_json::Value;
use sqlx::{Connection, Executor, SqliteConnection};

use crate::harness::{Request, Way, World, verify_audit};

const POLICY: &str = "allow = [\"allowed.test:{http}\", \"allowed.test:{tls}\"]";
const PAGE: &str = include_str!("../docs/audit-format.md");
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
    world.gate.decisions_reach(3).await;
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
        format!("UPDATE records SET findings = 1 WHERE seq = {decision}"),
        format!("UPDATE records SET bytes = bytes + 1 WHERE seq = {outcome}"),
        format!("UPDATE records SET action = 'ask' WHERE seq = {decision}"),
        format!("UPDATE records SET reason = 'secret_found' WHERE seq = {decision}"),
        format!("UPDATE records SET decision = NULL WHERE seq = {outcome}"),
        format!("UPDATE records SET decision = {event} WHERE seq = {outcome}"),
        "DELETE FROM records WHERE seq = 1".to_owned(),
        format!("DELETE FROM records WHERE seq = {outcome}"),
        format!("DELETE FROM records WHERE seq = {last}"),
        format!("UPDATE records SET seq = seq + 1 WHERE seq = {last}"),
        "DELETE FROM records".to_owned(),
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
