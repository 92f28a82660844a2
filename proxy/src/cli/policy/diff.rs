//! `outgate policy diff`: what one policy says otherwise than another, and which way.

use std::path::{Path, PathBuf};

use owo_colors::Style;
use policy::decide::Policy;
use policy::difference::{self, Change, Effect};
use serde_json::json;

use super::files;
use crate::cli::output::{self, count};
use crate::cli::table::{Cell, Column, Table};
use crate::cli::{Exit, Failure};

/// Compare two policy files by what they mean
#[derive(Debug, clap::Args)]
#[command(
    long_about = "\
Compare two policy files by what they mean.

Order, comments and how a rule is written are no difference. Each change is marked looser or tighter, or as depending \
on the request. Exit code 0, whether or not they differ.",
    after_help = "\
Examples:
  outgate policy diff policy.toml suggested.toml
  outgate policy diff policy.toml suggested.toml --json"
)]
pub(super) struct Diff {
    /// The policy as it is
    #[arg(value_name = "A")]
    before: PathBuf,
    /// The policy as it would be
    #[arg(value_name = "B")]
    after: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Diff) -> Result<Exit, Failure> {
    let (before, after) = (policy(&arguments.before)?, policy(&arguments.after)?);
    let changes = difference::between(&before, &after);
    match arguments.json {
        true => output::json(&json!({ "same": changes.is_empty(), "changes": changes }))?,
        false => print(&changes)?,
    }
    Ok(Exit::Done)
}

fn policy(file: &Path) -> Result<Policy, Failure> {
    let files = files::read(&[file.to_owned()])?;
    files::parse(&files).map_err(|mistakes| Failure::Failed(files::lines(&mistakes)))
}

fn print(changes: &[Change]) -> Result<(), Failure> {
    if changes.is_empty() {
        return output::line("they say the same");
    }
    let mut table = Table::new([
        Column::new("EFFECT"),
        Column::new("WHAT"),
        Column::new("NAME"),
        Column::gives_way("CHANGE"),
    ]);
    for Change { effect, what, name, from, to } in changes {
        let change = match (from.as_deref(), to.as_deref()) {
            (None, Some(to)) => format!("+ {to}"),
            (Some(from), None) => format!("- {from}"),
            (from, to) => format!("{} → {}", from.unwrap_or_default(), to.unwrap_or_default()),
        };
        table.row([
            Cell::styled(effect.as_str(), style(*effect)),
            (*what).into(),
            name.as_str().into(),
            change.into(),
        ]);
    }
    table.print()?;
    let of = |effect: Effect| changes.iter().filter(|change| change.effect == effect).count();
    output::line(format_args!(
        "{}: {} looser, {} tighter, {} depend on the request",
        count(changes.len() as u64, "change"),
        of(Effect::Looser),
        of(Effect::Tighter),
        of(Effect::Depends)
    ))
}

fn style(effect: Effect) -> Style {
    match effect {
        Effect::Looser => Style::new().yellow(),
        Effect::Tighter => Style::new().green(),
        Effect::Depends => Style::new(),
    }
}
