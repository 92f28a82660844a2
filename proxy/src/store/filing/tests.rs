//! What is filed and what is not, and that searches tell them apart by nothing but time.

use std::sync::Arc;

use policy::identity::{AgentName, SessionId};
use policy::record::{Decision, Finding};
use policy::redact::Redacted;
use policy::report::Scope;
use policy::verdict::{Action, Class, Reason};
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Connection as _};
use ulid::Ulid;

use super::*;
use crate::signing::Signer;
use crate::store::hosts::{self, Known};
use crate::store::overview::{self, Stretch};
use crate::store::query::{Conditions, Filter};
use crate::store::report::{self, Within};
use crate::store::sqlite::make_as_of;
use crate::store::tests::{Folder, decision, outcome};
use crate::store::{Entry, Opened, Store, observed};

const MINE: &str = "api.mine.example";
const OTHERS: &str = "others.example";

/// How much of a store is filed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filed {
    Nothing,
    Half,
    All,
}

const FILED: [Filed; 3] = [Filed::Nothing, Filed::Half, Filed::All];

fn session() -> SessionId {
    SessionId(Ulid::from_parts(1_795_000_000_000, 1))
}

fn mine() -> AgentName {
    "mine".parse().unwrap()
}

/// A decision that every filter of these tests means.
fn my_decision() -> Decision {
    let mut decision = decision(MINE);
    decision.domain = Some(Redacted::literal("mine.example"));
    (decision.session, decision.agent, decision.class) = (Some(session()), mine(), Class::Model);
    (decision.action, decision.reason) = (Action::Deny, Reason::UnknownDestination);
    decision.findings = vec![Finding::GitPush];
    decision
}

fn exchange(decision: &Decision) -> [Entry; 2] {
    [Entry::decision(decision), Entry::outcome(&outcome(decision))]
}

async fn file_all(writer: &mut Writer) {
    while writer.unfiled() > 0 {
        writer.file().await.unwrap();
    }
}

/// Eight exchanges: decisions 1, 5, 9 and 13 are mine, 3, 7, 11 and 15 are not.
async fn store(filed: Filed) -> (Folder, Store, Writer) {
    let folder = Folder::new();
    let Opened { store, mut writer, .. } = folder.open().await;
    for half in [Filed::Half, Filed::All] {
        for _ in 0..2 {
            let both = [my_decision(), decision(OTHERS)];
            writer.commit(both.each_ref().map(exchange).as_flattened()).await.unwrap();
        }
        if filed == Filed::All || filed == half {
            file_all(&mut writer).await;
        }
    }
    let unfiled = [(Filed::Nothing, 16), (Filed::Half, 8), (Filed::All, 0)];
    assert!(unfiled.contains(&(filed, writer.unfiled())), "{filed:?}: {}", writer.unfiled());
    assert_eq!(fresh(&folder).await, writer.unfiled() / 2);
    (folder, store, writer)
}

/// How many decisions the indexes do not know.
async fn fresh(folder: &Folder) -> u64 {
    let row = sqlx::query("SELECT count(*) AS fresh FROM records WHERE fresh = 1");
    let row = row.fetch_one(&mut folder.stranger().await).await.unwrap();
    u64::try_from(row.get::<i64, _>("fresh")).unwrap()
}

fn filters() -> Vec<(&'static str, Filter)> {
    let all = Filter::default;
    vec![
        ("session", Filter { session: Some(session()), ..all() }),
        ("agent", Filter { agent: Some(mine()), ..all() }),
        ("class", Filter { class: Some(Class::Model), ..all() }),
        ("action", Filter { action: Some(Action::Deny), ..all() }),
        ("reason", Filter { reason: Some(Reason::UnknownDestination), ..all() }),
        ("host", Filter { host: Some(MINE.into()), ..all() }),
        ("host", Filter { host: Some("*.mine.example".into()), ..all() }),
        ("finding", Filter { finding: Some("git_push".into()), ..all() }),
    ]
}

#[tokio::test]
async fn every_filter_finds_what_is_filed_and_what_is_not_in_one_order() {
    for filed in FILED {
        let (_folder, store, _writer) = store(filed).await;
        let found = async |filter: &Filter| {
            let found = store.decisions(filter).await.unwrap();
            found.iter().map(|view| view.seq).collect::<Vec<_>>()
        };
        assert_eq!(found(&Filter::default()).await, [15, 13, 11, 9, 7, 5, 3, 1], "{filed:?}");
        for (name, filter) in filters() {
            let limited = Filter { limit: Some(3), ..filter.clone() };
            let further = Filter { before: Some(13), limit: Some(2), ..filter.clone() };
            let since = Filter { since: Some(1), limit: Some(3), ..filter.clone() };
            let sentence = format!("{name}, {filed:?} filed");
            assert_eq!(found(&filter).await, [13, 9, 5, 1], "{sentence}");
            assert_eq!(found(&limited).await, [13, 9, 5], "{sentence}, limited");
            assert_eq!(found(&further).await, [9, 5], "{sentence}, a page further");
            assert_eq!(found(&since).await, [13, 9, 5], "{sentence}, since a time");
        }
    }
}

#[tokio::test]
async fn what_is_told_of_hosts_and_scopes_is_the_same_however_much_is_filed() {
    for filed in FILED {
        let (folder, store, mut writer) = store(filed).await;
        let only_new = exchange(&decision("new.example"));
        writer.commit(&only_new).await.unwrap();
        assert_eq!(store.domains().await.unwrap(), ["mine.example", "new.example", OTHERS], "{filed:?}");
        let mut connection = folder.stranger().await;
        for (pattern, expected) in [(MINE, 1), ("*.mine.example", 1), ("*.example", 3), ("no.example", 0)] {
            let meant = hosts::meant(&mut connection, pattern).await.unwrap();
            assert_eq!(meant.len(), expected, "{pattern}, {filed:?}");
        }

        let overview = store.overview(Stretch { since: 0, part: i64::MAX, parts: 1 }).await.unwrap();
        let refused: Vec<_> = overview.refused.iter().map(|row| (row.requests, row.last.seq)).collect();
        assert_eq!(refused, [(4, 13)], "{filed:?}");
        let first = sqlx::query("SELECT time FROM records WHERE seq = 1").fetch_one(&mut connection).await;
        let first: i64 = first.unwrap().get("time");
        let destinations = store.destinations(0).await.unwrap();
        let known = destinations.iter().find(|known| known.host.as_str() == MINE).unwrap();
        assert_eq!((known.requests, known.first, &*known.first_agent), (4, first, "mine"), "{filed:?}");

        for scope in [
            Scope { session: Some(session()), ..Scope::default() },
            Scope { agent: Some(mine()), ..Scope::default() },
        ] {
            assert_eq!(store.numbers(&scope).await.unwrap(), Some((1, 13)), "{scope:?}, {filed:?}");
            let mut seen = 0;
            let count = |_: &_| {
                seen += 1;
                Ok::<_, ()>(())
            };
            assert_eq!(store.observed(&scope, count, |_, _| {}).await.unwrap(), Ok(4), "{filed:?}");
            assert_eq!(seen, 4);
        }
        for (before, expected) in
            [(1, &[][..]), (2, &["mine.example"]), (18, &["mine.example", "new.example"])]
        {
            let asked = r#"[["mine.example","api.mine.example"],["new.example","new.example"],["x","x"]]"#;
            let rows = sqlx::query(report::MET_BEFORE).bind(asked).bind(before);
            let rows = rows.fetch_all(&mut connection).await.unwrap();
            let met: Vec<String> = rows.iter().map(|row| row.get("domain")).collect();
            assert_eq!(met, expected, "before {before}, {filed:?}");
        }
    }
}

#[tokio::test]
async fn what_was_not_filed_when_the_gateway_was_killed_is_found_and_filed() {
    let (folder, store, writer) = store(Filed::Half).await;
    drop((store, writer));
    let Opened { store, mut writer, .. } = folder.open().await;
    assert_eq!(writer.unfiled(), 8);
    let by_agent = Filter { agent: Some(mine()), ..Filter::default() };
    assert_eq!(store.decisions(&by_agent).await.unwrap().len(), 4);
    file_all(&mut writer).await;
    assert_eq!(fresh(&folder).await, 0);
    assert_eq!(store.decisions(&by_agent).await.unwrap().len(), 4);
    drop((store, writer));
    assert_eq!(folder.open().await.writer.unfiled(), 0);
}

#[tokio::test]
async fn much_is_filed_in_steps() {
    let folder = Folder::new();
    let Opened { mut writer, .. } = folder.open().await;
    for _ in 0..3 {
        let entries: Vec<_> = (0..512).flat_map(|_| exchange(&decision(OTHERS))).collect();
        writer.commit(&entries).await.unwrap();
    }
    for left in [2048, 1024, 0, 0] {
        writer.file().await.unwrap();
        assert_eq!((writer.unfiled(), fresh(&folder).await), (left, left / 2));
    }
}

#[tokio::test]
async fn a_copy_from_before_it_was_filed_is_filed_again() {
    let (folder, store, mut writer) = store(Filed::Half).await;
    let copy = folder.path().join("copy.db");
    let backup = AssertSqlSafe(format!("VACUUM INTO '{}'", copy.display()));
    sqlx::query(backup).execute(&mut folder.stranger().await).await.unwrap();
    file_all(&mut writer).await;
    for name in ["outgate.db", "outgate.db-wal", "outgate.db-shm"] {
        std::fs::remove_file(folder.path().join(name)).unwrap();
    }
    writer.commit(&exchange(&decision(OTHERS))).await.unwrap_err();
    writer.settle().await.unwrap();
    std::fs::rename(copy, folder.database()).unwrap();
    writer.commit(&exchange(&decision(OTHERS))).await.unwrap();
    assert_eq!((writer.unfiled(), fresh(&folder).await), (10, 5));
    file_all(&mut writer).await;
    assert_eq!(fresh(&folder).await, 0);
    drop(store);
}

#[tokio::test]
async fn a_command_beside_the_gateway_files_nothing() {
    let (folder, _store, mut gateway) = store(Filed::All).await;
    let (_, mut command) = Store::open_beside(folder.path()).await.unwrap();
    command.commit(&exchange(&my_decision())).await.unwrap();
    assert_eq!(command.unfiled(), 0);
    // The gateway does so once it comes by.
    gateway.commit(&exchange(&my_decision())).await.unwrap();
    assert_eq!((gateway.unfiled(), fresh(&folder).await), (4, 2));
    file_all(&mut gateway).await;
    assert_eq!(fresh(&folder).await, 0);
}

#[tokio::test]
async fn old_records_are_dropped_whether_they_are_filed_or_not() {
    for (filed, dropped) in [(Filed::Nothing, 6), (Filed::Half, 6), (Filed::Half, 12), (Filed::All, 16)] {
        let (folder, store, mut writer) = store(filed).await;
        let signer: Arc<Signer> = Signer::open(folder.path()).unwrap();
        while !writer.prune_step(dropped, 4, &signer).await.unwrap() {}
        let left = |seqs: &[u64]| seqs.iter().copied().filter(|seq| *seq > dropped).collect::<Vec<_>>();
        for _ in 0..2 {
            for (name, filter) in filters() {
                let found = store.decisions(&filter).await.unwrap();
                let found: Vec<_> = found.iter().map(|view| view.seq).collect();
                assert_eq!(found, left(&[13, 9, 5, 1]), "{name}, {filed:?} filed, {dropped} dropped");
            }
            assert_eq!(store.verify().await.unwrap().first_bad, None);
            file_all(&mut writer).await;
        }
        assert_eq!(fresh(&folder).await, 0);
        drop((store, writer));
        assert_eq!(folder.open().await.writer.unfiled(), 0);
    }
}

#[tokio::test]
async fn a_store_from_before_there_was_filing_counts_as_filed() {
    let (folder, store, writer) = store(Filed::Nothing).await;
    writer.close().await;
    drop(store);
    let now = folder.path().join("now.db");
    std::fs::rename(folder.database(), &now).unwrap();
    std::fs::write(folder.database(), "").unwrap();
    let mut old = make_as_of(&folder.database(), 2).await;
    for statement in [
        format!("ATTACH '{}' AS now", now.display()),
        "INSERT INTO records SELECT seq, kind, time, id, decision, session, agent, class, host, domain, action, \
         reason, findings, bytes, record, hash FROM now.records"
            .to_owned(),
    ] {
        sqlx::query(AssertSqlSafe(statement)).execute(&mut old).await.unwrap();
    }
    old.close().await.unwrap();

    let Opened { store, mut writer, .. } = folder.open().await;
    assert_eq!((writer.unfiled(), fresh(&folder).await), (0, 0));
    writer.commit(&exchange(&my_decision())).await.unwrap();
    for _ in 0..2 {
        for (name, filter) in filters() {
            let found = store.decisions(&filter).await.unwrap();
            assert_eq!(found.iter().map(|view| view.seq).collect::<Vec<_>>(), [17, 13, 9, 5, 1], "{name}");
        }
        assert_eq!(store.verify().await.unwrap().first_bad, None);
        file_all(&mut writer).await;
    }
}

#[tokio::test]
async fn a_decision_that_was_kept_from_being_found_is_named() {
    type Named = Option<(u64, &'static str)>;
    let cases: [(Filed, &'static str, Named); 10] = [
        (Filed::Half, "UPDATE records SET fresh = 1 WHERE seq = 5", Some((5, "`fresh`"))),
        (Filed::Half, "UPDATE records SET fresh = 2 WHERE seq = 13", Some((13, "`fresh`"))),
        (Filed::Half, "UPDATE records SET fresh = 0 WHERE seq = 13", Some((13, "`fresh`"))),
        (Filed::Half, "UPDATE records SET fresh = 1 WHERE seq = 14", Some((14, "`fresh`"))),
        (Filed::Half, "UPDATE meta SET value = '13' WHERE name = 'filed'", Some((9, "`fresh`"))),
        (Filed::Half, "UPDATE meta SET value = '99' WHERE name = 'filed'", Some((9, "`fresh`"))),
        (Filed::All, "UPDATE meta SET value = '99' WHERE name = 'filed'", Some((16, "record 99 had been"))),
        // Searches look through more than they have to, and find everything.
        (Filed::Half, "UPDATE meta SET value = 'x' WHERE name = 'filed'", None),
        (Filed::Half, "DELETE FROM meta WHERE name = 'filed'", None),
        (Filed::Half, "UPDATE records SET fresh = NULL WHERE seq = 13", None),
    ];
    for (filed, damage, expected) in cases {
        let (folder, store, _writer) = store(filed).await;
        folder.execute(damage).await;
        let bad = store.verify().await.unwrap().first_bad;
        match expected {
            Some((seq, problem)) => {
                let bad = bad.unwrap_or_else(|| panic!("not noticed: {damage}"));
                assert_eq!(bad.seq, seq, "{damage}: {}", bad.problem);
                assert!(bad.problem.contains(problem), "{damage}: {}", bad.problem);
            }
            None => {
                assert_eq!(bad, None, "{damage}");
                let by_agent = Filter { agent: Some(mine()), ..Filter::default() };
                assert_eq!(store.decisions(&by_agent).await.unwrap().len(), 4, "{damage}");
            }
        }
    }
}

#[tokio::test]
async fn a_note_of_more_than_there_is_does_not_outlive_the_next_step() {
    let (folder, store, writer) = store(Filed::All).await;
    drop((store, writer));
    folder.execute("UPDATE meta SET value = '9000000000000000000' WHERE name = 'filed'").await;
    let Opened { store, mut writer, .. } = folder.open().await;
    writer.commit(&exchange(&my_decision())).await.unwrap();
    file_all(&mut writer).await;
    assert_eq!(fresh(&folder).await, 0);
    assert_eq!(store.verify().await.unwrap().first_bad, None);
}

/// What SQLite is going to do, line by line.
fn told(rows: &[SqliteRow]) -> Vec<String> {
    rows.iter().map(|row| row.get("detail")).collect()
}

/// Of a statement with two parts: each has its own way, and only the few that are not filed are sorted.
fn assert_merged(what: &str, plan: &[String], index: &str) {
    let second = plan.iter().position(|line| line == "RIGHT");
    let second = second.unwrap_or_else(|| panic!("{what}: two parts are not merged: {plan:#?}"));
    let (filed, unfiled) = plan.split_at(second);
    assert!(filed.iter().any(|line| line.contains(index)), "{what}: not by `{index}`: {plan:#?}");
    assert!(
        !filed.iter().any(|line| line.contains("TEMP B-TREE")),
        "{what}: the filed are sorted: {plan:#?}"
    );
    assert!(!filed.iter().any(|line| line.starts_with("SCAN")), "{what}: looks at every record: {plan:#?}");
    // Without a bound of the search: SQLite might begin there, however much is filed after it.
    let beginning = "SEARCH records USING INTEGER PRIMARY KEY (rowid>?)";
    assert!(unfiled.iter().any(|line| line == beginning), "{what}: {plan:#?}");
}

/// What is not filed is looked through from where it begins.
fn assert_short(what: &str, plan: &[String]) {
    let beginning = "SEARCH records USING INTEGER PRIMARY KEY (rowid>?";
    assert!(plan.iter().any(|line| line.starts_with(beginning)), "{what}: {plan:#?}");
}

#[tokio::test]
async fn every_filter_has_its_index_whatever_else_is_asked() {
    let (folder, _store, _writer) = store(Filed::Half).await;
    let mut connection = folder.stranger().await;
    let host = Known { domain: "mine.example".to_owned(), host: MINE.to_owned() };
    for (name, filter) in filters().into_iter().filter(|(name, _)| *name != "finding") {
        let host = (name == "host").then_some(&host);
        let page = Filter { since: Some(1), before: Some(12), limit: Some(3), ..filter.clone() };
        for (filter, first) in [(&filter, None), (&page, Some(2))] {
            let mut query = Conditions::searching(filter, first, host).unwrap();
            query.sql.insert_str(0, "EXPLAIN QUERY PLAN ");
            let plan = told(&query.fetch(&mut connection).await.unwrap());
            assert_merged(name, &plan, &format!("INDEX records_{name}"));
        }
    }
}

#[tokio::test]
async fn the_decisions_of_a_scope_are_found_by_index() {
    let (folder, _store, _writer) = store(Filed::Half).await;
    let mut connection = folder.stranger().await;
    let both = Scope { session: Some(session()), agent: Some(mine()), ..Scope::default() };
    let cases = [
        (both.clone(), "INDEX records_session"),
        (Scope { agent: None, ..both.clone() }, "INDEX records_session"),
        (Scope { session: None, ..both }, "INDEX records_agent"),
        (Scope::default(), "INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
    ];
    for (scope, index) in cases {
        for select in [report::EDGE, report::DECISIONS, observed::OBSERVED] {
            for order in [" ORDER BY d.seq LIMIT 5", " ORDER BY d.seq DESC LIMIT 1"] {
                let mut query = Within::new(&format!("EXPLAIN QUERY PLAN {select}"), &scope).unwrap();
                query.and(" AND d.seq > ", 1).unwrap();
                query.and(" AND d.seq <= ", 15).unwrap();
                let plan = told(&query.ended(order).fetch_all(&mut connection).await.unwrap());
                assert_merged(select, &plan, index);
            }
        }
    }
}

#[tokio::test]
async fn hosts_are_found_by_index() {
    let (folder, _store, _writer) = store(Filed::Half).await;
    let mut connection = folder.stranger().await;
    for (statement, searches) in [
        (hosts::KNOWN, &["records_host (domain=? AND host=?)"][..]),
        (hosts::DOMAINS, &["INDEX records_host", "records_host (domain>?)"]),
        (hosts::HOSTS, &["records_host (domain=? AND host>?)"]),
        (overview::FIRST, &["records_host (domain=? AND host=?)"]),
        (overview::REFUSED, &["records_action (action=? AND rowid>?)"]),
        (report::MET_BEFORE, &["records_host (domain=? AND host=? AND rowid<?)"]),
    ] {
        let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
        let plan = told(&sqlx::query(explain).fetch_all(&mut connection).await.unwrap());
        for search in searches {
            assert!(plan.iter().any(|line| line.contains(search)), "not by `{search}`: {plan:#?}");
        }
        assert!(!plan.iter().any(|line| line.starts_with("SCAN records")), "{statement}: {plan:#?}");
        assert_short(statement, &plan);
    }
}
