//! The store is locked, starved, broken and copied while requests come: nothing leaves without a record, the reason is
//! told, it goes on once things are mended, and the chain is intact.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use sqlx::{Connection, Executor, Row as _, SqliteConnection};
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::harness::{
    Books, FailingDisk, Gate, Load, Request, Told, Way, World, eventually, inside_a_namespace,
    is_inside_a_namespace, python, verify_audit,
};

const POLICY: &str = r#"
    allow = ["allowed.test:{http}", "allowed.test:{tls}"]

    [uploads]
    window_block = "1 GiB"
    window_block_agent = "1 GiB"
"#;
const CLIENTS: usize = 8;
/// How long a lock is held: longer than the gateway waits for it before it refuses.
const LOCKED: Duration = Duration::from_millis(3500);
/// How long a disk fails, which is told at once.
const FAILING: Duration = Duration::from_millis(1000);
/// Time for what was let through before a trouble to reach the origin.
const UNDER_WAY: Duration = Duration::from_millis(300);

#[tokio::test]
async fn while_the_store_is_locked_under_load_nothing_leaves_and_no_outcome_is_lost() {
    let world = World::with_policy(POLICY).start().await;
    let mut pending = JoinSet::new();
    for number in 0..20 {
        let agent = world.agent.clone();
        let request = Request::get("allowed.test", &format!("/slow/{}", 1500 + number));
        pending.spawn(async move { agent.send(Way::Absolute, &request).await.status });
    }
    eventually("them to be under way", async || (world.origin.requests().len() == 20).then_some(())).await;
    let load = Load::start(&world.agent, CLIENTS, "locked");
    tokio::time::sleep(UNDER_WAY).await;
    let mut other = database(&world.gate).await;
    other.execute("BEGIN EXCLUSIVE").await.unwrap();
    trouble(&world, LOCKED).await;
    other.execute("ROLLBACK").await.unwrap();
    other.close().await.unwrap();
    assert_eq!(pending.join_all().await, [200; 20], "what was under way is not broken off");
    mended(world, load, &["locked by another process"]).await;
}

/// What the system says when a disk is full, when its file system was made read-only after an error, and when it is
/// broken. SQLite has one message for the last two.
const FAILURES: [(Errno, &str); 3] = [
    (Errno::NOSPC, "the store or its disk is full"),
    (Errno::ROFS, "disk I/O error"),
    (Errno::IO, "disk I/O error"),
];

#[tokio::test]
async fn while_the_disk_fails_nothing_leaves() {
    let Some(disk) = FailingDisk::new().await else { return };
    for (error, words) in FAILURES {
        let mut world = World::with_policy(POLICY).gate(disk.under()).start().await;
        let load = Load::start(&world.agent, CLIENTS, "failing");
        tokio::time::sleep(UNDER_WAY).await;
        disk.fail(error);
        trouble(&world, FAILING).await;
        refused_meanwhile(&load.stop().await);
        disk.mend();
        said(&world.gate, &["records cannot be written", words]);
        world.gate.kill9().await;
        world.gate = world.gate.again().await;
        world.agent.proxy = world.gate.proxy;
        assert_eq!(world.send(Way::Http1, &Request::get("allowed.test", "/after")).await.status, 200);
        Books::default().compare(&world).await;
        intact(&world.gate).await;
        world.finish().await;
    }
}

#[tokio::test]
async fn once_the_disk_is_mended_it_goes_on_without_a_restart() {
    let Some(disk) = FailingDisk::new().await else { return };
    for (error, words) in FAILURES {
        let world = World::with_policy(POLICY).gate(disk.under()).start().await;
        let load = Load::start(&world.agent, CLIENTS, "failing");
        tokio::time::sleep(UNDER_WAY).await;
        disk.fail(error);
        trouble(&world, FAILING).await;
        disk.mend();
        mended(world, load, &["records cannot be written", words]).await;
    }
}

/// `/readyz` says what `docs/running.md` promises of it.
#[tokio::test]
async fn while_nothing_can_be_recorded_the_gateway_is_not_ready() {
    let world = World::with_policy(POLICY).start().await;
    let mut other = database(&world.gate).await;
    other.execute("BEGIN EXCLUSIVE").await.unwrap();
    let answer = world.send(Way::Http1, &Request::get("allowed.test", "/")).await;
    assert_eq!((answer.status, answer.reason()), (503, Some("audit_unavailable")), "{answer:?}");
    let ready = world.gate.admin("/readyz", "").await;
    assert!(ready.status == 503 && ready.text().contains("locked"), "{ready:?}");
    other.execute("ROLLBACK").await.unwrap();
    eventually("it to be ready again", async || {
        (world.gate.admin("/readyz", "").await.status == 200).then_some(())
    })
    .await;
    world.finish().await;
}

/// A trouble while load goes on: once what was under way has arrived, nothing arrives any more, and it is told why.
async fn trouble(world: &World, lasting: Duration) {
    eventually("a refusal", async || {
        let answer = world.send(Way::Http1, &Request::get("allowed.test", "/while-in-trouble")).await;
        (answer.status == 503).then(|| assert_eq!(answer.reason(), Some("audit_unavailable"), "{answer:?}"))
    })
    .await;
    tokio::time::sleep(UNDER_WAY).await;
    let before = world.origin.requests().len();
    tokio::time::sleep(lasting).await;
    let leaked = world.origin.requests_after(before);
    assert!(leaked.is_empty(), "{} requests left meanwhile: {leaked:#?}", leaked.len());
    assert!(world.gate.metric("outgate_audit_failures_total", &[]).await > 0.0);
}

/// After a trouble: without a restart everything is recorded again, nothing is lost, what was wrong is said once.
async fn mended(world: World, load: Load, words: &[&str]) {
    eventually("the store to be used again", async || {
        let answer = world.send(Way::Http2, &Request::get("allowed.test", "/once-mended")).await;
        (answer.status == 200).then_some(())
    })
    .await;
    tokio::time::sleep(UNDER_WAY).await;
    refused_meanwhile(&load.stop().await);
    Books::default().compare(&world).await;
    said(&world.gate, words);
    said(&world.gate, &["the store takes records again"]);
    intact(&world.gate).await;
    world.finish().await;
}

/// Some were refused, and only as unavailable; all others were answered.
fn refused_meanwhile(told: &Told) {
    only_recorded_or_refused(told);
    assert!(told.contains_key(&(503, "audit_unavailable".to_owned())), "nobody was refused: {told:?}");
}

fn only_recorded_or_refused(told: &Told) {
    let refused = |answer: &(u16, String)| *answer == (503, "audit_unavailable".to_owned());
    assert!(told.keys().all(|answer| [101, 200].contains(&answer.0) || refused(answer)), "{told:?}");
}

/// It was said what is wrong, and not for every request again.
fn said(gate: &Gate, words: &[&str]) {
    let complaint = gate.stderr();
    let complaints = complaint.lines().filter(|line| line.contains("ERROR")).count();
    assert!(words.iter().all(|words| complaint.contains(words)), "{words:?} is not in: {complaint}");
    assert!((1..10).contains(&complaints), "it says so {complaints} times: {complaint}");
}

/// Both verifiers say so.
async fn intact(gate: &Gate) {
    let verified = gate.run(&["audit", "verify", "--json"]).await;
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    let file = gate.data().join("outgate.db");
    if let Some(verified) = verify_audit(&["--json".as_ref(), file.as_ref()]).await {
        assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    }
}

async fn database(gate: &Gate) -> SqliteConnection {
    let url = format!("sqlite://{}", gate.data().join("outgate.db").display());
    SqliteConnection::connect(&url).await.unwrap()
}

#[tokio::test]
async fn a_folder_made_read_only_is_no_way_out() {
    let folder = tempfile::TempDir::new().unwrap();
    inside_a_namespace(folder.path(), "true", "durability::in_a_folder_made_read_only").await;
}

/// A mount cannot become read-only under a file that is open for writing; one laid over it can. The gateway goes on
/// with the files that it has open, and does not start on what it cannot write.
#[tokio::test]
#[ignore = "mounts; a_folder_made_read_only_is_no_way_out runs it where that is nobody's business"]
async fn in_a_folder_made_read_only() {
    if !is_inside_a_namespace() {
        return;
    }
    let mut world = World::with_policy(POLICY).start().await;
    let load = Load::start(&world.agent, CLIENTS, "read-only");
    tokio::time::sleep(UNDER_WAY).await;
    let data = world.gate.data();
    shell("mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\"", &data).await;
    assert!(File::create(data.join("probe")).is_err(), "the folder is not read-only");
    tokio::time::sleep(FAILING).await;
    only_recorded_or_refused(&load.stop().await);
    let mut books = Books::default();
    books.compare(&world).await;
    intact(&world.gate).await;
    world.gate.stop().await;
    assert!(!world.gate.stderr().contains("panicked at"), "{}", world.gate.stderr());
    let Err((plan, refusal)) = world.gate.try_again().await else {
        panic!("it starts on a folder that it cannot write");
    };
    assert_eq!(refusal.code, Some(1), "{refusal:?}");
    assert!(refusal.stderr.contains(data.to_str().unwrap()), "the folder is not named: {refusal:?}");
    assert!(refusal.stderr.to_lowercase().contains("read-only"), "it does not say why: {refusal:?}");
    shell("umount \"$0\"", &data).await;
    world.gate = plan.start().await;
    world.agent.proxy = world.gate.proxy;
    assert_eq!(world.send(Way::Http1, &Request::get("allowed.test", "/after")).await.status, 200);
    books.compare(&world).await;
    intact(&world.gate).await;
    world.finish().await;
}

async fn shell(script: &str, folder: &Path) {
    let output = Command::new("sh").args(["-c", script]).arg(folder).output().await.unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
}

/// Whatever page is damaged: it refuses to start and says why, or whatever it lets through is on record. Where records
/// themselves are damaged it is said. With the bytes back nothing is lost.
#[tokio::test]
async fn a_damaged_page_is_told_and_nothing_leaves_without_a_record() {
    let (mut world, damages) = damageable().await;
    let file = world.gate.data().join("outgate.db");
    let whole = fs::read(&file).unwrap();
    for (what, number) in damages {
        damage(&file, number);
        match world.gate.try_again().await {
            Err((plan, refusal)) => {
                assert_eq!(refusal.code, Some(1), "{what}: {refusal:?}");
                assert!(refusal.stderr.contains("the store"), "{what}: it does not say what: {refusal:?}");
                assert!(!refusal.stderr.contains("panicked at"), "{what}: {refusal:?}");
                restore(&file, &whole);
                world.gate = plan.start().await;
            }
            Ok(gate) => {
                world.gate = gate;
                world.agent.proxy = world.gate.proxy;
                served_damaged(&mut world, &what).await;
                restore(&file, &whole);
                world.gate = world.gate.again().await;
            }
        }
        intact(&world.gate).await;
        assert!(world.gate.stop().await.success());
        // Each damage meets the same file.
        restore(&file, &whole);
    }
}

#[tokio::test]
async fn a_gateway_that_a_damaged_store_stops_names_the_file_and_what_to_do() {
    let (mut world, damages) = damageable().await;
    let file = world.gate.data().join("outgate.db");
    let whole = fs::read(&file).unwrap();
    for (what, number) in damages {
        damage(&file, number);
        match world.gate.try_again().await {
            Err((plan, refusal)) => {
                let said = &refusal.stderr;
                assert!(said.contains(file.to_str().unwrap()), "{what}: the file is not named: {refusal:?}");
                assert_eq!(
                    said.matches("malformed").count().max(1),
                    1,
                    "{what}: it repeats itself: {refusal:?}"
                );
                assert!(said.contains("copy"), "{what}: it does not say what to do: {refusal:?}");
                restore(&file, &whole);
                world.gate = plan.start().await;
            }
            Ok(gate) => world.gate = gate,
        }
        world.gate.stop().await;
        restore(&file, &whole);
    }
}

/// A page in the midst of the records.
const RECORDS: &str = "some records";

/// A stopped gateway with some records, and the pages that shall be damaged: in names and numbers.
async fn damageable() -> (World, Vec<(String, u64)>) {
    let mut world = World::with_policy(POLICY).start().await;
    let load = Load::start(&world.agent, CLIENTS, "before");
    tokio::time::sleep(Duration::from_millis(700)).await;
    load.stop().await;
    Books::default().compare(&world).await;
    let roots = roots(&world.gate).await;
    assert!(world.gate.stop().await.success());
    let file = world.gate.data().join("outgate.db");
    assert!(!file.with_extension("db-wal").exists(), "the log is left");
    let whole = fs::read(&file).unwrap();
    let pages: Vec<&[u8]> = whole.chunks(page_size(&file)).collect();
    assert!(pages.len() > 50, "there are only {} pages", pages.len());
    // Records alone hold JSON.
    let holds_records = |page: &&[u8]| page.windows(16).any(|bytes| bytes == b"\"request_bytes\":");
    let middle = pages.len() / 2 + pages.iter().skip(pages.len() / 2).position(holds_records).unwrap();
    let places = [("the header", 1), (RECORDS, middle as u64 + 1), ("the end", pages.len() as u64)];
    (world, places.map(|(name, page)| (name.to_owned(), page)).into_iter().chain(roots).collect())
}

fn damage(file: &Path, number: u64) {
    let page = page_size(file);
    let opened = File::options().write(true).open(file).unwrap();
    opened.write_all_at(&vec![0xa5; page], (number - 1) * page as u64).unwrap();
}

/// A gateway that started on a damaged file records what it lets through.
async fn served_damaged(world: &mut World, what: &str) {
    let before = world.origin.requests().len();
    for number in 0..20 {
        let request = Request::get("allowed.test", &format!("/on-damaged-{number}"));
        let answer = world.send(Way::ALL[number % 3], &request).await;
        assert!(answer.status == 200 || answer.reason() == Some("audit_unavailable"), "{what}: {answer:?}");
    }
    let seen = world.origin.requests_after(before);
    if !seen.is_empty() {
        let mut database = database(&world.gate).await;
        let recent = "SELECT record FROM records ORDER BY seq DESC LIMIT 100";
        let rows = sqlx::query(recent).fetch_all(&mut database).await.unwrap();
        for request in &seen {
            let path = format!("\"path\":\"{}\"", request.path);
            let on_record = rows.iter().any(|row| row.get::<&str, _>("record").contains(&path));
            assert!(on_record, "{what}: {} left without a record", request.path);
        }
    }
    let verified = world.gate.run(&["audit", "verify"]).await;
    let said =
        format!("{}{}", String::from_utf8_lossy(&verified.stdout), String::from_utf8_lossy(&verified.stderr));
    let named = matches!(verified.status.code(), Some(1 | 3));
    assert!(named || ![RECORDS, "records"].contains(&what), "{what}: {verified:?}");
    assert!(!said.contains("panicked at"), "{said}");
    world.gate.stop().await;
    assert!(!world.gate.stderr().contains("panicked at"), "{what}: {}", world.gate.stderr());
}

/// Tables and indexes of the records, with the number of the page that each begins at.
async fn roots(gate: &Gate) -> Vec<(String, u64)> {
    let mut database = database(gate).await;
    let query = "SELECT name, rootpage FROM sqlite_schema WHERE tbl_name = 'records' AND rootpage > 0";
    let rows = sqlx::query(query).fetch_all(&mut database).await.unwrap();
    database.close().await.unwrap();
    rows.iter().map(|row| (row.get("name"), row.get::<i64, _>("rootpage").cast_unsigned())).collect()
}

fn page_size(file: &Path) -> usize {
    let mut bytes = [0; 2];
    File::open(file).unwrap().read_exact_at(&mut bytes, 16).unwrap();
    match u16::from_be_bytes(bytes) {
        1 => 65_536,
        size => size.into(),
    }
}

/// Puts the store back as it was. What was recorded since is gone with that, so the checkpoints that tell of it, which
/// would rightly say that the end was cut off, have to go as well.
fn restore(file: &Path, whole: &[u8]) {
    for beside in ["outgate.db-wal", "outgate.db-shm", "checkpoints.jsonl"] {
        let _ = fs::remove_file(file.with_file_name(beside));
    }
    fs::write(file, whole).unwrap();
}

#[tokio::test]
async fn pages_damaged_while_it_runs_lose_nothing_once_the_bytes_are_back() {
    let mut world = damaged_and_put_back().await;
    world.gate.kill9().await;
    assert!(!world.gate.stderr().contains("panicked at"), "{}", world.gate.stderr());
    world.gate = world.gate.again().await;
    world.agent.proxy = world.gate.proxy;
    Books::default().compare(&world).await;
    intact(&world.gate).await;
    assert_eq!(world.send(Way::Http1, &Request::get("allowed.test", "/after")).await.status, 200);
    world.finish().await;
}

#[tokio::test]
async fn once_the_bytes_are_back_it_goes_on_without_a_restart() {
    let world = damaged_and_put_back().await;
    eventually("the store to be used again", async || {
        let answer = world.send(Way::Http2, &Request::get("allowed.test", "/once-mended")).await;
        (answer.status == 200).then_some(())
    })
    .await;
    Books::default().compare(&world).await;
    intact(&world.gate).await;
    world.finish().await;
}

/// A gateway under whose load pages of the live file were overwritten, the table's first among them. Bytes are put back
/// only where SQLite has not written the page anew since: what it wrote is younger, and putting old bytes over it would
/// lose what it holds.
async fn damaged_and_put_back() -> World {
    let world = World::with_policy(POLICY).start().await;
    let load = Load::start(&world.agent, CLIENTS, "damaged");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let roots = roots(&world.gate).await;
    let file = world.gate.data().join("outgate.db");
    let page = page_size(&file);
    let mut other = database(&world.gate).await;
    // So that everything is in the file, and nothing is written to it meanwhile.
    // The gateway carries its log itself now and then; then this is told to come again.
    while sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut other).await.unwrap().get::<i64, _>(0)
        != 0
    {
        tokio::time::sleep(UNDER_WAY).await;
    }
    other.execute("BEGIN EXCLUSIVE").await.unwrap();
    let live = File::options().read(true).write(true).open(&file).unwrap();
    let pages = live.metadata().unwrap().len() / page as u64;
    let garbage = vec![0xa5; page];
    let mut damaged: Vec<u64> = roots.iter().map(|(_, root)| *root).chain((2..=pages).step_by(7)).collect();
    damaged.sort_unstable();
    damaged.dedup();
    let mut originals = Vec::new();
    for number in damaged {
        let mut bytes = vec![0; page];
        live.read_exact_at(&mut bytes, (number - 1) * page as u64).unwrap();
        live.write_all_at(&garbage, (number - 1) * page as u64).unwrap();
        originals.push((number, bytes));
    }
    other.execute("ROLLBACK").await.unwrap();
    // What another process commits makes the gateway forget the pages that it has in memory.
    for number in 0..5 {
        let name = format!("agent-{number}");
        let added = world.gate.run(&["agent", "add", &name, "--owner", "ana@example.com"]).await;
        assert!(!String::from_utf8_lossy(&added.stderr).contains("panicked at"), "{added:?}");
        tokio::time::sleep(UNDER_WAY).await;
    }
    let verified = world.gate.run(&["audit", "verify"]).await;
    assert!(matches!(verified.status.code(), Some(1 | 3)), "nothing is wrong with garbage: {verified:?}");
    refused_meanwhile(&load.stop().await);
    said(&world.gate, &["records cannot be written", "malformed"]);
    let locked = other.execute("BEGIN EXCLUSIVE").await;
    assert!(locked.is_ok(), "{locked:?}");
    let mut put_back = 0;
    for (number, bytes) in &originals {
        let mut found = vec![0; page];
        live.read_exact_at(&mut found, (number - 1) * page as u64).unwrap();
        if found == garbage {
            live.write_all_at(bytes, (number - 1) * page as u64).unwrap();
            put_back += 1;
        }
    }
    other.execute("ROLLBACK").await.unwrap();
    other.close().await.unwrap();
    eprintln!("durability: {} of {pages} pages were overwritten, {put_back} put back", originals.len());
    world
}

#[tokio::test]
async fn a_copy_made_under_load_is_intact() {
    let world = World::with_policy(POLICY).start().await;
    let load = Load::start(&world.agent, CLIENTS, "copied");
    let script = "import sqlite3, sys\n\
                  with sqlite3.connect(sys.argv[2]) as copy: sqlite3.connect(sys.argv[1]).backup(copy, pages=5)";
    let folder = tempfile::TempDir::new().unwrap();
    let (file, copy) = (world.gate.data().join("outgate.db"), folder.path().join("copy.db"));
    let mut records = 0;
    for _ in 0..3 {
        tokio::time::sleep(UNDER_WAY).await;
        let arguments: [&OsStr; 4] = ["-c".as_ref(), script.as_ref(), file.as_ref(), copy.as_ref()];
        let Some(copied) = python(&arguments).await else { return };
        assert!(copied.status.success(), "{copied:?}");
        let verified = verify_audit(&["--json".as_ref(), copy.as_ref()]).await.unwrap();
        assert_eq!(verified.status.code(), Some(0), "{verified:?}");
        let report: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
        assert!(report["records"].as_u64().unwrap() > records, "nothing was added since: {report}");
        records = report["records"].as_u64().unwrap();
    }
    let told = load.stop().await;
    assert!(told.keys().all(|(status, _)| [101, 200].contains(status)), "the copying disturbs: {told:?}");
    Books::default().compare(&world).await;
    intact(&world.gate).await;
    world.finish().await;
}
