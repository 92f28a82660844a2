//! The environment that `run` was started in, as far as a fence depends on it: the one place of the fence that reads it.
#![expect(clippy::disallowed_methods, reason = "it is the command's environment, not a setting of ours")]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

use rustix::process::geteuid;

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

/// Home folders of this user: where variables say, and where the system does. Programs go by either.
pub(super) fn homes() -> BTreeSet<PathBuf> {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = geteuid().as_raw().to_string();
    let ours = users.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.get(2) == Some(&&*user)).then(|| fields.get(5).map(PathBuf::from))?
    });
    let homes = path("HOME").into_iter().chain(ours.filter(|home| home.is_absolute()));
    homes.filter_map(|home| std::fs::canonicalize(home).ok()).filter(|home| home.parent().is_some()).collect()
}
