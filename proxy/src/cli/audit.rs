//! `outgate audit`: whether the records are those that were written.

use owo_colors::OwoColorize;

use super::output::Progress;
use super::records::Records;
use super::{Context, Exit, Failure, output};
use crate::store::verify::Report;

/// Check the records
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Verify(Verify),
}

/// Check that no record was changed, removed or put in between
#[derive(Debug, clap::Args)]
#[command(
    long_about = "\
Check that no record was changed, removed or put in between.

Each record holds the digest of the one before it. Exit code 3 where one does not fit, with the first that does not.",
    after_help = "\
Examples:
  outgate audit verify
  outgate audit verify --json"
)]
struct Verify {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, Failure> {
    let Command::Verify(Verify { json }) = arguments.command;
    let Some(records) = Records::open(&context.config()?)? else {
        return Err(Failure::failed("nothing has been recorded yet"));
    };
    let mut progress = Progress::new("records checked");
    let report = records.verify(|checked| progress.at(checked))?;
    progress.end();
    match json {
        true => output::json(&report)?,
        false => print(&report)?,
    }
    Ok(if report.intact { Exit::Done } else { Exit::Found })
}

fn print(report: &Report) -> Result<(), Failure> {
    let records = output::count(report.records, "record");
    match &report.first_bad {
        None => output::line(format_args!("{} {records}, each as it was written", "intact:".green())),
        Some(bad) => output::line(format_args!(
            "{} record {}: {}; {records} before it are as they were written",
            "not intact:".red(),
            bad.seq,
            bad.problem
        )),
    }
}
