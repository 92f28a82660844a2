//! What a fence hides and protects: found on the host before it is put up, carried out inside by `mounts`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::Access;
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

use super::environment;
use crate::config::Config;
use crate::running::Running;

/// Entries of folders that are looked through for sockets, and how deep.
const SEARCH_LIMIT: usize = 100_000;
const SEARCH_DEPTH: usize = 5;
/// Links that lead to links, as the kernel follows them.
const LINKS: usize = 40;

/// Everything the inside must know, in absolute paths without symbolic links.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Only to find out whether a fence can be put up: no command is run.
    pub trial: bool,
    /// The process that the fence ends with.
    pub parent: u32,
    /// The data folder. Inside, an empty one takes its place.
    #[serde(with = "any_name")]
    pub folder: PathBuf,
    /// Files of the data folder that programs inside have to read: certificates.
    #[serde(with = "any_names")]
    pub shown: BTreeSet<PathBuf>,
    /// Files, sockets and devices that read as nothing inside.
    #[serde(with = "any_names")]
    pub hidden: BTreeSet<PathBuf>,
    /// Folders in whose place stands an empty one that may be written to.
    #[serde(with = "any_names")]
    pub emptied: BTreeSet<PathBuf>,
    /// Sockets of the host that stay reachable.
    #[serde(with = "any_names")]
    pub kept: BTreeSet<PathBuf>,
    /// Files and folders that cannot be changed from inside.
    #[serde(with = "any_names")]
    pub read_only: BTreeSet<PathBuf>,
    /// Loopback services of the host that are reachable inside.
    pub forward: Vec<SocketAddr>,
}

impl Plan {
    /// As little as a fence can be: nothing on this machine but the machine itself can be in its way.
    pub fn bare(config: &Config) -> Plan {
        let folder = real(&config.data_dir).unwrap_or_else(|| config.data_dir.clone());
        Plan {
            parent: std::process::id(),
            shown: ["ca.pem", "bundle.pem"].map(|name| folder.join(name)).into(),
            folder,
            ..Plan::default()
        }
    }

    /// The plan for a session of the data folder of `config`, with the gateway that serves it.
    pub fn new(config: &Config, gateway: Option<&Running>) -> Plan {
        let mut plan = Plan::bare(config);
        plan.kept = config.fence.sockets.iter().filter_map(|path| real(path)).collect();
        let run = PathBuf::from(format!("/run/user/{}", geteuid().as_raw()));
        plan.emptied = [run].into_iter().filter(|path| path.is_dir()).collect();
        plan.read_only = protected();
        plan.read_only.extend(config.upstream.ca_files.iter().filter_map(|path| real(path)));
        plan.forward.clone_from(&config.fence.forward);
        let mut hidden = sockets();
        hidden.extend(devices(Path::new("/dev")));
        hidden.extend(governing(config, gateway).iter().filter_map(|path| real(path)));
        hidden.extend(default_folder().and_then(|folder| real(&folder)));
        let covered = |path: &PathBuf| {
            plan.kept.contains(path)
                || path.starts_with(&plan.folder)
                || plan.folder.starts_with(path)
                || plan.emptied.iter().any(|empty| path.starts_with(empty))
        };
        hidden.retain(|path| !covered(path));
        plan.hidden = hidden;
        plan
    }
}

/// The files that say what a gateway allows and what it leaves as evidence: those of this command and those of the
/// gateway that runs, which need not be the same.
pub fn governing(config: &Config, gateway: Option<&Running>) -> Vec<PathBuf> {
    let mut files = config.policy.clone();
    files.push(config.config.clone());
    files.extend(config.audit.checkpoint_file.clone());
    if let Some(gateway) = gateway {
        files.extend(gateway.policies.iter().chain(&gateway.config).cloned());
    }
    files
}

/// The data folder that commands take which name no other.
fn default_folder() -> Option<PathBuf> {
    let state = environment::path("XDG_STATE_HOME");
    let folder = state.or_else(|| Some(environment::path("HOME")?.join(".local/state")))?;
    Some(folder.join("outgate"))
}

/// The first symbolic link on the way to a file, links behind links included, that this user could replace by another:
/// what is covered by its real name would then not be what the gateway reads next time.
pub fn replaceable_link(path: &Path) -> Option<PathBuf> {
    let mut left: Vec<PathBuf> = parts(&std::path::absolute(path).ok()?);
    let (mut at, mut links) = (PathBuf::from("/"), 0);
    while let Some(part) = left.pop() {
        let next = match part.to_str() {
            Some("..") => at.parent().unwrap_or(&at).to_path_buf(),
            _ => at.join(&part),
        };
        let Ok(target) = fs::read_link(&next) else {
            at = next;
            continue;
        };
        links += 1;
        if links > LINKS || rustix::fs::access(&at, Access::WRITE_OK).is_ok() {
            return Some(next);
        }
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        left.extend(parts(&target));
    }
    None
}

/// The parts of a path, the last first.
fn parts(path: &Path) -> Vec<PathBuf> {
    let named = |part: Component<'_>| match part {
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        Component::ParentDir | Component::Normal(_) => Some(PathBuf::from(part.as_os_str())),
    };
    path.components().rev().filter_map(named).collect()
}

fn real(path: &Path) -> Option<PathBuf> {
    fs::canonicalize(path).ok()
}

/// Every Unix socket of the host that has a name among files: those the kernel lists, and those found where services
/// put them, since the kernel lists only our own network namespace's.
fn sockets() -> BTreeSet<PathBuf> {
    let listed = fs::read("/proc/net/unix").unwrap_or_default();
    let mut relative = Vec::new();
    let mut found = BTreeSet::new();
    for (inode, name) in named_sockets(&listed) {
        match name.is_absolute() {
            true => found.extend(real(&name).filter(|path| is_socket(path))),
            false => relative.push((inode, name)),
        }
    }
    found.extend(bound_relative(&relative));
    let mut left = SEARCH_LIMIT;
    for folder in ["/run", "/tmp", "/var/run", "/var/tmp"].iter().filter_map(|path| real(Path::new(path))) {
        search(&folder, SEARCH_DEPTH, &mut left, &mut found);
    }
    found
}

/// Inodes and file names in `/proc/net/unix`; names that begin with `@` belong to the network namespace.
fn named_sockets(listed: &[u8]) -> Vec<(u64, PathBuf)> {
    let one = |line: &[u8]| {
        // Seven fields of no blank, each followed by some, then the name as it is.
        let mut rest = line;
        let mut inode = None;
        for _ in 0..7 {
            let length = rest.iter().position(u8::is_ascii_whitespace)?;
            inode = std::str::from_utf8(&rest[..length]).ok();
            rest = rest[length..].trim_ascii_start();
        }
        let named = !rest.is_empty() && rest[0] != b'@';
        named.then(|| Some((inode?.parse().ok()?, PathBuf::from(OsStr::from_bytes(rest)))))?
    };
    listed.split(|byte| *byte == b'\n').skip(1).filter_map(one).collect()
}

/// Sockets that were bound by a relative name: below the current folder of a process that has them open.
fn bound_relative(sockets: &[(u64, PathBuf)]) -> Vec<PathBuf> {
    if sockets.is_empty() {
        return Vec::new();
    }
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let owned = |process: PathBuf| {
        let here = fs::read_link(process.join("cwd")).ok()?;
        let open = fs::read_dir(process.join("fd")).ok()?.flatten();
        let inodes = open.filter_map(|entry| {
            let link = fs::read_link(entry.path()).ok()?;
            link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok()
        });
        let names = inodes.filter_map(|inode| sockets.iter().find(|(bound, _)| *bound == inode));
        Some(names.filter_map(|(_, name)| real(&here.join(name))).collect::<Vec<_>>())
    };
    processes.filter_map(owned).flatten().filter(|path| is_socket(path)).collect()
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
}

fn search(folder: &Path, depth: usize, left: &mut usize, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if *left == 0 {
            return;
        }
        *left -= 1;
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_socket() {
            found.insert(entry.path());
        } else if kind.is_dir() && depth > 1 {
            search(&entry.path(), depth - 1, left, found);
        }
    }
}

/// Devices that programs need; everything else in `/dev` that this user could open reads as nothing.
const DEVICES: &[&str] = &[
    "null",
    "zero",
    "full",
    "random",
    "urandom",
    "tty",
    "ptmx",
    "pts",
    "shm",
    "mqueue",
    "hugepages",
    "fd",
    "stdin",
    "stdout",
    "stderr",
    "kvm",
    "dri",
    "snd",
    "fuse",
    "kfd",
    "log",
];

fn devices(folder: &Path) -> Vec<PathBuf> {
    let needed = |name: &str| DEVICES.contains(&name) || name.starts_with("nvidia");
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| !needed(&entry.file_name().to_string_lossy()))
        .filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_symlink()))
        .map(|entry| entry.path())
        .filter(|path| {
            [Access::READ_OK, Access::WRITE_OK].iter().any(|how| rustix::fs::access(path, *how).is_ok())
        })
        .collect()
}

/// What a shell, a desktop or a login runs by itself, under the home folder.
const STARTED: &[&str] = &[
    ".bash_aliases",
    ".bash_login",
    ".bash_logout",
    ".bash_profile",
    ".bashrc",
    ".config/autostart",
    ".config/environment.d",
    ".config/fish",
    ".config/nushell",
    ".config/plasma-workspace",
    ".config/systemd",
    ".config/xonsh",
    ".cshrc",
    ".inputrc",
    ".kshrc",
    ".local/share/dbus-1",
    ".local/share/systemd",
    ".login",
    ".pam_environment",
    ".profile",
    ".ssh",
    ".tcshrc",
    ".tmux.conf",
    ".xinitrc",
    ".xprofile",
    ".xsession",
    ".xsessionrc",
    ".zlogin",
    ".zlogout",
    ".zprofile",
    ".zsh",
    ".zshenv",
    ".zshrc",
];

/// The same for the whole machine. Only the administrator could change these anyhow.
const STARTED_BY_ALL: &[&str] = &[
    "/boot",
    "/etc/bash.bashrc",
    "/etc/cron.d",
    "/etc/cron.daily",
    "/etc/cron.hourly",
    "/etc/cron.monthly",
    "/etc/cron.weekly",
    "/etc/crontab",
    "/etc/environment",
    "/etc/init.d",
    "/etc/ld.so.conf.d",
    "/etc/pam.d",
    "/etc/profile",
    "/etc/profile.d",
    "/etc/rc.local",
    "/etc/shells",
    "/etc/skel",
    "/etc/ssh",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/etc/systemd",
    "/etc/udev",
    "/etc/xdg",
    "/etc/zsh",
    "/lib/systemd",
    "/usr/lib/systemd",
    "/var/spool/cron",
];

fn protected() -> BTreeSet<PathBuf> {
    let folder = environment::path;
    let home = folder("HOME").and_then(|home| real(&home));
    // A link that leads elsewhere is a program's way to have something else protected.
    let below_home =
        |path: PathBuf| real(&path).filter(|path| home.as_ref().is_some_and(|home| path.starts_with(home)));
    let mut all: BTreeSet<PathBuf> =
        home.iter().flat_map(|home| STARTED.iter().filter_map(|name| below_home(home.join(name)))).collect();
    // Where shells are told to look instead.
    let elsewhere = ["ZDOTDIR", "XDG_CONFIG_HOME"].map(|name| folder(name).and_then(&below_home));
    all.extend(elsewhere.into_iter().flatten().flat_map(|folder| started_in(&folder)));
    all.extend(["BASH_ENV", "ENV"].iter().filter_map(|name| below_home(folder(name)?)));
    if geteuid().is_root() {
        let system = |name: &&str| real(Path::new(name)).filter(|path| path.components().count() > 1);
        all.extend(STARTED_BY_ALL.iter().filter_map(system));
    }
    // Whoever can replace the program decides what the next gateway is.
    all.extend(std::env::current_exe().ok().and_then(|program| real(&program)));
    all
}

/// What is started out of a folder that stands for the home folder or its `.config`.
fn started_in(folder: &Path) -> Vec<PathBuf> {
    let name = |name: &&str| real(&folder.join(name.strip_prefix(".config/").unwrap_or(name)));
    STARTED.iter().filter_map(name).filter(|path| path.starts_with(folder)).collect()
}

/// Environment variables that would only lead to a hidden socket.
pub fn dead_variables(plan: &Plan) -> Vec<&'static str> {
    let alive = |name: &str| {
        let value = environment::variable(name).unwrap_or_default();
        plan.kept.iter().any(|kept| value.to_string_lossy().contains(&*kept.to_string_lossy()))
    };
    ["SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS", "WAYLAND_DISPLAY", "DISPLAY", "GPG_AGENT_INFO"]
        .into_iter()
        .filter(|name| !alive(name))
        .collect()
}

/// Paths as JSON, whatever bytes they are of: each byte is the character of that number.
mod any_name {
    use std::os::unix::ffi::OsStrExt as _;

    use super::{BTreeSet, OsStr, PathBuf};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn text(path: &std::path::Path) -> String {
        path.as_os_str().as_bytes().iter().map(|byte| char::from(*byte)).collect()
    }

    pub(super) fn path(text: &str) -> Option<PathBuf> {
        let bytes: Option<Vec<u8>> = text.chars().map(|char| u8::try_from(char).ok()).collect();
        Some(PathBuf::from(OsStr::from_bytes(&bytes?)))
    }

    pub(super) fn serialize<S: Serializer>(path: &std::path::Path, to: S) -> Result<S::Ok, S::Error> {
        text(path).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        path(&String::deserialize(from)?).ok_or_else(|| serde::de::Error::custom("not a path"))
    }

    /// Several of them.
    pub(super) mod many {
        use super::{BTreeSet, Deserialize as _, Deserializer, PathBuf, Serializer, path, text};

        pub(crate) fn serialize<S: Serializer>(paths: &BTreeSet<PathBuf>, to: S) -> Result<S::Ok, S::Error> {
            to.collect_seq(paths.iter().map(|path| text(path)))
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeSet<PathBuf>, D::Error> {
            let texts = Vec::<String>::deserialize(from)?;
            let paths: Option<BTreeSet<PathBuf>> = texts.iter().map(|text| path(text)).collect();
            paths.ok_or_else(|| serde::de::Error::custom("not a path"))
        }
    }
}
use any_name::many as any_names;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_found_by_their_names_among_files() {
        let listed = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 18312 /run/dbus/system bus.sock\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 18313 @/tmp/.X11-unix/X0\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 18314\n\
            0000000000000000: 00000002 00000000 00000000 0002 01 18315 /run/systemd/notify\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 18316 relative.sock\n";
        let found: Vec<_> = named_sockets(listed.as_bytes()).into_iter().map(|(_, name)| name).collect();
        let names = ["/run/dbus/system bus.sock", "/run/systemd/notify", "relative.sock"];
        assert_eq!(found, names.map(PathBuf::from));
        let odd = b"Num\n0: 2 0 10000 1 1 7 /tmp/\xff\n0: 2 0 10000 1 1 8 /tmp/b\n";
        assert_eq!(named_sockets(odd).len(), 2, "one odd name must not hide the others");
    }

    #[test]
    fn a_link_that_could_be_replaced_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let top = fs::canonicalize(folder.path()).unwrap();
        fs::create_dir_all(top.join("real/data")).unwrap();
        std::os::unix::fs::symlink(top.join("real"), top.join("link")).unwrap();
        assert_eq!(replaceable_link(&top.join("real/data")), None);
        assert_eq!(replaceable_link(&top.join("link/data")), Some(top.join("link")));
        // Behind a link that cannot be replaced is one that can.
        std::os::unix::fs::symlink(top.join("link/data"), top.join("real/other")).unwrap();
        assert_eq!(replaceable_link(&top.join("real/other")), Some(top.join("real/other")));
        assert_eq!(replaceable_link(&top.join("real/../link/data")), Some(top.join("link")));
    }

    #[test]
    fn what_a_gateway_lives_by_is_hidden_and_what_programs_verify_with_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        let policy = folder.path().join("team.toml");
        fs::write(&policy, "").unwrap();
        let socket = folder.path().join("agent.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let mut config = Config { data_dir: data.clone(), policy: vec![policy.clone()], ..Config::default() };
        let data = real(&data).unwrap();
        let plan = Plan::new(&config, None);
        assert_eq!(plan.folder, data);
        assert_eq!(plan.shown, ["ca.pem", "bundle.pem"].map(|name| data.join(name)).into());
        assert!(plan.hidden.contains(&real(&policy).unwrap()), "{:?}", plan.hidden);
        assert!(plan.hidden.contains(&real(&socket).unwrap()), "{:?}", plan.hidden);
        assert!(!plan.hidden.contains(Path::new("/dev/null")));
        assert!(plan.read_only.contains(&std::env::current_exe().unwrap()));
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
        let odd = Plan { folder: PathBuf::from(OsStr::from_bytes(b"/a\xff\xc3\xbc")), ..Plan::default() };
        assert_eq!(serde_json::from_str::<Plan>(&serde_json::to_string(&odd).unwrap()).unwrap(), odd);
        config.fence.sockets = vec![socket.clone()];
        let plan = Plan::new(&config, None);
        assert!(!plan.hidden.contains(&real(&socket).unwrap()), "it is kept");
        assert!(plan.kept.contains(&real(&socket).unwrap()));
    }
}
