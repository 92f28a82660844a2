//! `outgate audit`: whether the records are those that were written, copied out, and dropped when they are old.

mod export;
mod prune;
mod verify;

use super::{Context, Exit, Failure};

/// Check, copy and drop records
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Verify(verify::Verify),
    Export(export::Export),
    Prune(prune::Prune),
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, Failure> {
    match &arguments.command {
        Command::Verify(arguments) => verify::run(arguments, context),
        Command::Export(arguments) => export::run(arguments, context),
        Command::Prune(arguments) => prune::run(arguments, context),
    }
}
