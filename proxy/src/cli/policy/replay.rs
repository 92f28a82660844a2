//! `outgate policy replay`: what a candidate would have said to what is on record.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use policy::decide::Grants;
use policy::observed::Observed;
use policy::replay::{Flip, Lack, Replay as Candidate, Said};
use policy::report::{Moment, Scope};
use policy::verdict::{Action, Reason};
use serde_json::json;

use super::files;
use crate::cli::context::Context;
use crate::cli::moment::Since;
use crate::cli::output::{self, count, style_of};
use crate::cli::records::Records;
use crate::cli::table::{Cell, Column, Table};
use crate::cli::{Exit, Failure};

/// Groups of flips that are told apart; more are as good as many.
const GROUPS: usize = 10_000;
/// Groups that a person is shown.
const SHOWN: usize = 50;

/// Say which recorded decisions a candidate policy would flip
#[derive(Debug, clap::Args)]
#[command(
    long_about = "\
Say which recorded decisions a candidate policy would flip.

Puts every recorded request to the candidate, by the same function that the gateway decides with, and tells where the \
answer is another one than what was done; or that nobody can tell, where the record lacks what a rule asks. Exit code \
3 where something that was allowed would be denied.",
    after_help = "\
Examples:
  outgate policy replay suggested.toml
  outgate policy replay suggested.toml policy.d/allowed.toml --since 7d
  outgate policy replay suggested.toml --json"
)]
pub(super) struct Replay {
    /// The candidate; several files are one policy
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Only what was decided since then: a length of time (`2h`), a date, or a time in RFC 3339
    #[arg(long, value_name = "TIME")]
    since: Option<Since>,
    /// Print one JSON object for each flip, and what it came to as the last
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Replay, context: &Context) -> Result<Exit, Failure> {
    let config = context.config()?;
    let candidate = files::parse(&files::read(&arguments.files)?)
        .map_err(|mistakes| Failure::Failed(files::lines(&mistakes)))?;
    let grants = Grants::none().forwarding(config.fence.forward.as_slice().into());
    let mut replay = Candidate::new(&candidate, grants, config.upstream.proxy.is_none());
    let since = arguments.since.map(|since| Moment(since.microseconds(Timestamp::now())));
    let mut found = Found::default();
    if let Some(records) = Records::open(&config)? {
        let scope = Scope { since, ..Scope::default() };
        found.replayed = records.observed(&scope, |seen| {
            let said = replay.judge(seen);
            if let (Said::Flip(flip), true) = (&said, arguments.json) {
                output::json_line(flip)?;
            }
            found.take(seen, said);
            Ok(())
        })?;
    }
    match arguments.json {
        true => output::json_line(&found.totals())?,
        false => found.print()?,
    }
    Ok(if found.denials > 0 { Exit::Found } else { Exit::Done })
}

/// What a replay came to.
#[derive(Default)]
struct Found {
    replayed: u64,
    flips: u64,
    /// Flips from allow to deny.
    denials: u64,
    groups: BTreeMap<Group, Members>,
    ungrouped: u64,
    lacks: BTreeMap<Lack, Members>,
}

/// Flips that are alike. What would be denied comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    to: std::cmp::Reverse<Action>,
    from: Action,
    destination: String,
    reason: Reason,
    rule: Option<String>,
}

#[derive(Clone, Debug)]
struct Members {
    count: u64,
    example: String,
}

impl Found {
    fn take(&mut self, seen: &Observed, said: Said) {
        match said {
            Said::Same => {}
            Said::CannotTell(lack) => {
                let members = self.lacks.entry(lack).or_insert_with(|| Members::like(seen));
                members.count += 1;
            }
            Said::Flip(flip) => self.flip(seen, flip),
        }
    }

    fn flip(&mut self, seen: &Observed, flip: Flip) {
        self.flips += 1;
        self.denials += u64::from(flip.from == Action::Allow && flip.to == Action::Deny);
        let group = Group {
            to: std::cmp::Reverse(flip.to),
            from: flip.from,
            destination: destination(seen),
            reason: flip.reason,
            rule: flip.rule.map(|rule| rule.to_string()),
        };
        if self.groups.len() >= GROUPS && !self.groups.contains_key(&group) {
            self.ungrouped += 1;
            return;
        }
        self.groups.entry(group).or_insert_with(|| Members::like(seen)).count += 1;
    }

    fn totals(&self) -> serde_json::Value {
        let cannot_tell: u64 = self.lacks.values().map(|members| members.count).sum();
        json!({ "replayed": self.replayed, "flips": self.flips, "cannot_tell": cannot_tell })
    }

    fn print(&self) -> Result<(), Failure> {
        let mut groups: Vec<(&Group, &Members)> = self.groups.iter().collect();
        groups.sort_by_key(|(group, members)| (group.to, group.from, std::cmp::Reverse(members.count)));
        let mut table = Table::new([
            Column::right("TIMES"),
            Column::new("WAS"),
            Column::new("WOULD BE"),
            Column::new("DESTINATION"),
            Column::new("REASON"),
            Column::new("RULE"),
            Column::gives_way("EXAMPLE"),
        ]);
        for (group, members) in groups.iter().take(SHOWN) {
            table.row([
                members.count.to_string().into(),
                Cell::styled(group.from.as_str(), style_of(group.from)),
                Cell::styled(group.to.0.as_str(), style_of(group.to.0)),
                (&*group.destination).into(),
                group.reason.as_str().into(),
                group.rule.as_deref().unwrap_or_default().into(),
                (&*members.example).into(),
            ]);
        }
        if !groups.is_empty() {
            table.print()?;
        }
        let more = groups.len().saturating_sub(SHOWN);
        if more > 0 || self.ungrouped > 0 {
            output::line(format_args!("… and {more} more kinds of flips; `--json` has them all"))?;
        }
        for (lack, members) in &self.lacks {
            let requests = count(members.count, "request");
            let words = lack.words();
            output::line(format_args!(
                "cannot tell for {requests}: the record does not have {words}, such as {}",
                output::Shown(&members.example)
            ))?;
        }
        output::line(format_args!(
            "{}: {}, {} of what was allowed would be denied",
            count(self.replayed, "decision"),
            count(self.flips, "flip"),
            self.denials
        ))
    }
}

impl Members {
    fn like(seen: &Observed) -> Members {
        let path = seen.path.as_deref().unwrap_or_default();
        let method = seen.method.as_deref().unwrap_or_else(|| seen.kind.as_str());
        Members { count: 0, example: format!("{} {method} {}{path}", seen.id, destination(seen)) }
    }
}

fn destination(seen: &Observed) -> String {
    let Some(host) = &seen.host else { return "(unreadable)".to_owned() };
    let usual = seen.scheme.map_or(0, |scheme| scheme.default_port());
    match seen.port {
        Some(port) if port != usual => format!("{host}:{port}"),
        _ => host.clone(),
    }
}
