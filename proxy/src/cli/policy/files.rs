//! The policy in force, read from its files as the gateway reads them, for commands.

use std::path::PathBuf;

use policy::decide::Policy;

use crate::cli::Failure;
use crate::config::Config;
use crate::folder;
use crate::policies::{files, make_starter};

pub(crate) use crate::policies::files::{PolicyFile, lines, parse};

/// Reads the files named.
///
/// # Errors
/// The first that cannot be read.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<PolicyFile>, Failure> {
    files::read(paths).map_err(Failure::Failed)
}

/// The policy in force by the settings; the starter policy is made where a data folder has none.
///
/// # Errors
/// Files that cannot be read, and every mistake in them.
pub(crate) fn in_force(config: &Config) -> Result<(Policy, Vec<PolicyFile>), Failure> {
    files::in_force(config).map_err(Failure::Failed)
}

/// The files of the policy in force, whatever is in them; the starter policy is made where a data folder has none.
///
/// # Errors
/// Files that cannot be read.
pub(crate) fn of(config: &Config) -> Result<Vec<PolicyFile>, Failure> {
    folder::prepare(&config.data_dir).map_err(Failure::failed)?;
    make_starter(config).map_err(Failure::failed)?;
    read(&config.policy_files().map_err(Failure::failed)?)
}
