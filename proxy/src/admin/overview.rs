//! What the console shows at a glance: sums over a time, destinations, and how the record is.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::Admin;
use super::answer::{Failure, time};
use crate::clock;
use crate::store::overview::{Destination, Stretch};

/// How long an answer is good for everybody who asks the same, at the least.
const GOOD: Duration = Duration::from_secs(3);
/// It is good for so many times as long as it took: who looks at a long time of a large store keeps no processor busy.
const WORTH: u32 = 20;
/// The same for whether the record is intact.
const CHECKED: Duration = Duration::from_secs(15);
/// Records at the end of the chain that are checked.
const TAIL: u64 = 5000;
const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

/// Times that can be asked about: name, one part, how many.
const RANGES: [(&str, i64, usize); 5] = [
    ("1h", MINUTE, 60),
    ("6h", 5 * MINUTE, 72),
    ("24h", 15 * MINUTE, 96),
    ("7d", 2 * HOUR, 84),
    ("30d", 8 * HOUR, 90),
];

/// Answers that were given lately. Whoever asks while one is looked up waits for it: never more than one walk over the
/// store at a time, however many pages are open.
#[derive(Default)]
pub struct Answers {
    known: Mutex<HashMap<String, Answer>>,
}

struct Answer {
    ends: Instant,
    value: Value,
}

impl Answers {
    async fn get(
        &self,
        question: String,
        good: Duration,
        look: impl Future<Output = Result<Value, Failure>>,
    ) -> Result<Json<Value>, Failure> {
        let mut known = self.known.lock().await;
        let began = Instant::now();
        if let Some(answer) = known.get(&question).filter(|answer| answer.ends > began) {
            return Ok(Json(answer.value.clone()));
        }
        let value = look.await?;
        let ends = Instant::now() + good.max(began.elapsed() * WORTH);
        known.insert(question, Answer { ends, value: value.clone() });
        Ok(Json(value))
    }
}

/// Which time is asked about.
#[derive(Deserialize)]
pub(super) struct Asked {
    range: Option<String>,
}

impl Asked {
    /// The time, ending with a part that has just begun, and its name.
    fn stretch(&self) -> Result<(&'static str, Stretch), Failure> {
        let name = self.range.as_deref().unwrap_or("24h");
        let found = RANGES.into_iter().find(|(known, ..)| *known == name);
        let (name, part, parts) = found.ok_or_else(|| {
            Failure::bad(format!(
                "`range` takes `1h`, `6h`, `24h`, `7d` or `30d`, not `{}`",
                name.escape_debug()
            ))
        })?;
        let ends = (clock::now() / part + 1) * part;
        let since = ends - part * i64::try_from(parts).unwrap_or(i64::MAX);
        Ok((name, Stretch { since, part, parts }))
    }
}

/// Requests, bytes and findings over a time, who did most, what was refused most.
pub(super) async fn sums(
    State(admin): State<Arc<Admin>>,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>, Failure> {
    let (name, stretch) = asked.stretch()?;
    let look = async {
        let overview = admin.store.overview(stretch).await?;
        let mut answer = serde_json::to_value(overview).unwrap_or_default();
        answer["range"] = name.into();
        answer["since"] = time(stretch.since).into();
        answer["part_seconds"] = (stretch.part / SECOND).into();
        Ok(answer)
    };
    admin.answers.get(format!("sums {name}"), GOOD, look).await
}

/// Where requests went, or would have.
pub(super) async fn destinations(
    State(admin): State<Arc<Admin>>,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>, Failure> {
    let (name, stretch) = asked.stretch()?;
    let look = async {
        let destinations = admin.store.destinations(stretch.since).await?;
        let destinations: Vec<Value> = destinations.iter().map(shown).collect();
        Ok(json!({ "range": name, "since": time(stretch.since), "destinations": destinations }))
    };
    admin.answers.get(format!("destinations {name}"), GOOD, look).await
}

fn shown(destination: &Destination) -> Value {
    let mut shown = serde_json::to_value(destination).unwrap_or_default();
    shown["first"] = time(destination.first).into();
    shown["last"] = time(destination.last).into();
    shown
}

/// How the record is: how much of it, how it is kept, whether its end is intact.
pub(super) async fn audit(State(admin): State<Arc<Admin>>) -> Result<Json<Value>, Failure> {
    let look = async {
        let tail = admin.store.tail_status(TAIL).await?;
        Ok(json!({ "checked": time(clock::now()), "tail": tail }))
    };
    let Json(mut answer) = admin.answers.get("audit".to_owned(), CHECKED, look).await?;
    let counters = admin.recorder.counters();
    answer["records"] = admin.store.last_seq().await?.into();
    answer["begins_after"] = admin.store.beginning().await?.seq.into();
    answer["commits"] = counters.commits.load(Ordering::Relaxed).into();
    answer["failures"] = counters.failures.load(Ordering::Relaxed).into();
    answer["queue"] = counters.queue_depth.load(Ordering::Relaxed).into();
    answer["problem"] = counters.problem().into();
    answer["kept"] = admin.control.record_keeping();
    Ok(Json(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_asks_the_same_again_is_given_the_same_for_a_while() {
        let answers = Answers::default();
        let ask = async |value: i32, good: u64, takes: u64| {
            let look = async {
                tokio::time::sleep(Duration::from_millis(takes)).await;
                Ok(json!(value))
            };
            answers.get("question".to_owned(), Duration::from_millis(good), look).await.unwrap().0
        };
        assert_eq!(ask(1, 0, 20).await, 1);
        assert_eq!(ask(2, 0, 0).await, 1, "it took long, so it is good for longer");
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert_eq!(ask(3, 0, 0).await, 3);
    }
}
