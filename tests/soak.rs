//! Everything at once, for long: memory and descriptors stay where they are, and every request is on record.
//!
//! A quarter of a minute here; `tests/soak.sh` goes on for an hour, on the program as it is released.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Row as _};

use crate::harness::{
    Agent, Frame, Load, Origin, Raw, Request, TestCa, Told, Way, World, eventually, resident, secrets,
    verify_audit,
};

const POLICY: &str = r#"
    allow = ["allowed.test:{http}", "allowed.test:{tls}", "lasting.test:LASTING"]
    addresses = { allow = ["127.0.0.2:{http}", "127.0.0.2:{tls}", "127.0.0.2:LASTING"] }

    [uploads]
    request_block = "64 KiB"
    window_block = "1 TiB"
    window_block_agent = "1 TiB"
"#;
/// Old records are dropped on the way, as they are where a gateway runs for months.
const CONFIG: &str = "[audit]\nmax_bytes = \"256 MiB\"";
const CLIENTS: usize = 16;
const PAUSE: Duration = Duration::from_millis(100);
/// How long the short run takes, and each of its rounds.
const SHORT: (Duration, Duration) = (Duration::from_secs(12), Duration::from_secs(4));
/// A round of the long run: the load ends, everything is compared, something is changed, and it begins anew.
const ROUND: Duration = Duration::from_secs(20);
/// How often the gateway is looked at.
const SAMPLE: Duration = Duration::from_secs(10);
/// What the end is compared with; of a run that is shorter than three times that, its first third.
const SETTLED: Duration = Duration::from_secs(300);
/// Unused connections upstream are kept for a minute.
const POOL_IDLE: Duration = Duration::from_secs(75);
/// Descriptors that come and go: of the store, the log, timers.
const SLACK: usize = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_grows_with_time() {
    let minutes = std::env::var("OUTGATE_SOAK_MINUTES").ok().map(|text| text.parse::<u64>().unwrap());
    let long = minutes.map(|minutes| (Duration::from_secs(60 * minutes), ROUND));
    let (duration, round) = long.unwrap_or(SHORT);
    let steady = Origin::with_authority(&TestCa::new()).start().await;
    let policy = POLICY.replace("LASTING", &steady.http.to_string());
    let mut world = World::with_policy(&policy).config(CONFIG).start().await;
    let at_first = open_files(world.gate.pid());
    let witness = Witness::start(&world, duration);
    let mut account = Account::default();
    let mut lasting = Lasting::open(&world, steady.http).await;
    let begun = Instant::now();
    for number in 0.. {
        if begun.elapsed() >= duration {
            break;
        }
        one_round(&world, &policy, number, round, &mut account).await;
        lasting.goes_on().await;
        account.compare(&world).await;
        witness.requests.store(account.seen as u64, Ordering::Relaxed);
        if number % 3 == 1 {
            rotate(&mut world).await;
        }
        assert!(!world.gate.stderr().contains("panicked at"), "{}", world.gate.stderr());
    }
    drop(lasting);
    let samples = witness.end();
    account.tell(&samples, begun.elapsed());
    if long.is_some() {
        descriptors_return(&world, at_first).await;
        memory_stays(&samples, duration);
    }
    let verified = world.gate.command(&["audit", "verify"]).output().await.unwrap();
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    assert_eq!(world.gate.metric("outgate_audit_failures_total", &[]).await, 0.0);
    let database = world.gate.data().join("outgate.db");
    if long.is_none()
        && let Some(verified) = verify_audit(&["--json".as_ref(), database.as_ref()]).await
    {
        assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    }
    if long.is_none() {
        return world.finish().await;
    }
    // Not `finish`: it reads every decision there is, and there are hundreds of thousands.
    assert!(!world.gate.stderr().contains("panicked at"), "{}", world.gate.stderr());
    assert!(world.gate.stop().await.success());
}

/// The load, and beside it streams, refusals, a session, a new policy, and a destination that breaks everything off.
async fn one_round(world: &World, policy: &str, number: usize, length: Duration, account: &mut Account) {
    let load = Load::paced(&world.agent, CLIENTS, &format!("round-{number}"), PAUSE);
    let streams = tokio::spawn(streams(world.agent.clone(), number));
    let refusals = tokio::spawn(refusals(world.agent.clone(), number));
    let label = format!("round-{number}");
    world.gate.told(&["run", "--fence", "off", "--label", &label, "--", "true"]).await;
    tokio::time::sleep(length / 2).await;
    world.gate.write_policy(&world.policy(&format!(
        "{policy}\n[[rule]]\nname = \"round {number}\"\naction = \"deny\"\nto = [\"round{number}.test\"]"
    )));
    world.gate.reload().await;
    world.origin.break_off();
    tokio::time::sleep(length / 2).await;
    for (told, count) in load.stop().await {
        *account.told.entry(told).or_default() += count;
    }
    streams.await.unwrap();
    refusals.await.unwrap();
}

/// Server-sent events over both versions; the one in the middle of which the destination goes ends with it.
async fn streams(agent: Agent, number: usize) {
    for (turn, way) in [Way::Http1, Way::Http2, Way::Absolute].into_iter().enumerate() {
        let answer =
            agent.send(way, &Request::get("allowed.test", &format!("/sse/10/50/{number}-{turn}"))).await;
        assert!([200, 502].contains(&answer.status), "{answer:?}");
    }
}

/// Whatever is refused: a name, an upload, a secret.
async fn refusals(agent: Agent, number: usize) {
    for (turn, way) in [Way::Absolute, Way::Http1, Way::Http2].into_iter().enumerate() {
        // The head of an upload may have left before it is broken off.
        let path = |what: &str| format!("/{what}-{number}-{turn}");
        let secret = Request::post("allowed.test", &path("secret"), secrets::aws_access_key());
        let large = Request::post("allowed.test", &path("large"), vec![b'x'; 100_000]);
        let unknown = agent.send(way, &Request::get("other.test", "/unknown")).await;
        assert_eq!(unknown.reason(), Some("unknown_destination"), "{unknown:?}");
        let large = agent.send(way, &large).await;
        assert_eq!(large.reason(), Some("upload_too_large"), "{large:?}");
        let secret = agent.send(way, &secret).await;
        assert_eq!(secret.reason(), Some("secret_found"), "{secret:?}");
    }
}

/// A new certificate authority, and clients that trust it.
async fn rotate(world: &mut World) {
    world.gate.told(&["ca", "rotate"]).await;
    let new = Agent::new(world.gate.proxy, &world.gate.ca().await, world.agent.ports);
    eventually("the new authority to sign", async || {
        new.tls(&Request::get("allowed.test", "/"), b"http/1.1").await.ok().map(drop)
    })
    .await;
    world.agent = new;
}

/// A WebSocket that stays open over every policy and every authority, to a destination that does not die.
struct Lasting {
    raw: Raw,
}

impl Lasting {
    async fn open(world: &World, port: u16) -> Lasting {
        let request = Request::get("lasting.test", "/lasting")
            .port(port)
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let mut raw = Raw::open(world.gate.proxy).await;
        let answer = raw.exchange("GET", &world.agent.absolute(&request)).await;
        assert_eq!(answer.status, 101, "{answer:?}");
        Lasting { raw }
    }

    async fn goes_on(&mut self) {
        Frame::text("still here").write(&mut self.raw.output, true).await.unwrap();
        let echo = Frame::read(&mut self.raw.input).await.expect("it was broken off");
        assert_eq!(echo.payload, b"still here");
    }
}

/// Requests against records, a round at a time, so that neither has to be kept.
#[derive(Default)]
struct Account {
    seen: usize,
    records: i64,
    decisions: usize,
    /// Decisions whose request has not been seen: refused, or on their way.
    unseen: HashSet<String>,
    open: HashSet<String>,
    told: Told,
}

impl Account {
    async fn compare(&mut self, world: &World) {
        let seen = world.origin.take_paths_after(self.seen);
        self.seen += seen.len();
        eventually("every decision to have its outcome", async || {
            self.read(world).await;
            // The WebSocket that lasts has none.
            (self.open.len() <= 1).then_some(())
        })
        .await;
        for path in seen {
            assert!(self.unseen.remove(&path), "`{path}` left without a record, or twice");
        }
    }

    async fn read(&mut self, world: &World) {
        let file = world.gate.data().join("outgate.db");
        let options = SqliteConnectOptions::new().filename(file).read_only(true);
        let mut database: SqliteConnection = options.connect().await.unwrap();
        let rows = sqlx::query("SELECT seq, kind, record FROM records WHERE seq > $1 ORDER BY seq")
            .bind(self.records)
            .fetch_all(&mut database)
            .await
            .unwrap();
        database.close().await.unwrap();
        for row in rows {
            assert_eq!(row.get::<i64, _>("seq"), self.records + 1, "the numbers have a gap");
            self.records += 1;
            let record: Value = serde_json::from_str(row.get("record")).unwrap();
            let text = |field: &str| record[field].as_str().unwrap_or_default().to_owned();
            match row.get("kind") {
                "decision" => {
                    self.decisions += 1;
                    self.open.insert(text("id"));
                    self.unseen.insert(text("path"));
                }
                "outcome" => assert!(self.open.remove(&text("decision")), "{record}"),
                _ => {}
            }
        }
    }

    /// The table of docs/reliability.md.
    fn tell(&self, samples: &[Sample], took: Duration) {
        eprintln!("| minute | resident memory | descriptors | threads | requests at the destination |");
        eprintln!("|---|---|---|---|---|");
        let every = samples.len().div_ceil(12).max(1);
        let last = samples.len().saturating_sub(1);
        for (_, sample) in samples.iter().enumerate().filter(|(n, _)| n % every == 0 || *n == last) {
            let Sample { at, resident, descriptors, threads, requests } = sample;
            let (minute, mebibytes) = (at.as_secs_f64() / 60.0, *resident as f64 / f64::from(1 << 20));
            eprintln!("| {minute:.1} | {mebibytes:.1} MiB | {descriptors} | {threads} | {requests} |");
        }
        eprintln!(
            "MEASURED soak: {:.1} minutes, {} requests at the destination, 0 of them without a record, {} decisions, {} \
             records in one chain, answers {:?}",
            took.as_secs_f64() / 60.0,
            self.seen,
            self.decisions,
            self.records,
            self.told
        );
    }
}

/// The gateway at one moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Duration,
    resident: u64,
    descriptors: usize,
    threads: usize,
    requests: u64,
}

/// Looks at the gateway now and then, on a thread of its own.
struct Witness {
    samples: Arc<Mutex<Vec<Sample>>>,
    requests: Arc<AtomicU64>,
}

impl Witness {
    fn start(world: &World, duration: Duration) -> Witness {
        let (samples, requests) = (Arc::<Mutex<Vec<Sample>>>::default(), Arc::<AtomicU64>::default());
        let witness = Witness { samples: Arc::clone(&samples), requests: Arc::clone(&requests) };
        let (pid, begun, every) = (world.gate.pid(), Instant::now(), SAMPLE.min(duration / 10));
        let weak = Arc::downgrade(&samples);
        drop(samples);
        std::thread::spawn(move || {
            while let Some(samples) = weak.upgrade() {
                samples.lock().unwrap().push(Sample {
                    at: begun.elapsed(),
                    resident: resident(pid),
                    descriptors: open_files(pid),
                    threads: std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count),
                    requests: requests.load(Ordering::Relaxed),
                });
                drop(samples);
                std::thread::sleep(every);
            }
        });
        witness
    }

    fn end(self) -> Vec<Sample> {
        self.samples.lock().unwrap().clone()
    }
}

fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Memory at the end is what it was once everything had been used: within a tenth, by the middle of three samples.
fn memory_stays(samples: &[Sample], duration: Duration) {
    let middle = |samples: &[Sample]| {
        let mut resident: Vec<u64> = samples.iter().map(|sample| sample.resident).collect();
        resident.sort_unstable();
        resident[resident.len() / 2]
    };
    let settled = SETTLED.min(duration / 3);
    let from = samples.iter().position(|sample| sample.at >= settled).unwrap();
    let (before, after) = (middle(&samples[from..from + 3]), middle(&samples[samples.len() - 3..]));
    assert!(after <= before + before / 10, "memory grew from {before} to {after} bytes");
}

/// Once nobody uses the gateway any more, nothing is left open.
async fn descriptors_return(world: &World, at_first: usize) {
    let deadline = Instant::now() + POOL_IDLE;
    let mut open = open_files(world.gate.pid());
    while open > at_first + SLACK && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_secs(1)).await;
        open = open_files(world.gate.pid());
    }
    eprintln!("MEASURED soak: {at_first} descriptors before, {open} after");
    assert!(open <= at_first + SLACK, "{open} descriptors are open, there were {at_first}");
}
