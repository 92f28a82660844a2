//! `outgate session`: the runs of agents.

/// Look at sessions, the runs of agents
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    List(List),
    Show(Show),
}

/// List sessions, the latest first
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outgate session list
  outgate session list --limit 0 --json")]
struct List {
    /// At most so many; 0 for all
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    limit: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Show one session: who, what, where to, how much
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outgate session show 01K5C3ZJ8V7B5Q2M4N6P8R0T1W")]
struct Show {
    /// Its id, as `session list` prints it
    id: ulid::Ulid,
    /// Print JSON
    #[arg(long)]
    json: bool,
}
