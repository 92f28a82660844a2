//! `outgate policy suggest`: an allowlist out of what was observed.

use jiff::Timestamp;
use policy::report::{Moment, Scope};
use policy::suggest::{Suggester, Suggestion};

use super::files;
use crate::cli::context::Context;
use crate::cli::moment::Since;
use crate::cli::output::{self, count};
use crate::cli::records::Records;
use crate::cli::session::SessionEnding;
use crate::cli::{Exit, Failure};

/// Suggest an allowlist out of what was observed
#[derive(Debug, clap::Args)]
#[command(
    long_about = "\
Suggest an allowlist out of what was observed.

Prints a policy file: the smallest allowlist that covers what was seen, each entry with what it rests on, and what \
looked wrong left out and listed with why. Of the policy in force everything stays but what it allows. Nothing is \
changed; `outgate policy replay` says what it would stop.",
    after_help = "\
Examples:
  outgate policy suggest > suggested.toml
  outgate policy suggest --since 7d
  outgate policy suggest --session 01K5C3ZJ8V7B5Q2M4N6P8R0T1W --json"
)]
pub(super) struct Suggest {
    /// Only from what was decided since then: a length of time (`2h`), a date, or a time in RFC 3339
    #[arg(long, value_name = "TIME")]
    since: Option<Since>,
    /// Only from this session; the end of its id will do
    #[arg(long, value_name = "ID")]
    session: Option<SessionEnding>,
    /// Print its lines with their evidence as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Suggest, context: &Context) -> Result<Exit, Failure> {
    let config = context.config()?;
    let (policy, _) = files::in_force(&config)?;
    let records = Records::open(&config)?;
    let session = arguments.session.as_ref().map(|ending| ending.resolve(records.as_ref())).transpose()?;
    let since = arguments.since.map(|since| Moment(since.microseconds(Timestamp::now())));
    let scope = Scope { session, since, ..Scope::default() };
    let mut suggester = Suggester::new(&policy);
    if let Some(records) = &records {
        records.observed(&scope, |seen| {
            suggester.add(seen);
            Ok(())
        })?;
    }
    let suggestion = suggester.finish();
    match arguments.json {
        true => output::json(&suggestion)?,
        // A policy that allows nothing must not be put in force for want of a better one.
        false if suggestion.evidence.requests == 0 => {}
        false => output::text(&suggestion.text)?,
    }
    tell(&suggestion);
    Ok(Exit::Done)
}

/// What it came to, for the person at the terminal.
fn tell(suggestion: &Suggestion) {
    let Suggestion { lines, left_out, refused, evidence, .. } = suggestion;
    if evidence.requests == 0 {
        output::note(
            "nothing was observed that fits, so nothing is suggested; `outgate run --observe` observes",
        );
        return;
    }
    let entries = match lines.len() {
        1 => "1 entry".to_owned(),
        more => format!("{more} entries"),
    };
    output::note(format_args!(
        "{entries} out of {}; {} left out, {} refused so far: read the end of the file",
        count(evidence.requests, "request"),
        left_out.len(),
        refused.len()
    ));
}
