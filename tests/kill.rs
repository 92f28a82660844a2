//! The gateway is killed under full load, again and again on the same folder: what left is on record, every time.
//!
//! `tests/kill.sh` does so two hundred times. `OUTGATE_KILL_ROUNDS` says how often, `OUTGATE_KILL_SEED` repeats the
//! moments of an earlier run, which prints its seed.

use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;

use crate::harness::{Books, Load, World, eventually, verify_audit};

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
    let mut tally = Tally::default();
    for round in 0..rounds {
        let mut moments = Moments::of(seed, round);
        let load = Load::start(&world.agent, CLIENTS, &format!("round-{round}"));
        eventually("the load to begin", async || {
            (world.origin.requests_after(tally.books.seen).len() > 8).then_some(())
        })
        .await;
        tokio::time::sleep(moments.within(LONGEST)).await;
        if round % 5 == 3 {
            world.gate.signal(Signal::TERM);
            tokio::time::sleep(moments.within(AWKWARD)).await;
            tally.draining += 1;
        }
        world.gate.kill9().await;
        tally.kills += 1;
        load.ended().await;
        no_panic(&world);
        if round % 5 == 4 {
            world.gate.dies_starting(moments.within(AWKWARD)).await;
            tally.kills += 1;
            tally.starting += 1;
        }
        world.gate = world.gate.again().await;
        world.agent.proxy = world.gate.proxy;
        tally.books.read(&world).await;
        assert!(
            tally.books.open.is_empty(),
            "round {round}: no outcome after the restart: {:?}",
            tally.books.open
        );
        tally.books.compare(&world).await;
        // A client that was answered, or broken off by the kill: nothing else happened here.
        let mut outcomes = tally.books.outcomes.keys();
        assert!(outcomes.all(|known| ["completed", "interrupted"].contains(&&known[..])), "{}", tally);
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
    eprintln!("kill: {tally}, {:.0} s", begun.elapsed().as_secs_f64());
    assert!(tally.books.seen as u64 > 20 * rounds, "too little happened before the kills: {tally}");
}

/// What happened over all rounds.
#[derive(Default)]
struct Tally {
    kills: u64,
    starting: u64,
    draining: u64,
    books: Books,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Tally { kills, starting, draining, books } = self;
        let Books { seen, records, decisions, outcomes, .. } = books;
        write!(
            f,
            "{kills} kills ({starting} while starting, {draining} while draining), {seen} requests at the origin, 0 of \
             them missing, {} decisions, outcomes {outcomes:?}, {records} records in one chain",
            decisions.len()
        )
    }
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
