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
        Command::Check(arguments) => check::run(arguments, context),
        Command::Explain(arguments) => explain::run(arguments, context),
        Command::Show(arguments) => show::run(arguments, context),
        Command::Services(arguments) => services::run(arguments, context),
        Command::Suggest(arguments) => suggest::run(arguments, context),
        Command::Replay(arguments) => replay::run(arguments, context),
        Command::Diff(arguments) => diff::run(arguments, context),
        Command::Allow(arguments) => allow::run(arguments, context),
    }
}

/// For whoever used `allow` and looks for its opposite. What denies is written by hand: a list that a command only ever
/// adds to is read by nobody.
pub(super) const NO_DENY: &str = "\
tip: what nothing allows is refused. What `policy allow` added is taken back by taking its line out of \
policy.d/allowed.toml; what a rule allows is refused by an entry of `deny` in policy.toml. Both lie in the data folder.";
