//! What the page and the text have in common: how things are called and how times are written.

use jiff::Timestamp;
use policy::report::{ChainStatus, Fate, Moment, Period, Report, Scope};

use crate::shown::count;

/// A time for people, UTC, to the second.
pub(super) fn time(moment: Moment) -> String {
    time_as(moment, "%Y-%m-%d %H:%M:%S")
}

/// A time in another form, UTC.
pub(super) fn time_as(moment: Moment, format: &str) -> String {
    let time = Timestamp::from_microsecond(moment.0).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime(format).to_string()
}

/// The beginning and the end of a period; its day once, where it is one.
pub(super) fn span(period: &Period) -> String {
    let (first, last) = (time(period.first), time(period.last));
    match (first.split_once(' '), last.split_once(' ')) {
        (Some((day, _)), Some((same, hour))) if day == same => format!("{first} to {hour} UTC"),
        _ => format!("{first} to {last} UTC"),
    }
}

/// What was asked for.
pub(super) fn scope(scope: &Scope) -> Vec<(&'static str, String)> {
    let mut parts = Vec::new();
    parts.extend(scope.session.map(|session| ("Session", session.to_string())));
    parts.extend(scope.agent.as_ref().map(|agent| ("Agent", agent.to_string())));
    parts.extend(scope.since.map(|since| ("Since", format!("{} UTC", time(since)))));
    parts.extend(scope.until.map(|until| ("Until", format!("{} UTC", time(until)))));
    if parts.is_empty() {
        parts.push(("Scope", "everything that is kept".to_owned()));
    }
    parts
}

/// What became of a secret.
pub(super) fn fate_of_secret(fate: Fate) -> &'static str {
    match fate {
        Fate::Stopped => "stopped",
        Fate::Passed => "masked or only recorded",
        Fate::Open => "not known",
    }
}

/// What became of an upload over a limit.
pub(super) fn fate_of_upload(fate: Fate) -> &'static str {
    match fate {
        Fate::Stopped => "stopped",
        Fate::Passed => "passed, recorded",
        Fate::Open => "not known",
    }
}

/// What a limit is called; `None` for one that this program does not know.
pub(super) fn limit(of: &str) -> Option<&'static str> {
    Some(match of {
        "request_alert" => "one request, alert",
        "request_block" => "one request, block",
        "window_alert" => "window, alert",
        "window_block" => "window, block",
        "window_block_agent" => "window of the agent, block",
        _ => return None,
    })
}

/// Whether the records can be believed, in a sentence or two, in which what is wrong stands quoted.
pub(super) fn chain(report: &Report, status: &ChainStatus, quote: impl Fn(&str) -> String) -> String {
    let (from, through) = (status.checked_from, status.checked_through);
    let mut text = match status.problem.as_deref().map(quote) {
        None => format!("Records {from} to {through} were checked: intact."),
        Some(problem) if status.records == 0 => format!("NOT intact: {problem}."),
        Some(problem) => format!("NOT intact: {problem}. {} were checked.", count(status.records, "record")),
    };
    if let Some(period) = report.period.filter(|period| period.first_seq < from) {
        text += &format!(" Those from {} on were too many to check here.", period.first_seq);
    }
    text
}

/// The newest checkpoint, in a sentence.
pub(super) fn checkpoint(status: &ChainStatus) -> String {
    match &status.last_checkpoint {
        None => "There is no signed checkpoint yet.".to_owned(),
        Some(seen) => format!(
            "The newest signed checkpoint, of {} UTC, covers the records up to {}; its key is",
            time(seen.time),
            seen.through
        ),
    }
}

/// The name of an event, in words.
pub(super) fn event(word: &str) -> String {
    word.replace('_', " ")
}

/// How long a step of the timeline is.
pub(super) fn step(seconds: i64) -> String {
    let (number, unit) = match seconds {
        _ if seconds % 604_800 == 0 => (seconds / 604_800, "week"),
        _ if seconds % 86_400 == 0 => (seconds / 86_400, "day"),
        _ if seconds % 3600 == 0 => (seconds / 3600, "hour"),
        _ if seconds % 60 == 0 => (seconds / 60, "minute"),
        _ => (seconds, "second"),
    };
    count(number.unsigned_abs(), unit)
}

/// At most so many characters, with a mark where something is missing.
pub(super) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
    }
}
