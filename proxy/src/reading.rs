//! The one door for files that a setting or the policy names: plain files, so much of them and no more, never waited for.
//!
//! Whoever can write beside such a file can put a pipe in its place, on which an open would wait, or a device, which has
//! no end. An agent can: known values are read from its own `.env`.

use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Largest file that is read where nothing else is said, in bytes: a policy of 100,000 rules takes half of it.
pub const FILE_LIMIT: u64 = 32 * 1024 * 1024;

/// The bytes of a plain file.
///
/// # Errors
/// What is no plain file, is larger than `limit`, or cannot be read.
pub fn bytes(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    up_to(limit, open(path)?)
}

/// The text of a plain file of at most [`FILE_LIMIT`].
///
/// # Errors
/// As [`bytes()`], and what is no UTF-8.
pub fn text(path: &Path) -> io::Result<String> {
    String::from_utf8(bytes(path, FILE_LIMIT)?).map_err(|_| io::Error::other("it is not UTF-8"))
}

/// As [`text`], of whatever somebody named on a command line, which may be a pipe of theirs.
///
/// # Errors
/// As [`text`], but for its kind.
pub fn text_of_any(path: &Path) -> io::Result<String> {
    String::from_utf8(up_to(FILE_LIMIT, File::open(path)?)?).map_err(|_| io::Error::other("it is not UTF-8"))
}

fn up_to(limit: u64, file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("it is larger than {limit} bytes")));
    }
    Ok(bytes)
}

/// Opens a plain file for reading.
///
/// # Errors
/// What is no plain file, or cannot be opened.
pub fn open(path: &Path) -> io::Result<File> {
    // Looked at before it is opened, which some devices take for a command, and after, when it cannot change any more.
    check_plain(fs::metadata(path)?.file_type())?;
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    check_plain(file.metadata()?.file_type())?;
    Ok(file)
}

/// Refuses whatever is not a plain file, by its kind.
///
/// # Errors
/// The kind, in words.
pub fn check_plain(kind: FileType) -> io::Result<()> {
    let what = match kind {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_fifo() => "a pipe",
        kind if kind.is_socket() => "a socket",
        kind if kind.is_dir() => "a folder",
        kind if kind.is_symlink() => "a symbolic link",
        _ => "a device",
    };
    Err(io::Error::other(format!("it is {what}, not a plain file")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::mpsc;
    use std::time::Duration;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn who_names_a_file_may_name_a_pipe_but_no_more_of_it() {
        let root = tempfile::tempdir().unwrap();
        let [plain, large] = ["plain", "large"].map(|name| root.path().join(name));
        fs::write(&plain, "text").unwrap();
        assert_eq!(text_of_any(&plain).unwrap(), "text");
        File::create(&large).unwrap().set_len(FILE_LIMIT + 1).unwrap();
        assert_eq!(text_of_any(&large).unwrap_err().to_string(), "it is larger than 33554432 bytes");
        assert_eq!(text_of_any(Path::new("/dev/null")).unwrap(), "");
    }

    #[test]
    fn plain_files_are_read_whole_and_nothing_else_is_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let [pipe, endless, folder, large, link, bad, missing] =
            ["pipe", "endless", "folder", "large", "link", "bad", "missing"]
                .map(|name| root.path().join(name));
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        symlink("/dev/zero", &endless).unwrap();
        fs::create_dir(&folder).unwrap();
        File::create(&large).unwrap().set_len(FILE_LIMIT + 1).unwrap();
        fs::write(root.path().join("plain"), "text").unwrap();
        symlink("plain", &link).unwrap();
        fs::write(&bad, b"\xff").unwrap();
        for (path, expected) in [
            (pipe, "it is a pipe, not a plain file"),
            (endless, "it is a device, not a plain file"),
            (folder, "it is a folder, not a plain file"),
            (large, "it is larger than 33554432 bytes"),
            (bad, "it is not UTF-8"),
            (missing, "No such file or directory (os error 2)"),
            (link, "text"),
        ] {
            let (tell, told) = mpsc::channel();
            let shown = path.display().to_string();
            std::thread::spawn(move || tell.send(text(&path)));
            let read = told.recv_timeout(Duration::from_secs(10)).expect(&shown);
            assert_eq!(read.unwrap_or_else(|error| error.to_string()), expected, "{shown}");
        }
    }
}
