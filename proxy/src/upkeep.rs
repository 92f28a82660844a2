//! What the gateway does for its record: it notes its start, drops old records, notes time that is up, watches the clock.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use policy::event::{Happening, SessionEnd};
use policy::identity::AgentName;
use policy::redact::Redacted;

use crate::alive;
use crate::audit::ChangeError;
use crate::clock;
use crate::gateway::Gateway;
use crate::store::{Change, Cut};

/// The wall clock moved against the time that passed, where by more than this.
const JUMP: Duration = Duration::from_secs(1);
/// How far the last record may lie ahead of the clock before that is a jump, in microseconds.
const CLOCK_TOLERANCE: i64 = 1_000_000;
/// How long before an agent's time is up people are told, in microseconds.
const WARNING: i64 = 24 * 60 * 60 * 1_000_000;
/// How often agents whose time is up and sessions whose `run` died are looked for.
const LOOK: Duration = Duration::from_secs(5);
/// How often the size of the store is looked at.
const SIZE: Duration = Duration::from_secs(60);
/// How often records that are too old are dropped: each time is a record of its own.
const AGE: Duration = Duration::from_secs(15 * 60);

/// Does what is due, each time it is called.
pub struct Upkeep {
    clock: ClockWatch,
    look: Due,
    size: Due,
    age: Due,
    audit_failures: u64,
    /// Agents of whose end was told.
    expiring: HashSet<AgentName>,
}

impl Upkeep {
    /// Begins now; everything is due.
    pub fn new() -> Upkeep {
        Upkeep {
            clock: ClockWatch::new(),
            look: Due::every(LOOK),
            size: Due::every(SIZE),
            age: Due::every(AGE),
            audit_failures: 0,
            expiring: HashSet::new(),
        }
    }

    /// Does what is due. To be called about twice a second.
    pub async fn tick(&mut self, gateway: &Gateway) {
        if let Some(milliseconds) = self.clock.jumped() {
            note_jump(gateway, milliseconds).await;
        }
        self.look_at_failures(gateway);
        if self.look.is_due() {
            self.warn_of_ends(gateway).await;
            expire_agents(gateway).await;
            end_lost_sessions(gateway).await;
        }
        if self.age.is_due() {
            let kept = i64::try_from(gateway.config.audit.retention.as_micros()).unwrap_or(i64::MAX);
            prune(gateway, Cut::Before(clock::now().saturating_sub(kept))).await;
        }
        let most = gateway.config.audit.max_bytes;
        if self.size.is_due() && gateway.store.bytes().await.is_ok_and(|bytes| bytes > most) {
            prune(gateway, Cut::Above(most)).await;
        }
    }
}

impl Upkeep {
    /// Tells people that records cannot be written.
    fn look_at_failures(&mut self, gateway: &Gateway) {
        let counters = gateway.recorder.counters();
        let failures = counters.failures.load(Ordering::Relaxed);
        let more = failures > std::mem::replace(&mut self.audit_failures, failures);
        match counters.problem() {
            Some(problem) => gateway.alerts.audit_failure(&problem),
            None if more => gateway.alerts.audit_failure("it took too long, or too many waited"),
            None => {}
        }
    }

    /// Tells people of agents whose time is up within a day, once.
    async fn warn_of_ends(&mut self, gateway: &Gateway) {
        // A store that cannot be read is told of by those who need it more.
        let soon = gateway.store.agents_to_expire(clock::now() + WARNING).await.unwrap_or_default();
        self.expiring.retain(|agent| soon.contains(agent));
        for agent in soon {
            if self.expiring.insert(agent.clone()) {
                gateway.alerts.expiring(&agent);
            }
        }
    }
}

impl Default for Upkeep {
    fn default() -> Upkeep {
        Upkeep::new()
    }
}

/// Records that the gateway starts, and before it what happened while none ran: a clock set back, other settings.
///
/// # Errors
/// Where it cannot be recorded.
pub async fn record_start(gateway: &Gateway) -> anyhow::Result<()> {
    let behind = gateway.store.last_time().await?.map_or(0, |last| clock::now() - last);
    if behind < -CLOCK_TOLERANCE {
        note_jump(gateway, behind / 1000).await;
    }
    let configuration: Arc<str> = gateway.config.digest().into();
    let values: BTreeMap<_, _> = gateway.config.values().into_iter().collect();
    let keys = changed_settings(gateway.store.last_configuration().await?.as_deref(), &values);
    if !keys.is_empty() {
        let changed = Happening::ConfigurationChanged { configuration: Arc::clone(&configuration), keys };
        gateway.recorder.event(changed, None).await?;
    }
    let values = serde_json::to_string(&values)?;
    let start = Change::Start { version: env!("CARGO_PKG_VERSION").into(), configuration, values };
    gateway.recorder.change(start, None).await?;
    let fingerprint = gateway.mint.certificate().summary().fingerprint.into();
    gateway.recorder.event(Happening::AuthorityInForce { fingerprint, previous: None }, None).await?;
    let recorded = gateway.record_policy(&gateway.policy().rules, None, None).await;
    recorded.map_err(|problems| anyhow::anyhow!(problems.join("; ")))
}

/// The settings that are not what they were at the last start; none at the first.
fn changed_settings(before: Option<&str>, now: &BTreeMap<&str, String>) -> Vec<Arc<str>> {
    let before = before.and_then(|text| serde_json::from_str::<BTreeMap<String, String>>(text).ok());
    let Some(before) = before else { return Vec::new() };
    let changed = now.iter().filter(|(key, value)| before.get(**key) != Some(value));
    changed.map(|(key, _)| Arc::from(*key)).collect()
}

/// Records that the clock moved.
async fn note_jump(gateway: &Gateway, milliseconds: i64) {
    tracing::warn!(milliseconds, "the clock jumped");
    if let Err(error) = gateway.recorder.event(Happening::ClockJumped { milliseconds }, None).await {
        tracing::error!(%error, milliseconds, "that the clock jumped is not on record");
    }
}

async fn expire_agents(gateway: &Gateway) {
    // A store that cannot be read is told of by those who need it more.
    let agents = gateway.store.agents_to_expire(clock::now()).await.unwrap_or_default();
    for agent in agents {
        // Where somebody extended or revoked it just now, there is nothing to note.
        let _ = gateway.recorder.change(Change::ExpireAgent { agent }, None).await;
    }
}

async fn end_lost_sessions(gateway: &Gateway) {
    for lost in alive::lost(&gateway.config.data_dir) {
        let session = lost.session;
        let end = Change::EndSession { session, exit_code: None, why: SessionEnd::Lost };
        match gateway.recorder.change(end, None).await {
            Ok(()) => tracing::warn!(%session, "the `run` of a session is gone; the session is ended"),
            // It had ended.
            Err(ChangeError::Stale) => {}
            // Found again, and tried again.
            Err(ChangeError::Unavailable(_)) => continue,
        }
        lost.forget();
    }
}

async fn prune(gateway: &Gateway, cut: Cut) {
    match gateway.recorder.prune(cut, Some(Redacted::literal("retention"))).await {
        Ok(Some(plan)) => {
            tracing::info!(records = plan.records, through = plan.through, "old records are dropped")
        }
        Ok(None) => {}
        Err(error) => tracing::warn!(%error, "old records are not dropped"),
    }
}

/// Something to be done now and then.
struct Due {
    every: Duration,
    last: Option<Instant>,
}

impl Due {
    fn every(every: Duration) -> Due {
        Due { every, last: None }
    }

    fn is_due(&mut self) -> bool {
        let due = self.last.is_none_or(|last| last.elapsed() >= self.every);
        if due {
            self.last = Some(Instant::now());
        }
        due
    }
}

/// Compares the wall clock with the time that passed, a machine's sleep included.
struct ClockWatch {
    wall: i64,
    passed: Duration,
}

impl ClockWatch {
    fn new() -> ClockWatch {
        ClockWatch { wall: clock::now(), passed: clock::since_boot() }
    }

    /// By how many milliseconds the wall clock moved on its own since this was last asked, where that is a jump.
    fn jumped(&mut self) -> Option<i64> {
        let before = std::mem::replace(self, ClockWatch::new());
        let passed = self.passed.saturating_sub(before.passed);
        jump(self.wall - before.wall, passed)
    }
}

fn jump(wall_microseconds: i64, passed: Duration) -> Option<i64> {
    let passed = i64::try_from(passed.as_micros()).unwrap_or(i64::MAX);
    let milliseconds = wall_microseconds.saturating_sub(passed) / 1000;
    (milliseconds.unsigned_abs() >= JUMP.as_millis() as u64).then_some(milliseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_is_what_the_wall_clock_does_on_its_own() {
        for (sentence, wall, passed, expected) in [
            ("time passes", 500_000, 500, None),
            ("a little drift", 510_000, 500, None),
            ("a long pause of the process", 60_000_000, 60_000, None),
            ("an hour ahead", 3_600_500_000, 500, Some(3_600_000)),
            ("an hour back", -3_599_500_000, 500, Some(-3_600_000)),
            ("just enough", 1_500_000, 500, Some(1000)),
            ("not quite", 1_499_000, 500, None),
        ] {
            assert_eq!(jump(wall, Duration::from_millis(passed)), expected, "{sentence}");
        }
    }
}
