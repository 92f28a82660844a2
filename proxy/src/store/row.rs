//! Rows of the chain on their way into the database.

use std::sync::Arc;

use policy::chain::Head;
use rusqlite::{Connection, Statement, ToSql};

use super::entry::{DecisionColumns, OutcomeColumns, Text};
use super::filing::FRESH;

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

/// One statement for each kind: what a kind has no column for is not bound.
const DECISION: &str = "INSERT INTO records (seq, time, record, hash, kind, id, session, agent, class, host, domain, \
     action, reason, findings, fresh) VALUES (?, ?, ?, ?, 'decision', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
const OUTCOME: &str = "INSERT INTO records (seq, time, record, hash, kind, decision, findings, bytes) \
     VALUES (?, ?, ?, ?, 'outcome', ?, ?, ?)";
const EVENT: &str = "INSERT INTO records (seq, time, record, hash, kind) VALUES (?, ?, ?, ?, 'event')";

impl Row {
    pub(super) fn insert(&self, connection: &Connection) -> rusqlite::Result<()> {
        let statement = match &self.columns {
            Columns::Decision(_) => DECISION,
            Columns::Outcome(..) => OUTCOME,
            Columns::Event => EVENT,
        };
        let mut statement = connection.prepare_cached(statement)?;
        let mut values = Values { statement: &mut statement, bound: 0 };
        values.bind(number(self.head.seq))?;
        values.bind(self.text.time)?;
        values.bind(&*self.text.canonical)?;
        values.bind(self.head.hash.as_bytes().as_slice())?;
        match &self.columns {
            Columns::Decision(columns) => {
                let mut text = [0; ulid::ULID_LEN];
                values.bind(&*columns.id.array_to_str(&mut text))?;
                values.bind(columns.session.map(|session| session.to_string()))?;
                values.bind(columns.agent.as_str())?;
                values.bind(columns.class.as_str())?;
                values.bind(columns.host.as_deref())?;
                values.bind(columns.domain.as_deref())?;
                values.bind(columns.action.as_str())?;
                values.bind(columns.reason.as_str())?;
                values.bind(columns.findings)?;
                values.bind(FRESH)?;
            }
            Columns::Outcome(decision, columns) => {
                values.bind(number(*decision))?;
                values.bind(columns.findings)?;
                values.bind(number(columns.bytes))?;
            }
            Columns::Event => {}
        }
        statement.raw_execute().map(drop)
    }
}

/// The values of a statement, in the order in which it names them.
struct Values<'s, 'c> {
    statement: &'s mut Statement<'c>,
    bound: usize,
}

impl Values<'_, '_> {
    fn bind(&mut self, value: impl ToSql) -> rusqlite::Result<()> {
        self.bound += 1;
        self.statement.raw_bind_parameter(self.bound, value)
    }
}

/// A number as the database holds it.
pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
