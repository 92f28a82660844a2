//! Starts a gateway in the background: for the first session of a data folder, and for the demo.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::Failure;
use super::context::running;
use crate::config::Config;
use crate::folder;
use crate::running::Running;

/// What a gateway in the background has to say, in the data folder.
const LOG: &str = "gateway.log";
const READY_TIMEOUT: Duration = Duration::from_secs(20);
const READY_PAUSE: Duration = Duration::from_millis(20);
/// How much of the log is shown when it does not start.
const TAIL_LINES: usize = 10;

/// A gateway of our own in the background.
#[derive(Debug)]
pub(crate) struct Background {
    /// Where it is.
    pub(crate) running: Running,
    process: Child,
}

impl Background {
    /// Ends it, waiting until it has ended.
    pub(crate) fn stop(mut self) {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // Where it has ended already there is nothing to end.
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.process.wait();
    }
}

/// This program, to be started with these arguments.
///
/// # Errors
/// Where it cannot be told what this program is.
pub(crate) fn command(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, Failure> {
    let mut command = Command::new(std::env::current_exe().map_err(Failure::failed)?);
    command.args(arguments);
    Ok(command)
}

/// Starts `serve` and waits until it, or another that was quicker, is ready.
///
/// It gets a process group of its own, so that an interrupt at this terminal does not end a gateway that other
/// sessions use.
///
/// # Errors
/// A gateway that does not start, with the end of what it said.
pub(crate) fn start(serve: Command, config: &Config) -> Result<Background, Failure> {
    folder::prepare(&config.data_dir).map_err(Failure::failed)?;
    let log = config.data_dir.join(LOG);
    let said_before = fs::metadata(&log).map_or(0, |log| log.len());
    let mut process = spawn(serve, &log)?;
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        if let Some(running) = running(config)? {
            return Ok(Background { running, process });
        }
        let ended = process.try_wait().map_err(Failure::failed)?.is_some();
        if ended && !Running::is_claimed(&config.data_dir).map_err(Failure::failed)? {
            return Err(Failure::Failed(format!("the gateway did not start:\n{}", tail(&log, said_before))));
        }
        if Instant::now() > deadline {
            return Err(Failure::Failed(format!(
                "the gateway is not ready after {} seconds; see `{}`",
                READY_TIMEOUT.as_secs(),
                log.display()
            )));
        }
        sleep(READY_PAUSE);
    }
}

fn spawn(mut serve: Command, log: &Path) -> Result<Child, Failure> {
    let cannot = |error: std::io::Error| Failure::Failed(format!("cannot start a gateway: {error}"));
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(log).map_err(cannot)?;
    serve
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(file.try_clone().map_err(cannot)?)
        .stderr(file)
        .spawn()
        .map_err(cannot)
}

/// The end of what was said since the log had that length.
fn tail(log: &Path, length: u64) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let said = usize::try_from(length).ok().and_then(|length| bytes.get(length..)).unwrap_or_default();
    let text = String::from_utf8_lossy(said);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
