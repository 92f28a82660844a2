//! What was recorded since somebody last looked, for those who look on.

use policy::view::DecisionView;
use serde_json::value::RawValue;
use sqlx::Row as _;

use super::query::unsigned;
use super::row::number;
use super::{Store, StoreError};

/// What a few records changed.
#[derive(Debug, Default)]
pub struct Changed {
    /// Decisions that were taken or have ended, newest first, as they are now.
    pub decisions: Vec<DecisionView>,
    /// Events, in order, as they were recorded.
    pub events: Vec<Box<RawValue>>,
}

impl Store {
    /// What the records after one number up to another changed.
    ///
    /// # Errors
    /// A store that cannot be read, or that holds something else than records.
    pub async fn changed(&self, after: u64, through: u64) -> Result<Changed, StoreError> {
        let rows = sqlx::query(
            "SELECT DISTINCT coalesce(decision, seq) AS seq FROM records \
             WHERE seq > $1 AND seq <= $2 AND kind <> 'event'",
        );
        let rows = rows.bind(number(after)).bind(number(through)).fetch_all(&self.readers()).await?;
        let chosen: Vec<u64> = rows.iter().map(|row| unsigned(row, "seq")).collect::<Result<_, _>>()?;
        let rows = sqlx::query(
            "SELECT record FROM records WHERE seq > $1 AND seq <= $2 AND kind = 'event' ORDER BY seq",
        );
        let rows = rows.bind(number(after)).bind(number(through)).fetch_all(&self.readers()).await?;
        let mut events = Vec::with_capacity(rows.len());
        for row in &rows {
            let text: String = row.try_get("record")?;
            events.push(RawValue::from_string(text).map_err(|error| sqlx::Error::Decode(error.into()))?);
        }
        Ok(Changed { decisions: self.views(&chosen).await?, events })
    }
}
