//! The gateway's memory, watched until told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::gate::{Gate, resident};

/// Looks every 50 ms and remembers the most.
pub struct Watch {
    most: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    before: u64,
}

impl Watch {
    /// Begins.
    pub fn over(gate: &Gate) -> Watch {
        let (most, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let watch = Watch { most: most.clone(), stop: stop.clone(), before: gate.resident() };
        let pid = gate.pid();
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                most.fetch_max(resident(pid), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        watch
    }

    /// By how many bytes it has grown at most.
    pub fn growth(&self) -> u64 {
        self.most.load(Ordering::Relaxed).saturating_sub(self.before)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
