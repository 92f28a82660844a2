//! Dropping old records in the gaps between batches, in steps too short for a request to notice.

use std::time::{Duration, Instant};

use crate::signing::Signer;
use crate::store::{CommitError, Writer};

/// How long a step may hold the writer; a request waits for one step at most.
const STEP: Duration = Duration::from_millis(2);
/// Records of the first step; later ones are as large as fit the time.
const FIRST_STEP: u64 = 32;
const LARGEST_STEP: u64 = 4096;
/// Between two steps while requests come in, so that most of the writer's time is theirs.
const PAUSE: Duration = Duration::from_millis(4);
/// After a step that failed.
const RETRY: Duration = Duration::from_secs(1);

/// A pruning under way.
#[derive(Debug)]
pub(super) struct Pruning {
    through: u64,
    step: u64,
    next: Instant,
}

impl Pruning {
    pub(super) fn through(through: u64) -> Pruning {
        Pruning { through, step: FIRST_STEP, next: Instant::now() }
    }

    /// How long until the next step.
    pub(super) fn wait(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    /// Drops some records; `true` once all are gone. `busy` says whether anything else was written since the last step.
    pub(super) async fn step(
        &mut self,
        writer: &mut Writer,
        signer: &Signer,
        busy: bool,
    ) -> Result<bool, CommitError> {
        let began = Instant::now();
        let step = writer.prune_step(self.through, self.step, signer).await;
        let took = began.elapsed();
        let pause = if busy { PAUSE } else { Duration::ZERO };
        self.next = Instant::now() + if step.is_ok() { pause } else { RETRY };
        self.step = next_size(self.step, took);
        step
    }
}

/// As many records as would have fitted the time, changing by no more than twice at once.
fn next_size(size: u64, took: Duration) -> u64 {
    let fitting = STEP.as_nanos().saturating_mul(size.into()) / took.as_nanos().max(1);
    let fitting = u64::try_from(fitting).unwrap_or(LARGEST_STEP);
    fitting.clamp(size / 2, size * 2).clamp(1, LARGEST_STEP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_become_as_large_as_fits_the_time() {
        for (size, millis, next) in [
            (100, 2, 100),
            (100, 4, 50),
            (100, 400, 50),
            (100, 1, 200),
            (100, 0, 200),
            (4000, 1, 4096),
            (1, 50, 1),
        ] {
            assert_eq!(
                next_size(size, Duration::from_millis(millis)),
                next,
                "{size} records took {millis} ms"
            );
        }
    }
}
