//! `outgate policy show`: the policy in force, all files as one.

use owo_colors::OwoColorize;

use super::files;
use crate::cli::context::Context;
use crate::cli::{Exit, Failure, output};

/// Print the policy in force, all files as one
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outgate policy show
  outgate policy show --json")]
pub(super) struct Show {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Show, context: &Context) -> Result<Exit, Failure> {
    let (policy, files) = files::in_force(&context.config()?)?;
    let text = policy.to_string();
    if arguments.json {
        output::json(&toml::from_str::<serde_json::Value>(&text).map_err(Failure::failed)?)?;
        return Ok(Exit::Done);
    }
    for file in files {
        output::line(format_args!("# from {}", file.path.display()).dimmed())?;
    }
    output::line(format_args!("# {}", policy.digest()).dimmed())?;
    output::text(&text)?;
    Ok(Exit::Done)
}
