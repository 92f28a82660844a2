//! `outgate policy check`: policy files, all mistakes at once.

use std::path::PathBuf;

use owo_colors::OwoColorize;
use policy::document::Mistake;
use serde_json::{Value, json};

use super::files;
use crate::cli::context::Context;
use crate::cli::output::{self, Shown, count};
use crate::cli::{Exit, Failure};

/// Check policy files, all mistakes at once
#[derive(Debug, clap::Args)]
#[command(
    long_about = "\
Check policy files, all mistakes at once.

The files are checked together, as one policy; where none is named, those of the policy in force are. Exit code 3 \
where there is a mistake.",
    after_help = "\
Examples:
  outgate policy check
  outgate policy check suggested.toml
  outgate policy check policy.toml policy.d/*.toml --json"
)]
pub(super) struct Check {
    /// The files [default: the policy in force]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Check, context: &Context) -> Result<Exit, Failure> {
    let files = match &*arguments.files {
        [] => files::of(&context.config()?)?,
        named => files::read(named)?,
    };
    match files::parse(&files) {
        Ok(policy) => {
            let warnings = policy.warnings();
            if arguments.json {
                output::json(&json!({
                    "ok": true, "policy": &**policy.digest(), "mode": policy.mode().as_str(),
                    "rules": policy.document().rules.len(), "mistakes": [], "warnings": shape(warnings),
                }))?;
            } else {
                print(warnings, &"warning:".yellow().to_string())?;
                let rules = count(policy.document().rules.len() as u64, "rule");
                output::line(format_args!("{} {rules}, mode {}", "ok:".green(), policy.mode().as_str()))?;
            }
            Ok(Exit::Done)
        }
        Err(mistakes) => {
            if arguments.json {
                output::json(&json!({ "ok": false, "mistakes": shape(&mistakes), "warnings": [] }))?;
            } else {
                print(&mistakes, &"mistake:".red().to_string())?;
            }
            Ok(Exit::Found)
        }
    }
}

fn print(mistakes: &[Mistake], word: &str) -> Result<(), Failure> {
    for Mistake { file, line, message } in mistakes {
        output::line(format_args!("{file}:{line}: {word} {}", Shown(message)))?;
    }
    Ok(())
}

fn shape(mistakes: &[Mistake]) -> Vec<Value> {
    let shape = |mistake: &Mistake| json!({ "file": &*mistake.file, "line": mistake.line, "message": mistake.message });
    mistakes.iter().map(shape).collect()
}
