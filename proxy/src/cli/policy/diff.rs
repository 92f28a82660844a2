//! `outgate policy diff`: what one policy says otherwise than another, and which way.

use std::path::{Path, PathBuf};

use owo_colors::Style;
use policy::decide::Policy;
use policy::difference::{self, Change, Effect};
use serde_json::json;

use super::files;
use crate::cli::context::Context;
use crate::cli::output::{self, count};
use crate::cli::table::{Cell, Column, Table};
use crate::cli::{Exit, Failure};

/// Compare two policy files by what they mean
#[derive(Debug, clap::Args)]
#[command(
    long_about = "\
Compare two policy files by what they mean.

With one file, it is compared with the policy in force, all its files as one. Order, comments and how a rule is \
written are no difference. Each change is marked looser or tighter, as moved where it was said before in other words, \
or as depending on the request. Exit code 0, whether or not they differ.",
    after_help = "\
Examples:
  outgate policy diff suggested.toml
  outgate policy diff policy.toml suggested.toml
  outgate policy diff policy.toml suggested.toml --json"
)]
pub(super) struct Diff {
    /// The policy as it is [default: the policy in force], and the policy as it would be
    #[arg(value_names = ["A", "B"], num_args = 1..=2, required = true)]
    files: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Diff, context: &Context) -> Result<Exit, Failure> {
    let (before, after) = match &*arguments.files {
        [before, after] => (policy(before)?, policy(after)?),
        [after] => (files::in_force(&context.config()?)?.0, policy(after)?),
        _ => return Err(Failure::usage("`policy diff` compares two files, or one with the policy in force")),
    };
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
    let moved = match of(Effect::Moved) {
        0 => String::new(),
        moved => format!(", {moved} moved"),
    };
    output::line(format_args!(
        "{}: {} looser, {} tighter, {} depend on the request{moved}",
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
        Effect::Moved => Style::new().dimmed(),
    }
}
