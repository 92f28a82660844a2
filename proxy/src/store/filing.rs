//! Filing: the indexes that decisions are searched by take them up behind the commit, many at a time, not within it.
//!
//! A decision is committed with `fresh = 1`, which keeps it out of those indexes. What comes after the number `filed` in
//! `meta` is looked through instead; filing moves that number along, in the transaction that puts the rows into the
//! indexes. So every search has two parts, and asks for both in one statement, which sees them as of one moment.

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, Row as _};

use super::row::number;
use super::{CommitError, Writer, set_meta};

/// What `fresh` says of a decision that the indexes do not know yet; of all others it says nothing.
pub(super) const FRESH: i64 = 1;
/// Records that a step files at most: more than a batch has, so that filing keeps up, and few enough that who waits
/// waits some milliseconds.
const STEP: u64 = 1024;

/// The record up to which everything is filed. Without a note of it all is looked through, which is slow and right.
macro_rules! filed {
    () => {
        "coalesce((SELECT CAST(value AS INTEGER) FROM meta WHERE name = 'filed'), 0)"
    };
}

/// Of `records` alone: the decisions that the indexes do not know yet.
macro_rules! unfiled {
    () => {
        concat!("fresh = 1 AND seq > ", $crate::store::filing::filed!())
    };
}

/// Decisions to be searched, as a table. SQLite makes one search of each part and merges them in the order of `seq`; it
/// uses an index for the first part only where the part says `fresh IS NULL`, as the index does.
///
/// The cast means nothing. It keeps a lower bound of a search from the key of the second part, where SQLite would
/// otherwise be free to begin at that bound instead of at what is not filed. Not a view: it would lie in the file, where
/// somebody could make it hide what they like, and nothing checks that.
macro_rules! sought {
    () => {
        concat!(
            "(SELECT seq, time, session, agent, class, host, domain, action, reason, record, hash FROM records \
             WHERE id IS NOT NULL AND fresh IS NULL UNION ALL \
             SELECT CAST(seq AS INTEGER) AS seq, time, session, agent, class, host, domain, action, reason, record, \
             hash FROM records WHERE ",
            $crate::store::filing::unfiled!(),
            ")"
        )
    };
}

pub(super) use {filed, sought, unfiled};

impl Writer {
    /// How many records were committed and are not filed. A command leaves it to the gateway to file what it commits.
    pub fn unfiled(&self) -> u64 {
        let gateway = self.marked.is_some();
        if gateway { self.head.seq.saturating_sub(self.filed) } else { 0 }
    }

    /// Files some of the records that are not filed, the oldest first.
    ///
    /// # Errors
    /// Nothing was filed. It is found all the same.
    pub async fn file(&mut self) -> Result<(), CommitError> {
        if self.unfiled() == 0 {
            return Ok(());
        }
        if !self.files.are_there() {
            return Err(CommitError::Gone(self.files.path().to_owned()));
        }
        let (after, through) = (self.filed, self.head.seq.min(self.filed + STEP));
        if let Err(error) = file(&mut self.connection, after, through).await {
            // Where this fails, too, the next commit does, and is settled.
            let _ = self.renew().await;
            return Err(error.into());
        }
        self.filed = through;
        self.log_grew(through - after);
        Ok(())
    }
}

async fn file(connection: &mut SqliteConnection, after: u64, through: u64) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query("UPDATE records SET fresh = NULL WHERE seq > $1 AND seq <= $2 AND fresh = 1")
        .bind(number(after))
        .bind(number(through))
        .execute(&mut *transaction)
        .await?;
    set_meta(&mut transaction, "filed", &through.to_string()).await?;
    transaction.commit().await
}

/// The record up to which everything is filed, as searches see it.
pub(super) async fn filed_through(connection: &mut SqliteConnection) -> Result<u64, sqlx::Error> {
    let row = sqlx::query(concat!("SELECT ", filed!(), " AS filed")).fetch_one(connection).await?;
    Ok(u64::try_from(row.try_get::<i64, _>("filed")?).unwrap_or(0))
}

#[cfg(test)]
pub(super) mod tests;
