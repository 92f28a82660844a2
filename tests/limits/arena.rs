//! Two agents behind one gateway: one does its work, the other attacks.

use std::collections::BTreeMap;
use std::ops::RangeBounds;
use std::time::{Duration, Instant};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Row as _};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::{self, Runtime};
use tokio::task::JoinSet;

use crate::harness::{Agent, Request, Watch, Way, World, eventually};

/// Hosts: `allowed.test`, everything below `wild.test`, and the sink may be reached, nothing else.
const POLICY: &str = r#"
    allow = ["allowed.test:{http}", "allowed.test:{tls}", "*.wild.test:{tls}", "sink.test:{sink}"]
    addresses = { allow = ["127.0.0.2:{http}", "127.0.0.2:{tls}", "127.0.0.2:{sink}"] }

    [uploads]
    request_block = "1 MiB"
    window_block = "1 GiB"
    window_block_agent = "1 GiB"
"#;

/// Requests that one measurement takes.
const REQUESTS: usize = 200;
/// How many times its idle p99 the p99 may become under attack.
const FACTOR: u32 = 3;
/// And this much besides where other tests run at the same time, on as many processors. `tests/limits.sh`, which runs
/// nothing beside, leaves it out.
const NOISE: Duration = Duration::from_millis(400);
/// How often is measured until it holds. The attack goes on meanwhile; what holds back work does so every time.
const ATTEMPTS: usize = 5;

/// A gateway between the two.
pub struct Arena {
    /// The world they are in; its own agent is a third, `anonymous`.
    pub world: World,
    /// Who attacks.
    pub attacker: Agent,
    victim: Agent,
    /// A port on 127.0.0.2 where a WebSocket is opened for whoever comes, and what it sends is thrown away.
    pub sink: u16,
    idle: Duration,
    watch: Watch,
    sent: usize,
    attackers: Runtime,
    _sinking: JoinSet<()>,
}

impl Arena {
    /// Starts it, and measures how it is without an attack.
    pub async fn start(config: &str) -> Arena {
        let mut sinking = JoinSet::new();
        let sink = sink(&mut sinking).await;
        let policy = POLICY.replace("{sink}", &sink.to_string());
        let world = World::with_policy(&policy).config(config).start().await;
        let victim = known(&world, "victim").await;
        let attacker = known(&world, "attacker").await;
        let idle = p99(&victim).await;
        let watch = Watch::over(&world.gate);
        let attackers = attackers();
        Arena { world, attacker, victim, sink, idle, watch, sent: REQUESTS, attackers, _sinking: sinking }
    }

    /// Where attacks run: apart from the victim and the destinations, whom they would keep waiting by themselves.
    pub fn attackers(&self) -> &runtime::Handle {
        self.attackers.handle()
    }

    /// Asserts that the victim works on as before, and that the gateway's memory has grown by no more than `most`.
    pub async fn holds(&mut self, attack: &str, most: u64) {
        let alone = std::env::var_os("OUTGATE_TEST_PROGRAM").is_some();
        let limit = (self.idle * FACTOR).max(self.idle + if alone { Duration::ZERO } else { NOISE });
        let mut best = Duration::MAX;
        for _ in 0..ATTEMPTS {
            best = best.min(p99(&self.victim).await);
            self.sent += REQUESTS;
            if best <= limit {
                break;
            }
        }
        let grown = self.watch.growth();
        let idle = self.idle;
        eprintln!("MEASURED {attack}: p99 {best:?} (idle {idle:?}), memory grew by {} KiB", grown >> 10);
        assert!(best <= limit, "{attack}: the other agent's p99 is {best:?}, it was {idle:?}");
        assert!(grown <= most, "{attack}: memory grew by {grown} bytes, more than {most}");
    }

    /// Asserts that the victim can also open a connection.
    pub async fn lets_in(&mut self, attack: &str) {
        let answer = self.victim.send(Way::Http1, &Request::get("allowed.test", "/")).await;
        assert_eq!(answer.status, 200, "{attack}: {answer:?}");
        self.sent += 1;
    }

    /// Asserts that every request has its row and every row its end, and whatever holds at the end of every test.
    pub async fn finish(self, attacks: impl RangeBounds<i64>) {
        let rows = eventually("every row to have its end", async || {
            let (rows, open) = rows(&self.world).await;
            (open == 0).then_some(rows)
        })
        .await;
        let of = |agent: &str| rows.get(agent).copied().unwrap_or_default();
        assert_eq!(of("victim"), i64::try_from(self.sent).unwrap(), "rows of the victim's requests");
        assert!(attacks.contains(&of("attacker")), "{} rows of the attacker's", of("attacker"));
        self.attackers.shutdown_background();
        self.world.finish().await;
    }
}

/// Threads that get a processor when nobody else wants one: what is measured is how the gateway divides its work, and
/// not how the system divides two processors among those who attack and those who do not.
fn attackers() -> Runtime {
    runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .on_thread_start(|| {
            rustix::process::nice(19).expect("priority may always be lowered");
        })
        .build()
        .unwrap()
}

/// Frames of any length are too long for an origin that keeps what it is sent.
async fn sink(sinking: &mut JoinSet<()>) -> u16 {
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    sinking.spawn(async move {
        let mut open = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            open.spawn(async move {
                let mut read = vec![0; 64 << 10];
                let _ = stream.read(&mut read).await;
                let answer =
                    "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";
                let _ = stream.write_all(answer.as_bytes()).await;
                while stream.read(&mut read).await.is_ok_and(|read| read > 0) {}
            });
        }
    });
    port
}

/// The agent of that name, registered.
async fn known(world: &World, name: &str) -> Agent {
    let added = world.gate.told(&["agent", "add", name, "--owner", "ana", "--json"]).await;
    let added: serde_json::Value = serde_json::from_str(&added).unwrap();
    world.agent.known_as(&format!("{name}:{}", added["token"].as_str().unwrap()))
}

/// The 99th percentile of requests one after the other on one connection. On a thread of its own, so that the attack's
/// own work is not counted.
async fn p99(agent: &Agent) -> Duration {
    let agent = agent.clone();
    tokio::task::spawn_blocking(move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let request = Request::get("allowed.test", "/");
            let mut raw = agent.tls(&request, b"http/1.1").await.unwrap();
            let pieces = agent.origin_form(&request);
            let mut times = Vec::new();
            for _ in 0..REQUESTS {
                let begun = Instant::now();
                let answer = raw.exchange("GET", &pieces).await;
                times.push(begun.elapsed());
                assert_eq!(answer.status, 200, "{answer:?}");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            times.sort();
            times[REQUESTS * 99 / 100]
        })
    })
    .await
    .unwrap()
}

/// How many decisions each agent has, and how many of all have no outcome.
async fn rows(world: &World) -> (BTreeMap<String, i64>, i64) {
    let options = SqliteConnectOptions::new().filename(world.gate.data().join("outgate.db")).read_only(true);
    let mut database: SqliteConnection = options.connect().await.unwrap();
    let by_agent =
        sqlx::query("SELECT agent, count(*) AS number FROM records WHERE kind = 'decision' GROUP BY agent")
            .fetch_all(&mut database)
            .await
            .unwrap();
    let open = sqlx::query(
        "SELECT count(*) AS number FROM records AS d WHERE kind = 'decision'
         AND NOT EXISTS (SELECT 1 FROM records AS o WHERE o.decision = d.seq)",
    )
    .fetch_one(&mut database)
    .await
    .unwrap();
    database.close().await.unwrap();
    let by_agent = by_agent.iter().map(|row| (row.get("agent"), row.get("number"))).collect();
    (by_agent, open.get("number"))
}
