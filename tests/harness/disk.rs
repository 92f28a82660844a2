//! Disks that fail when they are told to.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use tempfile::TempDir;
use tokio::process::Command;

use super::gate::GateBuilder;
use crate::clients::has;

/// Under one gateway: what it writes to its store can be made to fail, with any error of the system's.
pub struct FailingDisk {
    folder: TempDir,
}

impl FailingDisk {
    /// A disk in good order; `None` where it cannot be made, which is said.
    pub async fn new() -> Option<FailingDisk> {
        if !cfg!(all(target_os = "linux", target_env = "gnu")) {
            eprintln!("SKIPPED: a disk can be made to fail on Linux with glibc alone");
            return None;
        }
        if !has("cc") {
            return None;
        }
        let disk = FailingDisk { folder: TempDir::new().unwrap() };
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/harness/failing-disk.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(disk.library()).args([source, "-ldl"]);
        let output = compiler.output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(disk)
    }

    /// Puts it under a gateway.
    pub fn under(&self) -> impl FnOnce(GateBuilder) -> GateBuilder + 'static {
        let (library, order) = (self.library(), self.order());
        move |gate| {
            gate.environment("LD_PRELOAD", library.to_str().unwrap())
                .environment("FAILING_DISK", order.to_str().unwrap())
        }
    }

    /// From now on nothing can be written.
    pub fn fail(&self, error: Errno) {
        // Whole or not at all: the gateway reads it at any moment.
        let draft = self.folder.path().join("draft");
        std::fs::write(&draft, error.raw_os_error().to_string()).unwrap();
        std::fs::rename(draft, self.order()).unwrap();
    }

    /// In good order again.
    pub fn mend(&self) {
        std::fs::remove_file(self.order()).unwrap();
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("failing-disk.so")
    }

    fn order(&self) -> PathBuf {
        self.folder.path().join("order")
    }
}
