//! Programs that people really use, with nothing but the variables that `outgate env` prints, against servers of our
//! own that speak their protocols.
//!
//! `tests/setup.sh` installs the libraries. A test whose program is missing says `SKIPPED` and fails where `CI` is
//! `true`.

mod cargo;
mod curl;
mod git;
mod node;
mod python;
mod sdk;

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;

use crate::harness::World;

/// Longest that one run of a client may take; package managers are slow to start.
const LIMIT: Duration = Duration::from_secs(60);

/// A folder and an environment in which clients run: the gateway's variables, nothing of the machine's own settings.
pub struct Desk {
    folder: TempDir,
    variables: Vec<(String, String)>,
    /// What its programs are started by.
    fence: Vec<String>,
}

/// Says in an environment that desks stand in a fence: `fenced`, or `unaware`, where programs have no proxy variables
/// and origins are on standard ports.
pub const DESKS: &str = "TEST_DESKS";
const FENCED: &[&str] = &["run", "--fence", "require", "--"];
const PROXY: [&str; 6] = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// What starts a program at a desk of this world.
fn fence(world: &World) -> Vec<String> {
    let Ok(kind) = std::env::var(DESKS) else { return Vec::new() };
    let run = world.gate.command(FENCED);
    let words = [run.as_std().get_program()].into_iter().chain(run.as_std().get_args());
    let mut words: Vec<String> = words.map(|word| word.to_str().unwrap().to_owned()).collect();
    if kind == "unaware" {
        words.push("env".to_owned());
        words.extend(PROXY.iter().flat_map(|name| ["-u".to_owned(), (*name).to_owned()]));
    }
    words
}

impl Desk {
    /// A desk whose clients go through the world's gateway.
    pub async fn in_front_of(world: &World) -> Desk {
        let printed = world.gate.told(&["env", "--shell", "dotenv"]).await;
        let variable = |line: &str| {
            let (name, value) = line.split_once('=')?;
            Some((name.to_owned(), value.trim_matches(['"', '\'']).to_owned()))
        };
        let variables: Vec<_> = printed.lines().filter_map(variable).collect();
        assert!(variables.iter().any(|(name, _)| name == "HTTPS_PROXY"), "{printed}");
        Desk { folder: TempDir::new().unwrap(), variables, fence: fence(world) }
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A program, about to run at this desk.
    pub fn program(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = match &*self.fence {
            [] => Command::new(program),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        };
        command.current_dir(self.path()).env_clear().kill_on_drop(true).stdin(Stdio::null());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.path()).env("LC_ALL", "C.UTF-8");
        if self.fence.is_empty() {
            command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        }
        command
    }

    /// Runs a program with arguments to its end.
    pub async fn run(&self, program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Run {
        run(self.program(program).args(arguments)).await
    }
}

/// What a program did.
pub struct Run {
    /// Exit code; 0 where it succeeded.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Run {
    /// Standard output of a run that must have succeeded.
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}\n{}", self.out, self.err);
        self.out
    }
}

/// The starter policy, with hosts added that the origin plays on its own ports.
pub fn starter(hosts: &[&str]) -> String {
    let added: String = hosts.iter().map(|host| format!("\"{host}\", ")).collect();
    let starter = include_str!("../../policy/starter.toml");
    let extended = starter.replacen("\nallow = [", &format!("\nallow = [{added}"), 1);
    assert_ne!(extended, starter, "the starter policy allows nothing");
    extended
}

/// Runs a command to its end.
pub async fn run(command: &mut Command) -> Run {
    let output =
        tokio::time::timeout(LIMIT, command.output()).await.expect("the client does not end").unwrap();
    let Output { status, stdout, stderr } = output;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Run { code: status.code().unwrap_or(-1), out: text(stdout), err: text(stderr) }
}

/// Whether a program can be run; says so, and fails in CI, where it cannot.
pub fn has(program: impl AsRef<Path>) -> bool {
    let program = program.as_ref();
    let found = if program.components().count() > 1 {
        program.exists()
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.join(program).exists())
    };
    if !found {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "`{}` is missing", program.display());
        eprintln!("SKIPPED: `{}` is missing; tests/setup.sh installs the libraries", program.display());
    }
    found
}

/// The folder that `tests/setup.sh` fills.
pub fn installed() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("clients")
}

/// A tar archive, compressed, of the named files.
pub async fn archive(desk: &Desk, files: &[(&str, &str)]) -> Vec<u8> {
    for (name, content) in files {
        let path = desk.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let mut tar = Command::new("tar");
    tar.current_dir(desk.path()).args(["-czf", "archive.tgz"]).args(files.iter().map(|(name, _)| name));
    assert!(tar.status().await.unwrap().success());
    std::fs::read(desk.path().join("archive.tgz")).unwrap()
}

/// Asserts that every decision allowed, and that there are some.
pub async fn all_allowed(world: &World) {
    let rows = world.gate.decisions_reach(1).await;
    for row in &rows {
        assert_eq!((row.text("action"), row.text("outcome")), ("allow", "completed"), "{row:?}");
    }
}
