//! Gathers equal alerts: the first is told at once, those that follow become one message at the end of the time.
//!
//! New ones are told at once too, as long as they are few; of a flood that is different each time only the number is
//! told. Time comes in as an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::Alert;
use crate::config::{AlertKind, Word as _};

/// Messages within one time; what goes beyond is told as a number.
const MESSAGES: usize = 20;

/// What is to be sent: an alert, and how many equal ones it stands for.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) kind: AlertKind,
    pub(super) alert: Alert,
    pub(super) count: u64,
    /// The first of them, in microseconds since the Unix epoch.
    pub(super) first: i64,
    /// All that it stands for, where those are not equal.
    pub(super) others: Vec<Alert>,
}

/// Alerts on their way to one webhook.
#[derive(Debug)]
pub(super) struct Digest {
    time: Duration,
    open: HashMap<String, Open>,
    /// When the time began in which messages are counted.
    began: Option<Instant>,
    messages: usize,
    flood: Option<(Message, HashMap<AlertKind, u64>)>,
}

#[derive(Debug)]
struct Open {
    until: Instant,
    waiting: Option<Message>,
}

impl Digest {
    pub(super) fn new(time: Duration) -> Digest {
        Digest { time, open: HashMap::new(), began: None, messages: 0, flood: None }
    }

    /// Takes an alert of a kind that is wanted, and gives what is to be sent now.
    pub(super) fn add(&mut self, kind: AlertKind, alert: Alert, now: Instant) -> Option<Message> {
        let first = alert.time;
        let message = Message { kind, alert, count: 1, first, others: Vec::new() };
        if kind == AlertKind::Approval {
            return Some(message);
        }
        if let Some(open) = self.open.get_mut(&message.alert.key) {
            match &mut open.waiting {
                None => open.waiting = Some(message),
                Some(waiting) => waiting.join(message),
            }
            return None;
        }
        let urgent = kind == AlertKind::AuditFailure;
        if self.messages >= MESSAGES && !urgent {
            self.drown(message);
            return None;
        }
        self.began.get_or_insert(now);
        self.messages += usize::from(!urgent);
        self.open.insert(message.alert.key.clone(), Open { until: now + self.time, waiting: None });
        Some(message)
    }

    /// When [`Digest::due`] has something next.
    pub(super) fn next(&self) -> Option<Instant> {
        let ends = self.open.values().map(|open| open.until);
        ends.chain(self.began.map(|began| began + self.time)).min()
    }

    /// What is to be sent at a time.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Message> {
        let mut messages = Vec::new();
        let time = self.time;
        self.open.retain(|_, open| {
            if open.until > now {
                return true;
            }
            open.until = now + time;
            // What goes on stays open, and is told once in each time.
            let waiting = open.waiting.take();
            let goes_on = waiting.is_some();
            messages.extend(waiting);
            goes_on
        });
        messages.sort_by_key(|message| message.first);
        if self.began.is_some_and(|began| began + time <= now) {
            (self.began, self.messages) = (None, 0);
            messages.extend(self.flood.take().map(told));
        }
        messages
    }

    /// Everything, because it ends.
    pub(super) fn flush(&mut self) -> Vec<Message> {
        let open = std::mem::take(&mut self.open);
        let mut messages: Vec<Message> = open.into_values().filter_map(|open| open.waiting).collect();
        messages.extend(self.flood.take().map(told));
        messages
    }

    fn drown(&mut self, message: Message) {
        let kind = message.kind;
        match &mut self.flood {
            None => self.flood = Some((message, HashMap::from([(kind, 1)]))),
            Some((flood, kinds)) => {
                *kinds.entry(kind).or_default() += 1;
                flood.join(message);
            }
        }
    }
}

/// One message for many alerts of which no two are equal.
fn told((mut message, kinds): (Message, HashMap<AlertKind, u64>)) -> Message {
    let mut kinds: Vec<String> =
        kinds.iter().map(|(kind, count)| format!("{} {count}×", kind.word())).collect();
    kinds.sort();
    let alert = &mut message.alert;
    alert.text = format!("{} more alerts: {}", message.count, kinds.join(", "));
    (alert.agent, alert.session, alert.host, alert.rule) = (None, None, None, None);
    (alert.reason, alert.decision) = (None, None);
    message
}

/// Alerts beside the latest whose delivery is told of.
const REMEMBERED: usize = 1000;

impl Message {
    /// Stands for another one, too. The latest speaks for all.
    fn join(&mut self, later: Message) {
        let earlier = std::mem::replace(&mut self.alert, later.alert);
        self.count += later.count;
        if self.others.len() < REMEMBERED {
            self.others.push(earlier);
        }
    }
}
