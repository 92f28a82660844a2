//! Records as they lie in the store, for who copies them out.

use policy::chain::{BadRecord, Hash, Head, Problem};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::hosts::domains;
use super::prune::last_before;
use super::query::unsigned;
use super::row::number;
use super::{Store, StoreError};

/// A record, nothing in it believed.
#[derive(Clone, Debug)]
pub struct RawRecord {
    /// Its number and hash.
    pub head: Head,
    /// What kind it is filed under.
    pub kind: String,
    /// Its canonical text.
    pub canonical: String,
}

impl Store {
    /// Up to `limit` records after a number, in order.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn records_after(&self, seq: u64, limit: u32) -> Result<Vec<RawRecord>, StoreError> {
        let rows =
            sqlx::query("SELECT seq, kind, record, hash FROM records WHERE seq > $1 ORDER BY seq LIMIT $2")
                .bind(number(seq))
                .bind(i64::from(limit))
                .fetch_all(&self.readers())
                .await?;
        rows.iter().map(record).collect()
    }

    /// Where the records begin: what the first one left follows on.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn beginning(&self) -> Result<Head, StoreError> {
        let stub = self.stub().await?;
        Ok(stub.and_then(|stub| stub.anchor().head()).unwrap_or(Head::GENESIS))
    }

    /// The point of the chain that a record is; `None` where it is not there.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn point(&self, seq: u64) -> Result<Option<Head>, StoreError> {
        let beginning = self.beginning().await?;
        if beginning.seq == seq {
            return Ok(Some(beginning));
        }
        let row = sqlx::query("SELECT seq, hash FROM records WHERE seq = $1")
            .bind(number(seq))
            .fetch_optional(&self.readers())
            .await?;
        row.as_ref().map(head).transpose()
    }

    /// The point after which all records of a time and later come, in microseconds since the Unix epoch.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn point_before(&self, time: i64) -> Result<Head, StoreError> {
        let records = self.last_seq().await?;
        let mut connection = self.readers().acquire().await?;
        let seq = last_before(&mut connection, records, time).await?;
        drop(connection);
        match self.point(seq).await? {
            Some(head) => Ok(head),
            None => self.beginning().await,
        }
    }
}

impl Store {
    /// The settings that the gateway was last started with, as it noted them.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn last_configuration(&self) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("SELECT value FROM meta WHERE name = 'configuration'")
            .fetch_optional(&self.readers())
            .await?;
        Ok(row.map(|row| row.try_get("value")).transpose()?)
    }

    /// The text of a policy that was in force, by its digest.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn policy_text(&self, digest: &str) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("SELECT text FROM policies WHERE digest = $1")
            .bind(digest)
            .fetch_optional(&self.readers())
            .await?;
        Ok(row.map(|row| row.try_get("text")).transpose()?)
    }

    /// The registrable domains that were ever asked for.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn domains(&self) -> Result<Vec<String>, StoreError> {
        let mut connection = self.readers().acquire().await?;
        Ok(domains(&mut connection).await?)
    }

    /// When the last record was made, in microseconds since the Unix epoch.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn last_time(&self) -> Result<Option<i64>, StoreError> {
        let row = sqlx::query("SELECT time FROM records ORDER BY seq DESC LIMIT 1")
            .fetch_optional(&self.readers())
            .await?;
        Ok(row.map(|row| row.try_get("time")).transpose()?)
    }
}

fn record(row: &SqliteRow) -> Result<RawRecord, StoreError> {
    Ok(RawRecord { head: head(row)?, kind: row.try_get("kind")?, canonical: row.try_get("record")? })
}

fn head(row: &SqliteRow) -> Result<Head, StoreError> {
    let seq = unsigned(row, "seq")?;
    let hash = Hash::from_bytes(row.try_get("hash")?);
    Ok(Head { seq, hash: hash.ok_or(StoreError::Row(BadRecord { seq, problem: Problem::Altered }))? })
}
