//! A notification on the desktop of whoever runs the gateway, by `notify-send`, where there is one.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// A notifier that takes longer hangs.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Shows a text.
///
/// # Errors
/// No notifier, or one that fails.
pub(super) async fn notify(text: &str) -> io::Result<()> {
    let mut command = Command::new("notify-send");
    // The body may be read as markup.
    command.args(["--app-name=outgate", "--", "Outgate asks"]).arg(escaped(text));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(TIMEOUT, command.status()).await;
    match ended.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))? {
        status if status.success() => Ok(()),
        status => Err(io::Error::other(format!("`notify-send` ended with {status}"))),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
