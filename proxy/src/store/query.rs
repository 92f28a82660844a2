//! What is asked of the store: decisions joined with their outcomes, by filter, and what was uploaded lately.

use policy::chain::{BadRecord, Hash, Problem};
use policy::identity::{AgentName, SessionId};
use policy::record::Record;
use policy::redact::Redacted;
use policy::verdict::{Action, Class, Reason};
use policy::view::{DecisionView, Fate, Linked};
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteRow};
use sqlx::{AssertSqlSafe, Row};
use ulid::Ulid;

use super::writer::number;
use super::{Store, StoreError, findings};
use crate::clock;
use crate::running::Running;

/// Uploads are summed by the second.
const SECOND: i64 = 1_000_000;

/// Which decisions. Everything that is set must hold; `action` and `reason` are the last word.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Taken at or after, in microseconds since the Unix epoch.
    pub since: Option<i64>,
    /// In this session.
    pub session: Option<SessionId>,
    /// By this agent.
    pub agent: Option<AgentName>,
    /// About a destination of this class.
    pub class: Option<Class>,
    /// With this action.
    pub action: Option<Action>,
    /// With this reason.
    pub reason: Option<Reason>,
    /// About this host; `*.example.com` for all below it.
    pub host: Option<String>,
    /// With a finding of this kind, one of [`policy::record::Finding::KINDS`].
    pub finding: Option<String>,
    /// At most so many.
    pub limit: Option<u32>,
    /// Only those recorded before this number, to page backwards.
    pub before: Option<u64>,
}

/// What an agent sent to a domain within one second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// The agent.
    pub agent: AgentName,
    /// Registrable domain, or the host where it has none.
    pub domain: String,
    /// When, to the second below, in microseconds since the Unix epoch.
    pub time: i64,
    /// Bytes that left, heads included.
    pub bytes: u64,
}

/// A decision, the hash before it, and its outcome. The same rows whatever the order.
macro_rules! joined {
    ($rest:literal) => {
        concat!(
            "SELECT d.seq, d.record, d.hash, p.hash AS previous, o.seq AS outcome_seq, o.record AS outcome, \
             o.hash AS outcome_hash FROM records d LEFT JOIN records p ON p.seq = d.seq - 1 ",
            $rest
        )
    };
}

impl Store {
    /// Decisions, newest first.
    ///
    /// # Errors
    /// A store that cannot be read, or that holds something else than records.
    pub async fn decisions(&self, filter: &Filter) -> Result<Vec<DecisionView>, StoreError> {
        let select = joined!("LEFT JOIN records o ON o.decision = d.seq WHERE d.id IS NOT NULL");
        self.select(filter, select, None, " ORDER BY d.seq DESC").await
    }

    /// Decisions whose outcome was recorded after the record `after`, in the order in which they ended. The
    /// greatest `outcome_seq` among them is where to go on.
    ///
    /// # Errors
    /// As for [`Store::decisions`].
    pub async fn ended_after(&self, after: u64, filter: &Filter) -> Result<Vec<DecisionView>, StoreError> {
        let select = joined!("JOIN records o ON o.decision = d.seq WHERE o.seq > $1");
        self.select(filter, select, Some(after), " ORDER BY o.seq").await
    }

    /// One decision by its identifier.
    ///
    /// # Errors
    /// As for [`Store::decisions`].
    pub async fn decision(&self, id: Ulid) -> Result<Option<DecisionView>, StoreError> {
        let row = sqlx::query(joined!("LEFT JOIN records o ON o.decision = d.seq WHERE d.id = $1"))
            .bind(id.to_string())
            .fetch_optional(&self.readers())
            .await?;
        let dead = self.gateway_is_dead();
        row.map(|row| view(&row, dead)).transpose()
    }

    /// Number of the last record; 0 where there is none.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn last_seq(&self) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT coalesce(max(seq), 0) AS seq FROM records")
            .fetch_one(&self.readers())
            .await?;
        unsigned(&row, "seq")
    }

    /// What was uploaded by exchanges that ended at or after `since`, by agent, domain and second.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn uploads_since(&self, since: i64) -> Result<Vec<Upload>, StoreError> {
        // Outcomes from then on come after every decision from before then.
        let rows = sqlx::query(
            "SELECT d.agent, d.domain, o.time / $3 AS slot, sum(o.bytes) AS bytes \
             FROM records o JOIN records d ON d.seq = o.decision \
             WHERE o.seq > coalesce((SELECT seq FROM records WHERE id < $1 ORDER BY id DESC LIMIT 1), 0) \
             AND o.time >= $2 AND o.bytes > 0 AND d.domain IS NOT NULL GROUP BY d.agent, d.domain, slot",
        )
        .bind(clock::first_ulid(since).to_string())
        .bind(since)
        .bind(SECOND)
        .fetch_all(&self.readers())
        .await?;
        rows.iter().map(upload).collect()
    }

    async fn select(
        &self,
        filter: &Filter,
        select: &str,
        first: Option<u64>,
        order: &str,
    ) -> Result<Vec<DecisionView>, StoreError> {
        let mut query =
            Conditions { sql: select.to_owned(), arguments: SqliteArguments::default(), count: 0 };
        if let Some(first) = first {
            query.bind(number(first))?;
        }
        query.filter(filter)?;
        query.sql.push_str(order);
        if let Some(limit) = filter.limit {
            query.and(" LIMIT ", i64::from(limit), "")?;
        }
        // Asked before the rows: a gateway that dies in between must not make its open exchanges look dead.
        let dead = self.gateway_is_dead();
        let rows = sqlx::query_with::<Sqlite, _>(AssertSqlSafe(query.sql), query.arguments)
            .fetch_all(&self.readers())
            .await?;
        rows.iter().map(|row| view(row, dead)).collect()
    }

    /// Whether nobody is left who could end what is open.
    fn gateway_is_dead(&self) -> bool {
        // Where the lock cannot be read, the benefit of the doubt: in flight.
        matches!(Running::is_claimed(self.data_dir()), Ok(false))
    }
}

/// A statement that grows by conditions, each with its value bound.
struct Conditions {
    sql: String,
    arguments: SqliteArguments,
    count: usize,
}

impl Conditions {
    /// Where an index is partial, its condition is repeated, without which the database would not use it.
    fn filter(&mut self, filter: &Filter) -> Result<(), sqlx::Error> {
        if let Some(since) = filter.since {
            // The identifiers' index finds where the time begins; clocks go back, so the time itself is asked, too.
            let begins = " AND d.seq >= coalesce((SELECT min(seq) FROM records WHERE id >= ";
            self.and(begins, clock::first_ulid(since).to_string(), "), 0)")?;
            self.and(" AND d.time >= ", since, "")?;
        }
        if let Some(session) = filter.session {
            self.and(" AND d.session = ", session.to_string(), "")?;
        }
        if let Some(agent) = &filter.agent {
            self.and(" AND d.agent = ", agent.as_str(), "")?;
        }
        if let Some(class) = filter.class {
            self.and(" AND d.class = ", class.as_str(), "")?;
        }
        if let Some(action) = filter.action {
            let rare = if action == Action::Allow { "" } else { " AND d.action <> 'allow'" };
            self.and(" AND d.action = ", action.as_str(), rare)?;
        }
        if let Some(reason) = filter.reason {
            let rare = match reason {
                Reason::AllowedByRule | Reason::AllowedByDefault => "",
                _ => " AND d.reason NOT IN ('allowed_by_rule', 'allowed_by_default')",
            };
            self.and(" AND d.reason = ", reason.as_str(), rare)?;
        }
        if let Some(host) = &filter.host {
            self.host(&host.to_ascii_lowercase())?;
        }
        if let Some(kind) = &filter.finding {
            let bit = findings::bit(kind).unwrap_or(0);
            self.and(" AND ((d.findings | coalesce(o.findings, 0)) & ", bit, ") <> 0")?;
        }
        if let Some(before) = filter.before {
            self.and(" AND d.seq < ", number(before), "")?;
        }
        Ok(())
    }

    fn host(&mut self, host: &str) -> Result<(), sqlx::Error> {
        match host.strip_prefix('*') {
            // Compared as text, so that nothing in it means anything else.
            Some(end) => {
                let length = i64::try_from(end.len()).unwrap_or(i64::MAX);
                self.and(" AND length(d.host) > ", length, "")?;
                self.and(" AND substr(d.host, length(d.host) + 1 - ", length, ")")?;
                self.and(" = ", end, "")
            }
            None => self.and(" AND d.host = ", host, ""),
        }
    }

    fn and<'t, T>(&mut self, before: &str, value: T, after: &str) -> Result<(), sqlx::Error>
    where
        T: sqlx::Encode<'t, Sqlite> + sqlx::Type<Sqlite>,
    {
        self.bind(value)?;
        self.sql.push_str(before);
        self.sql.push('$');
        self.sql.push_str(&self.count.to_string());
        self.sql.push_str(after);
        Ok(())
    }

    fn bind<'t, T>(&mut self, value: T) -> Result<(), sqlx::Error>
    where
        T: sqlx::Encode<'t, Sqlite> + sqlx::Type<Sqlite>,
    {
        use sqlx::Arguments as _;
        self.arguments.add(value).map_err(sqlx::Error::Encode)?;
        self.count += 1;
        Ok(())
    }
}

fn view(row: &SqliteRow, dead: bool) -> Result<DecisionView, StoreError> {
    let seq = unsigned(row, "seq")?;
    let unreadable = |seq| StoreError::Row(BadRecord { seq, problem: Problem::Unreadable });
    let Ok(Record::Decision(record)) = Record::parse(row.try_get::<&[u8], _>("record")?) else {
        return Err(unreadable(seq));
    };
    let decision = Linked { record, seq, hash: hash(row, "hash", seq)? };
    let previous: Option<&[u8]> = row.try_get("previous")?;
    let previous = if seq == 1 { Some(Hash::ZERO) } else { previous.and_then(Hash::from_bytes) };
    let fate = match row.try_get::<Option<&[u8]>, _>("outcome")? {
        None if dead => Fate::Interrupted,
        None => Fate::InFlight,
        Some(text) => {
            let seq = unsigned(row, "outcome_seq")?;
            let Ok(Record::Outcome(record)) = Record::parse(text) else { return Err(unreadable(seq)) };
            Fate::Ended(Box::new(Linked { record, seq, hash: hash(row, "outcome_hash", seq)? }))
        }
    };
    Ok(DecisionView::new(decision, previous, fate))
}

fn hash(row: &SqliteRow, column: &str, seq: u64) -> Result<Hash, StoreError> {
    Hash::from_bytes(row.try_get(column)?)
        .ok_or(StoreError::Row(BadRecord { seq, problem: Problem::Altered }))
}

pub(super) fn unsigned(row: &SqliteRow, column: &str) -> Result<u64, StoreError> {
    let value: i64 = row.try_get(column)?;
    Ok(u64::try_from(value).unwrap_or(0))
}

fn upload(row: &SqliteRow) -> Result<Upload, StoreError> {
    let slot: i64 = row.try_get("slot")?;
    let agent: &str = row.try_get("agent")?;
    Ok(Upload {
        agent: agent.parse().unwrap_or_else(|_| AgentName::anonymous()),
        domain: row.try_get("domain")?,
        time: slot * SECOND,
        bytes: unsigned(row, "bytes")?,
    })
}

/// Text of a column that was written redacted.
pub(super) fn redacted(row: &SqliteRow, column: &str) -> Result<Option<Redacted>, sqlx::Error> {
    Ok(row.try_get::<Option<String>, _>(column)?.map(Redacted::from_store))
}
