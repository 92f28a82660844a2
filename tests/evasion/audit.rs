//! AUD: no record, no action; and no record lost.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sqlx::{Connection, Executor, SqliteConnection};
use tokio::task::JoinSet;

use super::POLICY;
use crate::harness::{Clock, Frame, Gate, Request, Row, Way, World, eventually, inside_a_namespace};

/// Nothing of what these tests send is stopped by a window.
fn unlimited() -> String {
    POLICY.replace("window_alert = \"128 KiB\"", "").replace("256 KiB", "1 GiB")
}

async fn database(world: &World) -> SqliteConnection {
    let url = format!("sqlite://{}", world.gate.data().join("outgate.db").display());
    SqliteConnection::connect(&url).await.unwrap()
}

#[tokio::test]
async fn aud_01_while_the_store_is_locked_nothing_leaves() {
    let world = World::with_policy(&unlimited()).start().await;
    let mut other = database(&world).await;
    other.execute("BEGIN EXCLUSIVE").await.unwrap();
    let request = Request::get("allowed.test", "/");
    let answer = world.send(Way::Http1, &request).await;
    assert_eq!((answer.status, answer.reason()), (503, Some("audit_unavailable")), "{answer:?}");
    assert!(world.origin.requests().is_empty());
    other.execute("ROLLBACK").await.unwrap();
    eventually("the store to be used again", async || {
        (world.send(Way::Http1, &request).await.status == 200).then_some(())
    })
    .await;
    world.finish().await;
}

#[tokio::test]
async fn aud_02_without_its_store_nothing_leaves() {
    let world = World::with_policy(&unlimited()).start().await;
    let (file, aside) = (world.gate.data().join("outgate.db"), world.gate.data().join("aside.db"));
    std::fs::rename(&file, &aside).unwrap();
    let request = Request::get("allowed.test", "/");
    let answer = world.send(Way::Http1, &request).await;
    assert_eq!((answer.status, answer.reason()), (503, Some("audit_unavailable")), "{answer:?}");
    assert!(world.origin.requests().is_empty());
    assert!(world.gate.metric("outgate_audit_failures_total", &[]).await > 0.0);
    std::fs::rename(&aside, &file).unwrap();
    eventually("the store to be used again", async || {
        (world.send(Way::Http1, &request).await.status == 200).then_some(())
    })
    .await;
    world.finish().await;
}

/// The test below, where all temporary files are on a small disk.
#[tokio::test]
async fn aud_02_on_a_full_disk_nothing_leaves() {
    let disk = tempfile::TempDir::new().unwrap();
    let mount = "mount -t tmpfs -o size=8m small \"$0\"";
    inside_a_namespace(disk.path(), mount, "evasion::audit::on_a_disk_of_eight_mebibytes").await;
}

#[tokio::test]
#[ignore = "wants a small disk to fill; aud_02_on_a_full_disk_nothing_leaves runs it on one"]
async fn on_a_disk_of_eight_mebibytes() {
    let size = rustix::fs::statvfs(std::env::temp_dir()).unwrap();
    if size.f_blocks * size.f_frsize > 8 << 20 {
        eprintln!("SKIPPED: this disk is not for filling");
        return;
    }
    let world = World::with_policy(&unlimited()).start().await;
    let request = Request::get("allowed.test", "/");
    assert_eq!(world.send(Way::Http1, &request).await.status, 200);
    let filler = world.gate.data().join("filler");
    fill(&filler);
    // The store has room left in what its files take up already.
    let mut passed = 1;
    let refused = loop {
        match world.send(Way::Http1, &request).await {
            answer if answer.status == 200 && passed < 2000 => passed += 1,
            answer => break answer,
        }
    };
    for answer in [refused, world.send(Way::Http1, &request).await, world.send(Way::Http2, &request).await] {
        assert_eq!((answer.status, answer.reason()), (503, Some("audit_unavailable")), "{answer:?}");
    }
    assert_eq!(world.origin.requests().len(), passed, "something left without a record");
    assert!(world.gate.metric("outgate_audit_failures_total", &[]).await > 0.0);
    std::fs::remove_file(&filler).unwrap();
    eventually("the store to be used again", async || {
        (world.send(Way::Http1, &request).await.status == 200).then_some(())
    })
    .await;
    let rows = world.gate.decisions_reach(passed + 1).await;
    let allowed = rows.iter().filter(|row| row.text("action") == "allow").count();
    assert_eq!(allowed, world.origin.requests().len());
    assert!(rows.iter().all(Row::has_ended), "an outcome was lost: {rows:#?}");
    world.finish().await;
}

/// Writes until there is no room.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
}

#[tokio::test]
async fn aud_13_the_store_is_private() {
    let world = World::with_policy(&unlimited()).start().await;
    assert_eq!(world.send(Way::Http1, &Request::get("allowed.test", "/")).await.status, 200);
    assert_eq!(mode(&world.gate.data()), 0o700);
    for entry in std::fs::read_dir(world.gate.data()).unwrap() {
        let path = entry.unwrap().path();
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        let public = ["ca.pem"].iter().any(|name| path.ends_with(name));
        assert!(public || mode(&path) == expected, "{} has mode {:o}", path.display(), mode(&path));
    }
    world.finish().await;
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn aud_13_a_changed_record_is_found() {
    let world = World::with_policy(&unlimited()).start().await;
    for _ in 0..3 {
        assert_eq!(world.send(Way::Http1, &Request::get("allowed.test", "/")).await.status, 200);
    }
    world.gate.decisions_reach(3).await;
    assert_eq!(world.gate.run(&["audit", "verify"]).await.status.code(), Some(0));
    let mut other = database(&world).await;
    let changed = other.execute(
        "UPDATE records SET record = replace(record, 'allowed.test', 'other.test')
         WHERE seq = (SELECT MIN(seq) FROM records WHERE kind = 'decision')",
    );
    assert_eq!(changed.await.unwrap().rows_affected(), 1);
    other.close().await.unwrap();
    let verified = world.gate.run(&["audit", "verify", "--json"]).await;
    assert_eq!(verified.status.code(), Some(3), "{verified:?}");
    let told: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!(told["intact"], false, "{told}");
}

#[tokio::test]
async fn aud_15_told_to_stop_it_finishes_what_it_records() {
    let mut world = World::with_policy(&unlimited()).start().await;
    let mut open = Vec::new();
    for _ in 0..20 {
        let request = Request::get("allowed.test", "/socket");
        let mut raw = world.agent.tls(&request, b"http/1.1").await.unwrap();
        let head = format!(
            "GET /socket HTTP/1.1\r\nHost: allowed.test:{}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            world.origin.tls
        );
        raw.send(head).await;
        assert_eq!(raw.answer().await.status, 101);
        Frame::text("hello").write(&mut raw.output, true).await.unwrap();
        Frame::read(&mut raw.input).await.unwrap();
        open.push(raw);
    }
    let mut load = JoinSet::new();
    for _ in 0..100 {
        let agent = world.agent.clone();
        load.spawn(async move {
            agent.send(Way::Absolute, &Request::get("allowed.test", "/slow/300")).await.status
        });
    }
    eventually("the requests to be under way", async || (world.origin.requests().len() == 120).then_some(()))
        .await;
    let status = world.gate.stop().await;
    assert!(status.success(), "{status}");
    let statuses = load.join_all().await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    let rows = world.gate.decisions_now().await;
    assert_eq!(rows.len(), 120);
    assert!(rows.iter().all(Row::has_ended), "{rows:#?}");
}

#[tokio::test]
async fn aud_17_a_store_that_is_none_stops_the_start() {
    let mut world = World::with_policy(&unlimited()).start().await;
    world.gate.stop().await;
    let file = world.gate.data().join("outgate.db");
    for name in ["outgate.db-wal", "outgate.db-shm"] {
        let _ = std::fs::remove_file(world.gate.data().join(name));
    }
    std::fs::write(&file, "this is no database, and long enough to be told from an empty one").unwrap();
    let output = world.gate.second_serve().await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("outgate.db"), "{said}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("proxy http://"), "{output:?}");
}

#[tokio::test]
async fn aud_18_a_second_gateway_on_the_same_folder_refuses() {
    let gate = Gate::with_policy("allow = []").start().await;
    let output = gate.second_serve().await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(gate.data().to_str().unwrap()), "{said}");
    gate.finish().await;
}

#[tokio::test]
async fn aud_11_a_stream_that_is_open_when_the_gateway_is_killed_is_on_record() {
    let world = World::with_policy(&unlimited()).start().await;
    let request = Request::get("allowed.test", "/sse/1000/20");
    let agent = world.agent.clone();
    let stream = tokio::spawn(async move { agent.send(Way::Http1, &request).await });
    eventually("the stream", async || (world.origin.requests().len() == 1).then_some(())).await;
    let World { mut gate, origin, .. } = world;
    gate.kill9().await;
    stream.abort();
    let gate = gate.again().await;
    let row = gate.only_decision().await;
    row.is("allow", "allowed_by_rule");
    assert_eq!(row.text("outcome"), "interrupted", "{row:?}");
    assert_eq!(origin.requests().len(), 1);
    gate.finish().await;
}

#[tokio::test]
async fn aud_14_rows_are_in_order_when_the_clock_is_set_back() {
    let Some(clock) = Clock::new().await else { return };
    let world = World::with_policy(&unlimited()).gate(clock.inside()).start().await;
    for (path, off) in [("/first", 0), ("/second", -3600), ("/third", 3600)] {
        clock.set_off(off);
        assert_eq!(world.send(Way::Http1, &Request::get("allowed.test", path)).await.status, 200);
    }
    let rows = world.gate.decisions_reach(3).await;
    let paths: Vec<&str> = rows.iter().map(|row| row.text("path")).collect();
    assert_eq!(paths, ["/first", "/second", "/third"], "by sequence number: {rows:#?}");
    assert!(rows[1].text("time") < rows[0].text("time"), "the clock was back: {rows:#?}");
    // Both jumps may lie between two looks at the clock; then they are one.
    eventually("a jump to be on record", async || {
        world.gate.told(&["audit", "export"]).await.contains("clock_jumped").then_some(())
    })
    .await;
    world.gate.told(&["audit", "verify"]).await;
    clock.set_off(0);
    world.finish().await;
}
