//! Requests and bytes over time, in at most sixty steps of a length that people count in.

use serde::Serialize;

use super::{Amount, Moment};
use crate::verdict::Action;

/// More steps would be thinner than a line of a page.
const MOST: i64 = 60;
const SECOND: i64 = 1_000_000;
/// Lengths of a step, in seconds.
const LENGTHS: [i64; 20] = [
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800,
    604_800,
];

/// The steps of a period. Times before and after it belong to the first and the last one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Timeline {
    /// Length of a step, in seconds.
    pub bucket_seconds: i64,
    /// The steps without gaps, the oldest first.
    pub buckets: Vec<Bucket>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// When it begins.
    pub start: Moment,
    /// Requests decided in it.
    pub requests: u64,
    /// Of them allowed.
    pub allowed: u64,
    /// Of them denied.
    pub denied: u64,
    /// Of them held for an answer that has not come.
    pub held: u64,
    /// Bytes that left, at the time of their request's decision.
    pub bytes_up: u64,
    /// Bytes that came back.
    pub bytes_down: u64,
}

impl Timeline {
    /// The steps from one time to another, in microseconds; none where there is no time.
    pub(super) fn new(span: Option<(i64, i64)>) -> Timeline {
        let Some((first, last)) = span else { return Timeline { bucket_seconds: 0, buckets: Vec::new() } };
        let last = last.max(first);
        let steps = |length: i64| last.div_euclid(length) - first.div_euclid(length) + 1;
        let weeks = LENGTHS[LENGTHS.len() - 1];
        let longest = (1..).map(|weeks_in_a_step| weeks_in_a_step * weeks);
        let seconds = LENGTHS.into_iter().chain(longest).find(|length| steps(length * SECOND) <= MOST);
        let seconds = seconds.unwrap_or(weeks);
        let length = seconds * SECOND;
        let begin = first.div_euclid(length) * length;
        let bucket = |step: i64| Bucket {
            start: Moment(begin + step * length),
            requests: 0,
            allowed: 0,
            denied: 0,
            held: 0,
            bytes_up: 0,
            bytes_down: 0,
        };
        Timeline { bucket_seconds: seconds, buckets: (0..steps(length)).map(bucket).collect() }
    }

    pub(super) fn add(&mut self, time: Moment, action: Action, amount: Amount) {
        let Some(first) = self.buckets.first() else { return };
        let step = (time.0 - first.start.0).div_euclid(self.bucket_seconds * SECOND);
        let last = self.buckets.len() - 1;
        let step = usize::try_from(step).unwrap_or(0).min(last);
        let bucket = &mut self.buckets[step];
        bucket.requests += 1;
        match action {
            Action::Allow => bucket.allowed += 1,
            Action::Deny => bucket.denied += 1,
            Action::Ask => bucket.held += 1,
        }
        bucket.bytes_up = bucket.bytes_up.saturating_add(amount.bytes_up);
        bucket.bytes_down = bucket.bytes_down.saturating_add(amount.bytes_down);
    }
}
