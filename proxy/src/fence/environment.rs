//! The environment that `run` was started in, as far as a fence depends on it: the one place of the fence that reads it.
#![expect(clippy::disallowed_methods, reason = "it is the command's environment, not a setting of ours")]

use std::ffi::OsString;
use std::path::PathBuf;

/// A variable.
pub(super) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// A variable that names a folder or file, absolute.
pub(super) fn path(name: &str) -> Option<PathBuf> {
    variable(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Names of variables that are ours, and nobody's business inside: a setting may hold a password.
pub(super) fn ours() -> Vec<OsString> {
    let names = std::env::vars_os().map(|(name, _)| name);
    names.filter(|name| name.to_string_lossy().starts_with("OUTGATE_")).collect()
}
