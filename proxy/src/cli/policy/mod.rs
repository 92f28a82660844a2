//! `outgate policy`: what may leave, and why.

mod allow;
mod check;
mod diff;
mod explain;
pub(super) mod files;
mod replay;
mod services;
mod show;
mod suggest;

use super::{Context, Exit, Failure};

/// Check, explain, show, suggest, replay, compare and extend the policy
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
    Suggest(suggest::Suggest),
    Replay(replay::Replay),
    Diff(diff::Diff),
    Allow(allow::Allow),
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, Failure> {
    match &arguments.command {
        Command::Check(arguments) => check::run(arguments),
        Command::Explain(arguments) => explain::run(arguments, context),
        Command::Show(arguments) => show::run(arguments, context),
        Command::Services(arguments) => services::run(arguments, context),
        Command::Suggest(arguments) => suggest::run(arguments, context),
        Command::Replay(arguments) => replay::run(arguments, context),
        Command::Diff(arguments) => diff::run(arguments),
        Command::Allow(arguments) => allow::run(arguments, context),
    }
}
