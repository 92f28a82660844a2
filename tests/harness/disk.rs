//! Disks that fail when they are told to.

use std::path::{Path, PathBuf};

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
        let disk = FailingDisk { folder: TempDir::new().unwrap() };
        preloaded("failing-disk.c", &disk.library()).await.then_some(disk)
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

/// Makes a library of a source of this folder, to be loaded into a gateway; where that is not possible it says so.
pub(super) async fn preloaded(source: &str, library: &Path) -> bool {
    if !cfg!(all(target_os = "linux", target_env = "gnu")) {
        eprintln!("SKIPPED: libraries are put under the gateway on Linux with glibc alone");
        return false;
    }
    if !has("cc") {
        return false;
    }
    let source = format!("{}/../tests/harness/{source}", env!("CARGO_MANIFEST_DIR"));
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(library).args([&source, "-ldl"]);
    let output = compiler.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    true
}
