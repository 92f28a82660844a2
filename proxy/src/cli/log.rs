//! `outgate log`: the decisions, as a table or as one object a line.

use std::thread::sleep;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use jiff::Timestamp;
use policy::identity::{AgentName, SessionId};
use policy::record::Finding;
use policy::rule::Destination;
use policy::verdict::{Action, Class, Reason};
use policy::view::DecisionView;

use super::moment::Since;
use super::output::Shown;
use super::records::{Records, nothing_yet};
use super::rows::Decisions;
use super::session::SessionEnding;
use super::{Context, Exit, Failure, output};
use crate::config::Config;
use crate::store::query::Filter;

/// How many decisions are shown where nothing is said: a screenful or two, and fewer before those to come.
const LIMIT: u32 = 100;
const LIMIT_BEFORE_FOLLOWING: u32 = 10;
/// How often is looked for new ones: at once, to a person.
const PAUSE: Duration = Duration::from_millis(250);

/// Read decisions
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outgate log --follow
  outgate log --action deny --since 2h
  outgate log --finding secret --limit 0
  outgate log --session 01K5C3ZJ8V7B5Q2M4N6P8R0T1W --json | jq .host")]
pub(crate) struct Arguments {
    /// Go on printing decisions as they are taken
    #[arg(short, long)]
    follow: bool,
    /// Only since then: a length of time (`2h`), a date, or a time in RFC 3339
    #[arg(long, value_name = "TIME")]
    since: Option<Since>,
    /// Only of this session; the end of its id will do
    #[arg(long, value_name = "ID")]
    session: Option<SessionEnding>,
    /// Only of this agent
    #[arg(long, value_name = "AGENT")]
    agent: Option<AgentName>,
    /// Only destinations of this class
    #[arg(long, value_name = "CLASS", value_parser = one_of(&Class::ALL, Class::as_str))]
    class: Option<Class>,
    /// Only with this action
    #[arg(long, value_name = "ACTION", value_parser = one_of(&Action::ALL, Action::as_str))]
    action: Option<Action>,
    /// Only for this reason
    #[arg(long, value_name = "REASON", hide_possible_values = true, value_parser = one_of(Reason::ALL, Reason::as_str))]
    reason: Option<Reason>,
    /// Only to this host; `*.example.com` for all below it
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Only with this finding
    #[arg(long, value_name = "FINDING", value_parser = PossibleValuesParser::new(Finding::KINDS))]
    finding: Option<String>,
    /// At most so many, the latest; 0 for all [default: 100, and 10 with --follow]
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<u32>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// A word out of a closed set, as its own type.
fn one_of<T>(all: &'static [T], word: fn(T) -> &'static str) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    let words = PossibleValuesParser::new(all.iter().map(|value| word(*value)));
    words.try_map(move |text| {
        all.iter().copied().find(|value| word(*value) == text).ok_or("is not one of the words")
    })
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, Failure> {
    arguments.check_host()?;
    let config = context.config()?;
    let Some(records) = wait_for_records(&config, arguments.follow)? else {
        nothing_yet(&config);
        return Ok(Exit::Done);
    };
    let table = Decisions::new(output::terminal_width(), arguments.follow);
    let mut printer = Printer { json: arguments.json, table };
    // Asked first: what ends from here on is found by following, what ended before by the first question.
    let mut seen = records.last_seq()?;
    let session = arguments.session.as_ref().map(|ending| ending.resolve(Some(&records))).transpose()?;
    let mut decisions = records.decisions(&arguments.filter(session))?;
    decisions.reverse();
    // What has not ended yet comes once it has.
    decisions.retain(|view| !arguments.follow || view.outcome_seq.is_some_and(|seq| seq <= seen));
    printer.print(&decisions)?;
    if !arguments.follow {
        if decisions.is_empty() {
            output::note(arguments.nothing_fits(&records)?);
        }
        return Ok(Exit::Done);
    }
    loop {
        sleep(PAUSE);
        let ended = records.ended_after(seen, &Filter { limit: None, ..arguments.filter(session) })?;
        seen = ended.iter().filter_map(|view| view.outcome_seq).max().unwrap_or(seen);
        printer.print(&ended)?;
    }
}

/// The records, or nothing where there are none and nobody waits for them.
fn wait_for_records(config: &Config, wait: bool) -> Result<Option<Records>, Failure> {
    loop {
        match Records::open(config)? {
            None if wait => sleep(PAUSE),
            records => return Ok(records),
        }
    }
}

impl Arguments {
    /// A host stands in records as policies write it.
    fn check_host(&self) -> Result<(), Failure> {
        let Some(text) = &self.host else { return Ok(()) };
        match Destination::parse(text) {
            Err(wrong) if text.contains('/') => {
                Err(Failure::Usage(format!("`--host {}` {wrong}", Shown(text))))
            }
            _ => Ok(()),
        }
    }

    /// That there is nothing, and why where the cause is a name that nobody has.
    fn nothing_fits(&self, records: &Records) -> Result<String, Failure> {
        let nothing = "no decision is recorded that fits";
        let Some(agent) = &self.agent else { return Ok(nothing.to_owned()) };
        let of_agent = Filter { agent: Some(agent.clone()), limit: Some(1), ..Filter::default() };
        let known = records.agents()?.iter().any(|known| known.name == *agent);
        if known || !records.decisions(&of_agent)?.is_empty() {
            return Ok(nothing.to_owned());
        }
        Ok(format!(
            "{nothing}: there is no agent `{agent}`; `outgate agent list` lists them, `anonymous` is nobody's"
        ))
    }

    fn filter(&self, session: Option<SessionId>) -> Filter {
        let usual = if self.follow { LIMIT_BEFORE_FOLLOWING } else { LIMIT };
        Filter {
            since: self.since.map(|since| since.microseconds(Timestamp::now())),
            session,
            agent: self.agent.clone(),
            class: self.class,
            action: self.action,
            reason: self.reason,
            host: self.host.clone(),
            finding: self.finding.clone(),
            limit: Some(self.limit.unwrap_or(usual)).filter(|limit| *limit > 0),
            before: None,
        }
    }
}

/// Prints decisions as they come.
struct Printer {
    json: bool,
    table: Decisions,
}

impl Printer {
    fn print(&mut self, decisions: &[DecisionView]) -> Result<(), Failure> {
        if self.json {
            return decisions.iter().try_for_each(output::json_line);
        }
        if decisions.is_empty() {
            return Ok(());
        }
        let now = Timestamp::now();
        self.table.refit();
        decisions.iter().for_each(|view| self.table.add(view, now));
        output::text(&self.table.text())
    }
}
