//! When committed decisions are filed: in the gaps between batches, many at once, and soon where few come.

use std::time::Duration;

use tokio::time::Instant;

use crate::store::Writer;

/// Records that are worth a step. Filing more at once is hardly cheaper, and what is not filed is looked through by every
/// search.
const WORTH: u64 = 512;
/// And after so long, however few they are.
const LATEST: Duration = Duration::from_secs(1);
/// After a step that failed.
const RETRY: Duration = Duration::from_secs(1);

/// What is known of the records that are not filed.
#[derive(Debug, Default)]
pub(super) struct Filing {
    /// When the first of them was committed; of those that a start found nobody knows.
    since: Option<Instant>,
    /// When what failed is tried again.
    again: Option<Instant>,
}

impl Filing {
    /// Something was committed.
    pub(super) fn committed(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    /// How long until the next step, with so many records not filed; `None` where there is none to come.
    pub(super) fn wait(&self, unfiled: u64) -> Option<Duration> {
        if unfiled == 0 {
            return None;
        }
        let due = self.since.filter(|_| unfiled < WORTH).map(|since| since + LATEST);
        let next = due.max(self.again);
        Some(next.map_or(Duration::ZERO, |next| next.saturating_duration_since(Instant::now())))
    }

    /// Files some. Nobody is refused where that fails: what is not filed is found all the same.
    pub(super) async fn step(&mut self, writer: &mut Writer) {
        match writer.file().await {
            Ok(()) => {
                self.since = (writer.unfiled() > 0).then(Instant::now);
                if self.again.take().is_some() {
                    tracing::info!("the search indexes take up records again");
                }
            }
            Err(error) => {
                if self.again.replace(Instant::now() + RETRY).is_none() {
                    tracing::warn!(%error, "the search indexes do not take up records yet; searches take longer");
                }
            }
        }
    }
}

/// Files everything, as far as there is time.
pub(super) async fn rest(writer: &mut Writer, deadline: Instant) {
    while writer.unfiled() > 0 && Instant::now() < deadline {
        if let Err(error) = writer.file().await {
            tracing::warn!(%error, "the search indexes do not have all records; the next start goes on");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filing_waits_for_many_or_for_a_second() {
        let now = Instant::now();
        let ago = |seconds| now.checked_sub(Duration::from_secs(seconds));
        let soon = Some(now + Duration::from_secs(60));
        for (sentence, since, again, unfiled, waits) in [
            ("nothing to do", None, None, 0, None),
            ("nothing to do, though it failed", ago(9), soon, 0, None),
            ("what a start found", None, None, 1, Some(false)),
            ("a few, just now", ago(0), None, WORTH - 1, Some(true)),
            ("a few, a while ago", ago(2), None, 1, Some(false)),
            ("many, just now", ago(0), None, WORTH, Some(false)),
            ("many, after a failure", ago(2), soon, WORTH, Some(true)),
            ("what a start found, after a failure", None, soon, 1, Some(true)),
        ] {
            let filing = Filing { since, again };
            assert_eq!(filing.wait(unfiled).map(|wait| !wait.is_zero()), waits, "{sentence}");
        }
    }
}
