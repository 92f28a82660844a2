//! `outgate audit prune`: drops old records; what is left goes on from a signed stub.

use std::thread::sleep;
use std::time::Duration;

use jiff::Timestamp;
use policy::event::Event;
use policy::view::rfc3339;
use serde::Deserialize;
use serde_json::json;

use super::super::changes::operator;
use super::super::context::{folder_of, runtime};
use super::super::gate::Gate;
use super::super::moment::Since;
use super::super::output::{self, Progress};
use super::super::records::Records;
use super::super::{Context, Exit, Failure};
use crate::clock;
use crate::config::Config;
use crate::signing::Signer;
use crate::store::{Cut, Entry, PrunePlan, Store};

/// Records of one step where no gateway has to be let through in between.
const STEP: u64 = 5000;
/// How often is looked how far the gateway has come.
const PAUSE: Duration = Duration::from_millis(200);

/// Drop old records without breaking the chain
#[derive(Debug, clap::Args)]
#[command(
    long_about = "\
Drop old records without breaking the chain.

What is left follows on a signed stub, so that it still verifies; that records were dropped, how many and by whom is a \
record itself. Requests that are still under way keep theirs. A gateway that runs drops them in the gaps between \
requests. `[audit] retention` and `max_bytes` do the same by themselves.",
    after_help = "\
Examples:
  outgate audit prune --before 90d
  outgate audit prune --before 2026-08-01 --json"
)]
pub(super) struct Prune {
    /// Records older than this go: `90d`, `2026-08-01`, `2026-08-01T06:00:00Z`
    #[arg(long, value_name = "T")]
    before: Since,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What the gateway says it is going to drop.
#[derive(Deserialize)]
struct Planned {
    through: Option<u64>,
    records: u64,
}

pub(super) fn run(arguments: &Prune, context: &Context) -> Result<Exit, Failure> {
    context.refuse_inside_a_session("audit prune")?;
    let config = context.config()?;
    let now = Timestamp::now();
    let before = arguments.before.microseconds(now);
    if before > now.as_microsecond() {
        return Err(Failure::usage("the time before which records go lies in the future; all of them would"));
    }
    if Records::open(&config)?.is_none() {
        return Err(Failure::failed("nothing has been recorded yet"));
    }
    let planned = match Gate::find(&config)? {
        Some(gate) => by_gateway(&gate, &config, before)?,
        None => by_itself(&config, before)?,
    };
    match (arguments.json, planned.through) {
        (true, through) => output::json(&json!({ "records": planned.records, "through": through }))?,
        (false, None) => output::line("nothing is older than that")?,
        (false, Some(through)) => output::line(format_args!(
            "dropped {}; what is left follows on a signed stub for record {through}",
            output::count(planned.records, "record")
        ))?,
    }
    Ok(Exit::Done)
}

/// Asks the gateway, and waits until it is done.
fn by_gateway(gate: &Gate, config: &Config, before: i64) -> Result<Planned, Failure> {
    let asked = json!({ "before": rfc3339(before), "by": operator() });
    let planned: Planned = gate.post("/api/audit/prune", &asked)?;
    let (Some(through), Some(records)) = (planned.through, Records::open(config)?) else {
        return Ok(planned);
    };
    let mut progress = Progress::new("records dropped");
    progress.of(planned.records);
    loop {
        let stub = records.run(records.store().stub()).map_err(Failure::failed)?;
        let gone = stub.map_or(0, |stub| stub.through);
        if gone >= through {
            break;
        }
        progress.at((gone + planned.records).saturating_sub(through));
        if Gate::find(config)?.is_none() {
            progress.end();
            return Err(Failure::failed(
                "the gateway has stopped; it goes on with this when it starts again",
            ));
        }
        sleep(PAUSE);
    }
    progress.end();
    Ok(planned)
}

fn by_itself(config: &Config, before: i64) -> Result<Planned, Failure> {
    let folder = folder_of(config)?;
    let signer = Signer::open(&folder).map_err(Failure::failed)?;
    let mut progress = Progress::new("records dropped");
    runtime()?.block_on(async {
        let (_store, mut writer) = Store::open_beside(&folder).await.map_err(Failure::failed)?;
        let plan = writer.plan_prune(Cut::Before(before)).await.map_err(Failure::failed)?;
        let Some(plan) = plan else { return Ok(Planned { through: None, records: 0 }) };
        let PrunePlan { through, records, .. } = plan;
        let event = Event { time: clock::now(), by: operator(), what: plan.happening() };
        let entries = [Entry::pruned(&event, through), Entry::checkpoint(signer.clone())];
        writer.commit(&entries).await.map_err(Failure::failed)?;
        progress.of(records);
        let mut gone = 0;
        while !writer.prune_step(through, STEP, &signer).await.map_err(Failure::failed)? {
            gone = records.min(gone + STEP);
            progress.at(gone);
        }
        progress.end();
        writer.close().await;
        Ok(Planned { through: Some(through), records })
    })
}
