//! Bytes uploaded lately: sliding windows as arithmetic on (count, now).
//!
//! A [`Ledger`] is charged as bytes are released and gives the [`Usage`] that `decide` takes. A window is made of
//! 60 slices; a slice counts until all of it has left the window, so a window never counts less than what was sent
//! within it, and at most a sixtieth of its length longer.

use std::collections::{HashMap, VecDeque};

use crate::identity::AgentName;

/// Slices of a window.
const SLICES: i64 = 60;
const MICROS: i64 = 1_000_000;
/// Under this name an agent's bytes are kept that find no room under their own domain: no domain has a space.
const OVERFLOW: &str = "other domains";

/// What an agent uploaded within the window, before the request that is decided about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// To the registrable domain of the request, in bytes.
    pub domain: u64,
    /// To everywhere, in bytes.
    pub agent: u64,
}

/// Bytes that left at one time, as the store gives them back after a restart.
#[derive(Clone, Copy, Debug)]
pub struct Charge<'a> {
    /// The agent.
    pub agent: &'a AgentName,
    /// The registrable domain, or the host where there is none.
    pub domain: &'a str,
    /// How many.
    pub bytes: u64,
    /// When, in microseconds since the Unix epoch.
    pub time: i64,
}

/// The windows of all agents. Bounded: entries that nothing was charged to within the window are forgotten, and
/// beyond the limit further domains of an agent share one window.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// Length of the window, in microseconds.
    window: i64,
    limit: usize,
    entries: usize,
    agents: HashMap<AgentName, Account>,
}

#[derive(Clone, Debug, Default)]
struct Account {
    total: Window,
    domains: HashMap<Box<str>, Window>,
}

/// Slices that hold something, oldest first.
#[derive(Clone, Debug, Default)]
struct Window {
    /// (start of the slice, bytes).
    slices: VecDeque<(i64, u64)>,
    sum: u64,
}

impl Ledger {
    /// An empty ledger for a window of some seconds, with at most `limit` pairs of agent and domain.
    pub fn new(window_seconds: u32, limit: usize) -> Ledger {
        Ledger { window: length(window_seconds), limit, entries: 0, agents: HashMap::new() }
    }

    /// A ledger with what was sent before a restart. Charges may come in any order.
    pub fn rebuild<'a>(
        window_seconds: u32,
        limit: usize,
        charges: impl IntoIterator<Item = Charge<'a>>,
        now: i64,
    ) -> Ledger {
        let mut ledger = Ledger::new(window_seconds, limit);
        let oldest = now.saturating_sub(ledger.window);
        let mut recent: Vec<Charge<'a>> =
            charges.into_iter().filter(|charge| charge.time > oldest && charge.time <= now).collect();
        recent.sort_by_key(|charge| charge.time);
        for Charge { agent, domain, bytes, time } in recent {
            ledger.charge(agent, domain, bytes, time);
        }
        ledger.expire(now);
        ledger
    }

    /// Changes the length of the window. What has been forgotten stays forgotten.
    pub fn set_window(&mut self, window_seconds: u32) {
        self.window = length(window_seconds);
    }

    /// Adds bytes that were released, and says what the windows hold now, these bytes included.
    ///
    /// `now` is in microseconds since the Unix epoch; where the clock went back, the latest slice takes them.
    pub fn charge(&mut self, agent: &AgentName, domain: &str, bytes: u64, now: i64) -> Usage {
        let window = self.window;
        if bytes == 0 {
            return self.usage(agent, domain, now);
        }
        if let Some(account) = self.agents.get_mut(agent)
            && let Some(of) = account.domains.get_mut(domain)
        {
            return Usage {
                domain: of.add(bytes, window, now),
                agent: account.total.add(bytes, window, now),
            };
        }
        if self.entries >= self.limit {
            self.expire(now);
        }
        let full = self.entries >= self.limit;
        if !self.agents.contains_key(agent) {
            self.agents.insert(agent.clone(), Account::default());
        }
        let Some(account) = self.agents.get_mut(agent) else { return Usage::default() };
        let domain = if full { OVERFLOW } else { domain };
        if !account.domains.contains_key(domain) {
            account.domains.insert(domain.into(), Window::default());
            self.entries += 1;
        }
        let of_domain = account.domains.get_mut(domain).map_or(0, |of| of.add(bytes, window, now));
        Usage { domain: of_domain, agent: account.total.add(bytes, window, now) }
    }

    /// What the windows hold.
    pub fn usage(&mut self, agent: &AgentName, domain: &str, now: i64) -> Usage {
        let window = self.window;
        let Some(account) = self.agents.get_mut(agent) else { return Usage::default() };
        let of_domain = match account.domains.get_mut(domain) {
            Some(of) => Some(of),
            None => account.domains.get_mut(OVERFLOW),
        };
        Usage {
            domain: of_domain.map_or(0, |of| of.sum_at(window, now)),
            agent: account.total.sum_at(window, now),
        }
    }

    /// Forgets what lies before the window. To be called now and then; nothing depends on when.
    pub fn expire(&mut self, now: i64) {
        let window = self.window;
        self.agents.retain(|_, account| {
            account.domains.retain(|_, of| of.sum_at(window, now) > 0);
            account.total.sum_at(window, now) > 0
        });
        self.entries = self.agents.values().map(|account| account.domains.len()).sum();
    }

    /// Pairs of agent and domain that are remembered.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.agents.is_empty()
    }
}

fn length(seconds: u32) -> i64 {
    i64::from(seconds.max(1)) * MICROS
}

impl Window {
    fn add(&mut self, bytes: u64, window: i64, now: i64) -> u64 {
        self.drop_old(window, now);
        let slice = now - now.rem_euclid(slice_length(window));
        match self.slices.back_mut() {
            Some((latest, sum)) if *latest >= slice => *sum = sum.saturating_add(bytes),
            _ => self.slices.push_back((slice, bytes)),
        }
        self.sum = self.sum.saturating_add(bytes);
        self.sum
    }

    fn sum_at(&mut self, window: i64, now: i64) -> u64 {
        self.drop_old(window, now);
        self.sum
    }

    fn drop_old(&mut self, window: i64, now: i64) {
        let oldest = now.saturating_sub(window).saturating_sub(slice_length(window));
        while let Some((start, bytes)) = self.slices.front()
            && *start <= oldest
        {
            self.sum = self.sum.saturating_sub(*bytes);
            self.slices.pop_front();
        }
    }
}

fn slice_length(window: i64) -> i64 {
    (window + SLICES - 1) / SLICES
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = MICROS;

    fn agent(name: &str) -> AgentName {
        name.parse().unwrap()
    }

    #[test]
    fn bytes_count_for_the_window_and_are_then_forgotten() {
        let mut ledger = Ledger::new(600, 100);
        let a = agent("a");
        assert_eq!(ledger.charge(&a, "x.test", 10, 0), Usage { domain: 10, agent: 10 });
        assert_eq!(ledger.charge(&a, "y.test", 5, 60 * SECOND), Usage { domain: 5, agent: 15 });
        assert_eq!(ledger.charge(&a, "x.test", 1, 599 * SECOND), Usage { domain: 11, agent: 16 });
        assert_eq!(
            ledger.usage(&a, "x.test", 600 * SECOND),
            Usage { domain: 11, agent: 16 },
            "a slice is kept whole"
        );
        assert_eq!(ledger.usage(&a, "x.test", 611 * SECOND), Usage { domain: 1, agent: 6 });
        assert_eq!(ledger.usage(&a, "x.test", 2000 * SECOND), Usage::default());
        assert_eq!(ledger.usage(&agent("b"), "x.test", 599 * SECOND), Usage::default(), "agents are apart");
    }

    #[test]
    fn idle_entries_are_forgotten_and_the_rest_share_one_window_when_there_is_no_room() {
        let mut ledger = Ledger::new(60, 3);
        let a = agent("a");
        for (at, domain) in ["one.test", "two.test", "three.test"].into_iter().enumerate() {
            ledger.charge(&a, domain, 1, at as i64);
        }
        assert_eq!(ledger.charge(&a, "four.test", 7, 10).domain, 7);
        assert_eq!(ledger.charge(&a, "five.test", 7, 11).domain, 14, "no room: the bytes still count");
        assert_eq!(ledger.usage(&a, "six.test", 12).domain, 14);
        assert_eq!(ledger.charge(&a, "one.test", 1, 13), Usage { domain: 2, agent: 18 });
        assert_eq!(ledger.charge(&a, "four.test", 7, 200 * SECOND), Usage { domain: 7, agent: 7 });
        assert_eq!(ledger.len(), 1);
        ledger.expire(400 * SECOND);
        assert!(ledger.is_empty());
    }

    #[test]
    fn a_clock_that_goes_back_loses_nothing() {
        let mut ledger = Ledger::new(60, 10);
        let a = agent("a");
        ledger.charge(&a, "x.test", 3, 1000 * SECOND);
        assert_eq!(ledger.charge(&a, "x.test", 4, 10 * SECOND), Usage { domain: 7, agent: 7 });
    }

    #[test]
    fn after_a_restart_the_windows_are_as_before() {
        let (a, b) = (agent("a"), agent("b"));
        let charge = |agent, domain, bytes, second| Charge { agent, domain, bytes, time: second * SECOND };
        let stored = [
            charge(&b, "x.test", 100, 590),
            charge(&a, "x.test", 7, 500),
            charge(&a, "x.test", 9, -10),
            charge(&a, "y.test", 1, 600),
        ];
        let mut ledger = Ledger::rebuild(600, 10, stored, 600 * SECOND);
        assert_eq!(ledger.usage(&a, "x.test", 600 * SECOND), Usage { domain: 7, agent: 8 });
        assert_eq!(ledger.usage(&b, "x.test", 600 * SECOND), Usage { domain: 100, agent: 100 });
    }

    proptest::proptest! {
        /// Never less than what was sent within the window, never more than within a window and a slice.
        #[test]
        fn a_window_is_never_below_the_truth(
            steps in proptest::collection::vec((0i64..40_000_000, 1u64..1000), 1..200),
            window in 1u32..1000,
        ) {
            let mut ledger = Ledger::new(window, 10);
            let a = agent("a");
            let (mut now, mut sent) = (0, Vec::new());
            for (pause, bytes) in steps {
                now += pause;
                sent.push((now, bytes));
                let usage = ledger.charge(&a, "x.test", bytes, now);
                let within = |length: i64| -> u64 {
                    sent.iter().filter(|(at, _)| *at > now - length).map(|(_, bytes)| bytes).sum()
                };
                let length = i64::from(window) * MICROS;
                assert!(usage.domain >= within(length));
                assert!(usage.domain <= within(length + 2 * slice_length(length)));
                assert_eq!(usage.domain, usage.agent);
                assert!(ledger.agents[&a].total.slices.len() <= 62);
            }
        }
    }
}
