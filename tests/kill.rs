//! The gateway is killed under full load, again and again on the same folder: what left is on record, every time.
//!
//! `tests/kill.sh` does so two hundred times. `OUTGATE_KILL_ROUNDS` says how often, `OUTGATE_KILL_SEED` repeats the
//! moments of an earlier run, which prints its seed.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;
use serde_json::Value;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Row as _};

use crate::harness::{Load, World, eventually, verify_audit};

const POLICY: &str = r#"
    allow = ["allowed.test:{http}", "allowed.test:{tls}"]

    [uploads]
    window_block = "1 GiB"
    window_block_agent = "1 GiB"
"#;
const CLIENTS: usize = 16;
const ROUNDS: u64 = 10;
/// Longest that a round's load goes on before the kill.
const LONGEST: u64 = 800;
/// Longest between the order to stop, or the start, and the kill.
const AWKWARD: u64 = 250;
/// How often the whole chain is verified in a run, besides its end: verifying each round would take ever longer.
const VERIFIED: u64 = 10;

#[tokio::test]
async fn a_killed_gateway_has_recorded_whatever_left() {
    let begun = Instant::now();
    let rounds = number("OUTGATE_KILL_ROUNDS").unwrap_or(ROUNDS);
    let seed = number("OUTGATE_KILL_SEED").unwrap_or_else(clock_seed);
    eprintln!("kill: {rounds} rounds with OUTGATE_KILL_SEED={seed}");
    let mut world = World::with_policy(POLICY).start().await;
    let mut books = Books::default();
    for round in 0..rounds {
        let mut moments = Moments::of(seed, round);
        let load = Load::start(&world.agent, CLIENTS, &format!("round-{round}"));
        eventually("the load to begin", async || {
            (world.origin.requests_after(books.seen).len() > 8).then_some(())
        })
        .await;
        tokio::time::sleep(moments.within(LONGEST)).await;
        if round % 5 == 3 {
            world.gate.signal(Signal::TERM);
            tokio::time::sleep(moments.within(AWKWARD)).await;
            books.killed_draining += 1;
        }
        world.gate.kill9().await;
        books.kills += 1;
        load.ended().await;
        no_panic(&world);
        if round % 5 == 4 {
            world.gate.dies_starting(moments.within(AWKWARD)).await;
            books.kills += 1;
            books.killed_starting += 1;
        }
        world.gate = world.gate.again().await;
        world.agent.proxy = world.gate.proxy;
        books.compare(&world, round).await;
        if (round + 1) % rounds.div_ceil(VERIFIED) == 0 || round + 1 == rounds {
            let verified = world.gate.command(&["audit", "verify", "--json"]).output().await.unwrap();
            assert_eq!(verified.status.code(), Some(0), "round {round}, seed {seed}: {verified:?}");
        }
    }
    assert!(world.gate.stop().await.success());
    no_panic(&world);
    let file = world.gate.data().join("outgate.db");
    if let Some(verified) = verify_audit(&["--json".as_ref(), file.as_ref()]).await {
        assert_eq!(verified.status.code(), Some(0), "seed {seed}: {verified:?}");
    }
    eprintln!("kill: {books}, {:.0} s", begun.elapsed().as_secs_f64());
    assert!(books.seen as u64 > 20 * rounds, "too little happened before the kills: {}", books.seen);
}

/// What the origin saw against what is on record, over all rounds.
#[derive(Default)]
struct Books {
    kills: u64,
    killed_starting: u64,
    killed_draining: u64,
    /// Requests at the origin that were compared.
    seen: usize,
    /// Number of the last record that was read.
    read: i64,
    decisions: HashSet<String>,
    outcomes: BTreeMap<String, usize>,
}

impl Books {
    /// Reads what was recorded since, and looks every request up that the origin saw since.
    async fn compare(&mut self, world: &World, round: u64) {
        let mut open = BTreeSet::new();
        for (seq, record) in records_after(&world.gate.data(), self.read).await {
            assert_eq!(seq, self.read + 1, "round {round}: the numbers have a gap");
            self.read = seq;
            if record["event"].is_string() {
                continue;
            }
            match record["decision"].as_str() {
                None => {
                    open.insert(record["id"].as_str().unwrap().to_owned());
                    self.decisions.insert(record["path"].as_str().unwrap_or_default().to_owned());
                }
                Some(decision) => {
                    assert!(open.remove(decision), "round {round}: an outcome without a decision: {record}");
                    *self.outcomes.entry(record["outcome"].as_str().unwrap().to_owned()).or_default() += 1;
                }
            }
        }
        assert!(open.is_empty(), "round {round}: {} decisions have no outcome after the restart", open.len());
        let seen = world.origin.requests_after(self.seen);
        self.seen += seen.len();
        let missing: Vec<_> = seen.iter().filter(|seen| !self.decisions.contains(&seen.path)).collect();
        assert!(missing.is_empty(), "round {round}: {} left without a record: {missing:#?}", missing.len());
        // A client that was answered, or broken off by the kill: nothing else happened here.
        let known = |outcome: &String| ["completed", "interrupted", "abandoned"].contains(&outcome.as_str());
        assert!(self.outcomes.keys().all(known), "round {round}: {:?}", self.outcomes);
    }
}

impl std::fmt::Display for Books {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} kills ({} while starting, {} while draining), {} requests at the origin, 0 of them missing, {} \
             decisions, outcomes {:?}, {} records in one chain",
            self.kills,
            self.killed_starting,
            self.killed_draining,
            self.seen,
            self.decisions.len(),
            self.outcomes,
            self.read
        )
    }
}

async fn records_after(data: &Path, seq: i64) -> Vec<(i64, Value)> {
    let options = SqliteConnectOptions::new().filename(data.join("outgate.db")).read_only(true);
    let mut database: SqliteConnection = options.connect().await.unwrap();
    let rows = sqlx::query("SELECT seq, record FROM records WHERE seq > $1 ORDER BY seq")
        .bind(seq)
        .fetch_all(&mut database)
        .await
        .unwrap();
    database.close().await.unwrap();
    rows.iter().map(|row| (row.get("seq"), serde_json::from_str(row.get("record")).unwrap())).collect()
}

fn no_panic(world: &World) {
    assert!(!world.gate.stderr().contains("panicked at"), "{}", world.gate.stderr());
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number")))
}

fn clock_seed() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// Random moments that a seed and a round's number give again (SplitMix64).
struct Moments(u64);

impl Moments {
    fn of(seed: u64, round: u64) -> Moments {
        Moments(seed ^ round.wrapping_mul(0xd134_2543_de82_ef95))
    }

    fn within(&mut self, milliseconds: u64) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        Duration::from_micros((mixed ^ mixed >> 31) % (milliseconds * 1000))
    }
}
