//! What the console shows at a glance: sums over a time, and where requests went.
//!
//! An exchange counts when it ends, with its last word. Each question is one walk over the outcomes of the time asked
//! about, of the last `MOST` records at most, by a connection that cannot write: the writer waits for none of it.

use std::collections::BTreeMap;

use policy::record::{Decision, Finding, Record};
use policy::redact::Redacted;
use policy::verdict::{Action, Class};
use policy::view::DecisionView;
use serde::Serialize;
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::filing::sought;
use super::query::{first_since, redacted, unsigned};
use super::row::number;
use super::{Store, StoreError, findings};

/// Records that are walked over for one answer, so that none takes more than a moment.
const MOST: u64 = 2_000_000;
/// Hosts of one answer; those that were asked for most.
const HOSTS: u32 = 500;
/// Look-alikes of one answer.
const LOOKALIKES: u32 = 500;
/// Lines of each of the short lists.
const TOP: u32 = 8;

/// The newest decision about each host that was refused.
pub(super) const REFUSED: &str = concat!(
    "SELECT count(*) AS requests, max(d.seq) AS newest FROM ",
    sought!(),
    " d WHERE d.action = 'deny' AND d.seq >= $1 AND d.host IS NOT NULL \
     GROUP BY d.host, d.reason ORDER BY requests DESC, newest DESC LIMIT $2"
);
/// The first decision about a host, beside one that is known.
pub(super) const FIRST: &str = concat!(
    "SELECT f.time, f.agent, n.record FROM records f, records n WHERE n.seq = $3 AND f.seq = (SELECT d.seq FROM ",
    sought!(),
    " d WHERE d.domain = $1 AND d.host = $2 ORDER BY d.seq LIMIT 1)"
);

/// A time cut into equal parts.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    /// Its beginning, in microseconds since the Unix epoch.
    pub since: i64,
    /// How long each part is, in microseconds; more than none.
    pub part: i64,
    /// How many parts.
    pub parts: usize,
}

/// What happened in one part of a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Exchanges that ended, by action.
    pub requests: BTreeMap<&'static str, u64>,
    /// Bytes that left, by class.
    pub bytes: BTreeMap<&'static str, u64>,
    /// Decisions with a secret.
    pub secrets: u64,
    /// Decisions with an upload over a limit.
    pub large_uploads: u64,
}

/// What an agent did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AgentSum {
    /// The agent.
    pub agent: String,
    /// Exchanges that ended.
    pub requests: u64,
    /// Those refused.
    pub refused: u64,
    /// Bytes that left.
    pub bytes: u64,
}

/// A host that was refused.
#[derive(Clone, Debug, Serialize)]
pub struct Refused {
    /// How often.
    pub requests: u64,
    /// The last time.
    pub last: DecisionView,
}

/// Sums over a time.
#[derive(Clone, Debug, Serialize)]
pub struct Overview {
    /// Whether there was more than is walked over, and the beginning is missing.
    pub cut: bool,
    /// The parts, in order.
    pub parts: Vec<Part>,
    /// Who did most.
    pub agents: Vec<AgentSum>,
    /// What was refused most.
    pub refused: Vec<Refused>,
}

/// A host that requests went to, or would have.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the fields are those of `Decision`, and counts")]
pub struct Destination {
    pub host: Redacted,
    pub domain: Redacted,
    pub class: String,
    pub service: Option<String>,
    pub requests: u64,
    pub refused: u64,
    /// That left.
    pub bytes: u64,
    /// Who asked for it within the time.
    pub agents: Vec<String>,
    /// The last time, in microseconds since the Unix epoch.
    pub last: i64,
    /// The first time on record, ever.
    pub first: i64,
    /// Who asked for it then.
    pub first_agent: String,
    /// The known domain it looks like.
    pub lookalike: Option<String>,
}

impl Store {
    /// Sums over a time.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn overview(&self, stretch: Stretch) -> Result<Overview, StoreError> {
        let mut overview = Overview {
            cut: false,
            parts: vec![Part::default(); stretch.parts],
            agents: vec![],
            refused: vec![],
        };
        let mut connection = self.readers().acquire().await?;
        let Some((first, cut)) = self.beginning_of(&mut connection, stretch.since).await? else {
            return Ok(overview);
        };
        overview.cut = cut;
        add_exchanges(&mut connection, first, stretch, &mut overview).await?;
        add_findings(&mut connection, first, stretch, &mut overview.parts).await?;
        let refused = refused(&mut connection, first).await?;
        drop(connection);
        let newest: Vec<u64> = refused.iter().map(|(newest, _)| *newest).collect();
        let views = self.views(&newest).await?;
        overview.refused = refused
            .into_iter()
            .filter_map(|(newest, requests)| {
                let last = views.iter().find(|view| view.seq == newest)?.clone();
                Some(Refused { requests, last })
            })
            .collect();
        Ok(overview)
    }

    /// Hosts of the exchanges that ended since a time, those asked for most first.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn destinations(&self, since: i64) -> Result<Vec<Destination>, StoreError> {
        let mut connection = self.readers().acquire().await?;
        let Some((first, _)) = self.beginning_of(&mut connection, since).await? else {
            return Ok(Vec::new());
        };
        let rows = sqlx::query(
            "SELECT d.domain, d.host, d.class, count(*) AS requests, sum(o.bytes) AS bytes, \
             sum(d.action = 'deny') AS refused, max(d.time) AS last, max(d.seq) AS newest, \
             group_concat(DISTINCT d.agent) AS agents \
             FROM records o CROSS JOIN records d ON d.seq = o.decision \
             WHERE o.seq >= $1 AND o.time >= $2 AND d.host IS NOT NULL \
             GROUP BY d.domain, d.host, d.class ORDER BY requests DESC, newest DESC LIMIT $3",
        );
        let rows = rows.bind(number(first)).bind(since).bind(HOSTS).fetch_all(&mut *connection).await?;
        let mut destinations = Vec::with_capacity(rows.len());
        for row in &rows {
            destinations.push(destination(&mut connection, row).await?);
        }
        for (host, of) in lookalikes(&mut connection, first).await? {
            for destination in destinations.iter_mut().filter(|known| known.host.as_str() == host) {
                destination.lookalike = Some(of.clone());
            }
        }
        Ok(destinations)
    }

    /// The first record to walk over for a time, and whether earlier ones are left out; `None` where there is nothing.
    async fn beginning_of(
        &self,
        connection: &mut SqliteConnection,
        since: i64,
    ) -> Result<Option<(u64, bool)>, StoreError> {
        let Some(first) = first_since(&mut *connection, since).await? else { return Ok(None) };
        let row =
            sqlx::query("SELECT coalesce(max(seq), 0) AS seq FROM records").fetch_one(connection).await?;
        let least = unsigned(&row, "seq")?.saturating_sub(MOST);
        Ok(Some((first.max(least), least > first)))
    }
}

async fn add_exchanges(
    connection: &mut SqliteConnection,
    first: u64,
    stretch: Stretch,
    overview: &mut Overview,
) -> Result<(), StoreError> {
    let rows = sqlx::query(
        "SELECT (o.time - $2) / $3 AS part, d.class, d.action, d.agent, count(*) AS requests, sum(o.bytes) AS bytes \
         FROM records o CROSS JOIN records d ON d.seq = o.decision \
         WHERE o.seq >= $1 AND o.time >= $2 GROUP BY 1, 2, 3, 4",
    );
    let rows = rows.bind(number(first)).bind(stretch.since).bind(stretch.part).fetch_all(connection).await?;
    let mut agents = BTreeMap::<String, AgentSum>::new();
    for row in &rows {
        let (requests, bytes) = (unsigned(row, "requests")?, unsigned(row, "bytes")?);
        let (class, action): (&str, &str) = (row.try_get("class")?, row.try_get("action")?);
        let class = Class::ALL.into_iter().find(|known| known.as_str() == class);
        let action = Action::ALL.into_iter().find(|known| known.as_str() == action);
        let (Some(class), Some(action)) = (class, action) else { continue };
        if let Some(part) = part(row, &mut overview.parts)? {
            *part.requests.entry(action.as_str()).or_default() += requests;
            *part.bytes.entry(class.as_str()).or_default() += bytes;
        }
        let agent: String = row.try_get("agent")?;
        let sum = agents.entry(agent.clone());
        let sum = sum.or_insert(AgentSum { agent, requests: 0, refused: 0, bytes: 0 });
        sum.requests += requests;
        sum.bytes += bytes;
        sum.refused += if action == Action::Deny { requests } else { 0 };
    }
    let mut agents: Vec<_> = agents.into_values().collect();
    agents.sort_by_key(|sum| std::cmp::Reverse((sum.bytes, sum.requests)));
    agents.truncate(TOP as usize);
    overview.agents = agents;
    Ok(())
}

async fn add_findings(
    connection: &mut SqliteConnection,
    first: u64,
    stretch: Stretch,
    parts: &mut [Part],
) -> Result<(), StoreError> {
    for kind in ["secret", "large_upload"] {
        let rows = sqlx::query(
            "SELECT (d.time - $3) / $4 AS part, count(*) AS decisions \
             FROM found f CROSS JOIN records d ON d.seq = f.seq \
             WHERE f.kind = $1 AND f.seq >= $2 AND d.time >= $3 GROUP BY 1",
        );
        let rows =
            rows.bind(findings::position(kind)).bind(number(first)).bind(stretch.since).bind(stretch.part);
        for row in &rows.fetch_all(&mut *connection).await? {
            let decisions = unsigned(row, "decisions")?;
            match (part(row, parts)?, kind) {
                (Some(part), "secret") => part.secrets += decisions,
                (Some(part), _) => part.large_uploads += decisions,
                (None, _) => {}
            }
        }
    }
    Ok(())
}

/// The newest decision about each host that was refused, and how often it was, the most often first.
async fn refused(connection: &mut SqliteConnection, first: u64) -> Result<Vec<(u64, u64)>, StoreError> {
    let rows = sqlx::query(REFUSED).bind(number(first)).bind(TOP).fetch_all(connection).await?;
    rows.iter().map(|row| Ok((unsigned(row, "newest")?, unsigned(row, "requests")?))).collect()
}

async fn destination(connection: &mut SqliteConnection, row: &SqliteRow) -> Result<Destination, StoreError> {
    let text = |column| redacted(row, column).map(|text| text.unwrap_or_else(|| Redacted::literal("")));
    let (domain, host) = (text("domain")?, text("host")?);
    let known = sqlx::query(FIRST);
    let known = known.bind(domain.as_str()).bind(host.as_str()).bind(row.try_get::<i64, _>("newest")?);
    let known = known.fetch_one(connection).await?;
    let agents: &str = row.try_get("agents")?;
    let service = decision(&known)?.and_then(|newest| newest.service);
    Ok(Destination {
        class: row.try_get("class")?,
        service: service.map(|service| service.as_ref().to_owned()),
        requests: unsigned(row, "requests")?,
        refused: unsigned(row, "refused")?,
        bytes: unsigned(row, "bytes")?,
        // Names of agents have no comma.
        agents: agents.split(',').map(str::to_owned).collect(),
        last: row.try_get("last")?,
        first: known.try_get("time")?,
        first_agent: known.try_get("agent")?,
        lookalike: None,
        host,
        domain,
    })
}

/// Hosts that look like a known domain, each with that domain.
async fn lookalikes(
    connection: &mut SqliteConnection,
    first: u64,
) -> Result<Vec<(String, String)>, StoreError> {
    let rows = sqlx::query(
        "SELECT d.host, d.record FROM found f CROSS JOIN records d ON d.seq = f.seq \
         WHERE f.kind = $1 AND f.seq >= $2 AND d.host IS NOT NULL ORDER BY f.seq DESC LIMIT $3",
    );
    let kind = findings::position("lookalike_domain");
    let rows = rows.bind(kind).bind(number(first)).bind(LOOKALIKES).fetch_all(connection).await?;
    let mut found = Vec::new();
    for row in &rows {
        let of =
            decision(row)?.into_iter().flat_map(|decision| decision.findings).find_map(|seen| match seen {
                Finding::LookalikeDomain { of } => Some(of.as_ref().to_owned()),
                _ => None,
            });
        if let Some(of) = of {
            found.push((row.try_get("host")?, of));
        }
    }
    Ok(found)
}

fn decision(row: &SqliteRow) -> Result<Option<Decision>, StoreError> {
    match Record::parse(row.try_get::<&[u8], _>("record")?) {
        Ok(Record::Decision(decision)) => Ok(Some(decision)),
        _ => Ok(None),
    }
}

/// The part of the time that a row speaks of.
fn part<'a>(row: &SqliteRow, parts: &'a mut [Part]) -> Result<Option<&'a mut Part>, StoreError> {
    let at = usize::try_from(row.try_get::<i64, _>("part")?).ok();
    Ok(at.and_then(|at| parts.get_mut(at)))
}

#[cfg(test)]
mod tests {
    use policy::redact::Redacted;
    use policy::verdict::{Action, Class, Reason};

    use super::*;
    use crate::clock;
    use crate::store::Entry;
    use crate::store::tests::{Folder, decision, outcome};

    const MINUTE: i64 = 60_000_000;

    /// An exchange: host, class, agent, action, minutes ago, bytes, findings.
    fn exchange(
        host: &'static str,
        (class, agent, action): (Class, &str, Action),
        (time, bytes): (i64, u64),
        findings: Vec<Finding>,
    ) -> [Entry; 2] {
        let mut decision = decision(host);
        decision.id = clock::ulid(time);
        (decision.time, decision.class, decision.action) = (time, class, action);
        decision.agent = agent.parse().unwrap();
        decision.reason =
            if action == Action::Deny { Reason::UnknownDestination } else { Reason::AllowedByRule };
        decision.domain = Some(Redacted::from_store(host.to_owned()));
        decision.findings = findings;
        let mut outcome = outcome(&decision);
        (outcome.time, outcome.action, outcome.reason) = (time + 1000, action, decision.reason);
        outcome.request_bytes = bytes;
        [Entry::decision(&decision), Entry::outcome(&outcome)]
    }

    fn secret() -> Finding {
        Finding::Secret { detector: "x".into(), count: 1, place: "body".into(), key: "hmac:00".into() }
    }

    #[tokio::test]
    async fn exchanges_are_added_up_by_time_class_and_action() {
        let folder = Folder::new();
        let crate::store::Opened { store, mut writer, .. } = folder.open().await;
        let since = clock::now() / MINUTE * MINUTE - 10 * MINUTE;
        let at = |minute: i64| since + minute * MINUTE + 5000;
        let lookalike = Finding::LookalikeDomain { of: "github.com".into() };
        let entries = [
            exchange("old.example", (Class::Tool, "first", Action::Allow), (at(-60), 7), vec![]),
            exchange("api.example", (Class::Model, "first", Action::Allow), (at(-50), 7), vec![]),
            exchange("api.example", (Class::Model, "claude", Action::Allow), (at(0), 100), vec![]),
            exchange("api.example", (Class::Model, "claude", Action::Allow), (at(0), 20), vec![secret()]),
            exchange("githup.com", (Class::Unknown, "codex", Action::Deny), (at(9), 0), vec![lookalike]),
            exchange("githup.com", (Class::Unknown, "codex", Action::Deny), (at(9), 0), vec![]),
        ];
        writer.commit(entries.as_flattened()).await.unwrap();
        let overview = store.overview(Stretch { since, part: MINUTE, parts: 10 }).await.unwrap();
        let part = |at: usize| serde_json::to_value(&overview.parts[at]).unwrap();
        let nothing = serde_json::json!({"requests": {}, "bytes": {}, "secrets": 0, "large_uploads": 0});
        assert_eq!(
            part(0),
            serde_json::json!({"requests": {"allow": 2}, "bytes": {"model": 120}, "secrets": 1, "large_uploads": 0})
        );
        assert_eq!(part(5), nothing);
        assert_eq!(
            part(9),
            serde_json::json!({"requests": {"deny": 2}, "bytes": {"unknown": 0}, "secrets": 0, "large_uploads": 0})
        );
        let agents: Vec<_> =
            overview.agents.iter().map(|sum| (&*sum.agent, sum.requests, sum.refused, sum.bytes)).collect();
        assert_eq!(agents, [("claude", 2, 0, 120), ("codex", 2, 2, 0)]);
        let refused: Vec<_> =
            overview.refused.iter().map(|row| (row.requests, row.last.destination())).collect();
        assert_eq!(refused, [(2, "githup.com".to_owned())]);
        assert!(!overview.cut);

        let destinations = store.destinations(since).await.unwrap();
        let told: Vec<_> = destinations
            .iter()
            .map(|known| {
                (known.host.as_str(), known.requests, known.refused, known.bytes, &*known.first_agent)
            })
            .collect();
        assert_eq!(told, [("githup.com", 2, 2, 0, "codex"), ("api.example", 2, 0, 120, "first")]);
        assert_eq!(destinations[0].lookalike.as_deref(), Some("github.com"));
        assert_eq!((destinations[1].lookalike.as_ref(), destinations[1].first), (None, at(-50)));
        assert_eq!(destinations[1].agents, ["claude"], "within the time");
    }

    #[tokio::test]
    async fn nothing_adds_up_to_nothing() {
        let folder = Folder::new();
        let crate::store::Opened { store, .. } = folder.open().await;
        let overview = store.overview(Stretch { since: 0, part: MINUTE, parts: 3 }).await.unwrap();
        assert_eq!((overview.parts.len(), overview.agents.len(), overview.refused.len()), (3, 0, 0));
        assert!(store.destinations(0).await.unwrap().is_empty());
    }
}
