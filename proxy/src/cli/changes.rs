//! Changes to agents and sessions, written to the store itself, each with its record in the audit chain.
//!
//! A gateway that runs notices them within a second; a token it does not know it looks up at once.

use std::path::Path;

use policy::redact::{Redacted, Redactor};
use policy::secret::Secrets;

use super::Failure;
use super::context::{folder_of, runtime, variable};
use crate::agents::AgentError;
use crate::audit::{CheckpointOptions, Recorder};
use crate::config::Config;
use crate::running::Running;
use crate::signing::Signer;
use crate::store::{Store, Writer};

/// Opens the store, makes one change, and closes it again.
///
/// # Errors
/// A store that cannot be opened, and a change that cannot be made.
pub(crate) fn change<T>(
    config: &Config,
    make: impl AsyncFnOnce(&Store, &Recorder) -> Result<T, AgentError>,
) -> Result<T, Failure> {
    let folder = folder_of(config)?;
    runtime()?.block_on(async {
        let (store, writer) = Store::open_beside(&folder).await.map_err(Failure::failed)?;
        let recorder = recorder(config, &folder, writer)?;
        let made = make(&store, &recorder).await.map_err(Failure::failed);
        recorder.close().await.map_err(Failure::failed)?;
        made
    })
}

/// A gateway that runs signs what is added beside it; where none does, this does.
fn recorder(config: &Config, folder: &Path, writer: Writer) -> Result<Recorder, Failure> {
    if Running::is_claimed(folder).map_err(Failure::failed)? {
        return Ok(Recorder::start(writer));
    }
    let checkpoints = CheckpointOptions {
        signer: Signer::open(folder).map_err(Failure::failed)?,
        records: config.audit.checkpoint_records,
        interval: config.audit.checkpoint_interval,
        file: config.checkpoint_file(),
        flush: true,
        webhook: None,
    };
    Ok(Recorder::signing(writer, checkpoints))
}

/// What people write about agents and sessions, as records may hold it: a secret pasted there by mistake is not kept.
pub(crate) fn redacted(text: &str) -> Redacted {
    Redactor::new(Secrets::detectors()).text(text)
}

/// A URL, without credentials.
pub(crate) fn redacted_url(url: &str) -> Redacted {
    Redactor::new(Secrets::detectors()).url(url)
}

/// Who is at the keyboard: the user that the environment names, else the one this program runs as.
pub(crate) fn operator() -> Option<Redacted> {
    let named = variable("USER").filter(|user| !user.is_empty());
    Some(redacted(&named.unwrap_or_else(own_name)))
}

/// The name in `/etc/passwd` of the user this program runs as, or the number where it has none there.
fn own_name() -> String {
    let id = rustix::process::geteuid().as_raw().to_string();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut users = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let named = users.find(|fields| fields.get(2) == Some(&id.as_str()));
    named.map_or_else(|| format!("user {id}"), |fields| fields[0].to_owned())
}
