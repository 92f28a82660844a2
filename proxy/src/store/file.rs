//! The database as a file: private to its owner, and still the one that was opened.

use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Makes the database file, 0600, before SQLite would make it with whatever the umask says; SQLite gives the files
/// beside it the same mode. Tightens those that are there.
pub(super) fn make_private(path: &Path) -> io::Result<()> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    for path in [path.to_owned(), beside(path, "-wal"), beside(path, "-shm")] {
        match fs::metadata(&path) {
            Ok(found) if found.mode() & 0o077 != 0 => {
                fs::set_permissions(&path, Permissions::from_mode(0o600))?;
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Which files a connection has open. SQLite goes on writing to a file that was unlinked or replaced, and what is
/// committed there is gone with the process; so whoever commits asks first.
#[derive(Debug)]
pub(super) struct OpenFiles {
    database: (PathBuf, Identity),
    log: (PathBuf, Identity),
}

type Identity = Option<(u64, u64)>;

impl OpenFiles {
    /// Looks at the files of a connection that has just written or read in WAL mode.
    pub(super) fn look(path: &Path) -> OpenFiles {
        let log = beside(path, "-wal");
        OpenFiles { database: (path.to_owned(), identity(path)), log: (log.clone(), identity(&log)) }
    }

    /// Whether both are still where they were.
    pub(super) fn are_there(&self) -> bool {
        [&self.database, &self.log].iter().all(|(path, id)| id.is_some() && identity(path) == *id)
    }

    pub(super) fn path(&self) -> &Path {
        &self.database.0
    }
}

fn identity(path: &Path) -> Identity {
    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}
