//! Rows of the chain on their way into the database: as few statements as it takes.

use std::sync::{Arc, LazyLock};

use policy::chain::Head;
use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{Arguments, AssertSqlSafe};

use super::entry::{DecisionColumns, OutcomeColumns, Text};

/// Rows a statement inserts at most. Up to as many statements are prepared, each when it is first needed.
pub(super) const LARGEST_INSERT: usize = 64;

/// A record with its place in the chain, and the columns it is searched by.
#[derive(Debug)]
pub(super) struct Row {
    pub head: Head,
    pub text: Text,
    pub columns: Columns,
}

#[derive(Debug)]
pub(super) enum Columns {
    Decision(Arc<DecisionColumns>),
    Outcome(u64, OutcomeColumns),
    Event,
}

/// The statements that insert 1, 2, 3 … rows. Placeholders have no numbers: SQLite looks a numbered one up in a
/// list, for each value again.
static INSERTS: LazyLock<Vec<Arc<str>>> = LazyLock::new(|| {
    let row = format!("({})", ["?"; 16].join(","));
    let statement = |rows| {
        let values = vec![row.as_str(); rows].join(",");
        format!(
            "INSERT INTO records (seq, kind, time, id, decision, session, agent, class, host, domain, action, \
             reason, findings, bytes, record, hash) VALUES {values}"
        )
        .into()
    };
    (1..=LARGEST_INSERT).map(statement).collect()
});

/// Inserts up to [`LARGEST_INSERT`] rows by one statement.
pub(super) async fn insert(connection: &mut SqliteConnection, rows: &[Row]) -> Result<(), sqlx::Error> {
    let mut arguments = SqliteArguments::default();
    arguments.reserve(16 * rows.len(), 0);
    for row in rows {
        row.bind(&mut arguments).map_err(sqlx::Error::Encode)?;
    }
    let statement = Arc::clone(&INSERTS[rows.len() - 1]);
    sqlx::query_with(AssertSqlSafe(statement), arguments).execute(connection).await?;
    Ok(())
}

impl Row {
    fn bind(&self, to: &mut SqliteArguments) -> Result<(), sqlx::error::BoxDynError> {
        const TEXT: Option<&str> = None;
        const NUMBER: Option<i64> = None;
        to.add(number(self.head.seq))?;
        match &self.columns {
            Columns::Decision(columns) => {
                to.add("decision")?;
                to.add(self.text.time)?;
                to.add(columns.id.to_string())?;
                to.add(NUMBER)?;
                to.add(columns.session.map(|session| session.to_string()))?;
                to.add(columns.agent.as_str())?;
                to.add(columns.class.as_str())?;
                to.add(columns.host.clone())?;
                to.add(columns.domain.clone())?;
                to.add(columns.action.as_str())?;
                to.add(columns.reason.as_str())?;
                to.add(columns.findings)?;
                to.add(NUMBER)?;
            }
            Columns::Outcome(decision, columns) => {
                to.add("outcome")?;
                to.add(self.text.time)?;
                to.add(TEXT)?;
                to.add(number(*decision))?;
                for _ in 0..7 {
                    to.add(TEXT)?;
                }
                to.add(columns.findings)?;
                to.add(number(columns.bytes))?;
            }
            Columns::Event => {
                to.add("event")?;
                to.add(self.text.time)?;
                for _ in 0..11 {
                    to.add(TEXT)?;
                }
            }
        }
        to.add(Arc::clone(&self.text.canonical))?;
        to.add(self.head.hash.as_bytes().as_slice())
    }
}

/// A number as the database holds it.
pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
