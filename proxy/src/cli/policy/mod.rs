//! `outgate policy`: what may leave, and why.

mod allow;
mod check;
mod explain;
pub(super) mod files;
mod services;
mod show;

use super::{Context, Exit, Failure};

/// Check, explain, show and extend the policy
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Check(check::Check),
    Explain(explain::Explain),
    Show(show::Show),
    Services(services::Services),
    Allow(allow::Allow),
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, Failure> {
    match &arguments.command {
        Command::Check(arguments) => check::run(arguments),
        Command::Explain(arguments) => explain::run(arguments, context),
        Command::Show(arguments) => show::run(arguments, context),
        Command::Services(arguments) => services::run(arguments, context),
        Command::Allow(arguments) => allow::run(arguments, context),
    }
}
