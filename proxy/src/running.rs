//! The one gateway of a data folder: the claim it holds while it runs, and the note by which commands find it.
//!
//! Two files. `gateway.lock` is locked for as long as the gateway lives, by the kernel, so that it is free again
//! however the gateway died; whether a gateway runs is whether that lock is held, never whether some process has
//! a certain number. `gateway.json` says where it listens; a note without the lock is what a killed gateway left.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

const LOCK: &str = "gateway.lock";
const NOTE: &str = "gateway.json";
/// Whoever looks whether a gateway runs holds the lock for an instant; a gateway that starts just then tries again.
const CLAIM_TRIES: u32 = 10;
const CLAIM_PAUSE: Duration = Duration::from_millis(20);

/// Where a running gateway is, and what it was started with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its process.
    pub pid: u32,
    /// The address of its proxy.
    pub proxy: SocketAddr,
    /// The address of its admin listener.
    pub admin: SocketAddr,
    /// The configuration file it read, absolute; `None` where there was none.
    pub config: Option<PathBuf>,
    /// The policy files it reads, absolute.
    pub policies: Vec<PathBuf>,
    /// When it was ready, in microseconds since the Unix epoch.
    pub started: i64,
}

impl Running {
    /// The gateway that runs on a data folder and is ready, if there is one.
    ///
    /// # Errors
    /// Files that cannot be read, and a note that is not one.
    pub fn find(data_dir: &Path) -> io::Result<Option<Running>> {
        if !Running::is_claimed(data_dir)? {
            return Ok(None);
        }
        Running::read(data_dir)
    }

    /// Whether a gateway lives on a data folder, ready or not.
    ///
    /// # Errors
    /// A lock file that cannot be opened.
    pub fn is_claimed(data_dir: &Path) -> io::Result<bool> {
        let lock = match File::open(data_dir.join(LOCK)) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        match lock.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// The note in a data folder, whether or not the gateway that wrote it still lives.
    ///
    /// # Errors
    /// A note that cannot be read or is not one.
    pub fn read(data_dir: &Path) -> io::Result<Option<Running>> {
        match fs::read(data_dir.join(NOTE)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The address for `HTTP_PROXY` and its like, without credentials.
    pub fn proxy_url(&self) -> String {
        format!("http://{}", self.proxy)
    }

    /// The address of console and API.
    pub fn admin_url(&self) -> String {
        format!("http://{}", self.admin)
    }
}

/// The right to be the gateway of a data folder; given back when dropped, and by the kernel when the process dies.
#[derive(Debug)]
pub struct Claim {
    data_dir: PathBuf,
    _lock: File,
}

/// Why a data folder cannot be claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another gateway holds it; its note, where it is ready.
    #[error("{}", held_by(.data_dir, .by.as_deref()))]
    Held {
        /// The data folder.
        data_dir: PathBuf,
        /// The gateway that holds it.
        by: Option<Box<Running>>,
    },
    /// The lock file cannot be made or locked.
    #[error("cannot lock `{}`: {error}", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
}

fn held_by(data_dir: &Path, by: Option<&Running>) -> String {
    let folder = data_dir.display();
    match by {
        Some(running) => format!(
            "a gateway already runs on `{folder}`: process {}, proxy {}, admin {}; stop it first, or use another --data-dir; \
             one that `outgate run` started ends by itself ten seconds after its last request",
            running.pid,
            running.proxy_url(),
            running.admin_url(),
        ),
        None => {
            format!("a gateway is already starting on `{folder}`; stop it first, or use another --data-dir")
        }
    }
}

impl Claim {
    /// Claims an existing data folder.
    ///
    /// # Errors
    /// [`ClaimError::Held`] while another gateway lives on it.
    pub fn take(data_dir: &Path) -> Result<Claim, ClaimError> {
        let path = data_dir.join(LOCK);
        let failed = |error| ClaimError::Io { path: path.clone(), error };
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        for _ in 0..CLAIM_TRIES {
            match lock.try_lock() {
                Ok(()) => return Ok(Claim { data_dir: data_dir.to_owned(), _lock: lock }),
                Err(TryLockError::WouldBlock) => std::thread::sleep(CLAIM_PAUSE),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        let by = Running::read(data_dir).ok().flatten().map(Box::new);
        Err(ClaimError::Held { data_dir: data_dir.to_owned(), by })
    }

    /// Tells commands where the gateway is, once it is ready. Readers see the whole note or none.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn announce(&self, running: &Running) -> io::Result<()> {
        let unfinished = self.data_dir.join(format!(".{NOTE}.{}", running.pid));
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&unfinished)?;
        file.write_all(&serde_json::to_vec_pretty(running)?)?;
        fs::rename(unfinished, self.data_dir.join(NOTE))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // A note that stays behind does no harm: without the lock nobody believes it.
        let _ = fs::remove_file(self.data_dir.join(NOTE));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn running() -> Running {
        Running {
            pid: 4242,
            proxy: "127.0.0.1:4480".parse().unwrap(),
            admin: "127.0.0.1:4481".parse().unwrap(),
            config: None,
            policies: vec!["/data/policy.toml".into()],
            started: 1_795_000_000_000_000,
        }
    }

    #[test]
    fn a_gateway_is_found_while_it_lives_and_not_after() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Running::find(folder.path()).unwrap(), None, "an empty folder");

        let claim = Claim::take(folder.path()).unwrap();
        assert_eq!(Running::find(folder.path()).unwrap(), None, "claimed, not ready yet");

        claim.announce(&running()).unwrap();
        assert_eq!(Running::find(folder.path()).unwrap(), Some(running()), "ready");

        drop(claim);
        assert_eq!(Running::find(folder.path()).unwrap(), None, "stopped");
        assert_eq!(Running::read(folder.path()).unwrap(), None, "its note is gone");
    }

    #[test]
    fn what_a_killed_gateway_left_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(LOCK), "").unwrap();
        fs::write(folder.path().join(NOTE), serde_json::to_vec(&running()).unwrap()).unwrap();
        assert_eq!(Running::find(folder.path()).unwrap(), None);
        Claim::take(folder.path()).unwrap();
    }

    #[test]
    fn a_second_gateway_is_refused_with_the_first_ones_addresses() {
        let folder = tempfile::tempdir().unwrap();
        let claim = Claim::take(folder.path()).unwrap();
        claim.announce(&running()).unwrap();
        let refused = Claim::take(folder.path()).unwrap_err().to_string();
        for part in [
            "already runs",
            "process 4242",
            "http://127.0.0.1:4480",
            "http://127.0.0.1:4481",
            "ends by itself",
        ] {
            assert!(refused.contains(part), "`{part}` in: {refused}");
        }
    }

    #[test]
    fn both_files_are_the_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let claim = Claim::take(folder.path()).unwrap();
        claim.announce(&running()).unwrap();
        for name in [LOCK, NOTE] {
            let mode = fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }
}
