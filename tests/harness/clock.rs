//! A clock that can be set while a gateway runs.

use tempfile::TempDir;

use super::disk::preloaded;
use super::gate::GateBuilder;

/// The wall clock of one gateway.
pub struct Clock {
    folder: TempDir,
}

impl Clock {
    /// A clock that is right; `None` where it cannot be made, which is said.
    pub async fn new() -> Option<Clock> {
        let folder = TempDir::new().unwrap();
        preloaded("clock.c", &folder.path().join("clock.so")).await.then_some(Clock { folder })
    }

    /// Hangs it in a gateway.
    pub fn inside(&self) -> impl FnOnce(GateBuilder) -> GateBuilder + 'static {
        let (library, order) = (self.folder.path().join("clock.so"), self.folder.path().join("order"));
        move |gate| {
            gate.environment("LD_PRELOAD", library.to_str().unwrap())
                .environment("ODD_CLOCK", order.to_str().unwrap())
        }
    }

    /// Sets it so many seconds off.
    pub fn set_off(&self, seconds: i64) {
        // Whole or not at all: the gateway reads it at any moment.
        let draft = self.folder.path().join("draft");
        std::fs::write(&draft, seconds.to_string()).unwrap();
        std::fs::rename(draft, self.folder.path().join("order")).unwrap();
    }
}
