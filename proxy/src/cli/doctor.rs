//! `outgate doctor`: proves that it works here, or says what does not and what mends it.

/// Prove that it works here, or say what would mend it
#[derive(Debug, clap::Args)]
#[command(
    long_about = "\
Prove that it works here, or say what would mend it.

Looks at settings, folder, keys, clock, name resolution and records, sends a request through the gateway that must \
be refused, and looks for variables that lead past it. Exit code 3 where something is not as it should be.",
    after_help = "\
Examples:
  outgate doctor
  outgate doctor --json"
)]
pub(crate) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}
