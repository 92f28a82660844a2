//! Policy files as texts, to be checked or changed before any of them is in force.

use std::io;
use std::path::{Path, PathBuf};

use policy::catalogue::Catalogue;
use policy::decide::Policy;
use policy::document::{Mistake, Source};

use crate::config::Config;
use crate::folder;
use crate::reading;

/// A policy file: what it is called, and what it holds.
#[derive(Clone, Debug)]
pub struct PolicyFile {
    /// As messages show it.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// Reads the files that somebody named on a command line, which may be a pipe of theirs.
///
/// # Errors
/// The first that cannot be read, in words.
pub fn read(paths: &[PathBuf]) -> Result<Vec<PolicyFile>, String> {
    read_by(paths, reading::text_of_any)
}

fn read_by(paths: &[PathBuf], text: impl Fn(&Path) -> io::Result<String>) -> Result<Vec<PolicyFile>, String> {
    let read = |path: &PathBuf| match text(path) {
        Ok(text) => Ok(PolicyFile { path: path.clone(), text }),
        Err(error) => Err(format!("cannot read `{}`: {error}", path.display())),
    };
    paths.iter().map(read).collect()
}

/// Parses files as one policy.
///
/// # Errors
/// Every mistake in them.
pub fn parse(files: &[PolicyFile]) -> Result<Policy, Vec<Mistake>> {
    let names: Vec<_> = files.iter().map(|file| file.path.to_string_lossy()).collect();
    let sources: Vec<_> =
        names.iter().zip(files).map(|(name, file)| Source { name, text: &file.text }).collect();
    Policy::parse(&sources, Catalogue::builtin())
}

/// The policy in force by the settings; the starter policy is made where a data folder has none.
///
/// # Errors
/// Files that cannot be read, and every mistake in them, in words.
pub fn in_force(config: &Config) -> Result<(Policy, Vec<PolicyFile>), String> {
    folder::prepare(&config.data_dir).map_err(|error| error.to_string())?;
    super::make_starter(config).map_err(|error| error.to_string())?;
    let files = read_by(&config.policy_files().map_err(|error| error.to_string())?, reading::text)?;
    let policy = parse(&files).map_err(|mistakes| lines(&mistakes))?;
    Ok((policy, files))
}

/// Mistakes, one a line.
pub fn lines(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
