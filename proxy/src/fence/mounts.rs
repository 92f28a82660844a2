//! What programs inside see of the host's files: all of them, but for those that would lead out or change the gateway.
//!
//! A cover holds a name, not a file. So every folder above a covered name is pinned (a mount point cannot be renamed),
//! and other mounts of the same file system are covered at their names too.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{
    MountFlags, MountPropagationFlags, mount, mount_bind, mount_bind_recursive, mount_change, mount_remount,
};

use super::plan::{Plan, changeable};
use super::sys;

/// Name servers as programs inside have them.
const RESOLV_CONF: &str = "# made by outgate: names are answered by the gateway\nnameserver 127.0.0.1\n";
/// Where systems keep the roots that programs trust, as one file.
const SYSTEM_ROOTS: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/usr/lib/ssl/cert.pem",
];
const DIRECTORY_FLAGS: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
const NOTHING: &str = "/dev/null";

/// A step that failed, and how.
#[derive(Debug)]
pub(super) struct Step(pub(super) String, pub(super) io::Error);

type Steps = Result<(), Step>;

fn step<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Step {
    move |error| Step(what.into(), error.into())
}

/// Arranges the mounts of this process's namespace. Its current folder is afterwards where it was by name.
///
/// # Errors
/// The first thing that could not be arranged; the command must then not be run.
pub(super) fn arrange(plan: &Plan) -> Steps {
    // One that is gone has no name; its handle would lead past every cover.
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let terminal = Terminal::own();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(step("taking mounts apart from the host's"))?;
    let mounted = fs::read("/proc/self/mountinfo").map_err(step("reading the mounts"))?;
    let mounted = String::from_utf8_lossy(&mounted);
    let kept = open_all(&plan.kept)?;
    let shown = read_all(&plan.shown);
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();

    let plan = &with_aliases(plan, &mounted);
    pin(plan, &mounted)?;
    for path in &plan.read_only {
        protect(path)?;
    }
    for path in &plan.hidden {
        hide(path)?;
    }
    for path in &plan.emptied {
        empty(path, 0o700)?;
    }
    restore(&kept)?;
    devices(terminal.as_ref())?;
    replace_folder(&plan.folder, &shown, &local_hosts(&hosts))?;
    system(&mounted)?;
    // The old folder is still reachable by our current one, without the covers that were put over its names.
    if std::env::set_current_dir(&here).is_err() {
        std::env::set_current_dir("/").map_err(step("the current folder"))?;
    }
    Ok(())
}

/// Handles to sockets that stay, from before their folders are covered.
fn open_all(kept: &BTreeSet<PathBuf>) -> Result<Vec<(PathBuf, OwnedFd)>, Step> {
    kept.iter()
        .map(|path| {
            let handle = open(path, DIRECTORY_FLAGS, Mode::empty())
                .map_err(step(format!("`[fence] sockets`: `{}`", path.display())))?;
            Ok((path.clone(), handle))
        })
        .collect()
}

fn read_all(shown: &BTreeSet<PathBuf>) -> Vec<(PathBuf, Vec<u8>)> {
    shown.iter().filter_map(|path| fs::read(path).ok().map(|bytes| (path.clone(), bytes))).collect()
}

/// Every name under which something is to be covered: its own, and those it has through other mounts of its file system.
fn with_aliases(plan: &Plan, mounted: &str) -> Plan {
    let all = |paths: &BTreeSet<PathBuf>| -> BTreeSet<PathBuf> {
        paths.iter().flat_map(|path| [path.clone()].into_iter().chain(aliases(path, mounted))).collect()
    };
    let mut hidden = all(&plan.hidden);
    // Of the data folder nothing is shown under another name.
    hidden.extend(aliases(&plan.folder, mounted));
    Plan {
        trial: plan.trial,
        folder: plan.folder.clone(),
        parent: plan.parent,
        shown: BTreeSet::new(),
        hidden,
        emptied: plan.emptied.clone(),
        unfound: BTreeSet::new(),
        kept: plan.kept.clone(),
        read_only: all(&plan.read_only),
        forward: Vec::new(),
    }
}

/// One line of `/proc/self/mountinfo`: which file system, which folder of it, where.
struct Mounted {
    device: String,
    root: PathBuf,
    at: PathBuf,
    kind: String,
}

fn parse(mounted: &str) -> Vec<Mounted> {
    let one = |line: &str| {
        let mut fields = line.split(' ').skip(2);
        let device = fields.next()?.to_owned();
        let (root, at) = (unescape(fields.next()?), unescape(fields.next()?));
        let kind = fields.skip_while(|field| *field != "-").nth(1)?.to_owned();
        Some(Mounted { device, root, at, kind })
    };
    mounted.lines().filter_map(one).collect()
}

/// Blanks and backslashes are written as three octal digits.
fn unescape(field: &str) -> PathBuf {
    let plain = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    PathBuf::from(plain.iter().fold(field.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain)))
}

/// The other names that a path has by mounts of the same file system.
fn aliases(path: &Path, mounted: &str) -> Vec<PathBuf> {
    let mounts = parse(mounted);
    // Later lines are mounted over earlier ones; the innermost folder wins.
    let home = mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.at))
        .max_by_key(|mount| mount.at.components().count());
    let Some(home) = home else { return Vec::new() };
    let Ok(inside) = path.strip_prefix(&home.at) else { return Vec::new() };
    let inside = home.root.join(inside);
    mounts
        .iter()
        .filter(|mount| mount.device == home.device)
        .filter_map(|mount| Some(mount.at.join(inside.strip_prefix(&mount.root).ok()?)))
        .filter(|alias| alias != path && fs::symlink_metadata(alias).is_ok())
        .collect()
}

/// Folders that could be renamed, and everything below them put elsewhere: those above something covered in whose own
/// parent this user may rename. A mount point cannot be renamed, so each becomes one, the outermost first.
fn pin(plan: &Plan, mounted: &str) -> Steps {
    let pinned: BTreeSet<PathBuf> = parse(mounted).into_iter().map(|mount| mount.at).collect();
    let covered = plan.hidden.iter().chain(&plan.read_only).chain(&plan.emptied).chain([&plan.folder]);
    let movable = |folder: &Path| folder.parent().is_some_and(changeable);
    let folders: BTreeSet<&Path> = covered
        .flat_map(|path| path.ancestors().skip(1))
        .filter(|folder| movable(folder) && !pinned.contains(*folder))
        .collect();
    for folder in folders {
        match mount_bind_recursive(folder, folder) {
            Ok(()) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::ACCESS) => {}
            Err(error) => return Err(step(format!("pinning `{}`", folder.display()))(error)),
        }
    }
    Ok(())
}

fn protect(path: &Path) -> Steps {
    mount_bind_recursive(path, path).map_err(step(format!("protecting `{}`", path.display())))?;
    sys::set_read_only(path).map_err(step(format!("protecting `{}`", path.display())))
}

/// Puts nothing in the place of something: an empty folder, or a file that reads as empty.
fn hide(path: &Path) -> Steps {
    let covered = match fs::symlink_metadata(path) {
        Ok(file) if file.is_dir() => tmpfs(path, "mode=555,size=4k", MountFlags::RDONLY),
        Ok(_) => mount_bind(NOTHING, path).map_err(io::Error::from),
        // Gone since it was found, or in a folder where this user has no business: the command's is the same user.
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied].contains(&error.kind()) => {
            return Ok(());
        }
        Err(error) => Err(error),
    };
    covered.map_err(step(format!("hiding `{}`", path.display())))
}

fn empty(path: &Path, mode: u32) -> Steps {
    tmpfs(path, &format!("mode={mode:o}"), MountFlags::empty())
        .map_err(step(format!("emptying `{}`", path.display())))
}

fn tmpfs(at: &Path, options: &str, flags: MountFlags) -> io::Result<()> {
    let options = CString::new(options)?;
    Ok(mount("outgate", at, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV | flags, options.as_c_str())?)
}

/// Puts the sockets that stay back where they were, in folders that have been emptied since.
fn restore(kept: &[(PathBuf, OwnedFd)]) -> Steps {
    for (path, handle) in kept {
        let put = || -> io::Result<()> {
            if fs::symlink_metadata(path).is_err() {
                path.parent().map_or(Ok(()), fs::create_dir_all)?;
                File::create(path)?;
                mount_bind(format!("/proc/self/fd/{}", handle.as_raw_fd()), path)?;
            }
            Ok(())
        };
        put().map_err(step(format!("`[fence] sockets`: `{}`", path.display())))?;
    }
    Ok(())
}

/// Puts a folder with the certificates alone in the place of the data folder, and the files for names in their places.
fn replace_folder(folder: &Path, shown: &[(PathBuf, Vec<u8>)], hosts: &str) -> Steps {
    let covering = || step(format!("covering `{}`", folder.display()));
    // It may lie in a folder that has been emptied.
    fs::create_dir_all(folder).map_err(covering())?;
    tmpfs(folder, "mode=755,size=16m", MountFlags::empty()).map_err(covering())?;
    for (path, bytes) in shown {
        fs::write(path, bytes).map_err(covering())?;
    }
    for (name, text, at) in [("resolv.conf", RESOLV_CONF, "/etc/resolv.conf"), ("hosts", hosts, "/etc/hosts")]
    {
        let file = folder.join(name);
        fs::write(&file, text).map_err(covering())?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).map_err(covering())?;
        // Where there is none, programs take the same from their defaults.
        if fs::metadata(at).is_ok() {
            mount_bind(&file, at).map_err(step(format!("replacing `{at}`")))?;
        }
    }
    // Programs that read the system's roots, whatever variables say, must trust the gateway too.
    if let Some((bundle, _)) = shown.iter().find(|(path, _)| path.ends_with("bundle.pem")) {
        for roots in SYSTEM_ROOTS.iter().filter(|path| fs::metadata(path).is_ok_and(|file| file.is_file())) {
            mount_bind(bundle, *roots).map_err(step(format!("replacing `{roots}`")))?;
        }
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::RDONLY;
    mount_remount(folder, flags, "").map_err(io::Error::from).map_err(covering())
}

/// The lines for loopback: every other address is out of reach inside, and its name has to be looked up.
fn local_hosts(hosts: &str) -> String {
    let local = |line: &&str| {
        line.split_ascii_whitespace()
            .next()
            .and_then(|first| first.parse::<std::net::IpAddr>().ok())
            .is_some_and(|address| address.is_loopback())
    };
    let lines: String = hosts.lines().filter(local).map(|line| format!("{line}\n")).collect();
    if lines.is_empty() { "127.0.0.1 localhost\n::1 localhost\n".to_owned() } else { lines }
}

/// The terminal that this process and its command use.
struct Terminal {
    name: PathBuf,
    number: u32,
    handle: OwnedFd,
}

impl Terminal {
    fn own() -> Option<Terminal> {
        let name = rustix::termios::ttyname(rustix::stdio::stdin(), Vec::new())
            .or_else(|_| rustix::termios::ttyname(rustix::stdio::stdout(), Vec::new()))
            .or_else(|_| rustix::termios::ttyname(rustix::stdio::stderr(), Vec::new()))
            .ok()?;
        let name = PathBuf::from(name.to_string_lossy().into_owned());
        let number = name.strip_prefix("/dev/pts").ok()?.to_str()?.parse().ok()?;
        let handle = open(&name, DIRECTORY_FLAGS, Mode::empty()).ok()?;
        Some(Terminal { name, number, handle })
    }
}

/// The highest number of a terminal for which a place is made.
const TERMINALS: u32 = 4096;

fn devices(terminal: Option<&Terminal>) -> Steps {
    let is_folder = |path: &str| fs::symlink_metadata(path).is_ok_and(|file| file.is_dir());
    if is_folder("/dev/shm") {
        tmpfs(Path::new("/dev/shm"), "mode=1777", MountFlags::empty()).map_err(step("memory to share"))?;
    }
    if is_folder("/dev/mqueue") {
        hide(Path::new("/dev/mqueue"))?;
    }
    if is_folder("/dev/pts") {
        terminals(terminal).map_err(step("terminals of its own"))?;
    }
    Ok(())
}

/// Terminals of its own, among them the one that the command is used at, by its name; nobody else's.
fn terminals(own: Option<&Terminal>) -> io::Result<()> {
    let options = c"newinstance,ptmxmode=0666,mode=0620";
    mount("devpts", "/dev/pts", "devpts", MountFlags::NOSUID | MountFlags::NOEXEC, options)?;
    if fs::symlink_metadata("/dev/ptmx").is_ok_and(|file| !file.is_symlink()) {
        mount_bind("/dev/pts/ptmx", "/dev/ptmx")?;
    }
    let Some(own) = own.filter(|own| own.number < TERMINALS) else { return Ok(()) };
    // The file system makes its names itself: a new terminal is asked for until one has the number of ours. It is kept
    // open for as long as this process lives, so that the name stays.
    let mut asked = Vec::new();
    while fs::symlink_metadata(&own.name).is_err() {
        asked.push(open("/dev/pts/ptmx", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?);
    }
    if let Some(last) = asked.pop() {
        std::mem::forget(last);
    }
    Ok(mount_bind(format!("/proc/self/fd/{}", own.handle.as_raw_fd()), &own.name)?)
}

/// File systems by which the kernel is looked into and configured.
const OF_THE_KERNEL: &[&str] = &[
    "sysfs",
    "cgroup",
    "cgroup2",
    "debugfs",
    "tracefs",
    "securityfs",
    "configfs",
    "bpf",
    "efivarfs",
    "pstore",
    "binfmt_misc",
    "fusectl",
];

/// Kernel files: those of the processes inside alone, and no settings.
fn system(mounted: &str) -> Steps {
    let mounts = parse(mounted);
    for other in mounts.iter().filter(|mount| mount.kind == "proc" && !mount.at.starts_with("/proc")) {
        hide(&other.at)?;
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", flags, None).map_err(step("mounting `/proc` for its processes alone"))?;
    for name in ["sys", "bus", "irq", "fs", "acpi", "scsi", "driver", "asound"] {
        let path = Path::new("/proc").join(name);
        if path.is_dir() {
            protect(&path)?;
        }
    }
    for path in ["/proc/sysrq-trigger", "/proc/keys", "/proc/key-users", "/proc/kcore"] {
        hide(Path::new(path))?;
    }
    for mount in mounts.iter().filter(|mount| OF_THE_KERNEL.contains(&&*mount.kind)) {
        match sys::set_read_only(&mount.at) {
            // Under another mount, or in the old `/proc`: not to be reached by its name.
            Ok(()) => {}
            Err(error)
                if [
                    io::ErrorKind::InvalidInput,
                    io::ErrorKind::NotFound,
                    io::ErrorKind::PermissionDenied,
                ]
                .contains(&error.kind()) => {}
            Err(error) => return Err(step(format!("protecting `{}`", mount.at.display()))(error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_under_its_other_names() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        fs::create_dir_all(folder.path().join("a/home/ana/data")).unwrap();
        fs::create_dir_all(folder.path().join("b c/ana/data")).unwrap();
        let escaped = at("b c").replace(' ', "\\040");
        let mounted = format!(
            "1 0 8:1 / / rw - ext4 /dev/x rw\n2 1 8:2 / {} rw - ext4 /dev/y rw\n3 1 8:2 /home {escaped} rw - ext4 /dev/y rw\n\
             4 1 8:2 /other {} rw - ext4 /dev/y rw\n",
            at("a"),
            at("d"),
        );
        let data = PathBuf::from(at("a/home/ana/data"));
        assert_eq!(aliases(&data, &mounted), [PathBuf::from(at("b c/ana/data"))]);
    }

    #[test]
    fn only_loopback_keeps_its_lines_in_the_hosts_file() {
        let hosts = "127.0.0.1 localhost\n# 10.0.0.1 x\n127.0.1.1 box dev.test\n10.1.2.3 db.corp\n::1 localhost ip6\n";
        assert_eq!(local_hosts(hosts), "127.0.0.1 localhost\n127.0.1.1 box dev.test\n::1 localhost ip6\n");
        assert_eq!(local_hosts("10.1.2.3 db.corp\n"), "127.0.0.1 localhost\n::1 localhost\n");
    }
}
