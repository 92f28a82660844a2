//! The data folder and the files in and beside it: made private, and refused where others may write.
//!
//! Whoever can write the policy, the configuration or the folder they lie in decides what leaves; whoever can
//! read the keys can pretend to be the gateway. So a loose mode stops the program, with the command that mends it.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Write permission for group and others.
const OTHERS_WRITE: u32 = 0o022;
/// Any permission for group and others.
const OTHERS_ANY: u32 = 0o077;
/// As much as is read of a secret, in bytes: more than any key there is.
const SECRET_LIMIT: u64 = 1024 * 1024;
/// The sticky bit: entries can only be replaced by who owns them.
const STICKY: u32 = 0o1000;

/// Why a file or folder is not used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Group or others may write it.
    #[error("`{path}` may be written by others (mode {mode:04o}); run: chmod go-w {path}")]
    Writable {
        /// What.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Group or others may read or write a secret.
    #[error("`{path}` is a secret that others may read (mode {mode:04o}); run: chmod 600 {path}")]
    Readable {
        /// What.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Neither this user nor root owns it.
    #[error("`{path}` belongs to another user (id {owner}); run: chown {own} {path}")]
    Foreign {
        /// What.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who should.
        own: u32,
    },
    /// A secret is kept behind a symbolic link, or is no file at all.
    #[error("`{path}` is not a plain file; a key is not read through a link")]
    NotPlain {
        /// What.
        path: PathBuf,
    },
    /// The folder is something else.
    #[error("`{path}` is not a folder")]
    NotFolder {
        /// What.
        path: PathBuf,
    },
    /// It cannot be made, read or written.
    #[error("`{path}`: {error}")]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl FolderError {
    /// Wraps an input or output error with the path that it is about.
    pub fn io(path: &Path) -> impl FnOnce(io::Error) -> FolderError + '_ {
        move |error| FolderError::Io { path: path.to_owned(), error }
    }
}

/// Makes the data folder, 0700, where it is missing, and refuses one that others may write.
///
/// # Errors
/// As said, or where it cannot be made.
pub fn prepare(folder: &Path) -> Result<(), FolderError> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(FolderError::io(folder))?;
    let metadata = fs::metadata(folder).map_err(FolderError::io(folder))?;
    if !metadata.is_dir() {
        return Err(FolderError::NotFolder { path: folder.to_owned() });
    }
    check_owner(folder, &metadata)?;
    check_writers(folder, &metadata)
}

/// Refuses a configuration or policy file that others may write, themselves or by way of the folder it lies in.
///
/// # Errors
/// As said, or where it cannot be looked at.
pub fn check_trusted(file: &Path) -> Result<(), FolderError> {
    // What nobody can write needs no check: a mounted configuration is often 0777 on a read-only mount.
    let read_only = |path: &Path| {
        rustix::fs::statvfs(path).is_ok_and(|fs| fs.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
    };
    if read_only(file) {
        return Ok(());
    }
    let metadata = fs::metadata(file).map_err(FolderError::io(file))?;
    check_owner(file, &metadata)?;
    check_writers(file, &metadata)?;
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let metadata = fs::metadata(folder).map_err(FolderError::io(folder))?;
    // In a sticky folder such as /tmp others can add files, but not replace this one.
    if metadata.mode() & STICKY != 0 { Ok(()) } else { check_writers(folder, &metadata) }
}

/// Reads a secret: a plain file, no link, that nobody else may read. `None` where there is none.
///
/// # Errors
/// A link, a loose mode, a foreign owner, or a file that cannot be read.
pub fn read_secret(path: &Path) -> Result<Option<Vec<u8>>, FolderError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FolderError::io(path)(error)),
        Ok(metadata) if !metadata.is_file() => {
            return Err(FolderError::NotPlain { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(FolderError::io(path))?;
    // The open file is judged, not the name: what the name means may have changed since.
    let metadata = file.metadata().map_err(FolderError::io(path))?;
    if !metadata.is_file() {
        return Err(FolderError::NotPlain { path: path.to_owned() });
    }
    check_owner(path, &metadata)?;
    if metadata.mode() & OTHERS_ANY != 0 {
        return Err(FolderError::Readable { path: path.to_owned(), mode: metadata.mode() & 0o7777 });
    }
    let mut bytes = Vec::new();
    file.take(SECRET_LIMIT).read_to_end(&mut bytes).map_err(FolderError::io(path))?;
    Ok(Some(bytes))
}

/// Writes a file, 0600, whole or not at all, replacing one that is there.
///
/// # Errors
/// Where it cannot be written.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), FolderError> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let draft = PathBuf::from(name);
    let written = write_new(&draft, bytes).and_then(|()| fs::rename(&draft, path));
    written.map_err(|error| {
        // The draft may never have come to be; what matters is the first error.
        let _ = fs::remove_file(&draft);
        FolderError::Io { path: path.to_owned(), error }
    })
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn check_writers(path: &Path, metadata: &Metadata) -> Result<(), FolderError> {
    if metadata.mode() & OTHERS_WRITE == 0 {
        return Ok(());
    }
    Err(FolderError::Writable { path: path.to_owned(), mode: metadata.mode() & 0o7777 })
}

fn check_owner(path: &Path, metadata: &Metadata) -> Result<(), FolderError> {
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() == own || metadata.uid() == 0 {
        return Ok(());
    }
    Err(FolderError::Foreign { path: path.to_owned(), owner: metadata.uid(), own })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_data_folder_is_made_private_and_refused_where_others_may_write() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("state/outgate");
        prepare(&folder).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        for (mode, refused) in [(0o700, false), (0o755, false), (0o775, true), (0o757, true), (0o1777, true)]
        {
            chmod(&folder, mode);
            let result = prepare(&folder);
            assert_eq!(result.is_err(), refused, "{mode:o}");
            if let Err(error) = result {
                let path = folder.display();
                let expected =
                    format!("`{path}` may be written by others (mode {mode:04o}); run: chmod go-w {path}");
                assert_eq!(error.to_string(), expected);
            }
        }
    }

    #[test]
    fn a_policy_others_may_write_is_refused_by_file_and_by_folder() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("policy.toml");
        fs::write(&file, "version = 1").unwrap();
        for (folder_mode, file_mode, culprit) in [
            (0o700, 0o644, None),
            (0o755, 0o600, None),
            (0o700, 0o664, Some(&*file)),
            (0o700, 0o646, Some(&*file)),
            (0o775, 0o644, Some(root.path())),
            (0o777, 0o600, Some(root.path())),
            (0o1777, 0o600, None),
            (0o1777, 0o666, Some(&*file)),
        ] {
            chmod(&file, file_mode);
            chmod(root.path(), folder_mode);
            let result = check_trusted(&file);
            let found = match &result {
                Err(FolderError::Writable { path, .. }) => Some(&**path),
                Err(other) => panic!("{other}"),
                Ok(()) => None,
            };
            assert_eq!(found, culprit, "folder {folder_mode:o}, file {file_mode:o}");
        }
    }

    #[test]
    fn a_secret_is_plain_private_and_whole() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("secret");
        assert!(read_secret(&path).unwrap().is_none(), "missing is not an error");
        write_private(&path, b"first").unwrap();
        write_private(&path, b"second").unwrap();
        assert_eq!(read_secret(&path).unwrap().as_deref(), Some(&b"second"[..]));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        for mode in [0o640, 0o604, 0o644, 0o660] {
            chmod(&path, mode);
            assert!(matches!(read_secret(&path), Err(FolderError::Readable { .. })), "{mode:o}");
        }
        let link = root.path().join("link");
        chmod(&path, 0o600);
        symlink(&path, &link).unwrap();
        assert!(matches!(read_secret(&link), Err(FolderError::NotPlain { .. })));
    }
}
