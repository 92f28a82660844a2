//! Whether the `run` of a session still lives: it holds a lock for as long, and the kernel lets go when it dies.
//!
//! One file a session in `DATA_DIR/sessions`, empty. What is not locked there is of a `run` that was killed before it
//! could end its session; the gateway ends it then.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use policy::identity::SessionId;
use ulid::Ulid;

const FOLDER: &str = "sessions";

/// Held by a `run` while its session goes on.
#[derive(Debug)]
pub struct Alive {
    path: PathBuf,
    _lock: File,
}

impl Alive {
    /// Says that a session's `run` lives, until this is dropped or the process dies.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn announce(data_dir: &Path, session: SessionId) -> io::Result<Alive> {
        let folder = data_dir.join(FOLDER);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let path = folder.join(session.to_string());
        // Locked under another name first: nobody may find it before it is.
        let draft = folder.join(format!(".{session}"));
        let lock = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&draft)?;
        lock.lock()?;
        fs::rename(&draft, &path)?;
        Ok(Alive { path, _lock: lock })
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        // What stays behind is found unlocked, and its session to have ended.
        let _ = fs::remove_file(&self.path);
    }
}

/// A session whose `run` is gone.
#[derive(Debug)]
pub struct Lost {
    /// The session.
    pub session: SessionId,
    path: PathBuf,
}

impl Lost {
    /// Forgets about it, once its session was ended.
    pub fn forget(self) {
        // What stays behind is found again, and its session to have ended.
        let _ = fs::remove_file(self.path);
    }
}

/// Sessions of a data folder whose `run` was killed.
pub fn lost(data_dir: &Path) -> Vec<Lost> {
    let Ok(entries) = fs::read_dir(data_dir.join(FOLDER)) else { return Vec::new() };
    let lost = |path: PathBuf| {
        let session = SessionId(Ulid::from_string(path.file_name()?.to_str()?).ok()?);
        // Whatever else lies there may hold up whoever opens it.
        if !fs::symlink_metadata(&path).ok()?.is_file() {
            return None;
        }
        match File::open(&path).ok()?.try_lock_shared() {
            Ok(()) => Some(Lost { session, path }),
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => None,
        }
    };
    entries.flatten().filter_map(|entry| lost(entry.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_lost_once_nobody_holds_its_lock() {
        let folder = tempfile::tempdir().unwrap();
        assert!(lost(folder.path()).is_empty());
        let [first, second] = [1, 2].map(|number| SessionId(Ulid::from_parts(number, 0)));
        let alive = Alive::announce(folder.path(), first).unwrap();
        let killed = Alive::announce(folder.path(), second).unwrap();
        assert!(lost(folder.path()).is_empty());
        // What dropping does without what it does besides: the kernel closes the file of a process that dies.
        let path = killed.path.clone();
        drop(killed);
        File::create(&path).unwrap();
        let found = lost(folder.path());
        assert_eq!(found.iter().map(|lost| lost.session).collect::<Vec<_>>(), [second]);
        found.into_iter().for_each(Lost::forget);
        assert!(lost(folder.path()).is_empty());
        drop(alive);
        assert!(lost(folder.path()).is_empty());
    }
}
