//! What repository a folder is a checkout of: read from its files, without running git.
//!
//! A session's record names repository, branch and commit, so that a decision can be traced to the work it belonged
//! to. Whatever cannot be read is left out; it is a help, not evidence.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::reading;

/// As much as is read of one file, in bytes.
const FILE_LIMIT: usize = 64 * 1024;

/// A checkout, as far as it can be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checkout {
    /// The URL of `origin`, or the folder's name.
    pub(crate) repo: Option<String>,
    /// The branch.
    pub(crate) branch: Option<String>,
    /// The commit.
    pub(crate) commit: Option<String>,
}

impl Checkout {
    /// The checkout that a folder is in.
    pub(crate) fn around(folder: &Path) -> Checkout {
        let found = folder.ancestors().find_map(|folder| Some((folder, git_dir(&folder.join(".git"))?)));
        let Some((top, git)) = found else { return Checkout::default() };
        // A linked worktree has a HEAD of its own and shares the rest.
        let shared = read(&git.join("commondir")).map_or_else(|| git.clone(), |common| git.join(common));
        let head = read(&git.join("HEAD"));
        let reference = head.as_deref().and_then(|head| head.strip_prefix("ref: "));
        let commit = match reference {
            Some(reference) => read(&shared.join(reference)).or_else(|| packed(&shared, reference)),
            None => head.clone(),
        };
        let name = || top.file_name().map(|name| name.to_string_lossy().into_owned());
        Checkout {
            repo: read(&shared.join("config")).and_then(|config| origin(&config)).or_else(name),
            branch: reference.and_then(|name| name.strip_prefix("refs/heads/")).map(str::to_owned),
            commit: commit.filter(|commit| commit.bytes().all(|byte| byte.is_ascii_hexdigit())),
        }
    }
}

/// `.git` is a folder, or a file that names one.
fn git_dir(path: &Path) -> Option<PathBuf> {
    if path.is_dir() {
        return Some(path.to_owned());
    }
    let named = read(path)?;
    Some(path.parent()?.join(named.strip_prefix("gitdir: ")?))
}

/// The text of a plain file, up to the last whole line within the limit.
fn read(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    reading::open(path).ok()?.take(FILE_LIMIT as u64 + 1).read_to_end(&mut bytes).ok()?;
    if bytes.len() > FILE_LIMIT {
        let end = bytes[..FILE_LIMIT].iter().rposition(|byte| *byte == b'\n')?;
        bytes.truncate(end);
    }
    String::from_utf8(bytes).ok().map(|text| text.trim().to_owned())
}

fn packed(git: &Path, reference: &str) -> Option<String> {
    let packed = read(&git.join("packed-refs"))?;
    let line = packed.lines().find_map(|line| line.strip_suffix(reference)?.strip_suffix(' '))?;
    Some(line.to_owned())
}

/// The `url` of `[remote "origin"]`.
fn origin(config: &str) -> Option<String> {
    let lines = config.lines().map(str::trim);
    let mut section = lines.skip_while(|line| *line != "[remote \"origin\"]").skip(1);
    let url = section
        .by_ref()
        .take_while(|line| !line.starts_with('['))
        .find_map(|line| line.strip_prefix("url")?.trim_start().strip_prefix('='))?;
    Some(url.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn write(folder: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    fn checkout(repo: Option<&str>, branch: Option<&str>, commit: Option<&str>) -> Checkout {
        let text = |text: Option<&str>| text.map(str::to_owned);
        Checkout { repo: text(repo), branch: text(branch), commit: text(commit) }
    }

    #[test]
    fn a_checkout_is_told_from_any_folder_in_it() {
        let config = "[core]\n\tbare = false\n[remote \"origin\"]\n\turl = https://github.com/example/app.git\n\tfetch = x\n[branch \"main\"]\n";
        let packed = format!("# pack-refs\n{COMMIT} refs/heads/topic/one\n");
        let expected = checkout(Some("https://github.com/example/app.git"), Some("topic/one"), Some(COMMIT));
        for files in [
            &[
                (".git/HEAD", "ref: refs/heads/topic/one\n"),
                (".git/config", config),
                (".git/refs/heads/topic/one", COMMIT),
            ][..],
            &[
                (".git/HEAD", "ref: refs/heads/topic/one\n"),
                (".git/config", config),
                (".git/packed-refs", &packed),
            ],
            &[
                (".git", "gitdir: main/.git/worktrees/one\n"),
                ("main/.git/worktrees/one/HEAD", "ref: refs/heads/topic/one\n"),
                ("main/.git/worktrees/one/commondir", "../..\n"),
                ("main/.git/config", config),
                ("main/.git/refs/heads/topic/one", COMMIT),
            ],
        ] {
            let root = tempfile::tempdir().unwrap();
            write(root.path(), files);
            fs::create_dir_all(root.path().join("src/deep")).unwrap();
            assert_eq!(Checkout::around(&root.path().join("src/deep")), expected, "{files:?}");
        }
    }

    #[test]
    fn only_so_much_of_a_file_is_read() {
        let root = tempfile::tempdir().unwrap();
        let app = root.path().join("app");
        let first = format!("{COMMIT} refs/heads/topic\n#");
        // The limit falls where the last line would be that of another branch.
        let last = format!("\n{COMMIT} refs/heads/main");
        let between = "#".repeat(FILE_LIMIT - first.len() - last.len());
        write(&app, &[(".git/packed-refs", &format!("{first}{between}{last}-thing\n"))]);
        for (branch, commit) in [("topic", Some(COMMIT)), ("main", None), ("main-thing", None)] {
            write(&app, &[(".git/HEAD", &format!("ref: refs/heads/{branch}\n"))]);
            assert_eq!(Checkout::around(&app), checkout(Some("app"), Some(branch), commit));
        }
    }

    #[test]
    fn neither_pipes_nor_devices_are_read() {
        let root = tempfile::tempdir().unwrap();
        let app = root.path().join("app");
        let around = |file| {
            let (tell, told) = std::sync::mpsc::channel();
            let folder = app.clone();
            std::thread::spawn(move || tell.send(Checkout::around(&folder)));
            let found = told.recv_timeout(std::time::Duration::from_secs(10));
            assert_eq!(found.expect(file).repo.as_deref(), Some("app"), "{file}");
        };
        write(&app, &[(".git/HEAD", "ref: refs/heads/main\n")]);
        for file in ["commondir", "config", "packed-refs", "refs/heads/main", "HEAD"] {
            let path = app.join(".git").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let _ = fs::remove_file(&path);
            mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
            around(file);
            fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
            around(file);
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_told_is_left_out() {
        let root = tempfile::tempdir().unwrap();
        let app = root.path().join("app");
        write(&app, &[(".git/HEAD", COMMIT), (".git/config", "[core]\n")]);
        assert_eq!(Checkout::around(&app), checkout(Some("app"), None, Some(COMMIT)), "a detached head");
        write(&app, &[(".git/HEAD", "ref: refs/heads/main\n")]);
        assert_eq!(
            Checkout::around(&app),
            checkout(Some("app"), Some("main"), None),
            "before the first commit"
        );
    }
}
