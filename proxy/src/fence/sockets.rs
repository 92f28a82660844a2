//! The host's Unix sockets that have a name among files, so that a fence can put nothing in the place of each.
//!
//! A socket may have another name than the one it was bound by: it may have been bound by a relative name, moved, or
//! linked, as OpenSSH does with those of its masters. So names are not believed: folders are looked through, and the
//! kernel is asked which files its sockets are (sock_diag(7)) to know whether one was not found.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};
use rustix::process::geteuid;

use super::environment;

/// What is looked through whatever is found, and what in search of a socket that was not: entries of folders, and time.
const USUAL: (usize, Duration) = (60_000, Duration::from_millis(500));
const IN_SEARCH: (usize, Duration) = (3_000_000, Duration::from_secs(5));
/// Where services put theirs.
const SERVICES: &[&str] = &["/run", "/tmp", "/var/run", "/var/tmp", "/dev/shm"];

/// Sockets by their present names, without symbolic links.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    /// Those that were found.
    pub(super) found: BTreeSet<PathBuf>,
    /// Names by which sockets of this user were bound that are no longer their names, and were not found by any other.
    pub(super) missing: BTreeSet<PathBuf>,
}

/// Every Unix socket of the host that can be found; `folders` are looked through before others.
pub(super) fn of_host(folders: &[PathBuf]) -> Sockets {
    let listed = fs::read("/proc/net/unix").unwrap_or_default();
    let names = named(&listed);
    let mut search = Search::default();
    let parents = names.iter().filter_map(|name| real(name.parent().filter(|_| name.is_absolute())?));
    parents.collect::<BTreeSet<_>>().iter().for_each(|folder| search.look_into(folder));
    search.begin(folders.iter().cloned());
    search.begin(workplaces());
    search.begin(SERVICES.iter().map(PathBuf::from));
    search.begin(environment::homes());
    search.go_on(USUAL);
    let bound = bound().unwrap_or_default();
    if bound.iter().any(|socket| search.misses(socket)) {
        search.go_on(IN_SEARCH);
    }
    let missing = bound.iter().filter(|socket| search.misses(socket)).map(|socket| socket.name.clone());
    Sockets { missing: missing.collect(), found: search.found }
}

/// The current folders of this user's processes: what was bound by a relative name is mostly below one.
fn workplaces() -> BTreeSet<PathBuf> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let here = processes.filter_map(|process| fs::read_link(process.path().join("cwd")).ok());
    here.filter(|folder| folder != Path::new("/")).collect()
}

/// A walk through folders, those near the top first.
#[derive(Debug, Default)]
struct Search {
    found: BTreeSet<PathBuf>,
    /// For the lower half of each inode's number, which is all that the kernel tells: how many names it has, and how
    /// many of them were found.
    names: BTreeMap<u32, (u64, u64)>,
    seen: BTreeSet<(u64, u64)>,
    /// Folders that were looked into.
    looked: BTreeSet<PathBuf>,
    ahead: VecDeque<PathBuf>,
    entries: usize,
}

impl Search {
    fn begin(&mut self, folders: impl IntoIterator<Item = PathBuf>) {
        self.ahead.extend(folders.into_iter().filter_map(|folder| real(&folder)));
    }

    fn go_on(&mut self, (entries, time): (usize, Duration)) {
        let until = Instant::now() + time;
        while self.entries < entries && Instant::now() < until {
            let Some(folder) = self.ahead.pop_front() else { return };
            // A folder has a socket's name once, by whichever way it is come to.
            let Ok(file) = fs::symlink_metadata(&folder) else { continue };
            if self.seen.insert((file.dev(), file.ino())) {
                self.look_into(&folder);
            }
        }
    }

    fn look_into(&mut self, folder: &Path) {
        // Each process and setting of the kernel is a folder there, and none holds a socket.
        if folder.starts_with("/proc") || folder.starts_with("/sys") {
            return;
        }
        let Ok(entries) = fs::read_dir(folder) else { return };
        self.looked.insert(folder.to_owned());
        for entry in entries.flatten() {
            self.entries += 1;
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_socket() {
                self.find(entry.path());
            } else if kind.is_dir() {
                self.ahead.push_back(entry.path());
            }
        }
    }

    fn find(&mut self, path: PathBuf) {
        let Ok(file) = fs::symlink_metadata(&path) else { return };
        if self.found.insert(path) {
            self.names.entry(file.ino() as u32).or_insert((file.nlink(), 0)).1 += 1;
        }
    }

    /// Whether a name of this socket may be somewhere where nobody has looked.
    fn misses(&self, socket: &Bound) -> bool {
        let found = self.names.get(&socket.inode).is_some_and(|(names, found)| found >= names);
        if found || !socket.ours {
            return false;
        }
        // One that was removed has no name any more, and nobody can come to it. It is taken for that where it is
        // not in the folder that its name was in, or nowhere at all.
        let removed = !self.names.contains_key(&socket.inode)
            && socket.name.is_absolute()
            && socket.name.parent().and_then(real).is_some_and(|parent| self.looked.contains(&parent));
        !removed && !self.ahead.is_empty()
    }
}

/// A socket that can be connected or sent to by the file that it is.
#[derive(Debug, PartialEq, Eq)]
struct Bound {
    /// The lower half of the file's number.
    inode: u32,
    /// What it was bound by.
    name: PathBuf,
    /// Whether this user made it: such a one may be anywhere that this user can write.
    ours: bool,
}

/// `struct nlmsghdr` and what stands behind it is in the machine's order (netlink(7), sock_diag(7)).
const HEADER: usize = 16;
const REQUEST: usize = 24;
const MESSAGE: usize = 16;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const DUMP: u16 = 0x301;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const SHOW_NAME: u32 = 1;
const SHOW_FILE: u32 = 2;
const SHOW_USER: u32 = 0x40;
const NAME: u16 = 0;
const FILE: u16 = 1;
const USER: u16 = 7;
const DATAGRAM: u8 = 2;
const LISTENS: u8 = 10;

/// The sockets of this network namespace that are files.
fn bound() -> io::Result<Vec<Bound>> {
    let kernel = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    let mut request = Vec::with_capacity(HEADER + REQUEST);
    request.extend(((HEADER + REQUEST) as u32).to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(DUMP.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([AddressFamily::UNIX.as_raw() as u8, 0, 0, 0]);
    request.extend(u32::MAX.to_ne_bytes());
    request.extend(0_u32.to_ne_bytes());
    request.extend((SHOW_NAME | SHOW_FILE | SHOW_USER).to_ne_bytes());
    request.extend([0xff; 8]);
    send(&kernel, &request, SendFlags::empty())?;
    let mut sockets = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let (length, _) = recv(&kernel, &mut buffer[..], RecvFlags::empty())?;
        if length == 0 || !messages(&buffer[..length], &mut sockets) {
            return Ok(sockets);
        }
    }
}

/// Reads what one packet tells; whether more is to come.
fn messages(mut packet: &[u8], sockets: &mut Vec<Bound>) -> bool {
    while let (Some(length), Some(kind)) = (u32_at(packet, 0), u16_at(packet, 4)) {
        let length = length as usize;
        if matches!(kind, DONE | ERROR) || length < HEADER {
            return false;
        }
        let Some(message) = packet.get(HEADER..length) else { return false };
        sockets.extend(one(message));
        packet = packet.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    true
}

fn one(message: &[u8]) -> Option<Bound> {
    let [_, kind, state, ..] = *message else { return None };
    if kind != DATAGRAM && state != LISTENS {
        return None;
    }
    let (mut name, mut inode, mut user) = (None, None, None);
    let mut left = message.get(MESSAGE..)?;
    while let (Some(length), Some(kind)) = (u16_at(left, 0), u16_at(left, 2)) {
        let length = usize::from(length);
        let value = left.get(4..length)?;
        match kind {
            NAME => name = Some(value.split(|byte| *byte == 0).next().unwrap_or_default()),
            FILE => inode = u32_at(value, 0),
            USER => user = u32_at(value, 0),
            _ => {}
        }
        left = left.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    let ours = user.is_none_or(|user| user == geteuid().as_raw());
    Some(Bound { inode: inode?, name: PathBuf::from(OsStr::from_bytes(name.unwrap_or_default())), ours })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// File names in `/proc/net/unix`; names that begin with `@` belong to the network namespace.
fn named(listed: &[u8]) -> Vec<PathBuf> {
    let one = |line: &[u8]| {
        // Seven fields of no blank, each followed by some, then the name as it is.
        let mut rest = line;
        for _ in 0..7 {
            let length = rest.iter().position(u8::is_ascii_whitespace)?;
            rest = rest[length..].trim_ascii_start();
        }
        (!rest.is_empty() && rest[0] != b'@').then(|| PathBuf::from(OsStr::from_bytes(rest)))
    };
    listed.split(|byte| *byte == b'\n').skip(1).filter_map(one).collect()
}

fn real(path: &Path) -> Option<PathBuf> {
    fs::canonicalize(path).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    #[test]
    fn names_are_read_as_the_kernel_lists_them() {
        let listed = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 18312 /run/dbus/system bus.sock\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 18313 @/tmp/.X11-unix/X0\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 18314\n\
            0000000000000000: 00000002 00000000 00000000 0002 01 18315 /run/systemd/notify\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 18316 relative.sock\n";
        let names = ["/run/dbus/system bus.sock", "/run/systemd/notify", "relative.sock"];
        assert_eq!(named(listed.as_bytes()), names.map(PathBuf::from));
        let odd = b"Num\n0: 2 0 10000 1 1 7 /tmp/\xff\n0: 2 0 10000 1 1 8 /tmp/b\n";
        assert_eq!(named(odd).len(), 2, "one odd name must not hide the others");
    }

    /// As a master of OpenSSH makes its socket: bound by one name, linked to another, and the first removed.
    #[test]
    fn a_socket_is_found_by_the_name_that_it_has_now() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let top = real(folder.path()).unwrap();
        let (bound, linked) = (top.join("master.4kD9"), top.join("master"));
        let _listener = UnixListener::bind(&bound).unwrap();
        fs::hard_link(&bound, &linked).unwrap();
        fs::remove_file(&bound).unwrap();
        let moved = top.join("deep/er/moved");
        fs::create_dir_all(moved.parent().unwrap()).unwrap();
        let _datagram = UnixDatagram::bind(top.join("before")).unwrap();
        fs::rename(top.join("before"), &moved).unwrap();
        let sockets = of_host(&[]);
        assert!(sockets.found.contains(&linked), "{sockets:?}");
        assert!(sockets.found.contains(&moved), "{sockets:?}");
    }

    #[test]
    fn the_kernel_tells_which_file_a_socket_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("listens");
        let _listener = UnixListener::bind(&path).unwrap();
        let inode = fs::metadata(&path).unwrap().ino() as u32;
        let bound = bound().unwrap();
        assert!(bound.contains(&Bound { inode, name: path, ours: true }), "{bound:?}");
    }

    #[test]
    fn what_was_not_looked_for_is_missed_and_what_was_removed_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let top = real(folder.path()).unwrap();
        fs::create_dir(top.join("far")).unwrap();
        let socket = |name: &str| Bound { inode: 7, name: name.into(), ours: true };
        let mut search = Search::default();
        search.begin([top.join("far")]);
        assert!(search.misses(&socket("relative")));
        assert!(!search.misses(&Bound { ours: false, ..socket("relative") }));
        search.look_into(&top);
        let beside = top.join("removed").to_string_lossy().into_owned();
        assert!(!search.misses(&socket(&beside)), "its folder was looked into, and it is not there");
        // One of two names was found; the other may be anywhere.
        search.names.insert(7, (2, 1));
        assert!(search.misses(&socket(&beside)));
        search.go_on(USUAL);
        search.go_on(USUAL);
        assert!(!search.misses(&socket("relative")), "everything was looked through");
    }
}
