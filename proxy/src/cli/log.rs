//! `outgate log`: the decisions, as a table or as one object a line.

use clap::builder::PossibleValuesParser;
use policy::identity::AgentName;
use policy::record::Finding;
use policy::verdict::{Action, Class, Reason};

use super::moment::Since;

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
    /// Only of this session
    #[arg(long, value_name = "ID")]
    session: Option<ulid::Ulid>,
    /// Only of this agent
    #[arg(long, value_name = "AGENT")]
    agent: Option<AgentName>,
    /// Only destinations of this class
    #[arg(long, value_name = "CLASS", value_parser = words(Class::ALL.map(Class::as_str)))]
    class: Option<String>,
    /// Only with this action
    #[arg(long, value_name = "ACTION", value_parser = words(Action::ALL.map(Action::as_str)))]
    action: Option<String>,
    /// Only for this reason
    #[arg(long, value_name = "REASON", hide_possible_values = true, value_parser = words(Reason::ALL.iter().map(|reason| reason.as_str())))]
    reason: Option<String>,
    /// Only to this host
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Only with this finding
    #[arg(long, value_name = "FINDING", value_parser = words(Finding::KINDS.iter().copied()))]
    finding: Option<String>,
    /// At most so many, the latest; 0 for all
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    limit: u64,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

fn words(all: impl IntoIterator<Item = &'static str>) -> PossibleValuesParser {
    PossibleValuesParser::new(all)
}
