//! What a report is made from, read page by page: decisions of a scope, events and sessions of its period.

mod chain;
#[cfg(test)]
mod tests;

use futures_util::TryStreamExt;
use policy::chain::{BadRecord, Problem};
use policy::event::Event;
use policy::record::Record;
use policy::redact::Redacted;
use policy::report::{self, AgentRow, Amount, Builder, Moment, Period, Report, Scope, SessionRow};
use policy::view::DecisionView;
use sqlx::sqlite::{Sqlite, SqliteArguments};
use sqlx::{AssertSqlSafe, Row};

use super::agents::{Agent, AgentStatus};
use super::filing::{sought, unfiled};
use super::query::{unsigned, view};
use super::row::number;
use super::sessions::{self, Session};
use super::{Store, StoreError};
use crate::clock;

/// Decisions read at a time: enough to be quick, few enough to be held.
const PAGE: u32 = 1000;
/// Sessions that are told one by one.
const SESSIONS: usize = report::TRACKED;
/// Destinations asked about in one statement.
const HOSTS: usize = 500;
/// In microseconds.
const MILLISECOND: i64 = 1000;

pub(super) const EDGE: &str = concat!("SELECT d.seq, d.time FROM ", sought!(), " d WHERE TRUE");
pub(super) const DECISIONS: &str = concat!(
    "SELECT d.seq, d.record, d.hash, NULL AS previous, o.seq AS outcome_seq, o.record AS outcome, \
     o.hash AS outcome_hash FROM ",
    sought!(),
    " d LEFT JOIN records o ON o.decision = d.seq WHERE TRUE"
);
/// Which of some hosts were asked for before a record. What is not filed is gathered once, and not for each host.
pub(super) const MET_BEFORE: &str = concat!(
    "SELECT DISTINCT asked.value ->> '$[0]' AS domain FROM json_each($1) AS asked \
     WHERE EXISTS (SELECT 1 FROM records AS r WHERE r.domain = asked.value ->> '$[0]' \
     AND r.host = asked.value ->> '$[1]' AND r.fresh IS NULL AND r.seq < $2) \
     OR (asked.value ->> '$[0]', asked.value ->> '$[1]') IN (SELECT domain, host FROM records WHERE ",
    unfiled!(),
    " AND seq < $2)"
);

impl Store {
    /// The report of what fits a scope. `progress` is told now and then how many decisions were read.
    ///
    /// # Errors
    /// A store that cannot be read, or that holds something else than records.
    pub async fn report(
        &self,
        scope: &Scope,
        now: i64,
        mut progress: impl FnMut(u64),
    ) -> Result<Report, StoreError> {
        let span = self.span(scope).await?;
        let session = match scope.session {
            Some(id) => self.session(id).await?,
            None => None,
        };
        let times = times(scope, span, session.as_ref());
        let mut builder = Builder::new(scope.clone(), times);
        match session {
            Some(session) => builder.session(session_row(session)),
            None => self.tell_sessions(scope, times, &mut builder).await?,
        }
        for agent in self.agents().await? {
            builder.agent(agent_row(agent, now));
        }
        if let Some(span) = span {
            self.tell_decisions(scope, span, &mut builder, &mut progress).await?;
        }
        let period = builder.period();
        if let Some(period) = period {
            self.tell_known_domains(&period, &mut builder).await?;
        }
        self.tell_events(scope, times, now, &mut builder).await?;
        let chain = match (period, *scope == Scope::default()) {
            // Of everything, also what is no request.
            (_, true) => Some(self.chain_status(1, self.last_seq().await?).await?)
                .filter(|chain| chain.checked_through > 0),
            (Some(period), false) => Some(self.chain_status(period.first_seq, period.last_seq).await?),
            (None, false) => None,
        };
        Ok(builder.finish(env!("CARGO_PKG_VERSION"), Moment(now), chain))
    }

    /// The first and the last decision that fit.
    async fn span(&self, scope: &Scope) -> Result<Option<Span>, StoreError> {
        let bounds = self.bounds(scope).await?;
        let first = self.edge(scope, bounds, " ORDER BY d.seq LIMIT 1").await?;
        let last = self.edge(scope, bounds, " ORDER BY d.seq DESC LIMIT 1").await?;
        Ok(first.zip(last).map(|(first, last)| Span { first, last }))
    }

    /// Numbers of the first and the last decision that fit.
    pub(super) async fn numbers(&self, scope: &Scope) -> Result<Option<(u64, u64)>, StoreError> {
        Ok(self.span(scope).await?.map(|span| (span.first.0, span.last.0)))
    }

    /// Between which records the times asked about must lie, so that nobody has to look through all others.
    async fn bounds(&self, scope: &Scope) -> Result<(u64, u64), StoreError> {
        let (mut first, mut last) = (1, self.last_seq().await?);
        // The records of a session are found by its index.
        if scope.session.is_some() {
            return Ok((first, last));
        }
        // Identifiers sort by time, to the millisecond; clocks go back, so it is the least and the greatest number.
        // The sign makes the database look through the index instead of through the records, one by one.
        if let Some(since) = scope.since {
            let row = sqlx::query("SELECT min(+seq) AS seq FROM records WHERE id >= $1")
                .bind(clock::first_ulid(since.0).to_string());
            let seq = row.fetch_one(&self.readers()).await?.try_get::<Option<i64>, _>("seq")?;
            first = seq.and_then(|seq| u64::try_from(seq).ok()).unwrap_or(u64::MAX);
        }
        if let Some(until) = scope.until {
            let row = sqlx::query("SELECT coalesce(max(+seq), 0) AS seq FROM records WHERE id < $1")
                .bind(clock::first_ulid(until.0.saturating_add(MILLISECOND)).to_string());
            last = last.min(unsigned(&row.fetch_one(&self.readers()).await?, "seq")?);
        }
        Ok((first, last))
    }

    async fn edge(
        &self,
        scope: &Scope,
        (first, last): (u64, u64),
        order: &str,
    ) -> Result<Option<(u64, Moment)>, StoreError> {
        let mut query = Within::new(EDGE, scope)?;
        query.and(" AND d.seq >= ", number(first))?;
        query.and(" AND d.seq <= ", number(last))?;
        let row = query.ended(order).fetch_optional(&self.readers()).await?;
        row.map(|row| Ok((unsigned(&row, "seq")?, Moment(row.try_get("time")?)))).transpose()
    }

    /// The next decisions of a scope up to the last one, the oldest first.
    async fn decisions_after(
        &self,
        scope: &Scope,
        after: u64,
        last: u64,
    ) -> Result<Vec<DecisionView>, StoreError> {
        let mut query = Within::new(DECISIONS, scope)?;
        query.and(" AND d.seq > ", number(after))?;
        query.and(" AND d.seq <= ", number(last))?;
        // Asked before the rows: a gateway that dies in between must not make its open exchanges look dead.
        let dead = self.gateway_is_dead();
        let order = format!(" ORDER BY d.seq LIMIT {PAGE}");
        let rows = query.ended(&order).fetch_all(&self.readers()).await?;
        rows.iter().map(|row| view(row, dead)).collect()
    }

    async fn tell_decisions(
        &self,
        scope: &Scope,
        span: Span,
        builder: &mut Builder,
        progress: &mut impl FnMut(u64),
    ) -> Result<(), StoreError> {
        let (mut read, mut after) = (0, span.first.0.saturating_sub(1));
        loop {
            let page = self.decisions_after(scope, after, span.last.0).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.seq;
            read += page.len() as u64;
            page.iter().for_each(|view| builder.add(view));
            progress(read);
        }
    }

    /// Sessions that were going on between two times, the latest first.
    async fn tell_sessions(
        &self,
        scope: &Scope,
        times: Option<(Moment, Moment)>,
        builder: &mut Builder,
    ) -> Result<(), StoreError> {
        let Some((first, last)) = times else { return Ok(()) };
        let rows = sqlx::query(
            "SELECT * FROM sessions WHERE started <= $1 AND (ended IS NULL OR ended >= $2) \
             AND ($3 IS NULL OR agent = $3) ORDER BY id DESC",
        );
        let rows = rows.bind(last.0).bind(first.0).bind(scope.agent.as_ref().map(|agent| agent.as_str()));
        let readers = self.readers();
        let mut rows = rows.fetch(&readers);
        let mut told = 0;
        while let Some(row) = rows.try_next().await? {
            told += 1;
            match told <= SESSIONS {
                true => builder.session(session_row(sessions::read(&row)?)),
                false => builder.more_sessions(1),
            }
        }
        Ok(())
    }

    /// Events of the time asked about, or of the time that a session or an agent took.
    async fn tell_events(
        &self,
        scope: &Scope,
        times: Option<(Moment, Moment)>,
        now: i64,
        builder: &mut Builder,
    ) -> Result<(), StoreError> {
        let (first, last) = match times {
            Some(times) if scope.session.is_some() || scope.agent.is_some() => times,
            // What happened before the first request and after the last one belongs to the time asked about, too.
            _ => (scope.since.unwrap_or(Moment(i64::MIN)), scope.until.unwrap_or(Moment(now))),
        };
        let rows = sqlx::query(
            "SELECT seq, record FROM records WHERE kind = 'event' AND time BETWEEN $1 AND $2 ORDER BY time, seq",
        );
        let readers = self.readers();
        let mut rows = rows.bind(first.0).bind(last.0).fetch(&readers);
        while let Some(row) = rows.try_next().await? {
            let seq = unsigned(&row, "seq")?;
            builder.event(seq, &event(row.try_get("record")?, seq)?);
        }
        Ok(())
    }

    /// Tells which of the unknown domains there was a record of before the period.
    async fn tell_known_domains(&self, period: &Period, builder: &mut Builder) -> Result<(), StoreError> {
        for hosts in builder.unknown_hosts().chunks(HOSTS) {
            let pairs = serde_json::to_string(hosts).unwrap_or_default();
            let rows = sqlx::query(MET_BEFORE);
            let rows = rows.bind(pairs).bind(number(period.first_seq)).fetch_all(&self.readers()).await?;
            for row in &rows {
                builder.met_before(row.try_get("domain")?);
            }
        }
        Ok(())
    }
}

/// Numbers and times of the first and the last decision of a scope.
#[derive(Clone, Copy)]
struct Span {
    first: (u64, Moment),
    last: (u64, Moment),
}

/// From when to when it reaches: as far as there are decisions, and for a session from its beginning to its end.
fn times(scope: &Scope, span: Option<Span>, session: Option<&Session>) -> Option<(Moment, Moment)> {
    let decided = span.map(|span| (span.first.1, span.last.1));
    let Some(session) = session else { return decided };
    let began = Moment(session.started);
    let (first, last) = decided.unwrap_or((began, began));
    let first = scope.since.map_or(began.min(first), |since| since.max(began.min(first)));
    let last = session.ended.map_or(last, |ended| last.max(Moment(ended)));
    Some((first, scope.until.map_or(last, |until| until.min(last))))
}

/// A statement about the decisions `d` of a scope.
pub(super) struct Within {
    sql: String,
    arguments: SqliteArguments,
    count: usize,
}

impl Within {
    pub(super) fn new(select: &str, scope: &Scope) -> Result<Within, sqlx::Error> {
        let mut query = Within { sql: select.to_owned(), arguments: SqliteArguments::default(), count: 0 };
        if let Some(session) = scope.session {
            query.and(" AND d.session = ", session.to_string())?;
        }
        if let Some(agent) = &scope.agent {
            // A session is a smaller part than an agent; the sign keeps the database from the agent's index.
            let column = if scope.session.is_some() { " AND +d.agent = " } else { " AND d.agent = " };
            query.and(column, agent.as_str().to_owned())?;
        }
        if let Some(since) = scope.since {
            query.and(" AND d.time >= ", since.0)?;
        }
        if let Some(until) = scope.until {
            query.and(" AND d.time <= ", until.0)?;
        }
        Ok(query)
    }

    pub(super) fn and<'t, T>(&mut self, before: &str, value: T) -> Result<(), sqlx::Error>
    where
        T: sqlx::Encode<'t, Sqlite> + sqlx::Type<Sqlite>,
    {
        use sqlx::Arguments as _;
        self.arguments.add(value).map_err(sqlx::Error::Encode)?;
        self.count += 1;
        self.sql.push_str(before);
        self.sql.push('$');
        self.sql.push_str(&self.count.to_string());
        Ok(())
    }

    pub(super) fn ended(mut self, order: &str) -> sqlx::query::Query<'static, Sqlite, SqliteArguments> {
        self.sql.push_str(order);
        sqlx::query_with(AssertSqlSafe(self.sql), self.arguments)
    }
}

fn event(record: &[u8], seq: u64) -> Result<Event, StoreError> {
    match Record::parse(record) {
        Ok(Record::Event(event)) => Ok(event),
        _ => Err(StoreError::Row(BadRecord { seq, problem: Problem::Unreadable })),
    }
}

fn text(text: Option<Redacted>) -> Option<String> {
    text.map(|text| text.as_str().to_owned())
}

fn session_row(session: Session) -> SessionRow {
    SessionRow {
        session: session.id,
        agent: session.agent,
        label: text(session.label),
        tool: text(session.tool),
        repo: text(session.repo),
        branch: text(session.branch),
        commit: text(session.commit),
        model: text(session.model),
        observe: session.observe,
        started: Moment(session.started),
        ended: session.ended.map(Moment),
        exit_code: session.exit_code,
        why: session.why,
        amount: Amount::default(),
    }
}

fn agent_row(agent: Agent, now: i64) -> AgentRow {
    let status = match agent.status(now) {
        AgentStatus::Active => report::AgentStatus::Active,
        AgentStatus::Expired => report::AgentStatus::Expired,
        AgentStatus::Revoked => report::AgentStatus::Revoked,
    };
    AgentRow {
        agent: agent.name,
        owner: Some(agent.owner.as_str().to_owned()),
        purpose: text(agent.purpose),
        status: Some(status),
        expires: agent.expires.map(Moment),
        amount: Amount::default(),
        secrets: 0,
    }
}
