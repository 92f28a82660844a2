//! How many rows a fence may cause: equal ones once a minute, and so many a second.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use policy::target::Host;

use super::names::Note;
use super::packets::Attempt;

/// Equal refusals within this time have one row: resolvers and clients try again at once.
const AGAIN: Duration = Duration::from_secs(60);
/// Rows a second, in the long run.
const RATE: f64 = 50.0;
/// Rows that may come at once.
const BURST: f64 = 500.0;

/// What a row is about, as far as equal ones go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum About {
    /// A question for a name.
    Name(Note),
    /// A packet to a port that nobody serves.
    Packet(Attempt),
    /// A connection to an address that stands for no name.
    Address(Ipv4Addr, u16),
    /// Anything by somebody whose session has ended.
    Nobody,
    /// A name that was answered and that nothing connected to.
    Unfollowed(Host),
    /// Connections beyond what a fence may have open.
    Crowd,
    /// There were more rows than a fence may cause.
    TooMany,
}

/// Whether a row is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is.
    Write,
    /// One like it is there.
    Known,
    /// There are too many.
    TooMany,
}

/// The rows of one fence.
#[derive(Debug)]
pub(super) struct Rows {
    lately: HashMap<About, Instant>,
    left: f64,
    refilled: Instant,
}

impl Rows {
    pub(super) fn new(now: Instant) -> Rows {
        Rows { lately: HashMap::new(), left: BURST, refilled: now }
    }

    /// Whether a row about this is written now; if so, it counts.
    pub(super) fn turn(&mut self, about: &About, now: Instant) -> Turn {
        let passed = now.saturating_duration_since(self.refilled);
        self.left = (self.left + passed.as_secs_f64() * RATE).min(BURST);
        self.refilled = now;
        if self.lately.get(about).is_some_and(|written| now.saturating_duration_since(*written) < AGAIN) {
            return Turn::Known;
        }
        // That there are too many is said in any case, once a minute.
        if self.left < 1.0 && *about != About::TooMany {
            return Turn::TooMany;
        }
        self.left = (self.left - 1.0).max(0.0);
        self.forget(now);
        self.lately.insert(about.clone(), now);
        Turn::Write
    }

    /// The row could not be written: the next one like it is tried again.
    pub(super) fn failed(&mut self, about: &About) {
        self.lately.remove(about);
    }

    /// What was written within a minute is bounded by the rate; looked through when it could have outgrown that.
    fn forget(&mut self, now: Instant) {
        if self.lately.len() as f64 > BURST + RATE * AGAIN.as_secs_f64() {
            self.lately.retain(|_, written| now.saturating_duration_since(*written) < AGAIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::names::Type;
    use super::*;

    fn name(number: usize) -> About {
        let host = Host::parse(format!("n{number}.test").as_bytes()).unwrap();
        About::Name(Note::Refused(host, Type::A))
    }

    #[test]
    fn equal_rows_come_once_a_minute() {
        let start = Instant::now();
        let mut rows = Rows::new(start);
        assert_eq!(rows.turn(&name(1), start), Turn::Write);
        assert_eq!(rows.turn(&name(1), start + AGAIN / 2), Turn::Known);
        assert_eq!(rows.turn(&name(2), start), Turn::Write);
        assert_eq!(rows.turn(&name(1), start + AGAIN), Turn::Write);
        rows.failed(&name(2));
        assert_eq!(rows.turn(&name(2), start), Turn::Write, "it was not written");
    }

    #[test]
    fn a_flood_has_so_many_rows_and_one_that_says_so() {
        let start = Instant::now();
        let mut rows = Rows::new(start);
        let written = (0..10_000).filter(|number| rows.turn(&name(*number), start) == Turn::Write).count();
        assert_eq!(written, 500);
        assert_eq!(rows.turn(&name(10_001), start), Turn::TooMany);
        assert_eq!(rows.turn(&About::TooMany, start), Turn::Write);
        assert_eq!(rows.turn(&About::TooMany, start), Turn::Known);
        assert_eq!(rows.turn(&name(10_001), start + Duration::from_secs(1)), Turn::Write);
        for second in 1..600 {
            for number in 0..60 {
                rows.turn(&name(second * 100 + number), start + Duration::from_secs(second as u64));
            }
        }
        assert!(rows.lately.len() < 4_000, "{}", rows.lately.len());
    }
}
