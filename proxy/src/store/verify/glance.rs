//! Pages of records as one text each, checked at a glance: several times as quick as row by row, column by column.
//!
//! A glance only ever says "all is well". Where anything is odd, the rows themselves are read and looked at, and what is
//! wrong is named by that.

use policy::chain::{BadRecord, Found, Hash};
use policy::glance::{DecisionGlance, FindingGlance, OutcomeGlance};
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;
use ulid::Ulid;

use super::super::row::number;
use super::super::{StoreError, findings};
use super::{Check, Open};

/// Records of a page.
const PAGE: i64 = 2000;
/// Between the columns of a row; no canonical text has it.
const UNIT: char = '\u{1f}';
/// Between rows.
const RECORD: char = '\u{1e}';
/// What a row is written as: its number, how many bytes of text it has, its kind and hash, a bit for each column that has
/// no value, the columns, the record.
const PARTS: usize = 18;
/// Columns beside the record.
const COLUMNS: usize = 12;
/// Those of them that hold text.
const TEXTS: [usize; 8] = [1, 3, 4, 5, 6, 7, 8, 9];

/// Records on their way from the store to the check.
pub(super) struct Page {
    text: String,
    /// Number of the last of them.
    pub(super) last: u64,
    /// How many they are.
    records: i64,
}

/// The next records as one text; `None` after the last.
pub(super) async fn read(snapshot: &mut SqliteConnection, after: u64) -> Result<Option<Page>, StoreError> {
    let row = sqlx::query(
        "SELECT group_concat(line, char(30)) AS text, max(seq) AS last, count(*) AS records FROM (\
             SELECT seq, format($3, seq, octet_length(kind) + ifnull(octet_length(id), 0) \
                 + ifnull(octet_length(session), 0) + ifnull(octet_length(agent), 0) \
                 + ifnull(octet_length(class), 0) + ifnull(octet_length(host), 0) \
                 + ifnull(octet_length(domain), 0) + ifnull(octet_length(action), 0) \
                 + ifnull(octet_length(reason), 0) + octet_length(record), kind, hex(hash), \
                 (time IS NULL) + 2 * (id IS NULL) + 4 * (decision IS NULL) + 8 * (session IS NULL) \
                 + 16 * (agent IS NULL) + 32 * (class IS NULL) + 64 * (host IS NULL) + 128 * (domain IS NULL) \
                 + 256 * (action IS NULL) + 512 * (reason IS NULL) + 1024 * (findings IS NULL) \
                 + 2048 * (bytes IS NULL), time, id, decision, session, agent, class, host, domain, action, \
                 reason, findings, bytes, record) AS line \
             FROM records WHERE seq > $1 ORDER BY seq LIMIT $2)",
    )
    .bind(number(after))
    .bind(PAGE)
    .bind(vec!["%s"; PARTS].join(&UNIT.to_string()))
    .fetch_one(snapshot)
    .await?;
    let Some(last) = row.try_get::<Option<i64>, _>("last")? else { return Ok(None) };
    // Bytes, since what was tampered with need not be text.
    let text = String::from_utf8_lossy(row.try_get_unchecked::<&[u8], _>("text")?).into_owned();
    Ok(Some(Page { text, last: u64::try_from(last).unwrap_or(0), records: row.try_get("records")? }))
}

/// The columns of a row beside its record, in their order.
type Columns<'a> = [Option<&'a str>; COLUMNS];

/// Something that a glance cannot vouch for.
pub(super) enum Odd {
    /// The rows have to be looked at.
    Look,
    /// The chain is broken there.
    Bad(BadRecord),
}

impl Check {
    /// Checks a page as far as all is well.
    pub(super) fn page(&mut self, page: &Page) -> Result<(), Odd> {
        // A separator in some text would make more or fewer lines of the rows than there are.
        let lines = page.text.matches(RECORD).count() + 1;
        if i64::try_from(lines) != Ok(page.records) {
            return Err(Odd::Look);
        }
        page.text.split(RECORD).try_for_each(|line| self.line(line))
    }

    fn line(&mut self, line: &str) -> Result<(), Odd> {
        let mut parts = line.splitn(PARTS, UNIT);
        let mut next = || parts.next().ok_or(Odd::Look);
        let seq: u64 = next()?.parse().map_err(|_| Odd::Look)?;
        let octets: usize = next()?.parse().map_err(|_| Odd::Look)?;
        let (kind, hash) = (next()?, Hash::from_hex(next()?).ok_or(Odd::Look)?);
        let none: u32 = next()?.parse().map_err(|_| Odd::Look)?;
        let mut columns = [None; COLUMNS];
        for (place, column) in columns.iter_mut().enumerate() {
            *column = Some(next()?).filter(|_| none >> place & 1 == 0);
        }
        let record = next()?;
        // What SQLite writes of a text ends where a NUL stands in it; then the row has more than is seen here.
        let texts = columns.iter().enumerate().filter(|(place, _)| TEXTS.contains(place));
        let seen: usize = texts.filter_map(|(_, column)| column.map(str::len)).sum();
        if seen + kind.len() + record.len() != octets {
            return Err(Odd::Look);
        }
        let found = Found { seq, kind, canonical: record.as_bytes(), hash: hash.as_bytes() };
        match kind {
            "decision" => self.glance_decision(&found, columns, record),
            "outcome" => self.glance_outcome(&found, columns, record),
            _ => self.glance_event(found, columns),
        }
    }

    fn glance_decision(&mut self, found: &Found<'_>, columns: Columns<'_>, record: &str) -> Result<(), Odd> {
        let said = DecisionGlance::read(record).map_err(|_| Odd::Look)?;
        let [time, id, decision, session, agent, class, host, domain, action, reason, findings, bytes] =
            columns;
        let bits = bits(&said.findings)?;
        let same = is(time, said.time)
            && id == Some(&*said.id)
            && decision.is_none()
            && session == said.session.as_deref()
            && agent == Some(&*said.agent)
            && class == Some(&*said.class)
            && host == said.host.as_deref()
            && domain == said.domain.as_deref()
            && is(findings, bits)
            && bytes.is_none();
        let same = same && said.event.is_none() && said.decision.is_none();
        let (Some(action), Some(reason), true) = (action, reason, same) else { return Err(Odd::Look) };
        let says_else = (action, reason) != (said.action.as_str(), said.reason.as_str());
        let open = Open {
            id: Ulid::from_string(&said.id).map_err(|_| Odd::Look)?,
            action: said.action,
            reason: said.reason,
            findings: bits,
            last: says_else.then(|| (action.to_owned(), reason.to_owned())),
        };
        self.walk.pass(found).map_err(Odd::Bad)?;
        self.count(bits, found.seq);
        self.open.insert(found.seq, open);
        Ok(())
    }

    fn glance_outcome(&mut self, found: &Found<'_>, columns: Columns<'_>, record: &str) -> Result<(), Odd> {
        let said = OutcomeGlance::read(record).map_err(|_| Odd::Look)?;
        let [time, id, decision, rest @ .., findings, bytes] = columns;
        let bits = bits(&said.findings)?;
        let same = is(time, said.time)
            && id.is_none()
            && rest.iter().all(Option::is_none)
            && is(findings, bits)
            && is(bytes, number(said.request_bytes));
        let seq: u64 = decision.ok_or(Odd::Look)?.parse().map_err(|_| Odd::Look)?;
        let decision = Ulid::from_string(&said.decision).map_err(|_| Odd::Look)?;
        let fits = |open: &Open| open.id == decision && open.has_last_word(said.action, said.reason);
        if !same || said.event.is_some() || !self.open.get(&seq).is_some_and(fits) {
            return Err(Odd::Look);
        }
        self.walk.pass(found).map_err(Odd::Bad)?;
        let open = self.open.remove(&seq).ok_or(Odd::Look)?;
        self.count(bits & !open.findings, seq);
        Ok(())
    }

    fn glance_event(&mut self, found: Found<'_>, columns: Columns<'_>) -> Result<(), Odd> {
        let (seq, [time, rest @ ..]) = (found.seq, columns);
        if !rest.iter().all(Option::is_none) {
            return Err(Odd::Look);
        }
        // Read before it is taken, so that an odd one is not taken twice.
        let event: policy::event::Event = serde_json::from_slice(found.canonical).map_err(|_| Odd::Look)?;
        if !is(time, event.time) {
            return Err(Odd::Look);
        }
        self.walk.feed(found).map_err(Odd::Bad)?;
        self.identities.event(seq, &event);
        Ok(())
    }
}

fn is(column: Option<&str>, number: i64) -> bool {
    column.is_some_and(|column| column.parse() == Ok(number))
}

fn bits(said: &[FindingGlance<'_>]) -> Result<i64, Odd> {
    said.iter().try_fold(0, |bits, finding| Ok(bits | findings::bit(&finding.kind).ok_or(Odd::Look)?))
}

#[cfg(test)]
mod tests {
    use policy::chain::Head;
    use policy::event::{Event, Happening};
    use policy::identity::SessionId;
    use policy::record::Finding;
    use policy::redact::Redacted;
    use policy::verdict::{Action, Reason};

    use super::*;
    use crate::evidence::{Evidence, Walk};
    use crate::signing::Signer;
    use crate::store::tests::{Folder, decision, outcome};
    use crate::store::{Entry, Opened};

    #[tokio::test]
    async fn a_glance_is_enough_for_records_as_they_were_written() {
        let folder = Folder::new();
        let Opened { mut writer, .. } = folder.open().await;
        let mut first = decision("a.example");
        first.session = Some(SessionId(Ulid::from_parts(1_795_000_000_000, 1)));
        first.findings = vec![Finding::GitPush, Finding::McpShaped];
        first.path = Some(Redacted::literal("/\"\\\u{7f}ä"));
        let mut cut = outcome(&first);
        (cut.action, cut.reason, cut.findings) = (Action::Deny, Reason::SecretFound, vec![Finding::GitPush]);
        let mut second = decision("b.example");
        (second.host, second.domain) = (None, None);
        let stopped = Event { time: 1, by: Some(Redacted::literal("ana")), what: Happening::Stopped };
        let entries = [
            Entry::decision(&first),
            Entry::decision(&second),
            Entry::outcome(&cut),
            Entry::event(&stopped),
            Entry::checkpoint(Signer::open(folder.path()).unwrap()),
            Entry::outcome(&outcome(&second)),
        ];
        writer.commit(&entries).await.unwrap();
        let page = read(&mut folder.stranger().await, 0).await.unwrap().unwrap();
        let mut check = Check::new(Walk::after(Head::GENESIS, &Evidence::default()).unwrap());
        assert!(check.page(&page).is_ok(), "after {} of {:?}", check.walk.head().seq, page.text);
        assert_eq!((page.last, check.walk.records()), (6, 6));
    }
}
