//! `outgate policy show`: the policy in force, all files as one.

use owo_colors::OwoColorize;

use super::files;
use crate::cli::context::Context;
use crate::cli::records::Records;
use crate::cli::{Exit, Failure, output};

/// Print the policy in force, all files as one
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outgate policy show
  outgate policy show --digest sha256:5b1c…
  outgate policy show --json")]
pub(super) struct Show {
    /// A policy that was in force before, by the digest in decisions and reports
    #[arg(long, value_name = "DIGEST")]
    digest: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Show, context: &Context) -> Result<Exit, Failure> {
    if let Some(digest) = &arguments.digest {
        let text = earlier(digest, context)?;
        return print(&text, arguments.json).map(|()| Exit::Done);
    }
    let (policy, files) = files::in_force(&context.config()?)?;
    let text = policy.to_string();
    if arguments.json {
        return print(&text, true).map(|()| Exit::Done);
    }
    for file in files {
        output::line(format_args!("# from {}", file.path.display()).dimmed())?;
    }
    output::line(format_args!("# {}", policy.digest()).dimmed())?;
    output::text(&text)?;
    Ok(Exit::Done)
}

fn print(text: &str, json: bool) -> Result<(), Failure> {
    match json {
        true => output::json(&toml::from_str::<serde_json::Value>(text).map_err(Failure::failed)?),
        false => output::text(text),
    }
}

/// What a policy said that was in force once, as the record has it.
fn earlier(digest: &str, context: &Context) -> Result<String, Failure> {
    let records = Records::open(&context.config()?)?;
    let text = match &records {
        Some(records) => records.run(records.store().policy_text(digest)).map_err(Failure::failed)?,
        None => None,
    };
    text.ok_or_else(|| {
        Failure::failed(format!(
            "no policy `{digest}` was in force here; `outgate report` lists those that were"
        ))
    })
}
