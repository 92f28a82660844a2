//! What a fence hides and protects: found on the host before it is put up, carried out inside by `mounts`.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

use crate::config::Config;

/// Files of a host that hold sockets; one that holds more is not searched to its end.
const SEARCH_LIMIT: usize = 20_000;
const SEARCH_DEPTH: usize = 4;

/// Everything the inside must know, in absolute paths without symbolic links.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Only to find out whether a fence can be put up: no command is run.
    pub trial: bool,
    /// The data folder. Inside, an empty one takes its place.
    pub folder: PathBuf,
    /// Files of the data folder that programs inside have to read: certificates.
    pub shown: Vec<PathBuf>,
    /// Files, sockets and devices that read as nothing inside.
    pub hidden: BTreeSet<PathBuf>,
    /// Folders in whose place stands an empty one that may be written to.
    pub emptied: BTreeSet<PathBuf>,
    /// Sockets of the host that stay reachable.
    pub kept: BTreeSet<PathBuf>,
    /// Files and folders that cannot be changed from inside.
    pub read_only: BTreeSet<PathBuf>,
    /// Loopback services of the host that are reachable inside.
    pub forward: Vec<SocketAddr>,
}

impl Plan {
    /// The plan for a session of the data folder of `config`.
    pub fn new(config: &Config) -> Plan {
        let folder = real(&config.data_dir).unwrap_or_else(|| config.data_dir.clone());
        let kept: BTreeSet<PathBuf> = config.fence.sockets.iter().filter_map(|path| real(path)).collect();
        let run = PathBuf::from(format!("/run/user/{}", geteuid().as_raw()));
        let emptied: BTreeSet<PathBuf> = [run].into_iter().filter(|path| path.is_dir()).collect();
        let mut hidden: BTreeSet<PathBuf> = sockets();
        hidden.extend(devices(Path::new("/dev")));
        hidden.extend(config.policy.iter().chain([&config.config]).filter_map(|path| real(path)));
        let covered = |path: &PathBuf| {
            kept.contains(path)
                || path.starts_with(&folder)
                || emptied.iter().any(|empty| path.starts_with(empty))
        };
        hidden.retain(|path| !covered(path));
        Plan {
            trial: false,
            shown: ["ca.pem", "bundle.pem"].map(|name| folder.join(name)).to_vec(),
            folder,
            hidden,
            emptied,
            kept,
            read_only: protected(),
            forward: config.fence.forward.clone(),
        }
    }
}

/// The first symbolic link on the way to a file that this user could replace by another: what is covered by its real
/// name would then not be what the gateway reads next time.
pub fn replaceable_link(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    let mut above: Vec<&Path> = path.ancestors().collect();
    above.reverse();
    let replaceable = |part: &&&Path| {
        part.is_symlink()
            && part.parent().is_some_and(|folder| rustix::fs::access(folder, Access::WRITE_OK).is_ok())
    };
    above.iter().find(replaceable).map(|part| part.to_path_buf())
}

fn real(path: &Path) -> Option<PathBuf> {
    fs::canonicalize(path).ok()
}

/// Every Unix socket of the host that has a name among files: those the kernel lists, and those found where services
/// put them, since the kernel lists only our own network namespace's.
fn sockets() -> BTreeSet<PathBuf> {
    let listed = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let mut found: BTreeSet<PathBuf> =
        named_sockets(&listed).filter(|path| is_socket(path)).filter_map(|path| real(&path)).collect();
    let mut left = SEARCH_LIMIT;
    for folder in ["/run", "/tmp", "/var/run", "/var/tmp"].iter().filter_map(|path| real(Path::new(path))) {
        search(&folder, SEARCH_DEPTH, &mut left, &mut found);
    }
    found
}

/// The file names in `/proc/net/unix`; names that begin with `@` belong to the network namespace.
fn named_sockets(listed: &str) -> impl Iterator<Item = PathBuf> {
    let name = |line: &str| {
        line.split_ascii_whitespace()
            .nth(7)
            .and_then(|first| line.find(first).map(|at| line[at..].to_owned()))
    };
    listed
        .lines()
        .skip(1)
        .filter_map(name)
        .filter(|name| name.starts_with('/'))
        .map(PathBuf::from)
        .collect::<Vec<_>>()
        .into_iter()
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
    "console",
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
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    let mut all: BTreeSet<PathBuf> =
        home.iter().flat_map(|home| STARTED.iter().filter_map(|name| real(&home.join(name)))).collect();
    if geteuid().is_root() {
        all.extend(STARTED_BY_ALL.iter().filter_map(|name| real(Path::new(name))));
    }
    // Whoever can replace the program decides what the next gateway is.
    all.extend(std::env::current_exe().ok().and_then(|program| real(&program)));
    all
}

/// Environment variables that would only lead to a hidden socket.
pub fn dead_variables(plan: &Plan) -> Vec<&'static str> {
    let alive = |name: &str| {
        let value = std::env::var(name).unwrap_or_default();
        plan.kept.iter().any(|kept| value.contains(&*kept.to_string_lossy()))
    };
    ["SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS", "WAYLAND_DISPLAY", "DISPLAY", "GPG_AGENT_INFO"]
        .into_iter()
        .filter(|name| !alive(name))
        .collect()
}

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
        let found: Vec<_> = named_sockets(listed).collect();
        assert_eq!(found, [Path::new("/run/dbus/system bus.sock"), Path::new("/run/systemd/notify")]);
    }

    #[test]
    fn a_link_that_could_be_replaced_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let top = fs::canonicalize(folder.path()).unwrap();
        fs::create_dir_all(top.join("real/data")).unwrap();
        std::os::unix::fs::symlink(top.join("real"), top.join("link")).unwrap();
        assert_eq!(replaceable_link(&top.join("real/data")), None);
        assert_eq!(replaceable_link(&top.join("link/data")), Some(top.join("link")));
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
        let plan = Plan::new(&config);
        assert_eq!(plan.folder, data);
        assert_eq!(plan.shown, [data.join("ca.pem"), data.join("bundle.pem")]);
        assert!(plan.hidden.contains(&real(&policy).unwrap()), "{:?}", plan.hidden);
        assert!(plan.hidden.contains(&real(&socket).unwrap()), "{:?}", plan.hidden);
        assert!(!plan.hidden.contains(Path::new("/dev/null")));
        assert!(plan.read_only.contains(&std::env::current_exe().unwrap()));
        config.fence.sockets = vec![socket.clone()];
        let plan = Plan::new(&config);
        assert!(!plan.hidden.contains(&real(&socket).unwrap()), "it is kept");
        assert!(plan.kept.contains(&real(&socket).unwrap()));
    }
}
