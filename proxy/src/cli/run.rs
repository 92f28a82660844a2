//! `outgate run`: an agent, or any command, as a session behind the gateway.

use std::ffi::OsString;

use clap::ValueEnum;
use policy::identity::AgentName;

/// Run a command as a session behind the gateway
#[derive(Debug, clap::Args)]
#[command(
    long_about = "\
Run a command as a session behind the gateway.

Joins the gateway of the data folder, or starts one. Prints nothing while the command runs, and at its end what was \
reached, what was denied and the line that would allow it, how much left, and which secrets were stopped. Ends with \
the command's exit code, or 128 and the signal that ended it.",
    after_help = "\
Examples:
  outgate run -- claude
  outgate run --agent claude --label issue-42 -- claude -p \"fix the build\"
  outgate run --observe -- npm install"
)]
pub(crate) struct Arguments {
    /// The agent it runs as [default: anonymous]
    #[arg(long)]
    agent: Option<AgentName>,
    /// What the session is called in records
    #[arg(long)]
    label: Option<String>,
    /// Let pass in this session what policy would stop, and record that it would
    #[arg(long)]
    observe: bool,
    /// Whether programs that ignore proxy variables are fenced in
    #[arg(long, value_enum, default_value_t = Fence::Auto)]
    fence: Fence,
    /// The command and its arguments
    #[arg(value_name = "CMD", required = true, trailing_var_arg = true)]
    command: Vec<OsString>,
}

/// How much is asked of the fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Fence {
    /// Where this machine can.
    Auto,
    /// Or refuse to start.
    Require,
    /// Variables alone.
    Off,
}
