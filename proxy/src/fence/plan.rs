//! What a fence hides and protects: found on the host before it is put up, carried out inside by `mounts`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use policy::Policy;
use policy::document::{KnownFrom, KnownSource};
use rustix::fs::Access;
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

use super::{environment, sockets};
use crate::config::Config;
use crate::running::Running;

/// Entries of a folder that is a policy's own, at the most.
const OWN_ENTRIES: usize = 100;
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
    /// Names that sockets of the host once had which could not be found, and so are not hidden.
    #[serde(skip)]
    pub unfound: BTreeSet<PathBuf>,
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
        let here = std::env::current_dir().ok();
        let first: Vec<_> = here.iter().chain([&plan.folder]).cloned().collect();
        let sockets = sockets::of_host(&first);
        plan.unfound = sockets.missing;
        let mut hidden = sockets.found;
        hidden.extend(devices(Path::new("/dev")));
        let governing = governing(config, gateway).into_iter().filter_map(|path| real(&path));
        let governing: Vec<_> = governing.filter(|path| !path.starts_with(&plan.folder)).collect();
        plan.read_only.extend(governing.iter().filter_map(|file| own_folder(file, here.as_deref())));
        hidden.extend(governing);
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

    /// Keeps these files from being changed too.
    pub fn keep_unchanged(&mut self, files: &[PathBuf]) {
        let seen = files.iter().filter_map(|path| real(path)).filter(|path| !path.starts_with(&self.folder));
        self.read_only.extend(seen.filter(|path| !self.hidden.contains(path)));
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
    files.extend([config.data_dir.clone(), config.data_dir.join("policy.d")].iter().flat_map(|folder| {
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect::<Vec<_>>()
    }));
    files
}

/// The files in which a policy looks up the secrets that it knows.
pub fn known_files(policy: &Policy) -> Vec<PathBuf> {
    let file = |source: &KnownSource| {
        let beside = Path::new(&*source.origin.file).parent().unwrap_or(Path::new("."));
        match &source.from {
            KnownFrom::File(path) | KnownFrom::Dotenv(path) => Some(beside.join(&**path)),
            KnownFrom::Env(_) => None,
        }
    };
    policy.known_sources().iter().filter_map(file).collect()
}

/// The folder of a file, where it holds little else: nobody minds that it is read-only. A cover over the file alone would
/// go when somebody outside puts another file in its place, as editors do when they save; this one stays.
fn own_folder(file: &Path, here: Option<&Path>) -> Option<PathBuf> {
    const STICKY: u32 = 0o1000;
    let folder = file.parent()?;
    let for_all = fs::metadata(folder).ok()?.mode() & STICKY != 0 || folder == std::env::temp_dir();
    let at_work = environment::homes().contains(folder) || here.is_none_or(|here| here.starts_with(folder));
    let entries: Vec<_> = fs::read_dir(folder).ok()?.flatten().take(OWN_ENTRIES + 1).collect();
    let others = |entry: &fs::DirEntry| {
        let of_policy = [".git", "policy.d"].iter().any(|name| entry.file_name() == *name);
        !of_policy && entry.file_type().is_ok_and(|kind| kind.is_dir())
    };
    let its_own = entries.len() <= OWN_ENTRIES && !entries.iter().any(others);
    (!for_all && !at_work && its_own).then(|| folder.to_owned())
}

/// The data folder that commands take which name no other.
pub fn default_folder() -> Option<PathBuf> {
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
        if links > LINKS || changeable(&at) {
            return Some(next);
        }
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        left.extend(parts(&target));
    }
    None
}

/// Whether this user can rename what is in a folder, or give itself the right to.
pub(super) fn changeable(folder: &Path) -> bool {
    let own = |file: fs::Metadata| file.uid() == geteuid().as_raw();
    rustix::fs::access(folder, Access::WRITE_OK).is_ok() || fs::metadata(folder).is_ok_and(own)
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
    ".bash_completion",
    ".bash_login",
    ".bash_logout",
    ".bash_profile",
    ".bashrc",
    ".config/autostart",
    ".config/environment.d",
    ".config/fish",
    ".config/git",
    ".config/nushell",
    ".config/plasma-workspace",
    ".config/systemd",
    ".config/xonsh",
    ".cargo/env",
    ".cshrc",
    ".gitconfig",
    ".gnupg/gpg-agent.conf",
    ".gnupg/gpg.conf",
    ".inputrc",
    ".kshrc",
    ".local/share/dbus-1",
    ".local/share/systemd",
    ".login",
    ".oh-my-zsh",
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
    let homes = environment::homes();
    // A link that leads elsewhere is a program's way to have something else protected.
    let below_home =
        |path: PathBuf| real(&path).filter(|path| homes.iter().any(|home| path.starts_with(home)));
    let mut all: BTreeSet<PathBuf> =
        homes.iter().flat_map(|home| STARTED.iter().filter_map(|name| below_home(home.join(name)))).collect();
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
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

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
    fn a_folder_that_its_owner_could_make_writable_counts_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let closed = folder.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o555)).unwrap();
        assert!(changeable(&closed));
        assert!(geteuid().is_root() || !changeable(Path::new("/usr")));
    }

    #[test]
    fn a_folder_of_policies_is_kept_as_it_is_and_one_to_work_in_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let top = real(folder.path()).unwrap();
        let file = top.join("policy.toml");
        fs::write(&file, "").unwrap();
        let elsewhere = Some(Path::new("/usr"));
        assert_eq!(own_folder(&file, elsewhere), Some(top.clone()));
        assert_eq!(own_folder(&file, Some(&top)), None, "the command works there");
        assert_eq!(own_folder(&file, Some(&top.join("below"))), None);
        assert_eq!(own_folder(&file, None), None);
        fs::create_dir(top.join("policy.d")).unwrap();
        assert_eq!(own_folder(&file, elsewhere), Some(top.clone()));
        let mode =
            |mode| fs::set_permissions(&top, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        mode(0o1777);
        assert_eq!(own_folder(&file, elsewhere), None, "everybody's, as `/tmp` is");
        mode(0o700);
        fs::create_dir(top.join("src")).unwrap();
        assert_eq!(own_folder(&file, elsewhere), None, "it holds other things");
    }

    #[test]
    fn files_of_known_secrets_are_kept_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let top = real(folder.path()).unwrap();
        let policy = top.join("policy.toml");
        fs::write(&policy, "[secrets]\nknown = [\"dotenv:.env\", \"file:/token\", \"env:TOKEN\"]").unwrap();
        fs::write(top.join(".env"), "PASSWORD=correct-horse").unwrap();
        let config = Config { data_dir: top.clone(), policy: vec![policy], ..Config::default() };
        let read = crate::policies::load(&config, &crate::policies::known::Known::default(), &|_| None)
            .unwrap()
            .rules;
        assert_eq!(known_files(&read), [top.join(".env"), PathBuf::from("/token")]);
        let mut plan = Plan { folder: PathBuf::from("/nowhere"), ..Plan::default() };
        plan.keep_unchanged(&known_files(&read));
        assert_eq!(plan.read_only, [top.join(".env")].into());
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
