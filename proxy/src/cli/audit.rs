//! `outgate audit`: whether the records are those that were written.

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
