//! What the record costs a request: the chain and each durability, against the same with it switched off.
//!
//! ```console
//! $ cargo bench -p outgate --bench audit --features measure
//! ```
//!
//! Many tasks record exchanges (a decision that is waited for, an outcome that is not) as fast as they are committed.
//! The variants take turns, so that what the machine does besides falls on all of them.

#![expect(clippy::unwrap_used, reason = "a bench that meets a surprise stops there")]
#![expect(clippy::print_stdout, reason = "what it measures is told to whoever runs it")]

use std::time::{Duration, Instant};

use outgate::audit::{CheckpointOptions, Recorder};
use outgate::clock;
use outgate::config::Durability;
use outgate::running::Claim;
use outgate::signing::Signer;
use outgate::store::{Opened, Store, StoreOptions};
use policy::identity::AgentName;
use policy::record::{Decision, Outcome, OutcomeKind, Timing};
use policy::redact::Redacted;
use policy::request::Kind;
use policy::target::Scheme;
use policy::verdict::{Action, Class, Mode, Reason};

/// Clients at once.
const CLIENTS: usize = 64;
/// How long each variant runs in a round.
const TURN: Duration = Duration::from_millis(1500);
/// Rounds; the median of each variant counts.
const ROUNDS: usize = 5;

/// One way of recording.
#[derive(Clone, Copy)]
struct Variant {
    name: &'static str,
    durability: Durability,
    chain: bool,
    durable: bool,
    signed: bool,
}

const USUAL: Variant = Variant {
    name: "commit, chained and signed",
    durability: Durability::Commit,
    chain: true,
    durable: true,
    signed: true,
};

const VARIANTS: [Variant; 5] = [
    USUAL,
    Variant { name: "commit, checkpoints off", signed: false, ..USUAL },
    Variant { name: "commit, chain off", chain: false, signed: false, ..USUAL },
    Variant { name: "durability off", durable: false, ..USUAL },
    Variant { name: "power (a disk flush a commit)", durability: Durability::Power, ..USUAL },
];

fn main() {
    // `cargo test` builds and runs benches, too; there it need only show that it works.
    let quick = !std::env::args().any(|argument| argument == "--bench");
    let (rounds, turn) = if quick { (1, Duration::from_millis(50)) } else { (ROUNDS, TURN) };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut costs = vec![Vec::new(); VARIANTS.len()];
    for _ in 0..rounds {
        for (variant, costs) in VARIANTS.iter().zip(&mut costs) {
            costs.push(runtime.block_on(run(*variant, turn)));
        }
    }
    let medians: Vec<f64> = costs.into_iter().map(median).collect();
    println!("{CLIENTS} clients, an exchange is two records\n");
    println!("{:<34}{:>14}{:>10}", "", "µs / exchange", "ratio");
    for (variant, median) in VARIANTS.iter().zip(&medians) {
        println!("{:<34}{median:>14.1}{:>10.2}", variant.name, median / medians[0]);
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Microseconds an exchange takes, all clients together.
async fn run(variant: Variant, turn: Duration) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let claim = Claim::take(folder.path()).unwrap();
    let options = StoreOptions { data_dir: folder.path().to_owned(), durability: variant.durability };
    let Opened { mut writer, .. } = Store::open(&options, &claim).await.unwrap();
    if !variant.chain {
        writer.without_chain();
    }
    if !variant.durable {
        writer.without_durability().unwrap();
    }
    let recorder = match variant.signed {
        false => Recorder::start(writer),
        true => {
            let signer = Signer::open(folder.path()).unwrap();
            let file = folder.path().join("checkpoints.jsonl");
            let interval = Duration::from_secs(60);
            let options =
                CheckpointOptions { signer, records: 1000, interval, file, flush: false, webhook: None };
            Recorder::signing(writer, options)
        }
    };
    let began = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let recorder = recorder.clone();
        clients.spawn(async move {
            let mut exchanges = 0_u64;
            while began.elapsed() < turn {
                let decision = decision();
                recorder.decision(&decision).await.unwrap();
                recorder.outcome(&outcome(&decision));
                exchanges += 1;
            }
            exchanges
        });
    }
    let exchanges: u64 = clients.join_all().await.into_iter().sum();
    recorder.close().await.unwrap();
    began.elapsed().as_secs_f64() * 1e6 / exchanges as f64
}

fn decision() -> Decision {
    let time = clock::now();
    Decision {
        action: Action::Allow,
        agent: AgentName::anonymous(),
        class: Class::Tool,
        domain: Some(Redacted::literal("github.com")),
        findings: Vec::new(),
        host: Some(Redacted::literal("api.github.com")),
        http_version: Some("2".into()),
        id: clock::ulid(time),
        kind: Kind::Http,
        method: Some(Redacted::literal("GET")),
        mode: Mode::Enforce,
        owner: None,
        path: Some(Redacted::literal("/repos/example/app/contents/src/main.rs")),
        policy: "sha256:1f0b2c3d4e5f60718293a4b5c6d7e8f90123456789abcdef0123456789abcdef".into(),
        port: Some(443),
        reason: Reason::AllowedByRule,
        rule: Some(Redacted::literal("allow \"@github\"")),
        scheme: Some(Scheme::Https),
        service: Some("github".into()),
        session: None,
        time,
        would: None,
        would_reason: None,
    }
}

fn outcome(decision: &Decision) -> Outcome {
    Outcome {
        action: decision.action,
        body: None,
        decided: None,
        decision: decision.id,
        findings: Vec::new(),
        model: None,
        ms: Timing { decide: 0.02, held: 0.0, connect: None, first_byte: Some(80.1), total: 120.7 },
        outcome: OutcomeKind::Completed,
        reason: decision.reason,
        request_bytes: 900,
        response_bytes: 5000,
        status: Some(200),
        time: decision.time + 120_700,
        upstream: Some("192.0.2.7:443".parse().unwrap()),
        would: None,
        would_reason: None,
    }
}
