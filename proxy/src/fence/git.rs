//! Git's remotes over SSH, mapped to HTTPS: inside a fence there is no other way to a forge.

use std::ffi::OsString;

/// The variables, after those that are already there. (Filled in with the forges of the catalogue.)
pub fn variables() -> Vec<(String, OsString)> {
    Vec::new()
}
