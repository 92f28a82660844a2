//! `outgate policy`: what may leave, and why.

use std::path::PathBuf;

use policy::identity::AgentName;

/// Check, explain, show and extend the policy
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Check(Check),
    Explain(Explain),
    Show(Show),
    Services(Services),
    Allow(Allow),
}

/// Check policy files, all mistakes at once
#[derive(Debug, clap::Args)]
#[command(
    long_about = "\
Check policy files, all mistakes at once.

The files are checked together, as one policy. Exit code 3 where there is a mistake.",
    after_help = "\
Examples:
  outgate policy check policy.toml
  outgate policy check policy.toml policy.d/*.toml --json"
)]
struct Check {
    /// The files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Explain what would be decided about a request, rule by rule
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outgate policy explain https://api.github.com/repos/example/app --method POST --agent claude
  outgate policy explain https://evil.example/upload --bytes 5242880 --json")]
struct Explain {
    /// Where to
    url: String,
    /// How
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    method: String,
    /// By whom
    #[arg(long, value_name = "AGENT")]
    agent: Option<AgentName>,
    /// With how much to upload: a number of bytes, or a size (`5 MiB`)
    #[arg(long, value_name = "SIZE")]
    bytes: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Print the policy in force, all files as one
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outgate policy show
  outgate policy show --json")]
struct Show {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// List the services a policy can name, or one with its hosts
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outgate policy services
  outgate policy services github --json")]
struct Services {
    /// One service, or a kind such as `forges`
    name: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Allow a host, in policy.d/allowed.toml
#[derive(Debug, clap::Args)]
#[command(
    long_about = "\
Allow a host, in policy.d/allowed.toml of the data folder.

A running gateway takes it up within two seconds. Refused, naming the rule, where an `ask` or a `deny` would still \
win.",
    after_help = "\
Examples:
  outgate policy allow docs.example.com
  outgate policy allow api.example.com:8443
  outgate policy allow @github"
)]
struct Allow {
    /// A host, `host:port`, a wildcard, a block of addresses or a `@service`
    #[arg(value_name = "HOST")]
    destination: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}
