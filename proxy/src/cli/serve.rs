//! `outgate serve`: the gateway in the foreground.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use super::context::{folder_of, variable};
use super::variables::PROXY;
use super::{Context, Exit, Failure, output, prompt};
use crate::config::Flags;
use crate::logging;
use crate::running::Running;
use crate::serve::{Options, serve};

/// Run the gateway
#[derive(Debug, clap::Args)]
#[command(
    long_about = "\
Run the gateway.

Needs no configuration: the data folder, the certificate authority and a starter policy are made where they are \
missing. Prints the addresses of proxy and admin listener on standard output once it is ready, and on standard error \
what to export. What the policy asks about is asked in this terminal, where there is one, and by `outgate approvals` \
in any other. Stops on SIGINT and SIGTERM after what is under way has ended; reads the policy anew on SIGHUP.",
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

/// Runs the gateway until it is told to stop.
///
/// # Errors
/// Whatever keeps it from listening, in words.
pub(crate) fn run(arguments: Arguments, context: &Context) -> Result<Exit, Failure> {
    context.refuse_inside_a_session("serve")?;
    let flags = Flags {
        listen: arguments.listen,
        admin: arguments.admin,
        unattended: arguments.unattended,
        ..context.flags()
    };
    let config = context.config_with(&flags)?;
    logging::start(config.log_format, config.verbosity);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::failed)?;
    let options = Options { until_idle: arguments.until_idle, environment: &variable };
    let folder = folder_of(&config)?;
    let people = !arguments.until_idle;
    let served = runtime.block_on(serve(config, options, |running, link, gateway| {
        announce(running, link, people.then_some(&folder));
        if people {
            prompt::start(gateway);
        }
    }));
    // What did not end while the gateway drained is cut now.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served.map(|()| Exit::Done).map_err(|error| Failure::Failed(format!("{error:#}")))
}

/// Two lines for programs on standard output, and for people, where one looks, what to do next on standard error.
fn announce(running: &Running, link: &str, folder: Option<&PathBuf>) {
    // Whoever started us may not read: that is no reason to stop.
    let _ = output::text(&format!("proxy {}\nadmin {}\n", running.proxy_url(), running.admin_url()));
    let Some(folder) = folder else { return };
    let proxies: Vec<String> = PROXY.iter().map(|name| format!("{name}={}", running.proxy_url())).collect();
    output::note(format_args!(
        "\nOutgate is ready. In another terminal, start an agent behind it:\n\n    outgate run -- claude\n\n\
         or point any program at it (`outgate env` prints more variables):\n\n    \
         export {proxies}\n    export SSL_CERT_FILE='{bundle}' CURL_CA_BUNDLE='{bundle}'\n    \
         curl https://docs.rs/\n\n\
         See what it decided: outgate log --follow\nPolicy: {policy}\nConsole: {console}\n",
        proxies = proxies.join(" "),
        bundle = folder.join("bundle.pem").display(),
        policy = folder.join("policy.toml").display(),
        console = console(running, link),
    ));
}

/// How to get to the console. The link signs in whoever has it: it is for eyes, and must not get into a log.
fn console(running: &Running, link: &str) -> String {
    if std::io::stderr().is_terminal() {
        return format!(
            "{link}\n(the link signs in once, within fifteen minutes; after that the token in admin.token does)"
        );
    }
    format!("{}, with the token in admin.token", running.admin_url())
}
