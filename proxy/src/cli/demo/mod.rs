//! `outgate demo`: the whole product on this machine alone, in a few seconds.

/// See what it does, on this machine alone, in a few seconds
#[derive(Debug, clap::Args)]
#[command(
    long_about = "\
See what it does, on this machine alone, in a few seconds.

Starts a gateway in a temporary folder and a few servers on loopback, plays an agent that calls a model, uses a tool, \
tries an unknown host, uploads too much and leaks a secret, and prints what was decided. Nothing leaves the machine.",
    after_help = "\
Examples:
  outgate demo
  outgate demo --json"
)]
pub(crate) struct Arguments {
    /// Print the decisions as JSON, one object a line
    #[arg(long)]
    json: bool,
}
