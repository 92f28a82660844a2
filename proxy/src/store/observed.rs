//! Decisions with their outcomes, all of a scope, oldest first: for suggestions and replays, which look at each once.

use policy::chain::{BadRecord, Problem};
use policy::observed::Observed;
use policy::report::Scope;

use super::filing::sought;
use super::query::unsigned;
use super::report::Within;
use super::row::number;
use super::{Store, StoreError};

/// Decisions read at a time.
const PAGE: u32 = 5000;

pub(super) const OBSERVED: &str = concat!(
    "SELECT d.seq, d.record, o.record AS outcome FROM ",
    sought!(),
    " d LEFT JOIN records o ON o.decision = d.seq WHERE TRUE"
);

impl Store {
    /// Calls `each` with every decision of a scope, and `progress` with how many of how many records were passed. Gives
    /// how many decisions there were, or what `each` ended it with.
    ///
    /// # Errors
    /// A store that cannot be read, or that holds something else than records.
    pub async fn observed<E>(
        &self,
        scope: &Scope,
        mut each: impl FnMut(&Observed) -> Result<(), E>,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Result<u64, E>, StoreError> {
        let Some((first, last)) = self.numbers(scope).await? else { return Ok(Ok(0)) };
        let (mut count, mut after) = (0, first.saturating_sub(1));
        loop {
            let page = self.observed_after(scope, after, last).await?;
            let Some((reached, _)) = page.last() else { return Ok(Ok(count)) };
            after = *reached;
            count += page.len() as u64;
            if let Err(ended) = page.iter().try_for_each(|(_, seen)| each(seen)) {
                return Ok(Err(ended));
            }
            progress(after - first + 1, last - first + 1);
        }
    }

    async fn observed_after(
        &self,
        scope: &Scope,
        after: u64,
        last: u64,
    ) -> Result<Vec<(u64, Observed)>, StoreError> {
        let mut query = Within::new(OBSERVED, scope)?;
        query.and(" AND d.seq > ", number(after))?;
        query.and(" AND d.seq <= ", number(last))?;
        let rows = query.ended(&format!(" ORDER BY d.seq LIMIT {PAGE}")).fetch_all(&self.readers()).await?;
        let read = |row: &sqlx::sqlite::SqliteRow| {
            use sqlx::Row as _;
            let seq = unsigned(row, "seq")?;
            let seen = Observed::parse(row.try_get("record")?, row.try_get("outcome")?);
            let bad = BadRecord { seq, problem: Problem::Unreadable };
            Ok((seq, seen.map_err(|_| StoreError::Row(bad))?))
        };
        rows.iter().map(read).collect()
    }
}
