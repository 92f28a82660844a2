//! The verifier that shares no code with the gateway: `tests/verify_audit.py`.

use std::ffi::OsStr;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;

use crate::clients::has;

/// Longest that it may take; it reads some ten thousand records a second.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs the verifier to its end; `None` where there is no Python, which is said.
pub async fn verify_audit(arguments: &[&OsStr]) -> Option<Output> {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/verify_audit.py");
    python(&[&[OsStr::new(program)], arguments].concat()).await
}

/// Runs Python to its end; `None` where there is none.
pub async fn python(arguments: &[&OsStr]) -> Option<Output> {
    if !has("python3") {
        return None;
    }
    // `-I` keeps what a machine's users have installed out of it, `-B` leaves no compiled files beside the script.
    let mut command = Command::new("python3");
    command.args(["-I", "-B"]).args(arguments).kill_on_drop(true).stdin(Stdio::null());
    Some(tokio::time::timeout(LIMIT, command.output()).await.expect("Python does not end").unwrap())
}
