//! The commands: what each is called, which file does it, and what its end means for the exit code.
//!
//! One file a command. A command gets its arguments and a `Context`, says what it has to say through
//! `output`, and ends with an `Exit` or a `Failure`; nothing below this file ends the process.

mod agent;
mod approvals;
mod audit;
mod ca;
mod changes;
mod checkout;
mod completions;
mod context;
mod demo;
mod doctor;
mod env;
mod gate;
mod log;
mod man;
mod moment;
mod output;
mod policy;
mod probe;
mod prompt;
mod records;
mod report;
mod rows;
mod run;
mod serve;
mod session;
mod start;
pub(crate) mod summary;
mod supervise;
mod table;
mod top;
mod trust;
mod variables;

use std::ffi::OsString;
use std::fmt::Display;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::Styles;
use clap::builder::styling::AnsiColor;
use clap::error::ErrorKind;
use clap::{ArgAction, Args, Parser, Subcommand};

use crate::config::{Flags, LogFormat};
use crate::fence;
use context::Context;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// The gateway that an AI coding agent's traffic leaves by.
#[derive(Debug, Parser)]
#[command(
    name = "outgate",
    version,
    styles = STYLES,
    max_term_width = 110,
    disable_help_subcommand = true,
    long_about = "\
The gateway that an AI coding agent's traffic leaves by.

Outgate stands between coding agents and the network. It reads every request, TLS included, decides by a policy \
whether it may leave, counts what leaves, stops secrets, and records each decision before the first byte goes.",
    after_help = "\
Examples:
  outgate demo                       see what it does, on this machine alone
  outgate run -- claude              run an agent behind it
  outgate log --action deny          read what was refused, and why

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a check found something; `run` ends with its command's own."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command understands.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Folder of store, keys, policy and configuration [default: $XDG_STATE_HOME/outgate]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Configuration file [default: outgate.toml in the data folder]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Policy file, any number of times [default: policy.toml and policy.d/*.toml in the data folder]
    #[arg(long, global = true, value_name = "FILE")]
    policy: Vec<PathBuf>,
    /// How the program's own log is written: text or json
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// Log more: each request; twice: the inside
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Arguments),
    Run(run::Arguments),
    Demo(demo::Arguments),
    Env(env::Arguments),
    Policy(policy::Arguments),
    Agent(agent::Arguments),
    Session(session::Arguments),
    Approvals(approvals::Arguments),
    Log(log::Arguments),
    Top(top::Arguments),
    Report(report::Arguments),
    Audit(audit::Arguments),
    Ca(ca::Arguments),
    Doctor(doctor::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
}

/// How a command ended that did what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done,
    /// A check found something.
    Found,
    /// What a command run by us ended with.
    Code(u8),
}

/// How a command ended that did not.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was asked for wrongly.
    Usage(String),
    /// It went wrong.
    Failed(String),
    /// Whoever read our output has gone; there is nothing left to do and nobody to tell.
    Closed,
}

impl Failure {
    /// What went wrong, in words.
    pub(crate) fn words(&self) -> &str {
        match self {
            Failure::Usage(words) | Failure::Failed(words) => words,
            Failure::Closed => "the reader of the output has gone",
        }
    }

    /// A failure with an error's own words.
    pub(crate) fn failed(error: impl Display) -> Failure {
        Failure::Failed(error.to_string())
    }

    /// Wrong usage, with the right one.
    pub(crate) fn usage(message: impl Display) -> Failure {
        Failure::Usage(message.to_string())
    }

    #[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` gives")]
    fn from_output(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::Closed,
            _ => Failure::Failed(format!("cannot write the output: {error}")),
        }
    }
}

/// Parses the arguments, runs the command, prints its one error, and gives the exit code (contract, section 2).
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if let [_, first, _, command @ ..] = &*arguments
        && first == fence::outside::INSIDE
    {
        // Not a command of ours for people: what `run` starts to become somebody else's.
        return fence::inside::run(command)
            .map_or_else(|error| refused(&error.to_string(), 2), ExitCode::from);
    }
    let deny = arguments.windows(2).any(|pair| pair == ["policy", "deny"]);
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version arrive here too; they go to standard output and are no error.
            let _ = error.print();
            if deny && error.kind() == ErrorKind::InvalidSubcommand {
                output::note(policy::NO_DENY);
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    crate::tls::install_provider();
    match cli.run() {
        Ok(Exit::Done) | Err(Failure::Closed) => ExitCode::SUCCESS,
        Ok(Exit::Found) => ExitCode::from(3),
        Ok(Exit::Code(code)) => ExitCode::from(code),
        Err(Failure::Failed(message)) => refused(&message, 1),
        Err(Failure::Usage(message)) => refused(&message, 2),
    }
}

fn refused(message: &str, code: u8) -> ExitCode {
    output::error(message);
    ExitCode::from(code)
}

impl Cli {
    fn run(self) -> Result<Exit, Failure> {
        let context = Context::new(self.global);
        match self.command {
            Command::Serve(arguments) => serve::run(arguments, &context),
            Command::Run(arguments) => run::run(&arguments, &context),
            Command::Agent(arguments) => agent::run(&arguments, &context),
            Command::Session(arguments) => session::run(&arguments, &context),
            Command::Approvals(arguments) => approvals::run(&arguments, &context),
            Command::Doctor(arguments) => doctor::run(&arguments, &context),
            Command::Demo(arguments) => demo::run(&arguments),
            Command::Log(arguments) => log::run(&arguments, &context),
            Command::Top(arguments) => top::run(&arguments, &context),
            Command::Report(arguments) => report::run(&arguments, &context),
            Command::Audit(arguments) => audit::run(&arguments, &context),
            Command::Policy(arguments) => policy::run(&arguments, &context),
            Command::Ca(arguments) => ca::run(&arguments, &context),
            Command::Env(arguments) => env::run(&arguments, &context),
            Command::Completions(arguments) => completions::run(&arguments),
            Command::Man(arguments) => man::run(&arguments),
        }
    }
}

impl Global {
    /// These flags as the configuration reads them.
    pub(crate) fn flags(&self) -> Flags {
        Flags {
            data_dir: self.data_dir.clone(),
            config: self.config.clone(),
            policy: self.policy.clone(),
            log_format: self.log_format,
            verbosity: self.verbose,
            ..Flags::default()
        }
    }
}

#[cfg(test)]
mod tests;
