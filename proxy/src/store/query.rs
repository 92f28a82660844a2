//! What is asked of the store: decisions joined with their outcomes, by filter, and what was uploaded lately.

use policy::chain::{BadRecord, Hash, Problem};
use policy::identity::{AgentName, SessionId};
use policy::record::Record;
use policy::redact::Redacted;
use policy::verdict::{Action, Class, Reason};
use policy::view::{DecisionView, Fate, Linked};
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Row};
use ulid::Ulid;

use super::filing::sought;
use super::hosts::Known;
use super::row::number;
use super::{Store, StoreError, findings, hosts};
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
    /// About this host; `*.example.com` for all below it, `*` for any.
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

/// Rows read in one go, of those that were found.
const CHUNK: usize = 500;
/// How long a decision may wait for its number while later ones get theirs, in microseconds. Clocks are set back by less
/// than this without a word; more is an event that [`first_since`] asks for.
const DISORDER: i64 = 3 * SECOND;

/// A decision, the hash before it, and its outcome.
macro_rules! joined {
    ($rest:literal) => {
        concat!(
            "SELECT d.seq, d.record, d.hash, p.hash AS previous, o.seq AS outcome_seq, o.record AS outcome, \
             o.hash AS outcome_hash ",
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
        let found = self.found(filter).await?;
        self.views(&found).await
    }

    /// The decisions of these numbers, newest first.
    pub(super) async fn views(&self, found: &[u64]) -> Result<Vec<DecisionView>, StoreError> {
        // Asked before the rows: a gateway that dies in between must not make its open exchanges look dead.
        let dead = self.gateway_is_dead();
        let mut views = Vec::with_capacity(found.len());
        for chunk in found.chunks(CHUNK) {
            let chosen = serde_json::to_string(chunk).map_err(|error| sqlx::Error::Encode(error.into()))?;
            let rows = sqlx::query(joined!(
                "FROM json_each($1) c CROSS JOIN records d ON d.seq = c.value \
                 LEFT JOIN records p ON p.seq = d.seq - 1 LEFT JOIN records o ON o.decision = d.seq \
                 ORDER BY d.seq DESC"
            ))
            .bind(chosen)
            .fetch_all(&self.readers())
            .await?;
            for row in &rows {
                views.push(view(row, dead)?);
            }
        }
        Ok(views)
    }

    /// The numbers of the decisions that a filter means, newest first.
    async fn found(&self, filter: &Filter) -> Result<Vec<u64>, StoreError> {
        let mut connection = self.readers().acquire().await?;
        let since = match filter.since {
            None => None,
            Some(since) => match first_since(&mut connection, since).await? {
                None => return Ok(Vec::new()),
                first => first,
            },
        };
        let hosts = match &filter.host {
            None => vec![None],
            Some(host) => hosts::meant(&mut connection, host).await?.into_iter().map(Some).collect(),
        };
        let mut found = Vec::new();
        for host in &hosts {
            let query = Conditions::searching(filter, since, host.as_ref())?;
            for row in query.fetch(&mut connection).await? {
                found.push(unsigned(&row, "seq")?);
            }
        }
        if hosts.len() > 1 {
            found.sort_unstable_by(|a, b| b.cmp(a));
            found.truncate(filter.limit.map_or(usize::MAX, |limit| limit as usize));
        }
        Ok(found)
    }

    /// Decisions whose outcome was recorded after the record `after`, in the order in which they ended. The
    /// greatest `outcome_seq` among them is where to go on.
    ///
    /// # Errors
    /// As for [`Store::decisions`].
    pub async fn ended_after(&self, after: u64, filter: &Filter) -> Result<Vec<DecisionView>, StoreError> {
        let mut query = Conditions::new(joined!(
            "FROM records o CROSS JOIN records d ON d.seq = o.decision \
             LEFT JOIN records p ON p.seq = d.seq - 1 WHERE TRUE"
        ));
        query.and(" AND o.seq > ", number(after), "")?;
        query.filter(filter)?;
        if let Some(host) = &filter.host {
            query.host(&host.to_ascii_lowercase())?;
        }
        if let Some(kind) = &filter.finding {
            let bit = findings::bit(kind).unwrap_or(0);
            query.and(" AND ((d.findings | o.findings) & ", bit, ") <> 0")?;
        }
        query.sql.push_str(" ORDER BY o.seq");
        if let Some(limit) = filter.limit {
            query.and(" LIMIT ", i64::from(limit), "")?;
        }
        let dead = self.gateway_is_dead();
        let mut connection = self.readers().acquire().await?;
        query.fetch(&mut connection).await?.iter().map(|row| view(row, dead)).collect()
    }

    /// One decision by its identifier.
    ///
    /// # Errors
    /// As for [`Store::decisions`].
    pub async fn decision(&self, id: Ulid) -> Result<Option<DecisionView>, StoreError> {
        let row = sqlx::query(joined!(
            "FROM records d LEFT JOIN records p ON p.seq = d.seq - 1 \
             LEFT JOIN records o ON o.decision = d.seq WHERE d.id = $1"
        ))
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
             FROM records o CROSS JOIN records d ON d.seq = o.decision \
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

    /// Whether nobody is left who could end what is open.
    pub(super) fn gateway_is_dead(&self) -> bool {
        // Where the lock cannot be read, the benefit of the doubt: in flight.
        matches!(Running::is_claimed(self.data_dir()), Ok(false))
    }
}

/// A statement that grows by conditions, each with its value bound.
pub(super) struct Conditions {
    pub(super) sql: String,
    arguments: SqliteArguments,
    count: usize,
}

impl Conditions {
    fn new(select: &str) -> Conditions {
        Conditions { sql: select.to_owned(), arguments: SqliteArguments::default(), count: 0 }
    }

    /// Which decisions a filter means, about one host and from one number on, newest first.
    pub(super) fn searching(
        filter: &Filter,
        first: Option<u64>,
        host: Option<&Known>,
    ) -> Result<Conditions, sqlx::Error> {
        let mut query = Conditions::new(match filter.finding {
            // The order of the tables as written, whatever the database thinks of it.
            Some(_) => {
                "SELECT d.seq FROM found f CROSS JOIN records d ON d.seq = f.seq WHERE d.id IS NOT NULL"
            }
            None => concat!("SELECT d.seq FROM ", sought!(), " d WHERE TRUE"),
        });
        if let Some(kind) = &filter.finding {
            query.and(" AND f.kind = ", findings::position(kind).unwrap_or(-1), "")?;
        }
        if let Some(first) = first {
            query.and(" AND d.seq >= ", number(first), "")?;
        }
        if let Some(host) = host {
            query.and(" AND d.domain = ", host.domain.as_str(), "")?;
            query.and(" AND d.host = ", host.host.as_str(), "")?;
        }
        query.filter(filter)?;
        query.sql.push_str(" ORDER BY d.seq DESC");
        if let Some(limit) = filter.limit {
            query.and(" LIMIT ", i64::from(limit), "")?;
        }
        Ok(query)
    }

    pub(super) async fn fetch(
        self,
        connection: &mut SqliteConnection,
    ) -> Result<Vec<SqliteRow>, sqlx::Error> {
        sqlx::query_with::<Sqlite, _>(AssertSqlSafe(self.sql), self.arguments).fetch_all(connection).await
    }

    /// What is asked of the decision itself; host and findings are looked up in ways of their own.
    fn filter(&mut self, filter: &Filter) -> Result<(), sqlx::Error> {
        if let Some(since) = filter.since {
            // Where the time begins is known; clocks go back, so the time itself is asked, too.
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
            self.and(" AND d.action = ", action.as_str(), "")?;
        }
        if let Some(reason) = filter.reason {
            self.and(" AND d.reason = ", reason.as_str(), "")?;
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

/// The first decision taken at or after `time`, in microseconds since the Unix epoch.
pub(super) async fn first_since(
    connection: &mut SqliteConnection,
    time: i64,
) -> Result<Option<u64>, sqlx::Error> {
    let jumped = sqlx::query(
        "SELECT 1 FROM records WHERE kind = 'event' AND instr(record, '\"event\":\"clock_jumped\"') > 0 LIMIT 1",
    )
    .fetch_optional(&mut *connection)
    .await?
    .is_some();
    if jumped {
        return least(connection, "SELECT min(+seq) AS seq FROM records WHERE id >= $1", time, i64::MAX)
            .await;
    }
    // Identifiers sort by time, and so do numbers but for a moment's disorder: what waits a little is overtaken.
    let first = sqlx::query("SELECT id FROM records WHERE id >= $1 ORDER BY id LIMIT 1")
        .bind(clock::first_ulid(time).to_string())
        .fetch_optional(&mut *connection)
        .await?;
    let first = first.and_then(|row| Ulid::from_string(row.get("id")).ok());
    let Some(first) = first else { return Ok(None) };
    let first = i64::try_from(first.timestamp_ms()).unwrap_or(i64::MAX).saturating_mul(1000);
    let statement = "SELECT min(+seq) AS seq FROM records WHERE id >= $1 AND id < $2";
    least(connection, statement, time, first.saturating_add(DISORDER)).await
}

/// The least number that a statement finds between two times. Its `+` keeps the database from walking the table in the
/// order of numbers until it comes to the first time that fits.
async fn least(
    connection: &mut SqliteConnection,
    statement: &'static str,
    from: i64,
    to: i64,
) -> Result<Option<u64>, sqlx::Error> {
    let query = sqlx::query(statement).bind(clock::first_ulid(from).to_string());
    let query = if to == i64::MAX { query } else { query.bind(clock::first_ulid(to).to_string()) };
    let seq: Option<i64> = query.fetch_one(connection).await?.try_get("seq")?;
    Ok(seq.and_then(|seq| u64::try_from(seq).ok()))
}

/// A row of [`Store::decisions`], read. `previous` may be null.
pub(super) fn view(row: &SqliteRow, dead: bool) -> Result<DecisionView, StoreError> {
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
