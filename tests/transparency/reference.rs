//! The reference: hudsucker with no handlers, as `bench/peers/hudsucker-min` builds it.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::harness::{Agent, PATIENCE, TestCa};

/// A variable that names the program.
const VARIABLE: &str = "OUTGATE_REFERENCE";

/// The program running, until it is dropped.
pub struct Reference {
    /// A client of it.
    pub agent: Agent,
    _child: Child,
    _files: TempDir,
}

/// Where the program is, if it was built.
pub fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(VARIABLE) {
        return Some(named.into());
    }
    let bench = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/target");
    let built = ["release", "debug"].map(|profile| bench.join(profile).join("hudsucker-min"));
    built.into_iter().find(|program| program.is_file())
}

impl Reference {
    /// Starts it with `ca` as its own authority and as the one it trusts.
    pub async fn start(program: &Path, ca: &TestCa) -> Reference {
        let files = tempfile::tempdir().unwrap();
        let (certificate, key) = (files.path().join("ca.pem"), files.path().join("ca.key"));
        std::fs::write(&certificate, ca.pem()).unwrap();
        std::fs::write(&key, ca.key_pem()).unwrap();
        let mut child = Command::new(program)
            .arg("127.0.0.1:0")
            .args([&certificate, &key, &certificate])
            .env("NODELAY", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let line =
            timeout(PATIENCE, said.next_line()).await.expect("the reference does not get ready").unwrap();
        let line = line.expect("the reference says where it listens");
        let address = line.strip_prefix("proxy http://").unwrap().parse().unwrap();
        let agent = Agent::new(address, &ca.pem(), (0, 0));
        Reference { agent, _child: child, _files: files }
    }
}
