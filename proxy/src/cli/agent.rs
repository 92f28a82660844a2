//! `outgate agent`: who may use the gateway.

use policy::identity::AgentName;

use super::moment::Span;

/// Register agents and give them tokens
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Add(Add),
    List(List),
    Rotate(Rotate),
    Revoke(Revoke),
}

/// Register an agent and print its token, once
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outgate agent add claude --owner ana@example.com --expires 30d
  outgate agent add ci --owner platform --purpose \"nightly builds\" --json")]
struct Add {
    /// Its name: 1 to 64 of `a-z`, `0-9`, `-`, `_` and `.`
    name: AgentName,
    /// Who answers for it
    #[arg(long)]
    owner: String,
    /// What it is for
    #[arg(long)]
    purpose: Option<String>,
    /// When its token stops working: a length of time (`30d`) [default: never]
    #[arg(long, value_name = "SPAN")]
    expires: Option<Span>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// List the agents
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outgate agent list
  outgate agent list --json")]
struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Give an agent a new token, and print it, once
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Give an agent a new token, and print it, once.\n\nThe old one stops working at once.",
    after_help = "\
Examples:
  outgate agent rotate claude
  outgate agent rotate claude --expires 30d"
)]
struct Rotate {
    /// Its name
    name: AgentName,
    /// When the new token stops working: a length of time (`30d`) [default: as before]
    #[arg(long, value_name = "SPAN")]
    expires: Option<Span>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Take an agent's token away, at once and for good
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outgate agent revoke claude")]
struct Revoke {
    /// Its name
    name: AgentName,
    /// Print JSON
    #[arg(long)]
    json: bool,
}
