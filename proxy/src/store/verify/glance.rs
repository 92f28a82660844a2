//! Pages of records as one text each, checked at a glance: several times as quick as row by row, column by column.
//!
//! A glance only ever says "all is well". Where anything is odd, the rows themselves are read and looked at, and what is
//! wrong is named by that.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use policy::chain::{BadRecord, Found, Hash};
use policy::glance::{DecisionGlance, FindingGlance, OutcomeGlance};
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;
use ulid::Ulid;

use super::super::query::unsigned;
use super::super::row::number;
use super::super::{StoreError, findings};
use super::{Check, Open};
use crate::token::NoRandom;

/// Between the columns of a row; no canonical text has it.
const UNIT: u8 = 0x1f;
/// Between rows.
const RECORD: char = '\u{1e}';
/// Columns beside the kind, the hash and the record.
const COLUMNS: usize = 13;
/// Random bytes in what stands for no value.
const RANDOM: usize = 6;

/// The rows of a few records, so that their text stays in the processor's caches from one hand to the next. Each has as
/// many parts as any other, whatever its columns hold: a separator within one of them can then be seen. The limit is no
/// parameter: SQLite would prepare the statement anew for every value it is given, though it were the same. A record that
/// is large, an excerpt of a body in it, is left out and looked at by itself, so that no page takes more than a few MiB.
const ROWS: &str = "SELECT group_concat(line, char(30)) AS text, max(seq) AS last, count(*) AS records FROM (\
     SELECT seq, concat_ws(char(31), ifnull(kind, $2), hex(hash), ifnull(time, $2), ifnull(id, $2), \
         ifnull(decision, $2), ifnull(session, $2), ifnull(agent, $2), ifnull(class, $2), ifnull(host, $2), \
         ifnull(domain, $2), ifnull(action, $2), ifnull(reason, $2), ifnull(findings, $2), ifnull(bytes, $2), \
         ifnull(fresh, $2), \
         iif(octet_length(record) > 32768, '', ifnull(record, $2))) AS line \
     FROM records WHERE seq > $1 ORDER BY seq LIMIT 200)";

/// Records on their way from the store to the check.
pub(super) struct Page {
    text: Vec<u8>,
    /// What stands for no value in it. Made anew for each page, so that no column can have been made to hold it.
    none: String,
    /// Number of the record before them.
    after: u64,
    /// Number of the last of them.
    pub(super) last: u64,
    /// How many they are.
    records: u64,
}

/// The next records as one text; `None` after the last.
pub(super) async fn read(snapshot: &mut SqliteConnection, after: u64) -> Result<Option<Page>, StoreError> {
    let none = none()?;
    let query = sqlx::query(ROWS).bind(number(after)).bind(&none);
    let row = query.fetch_one(snapshot).await?;
    let Some(last) = row.try_get::<Option<i64>, _>("last")? else { return Ok(None) };
    // Bytes, since what was tampered with need not be text.
    let text = row.try_get_unchecked("text")?;
    let (last, records) = (u64::try_from(last).unwrap_or(0), unsigned(&row, "records")?);
    Ok(Some(Page { text, none, after, last, records }))
}

/// What stands for no value.
fn none() -> Result<String, StoreError> {
    let mut random = [0; RANDOM];
    let unlucky = |_| StoreError::Read(sqlx::Error::Io(std::io::Error::other(NoRandom)));
    aws_lc_rs::rand::fill(&mut random).map_err(unlucky)?;
    Ok(URL_SAFE_NO_PAD.encode(random))
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
        let text = std::str::from_utf8(&page.text).map_err(|_| Odd::Look)?;
        // A separator in some text would make more lines of the rows than there are. Numbers differ, so as many as there
        // are from the first to the last are all of them.
        let lines: Vec<&str> = text.split(RECORD).collect();
        if lines.len() as u64 != page.records || page.last != page.after + page.records {
            return Err(Odd::Look);
        }
        (page.after + 1..).zip(lines).try_for_each(|(seq, line)| self.line(seq, line, &page.none))
    }

    fn line(&mut self, seq: u64, line: &str, none: &str) -> Result<(), Odd> {
        let mut parts = Parts(line);
        let kind = parts.next().ok_or(Odd::Look)?;
        let hash = parts.next().and_then(Hash::from_hex).ok_or(Odd::Look)?;
        let mut columns = [None; COLUMNS];
        for column in &mut columns {
            *column = Some(parts.next().ok_or(Odd::Look)?).filter(|text| *text != none);
        }
        // Whatever is left: with a part too many it is no record.
        let record = parts.0;
        let found = Found { seq, kind, canonical: record.as_bytes(), hash: hash.as_bytes() };
        match kind {
            "decision" => self.glance_decision(&found, columns, record),
            "outcome" => self.glance_outcome(&found, columns, record),
            _ => self.glance_event(found, columns),
        }
    }

    fn glance_decision(&mut self, found: &Found<'_>, columns: Columns<'_>, record: &str) -> Result<(), Odd> {
        let said = DecisionGlance::read(record).map_err(|_| Odd::Look)?;
        let [time, id, decision, session, agent, class, host, domain, action, reason, findings, bytes, fresh] =
            columns;
        let fresh = fresh.map(str::parse).transpose().ok();
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
            && bytes.is_none()
            && self.is_found(found.seq, fresh);
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
        let [time, id, decision, rest @ .., findings, bytes, fresh] = columns;
        let bits = bits(&said.findings)?;
        let same = is(time, said.time)
            && id.is_none()
            && rest.iter().all(Option::is_none)
            && is(findings, bits)
            && is(bytes, number(said.request_bytes))
            && fresh.is_none();
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

/// What is left of a line.
struct Parts<'a>(&'a str);

impl<'a> Iterator for Parts<'a> {
    type Item = &'a str;

    /// All parts but the last: those that something follows.
    fn next(&mut self) -> Option<&'a str> {
        // They are short, and no search is set up for each.
        let end = self.0.bytes().position(|byte| byte == UNIT)?;
        let part = &self.0[..end];
        self.0 = &self.0[end + 1..];
        Some(part)
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
    use crate::store::{Entry, Opened, Store};

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
    /// Decision 1 with all columns, its outcome 2, decision 3 with few, its outcome 4.
    async fn chain(path: &str) -> Folder {
        let folder = Folder::new();
        let Opened { mut writer, .. } = folder.open().await;
        let [mut first, mut second] = ["a.example", "b.example"].map(decision);
        first.session = Some(SessionId(Ulid::from_parts(1_795_000_000_000, 1)));
        first.path = Some(Redacted::from_store(path.to_owned()));
        (second.host, second.domain) = (None, None);
        let entries = [
            Entry::decision(&first),
            Entry::outcome(&outcome(&first)),
            Entry::decision(&second),
            Entry::outcome(&outcome(&second)),
        ];
        writer.commit(&entries).await.unwrap();
        writer.mark().await.unwrap();
        writer.close().await;
        folder
    }

    /// How many records a glance vouched for, and whether it said that the rows have to be looked at.
    async fn glance(folder: &Folder) -> (u64, bool) {
        let page = read(&mut folder.stranger().await, 0).await.unwrap().unwrap();
        let mut check = Check::new(Walk::after(Head::GENESIS, &Evidence::default()).unwrap());
        let odd = check.page(&page).err();
        (check.walk.records(), matches!(odd, Some(Odd::Look)))
    }

    #[tokio::test]
    async fn a_glance_vouches_for_nothing_that_only_reads_as_it_should() {
        let cases: [(&'static str, u64); 11] = [
            ("UPDATE records SET agent = agent || char(31) || class, class = NULL WHERE seq = 1", 0),
            ("UPDATE records SET class = agent || char(31) || class, agent = NULL WHERE seq = 1", 0),
            ("UPDATE records SET session = agent, agent = NULL WHERE seq = 3", 2),
            ("UPDATE records SET host = domain, domain = NULL WHERE seq = 1", 0),
            ("UPDATE records SET reason = reason || char(31) || findings, findings = NULL WHERE seq = 3", 2),
            ("UPDATE records SET bytes = NULL, id = bytes WHERE seq = 4", 3),
            ("UPDATE records SET host = '' WHERE seq = 3", 2),
            ("UPDATE records SET host = host || char(30) WHERE seq = 1", 0),
            ("UPDATE records SET host = host || char(0) WHERE seq = 1", 0),
            ("UPDATE records SET host = CAST(x'ff' AS TEXT) WHERE seq = 3", 0),
            ("UPDATE records SET record = record || char(30) || '4', hash = hash WHERE seq = 3", 0),
        ];
        for (damage, vouched) in cases {
            let folder = chain("/").await;
            assert_eq!(glance(&folder).await, (4, false));
            folder.execute(damage).await;
            assert_eq!(glance(&folder).await, (vouched, true), "{damage}");
            let report = Store::open_read_only(folder.path()).await.unwrap().verify().await.unwrap();
            assert!(!report.intact, "not noticed: {damage}");
        }
    }

    #[tokio::test]
    async fn a_large_record_is_looked_at_by_itself() {
        let folder = chain(&"/large".repeat(20_000)).await;
        let page = read(&mut folder.stranger().await, 0).await.unwrap().unwrap();
        assert!(page.text.len() < 10_000, "a page of {} bytes", page.text.len());
        assert_eq!(glance(&folder).await, (0, true));
        let report = Store::open_read_only(folder.path()).await.unwrap().verify().await.unwrap();
        assert_eq!((report.intact, report.records), (true, 4), "{report:?}");
    }
}
