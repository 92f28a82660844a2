//! `outgate serve`: the gateway in the foreground.

/// Run the gateway
#[derive(Debug, clap::Args)]
#[command(
    long_about = "\
Run the gateway.

Needs no configuration: the data folder, the certificate authority and a starter policy are made where they are \
missing. Prints the addresses of proxy and admin listener on standard output once it is ready, and on standard error \
what to export. Stops on SIGINT and SIGTERM after what is under way has ended; reads the policy anew on SIGHUP.",
    after_help = "\
Examples:
  outgate serve
  outgate serve --listen 127.0.0.1:0 --admin 127.0.0.1:0
  outgate serve --policy policy.toml --unattended --log-format json"
)]
pub(crate) struct Arguments {
    /// Where clients connect, any number of times; `unix:/path` too [default: 127.0.0.1:4480]
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,
    /// Where console, API and metrics are served [default: 127.0.0.1:4481]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// Answer every question with a denial at once
    #[arg(long)]
    unattended: bool,
    /// End some time after the last session ended
    #[arg(long, hide = true)]
    until_idle: bool,
}
