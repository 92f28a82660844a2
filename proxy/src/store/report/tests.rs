use policy::event::Happening;
use policy::identity::{AgentName, SessionId};
use policy::record::{Finding, Outcome};
use policy::verdict::{Action, Mode, Reason};
use ulid::Ulid;

use super::*;
use crate::signing::Signer;
use crate::store::tests::{Folder, decision, outcome};
use crate::store::{Change, Entry, NewSession, Writer};

fn session_id() -> SessionId {
    SessionId(Ulid::from_parts(1_795_000_000_000, 1))
}

fn claude() -> AgentName {
    "claude".parse().unwrap()
}

/// An exchange that ended, so many records.
fn exchange(host: &'static str, change: impl Fn(&mut policy::record::Decision, &mut Outcome)) -> [Entry; 2] {
    let mut decision = decision(host);
    let mut outcome = outcome(&decision);
    change(&mut decision, &mut outcome);
    [Entry::decision(&decision), Entry::outcome(&outcome)]
}

fn deny(decision: &mut policy::record::Decision, outcome: &mut Outcome) {
    (decision.action, decision.reason) = (Action::Deny, Reason::UnknownDestination);
    (outcome.action, outcome.reason) = (decision.action, decision.reason);
    outcome.request_bytes = 0;
}

async fn commit(writer: &mut Writer, entries: impl IntoIterator<Item = Entry>) {
    writer.commit(&entries.into_iter().collect::<Vec<_>>()).await.unwrap();
}

fn event(what: Happening) -> Entry {
    Entry::event(&Event { time: clock::now(), by: None, what })
}

async fn report(store: &Store, scope: Scope) -> Report {
    store.report(&scope, clock::now(), |_| {}).await.unwrap()
}

#[tokio::test]
async fn a_report_is_of_its_scope_alone() {
    let folder = Folder::new();
    let mut opened = folder.open().await;
    let began = clock::now();
    let writer = &mut opened.writer;
    commit(writer, exchange("before.example", |_, _| {})).await;
    let started = clock::now();
    let opens = Event {
        time: started,
        by: None,
        what: Happening::SessionOpened {
            session: session_id(),
            agent: claude(),
            label: Some(Redacted::literal("fix-42")),
            tool: None,
            command: None,
            repo: None,
            branch: None,
            commit: None,
            observe: false,
        },
    };
    commit(writer, [Entry::change(&opens, opening(&opens), true)]).await;
    let mine = |decision: &mut policy::record::Decision, _: &mut Outcome| {
        (decision.session, decision.agent) = (Some(session_id()), claude());
    };
    commit(writer, exchange("before.example", |decision, outcome| (mine)(decision, outcome))).await;
    commit(
        writer,
        exchange("new.example", |decision, outcome| {
            mine(decision, outcome);
            deny(decision, outcome);
        }),
    )
    .await;
    commit(writer, exchange("other.example", |_, _| {})).await;
    let policy = Happening::PolicyInForce { policy: "sha256:01".into(), mode: Mode::Enforce, previous: None };
    commit(writer, [event(policy), event(Happening::Stopped)]).await;

    let everything = report(&opened.store, Scope::default()).await;
    assert_eq!(
        (everything.totals.requests, everything.totals.denied, everything.sessions.rows.len()),
        (4, 1, 1)
    );
    assert_eq!(domains(&everything), ["before.example", "new.example", "other.example"]);
    assert_eq!((everything.policy_changes.rows.len(), everything.changes.rows.len()), (1, 1));

    let session = report(&opened.store, Scope { session: Some(session_id()), ..Scope::default() }).await;
    assert_eq!((session.totals.requests, session.totals.denied), (2, 1));
    assert_eq!(domains(&session), ["new.example"], "another session had met the other one");
    assert_eq!(session.sessions.rows[0].label.as_deref(), Some("fix-42"));
    assert_eq!(session.sessions.rows[0].amount.requests, 2);
    assert_eq!(session.changes.rows, [], "what happened after its last request is not its own");
    let period = session.period.unwrap();
    assert_eq!((period.first_seq, period.last_seq), (4, 7));
    let chain = session.chain.unwrap();
    assert_eq!((chain.checked_from, chain.checked_through, chain.records, chain.intact), (1, 11, 11, true));

    for (scope, requests) in [
        (Scope { agent: Some(claude()), ..Scope::default() }, 2),
        (Scope { agent: Some(AgentName::anonymous()), ..Scope::default() }, 2),
        (Scope { since: Some(Moment(started)), ..Scope::default() }, 3),
        (Scope { until: Some(Moment(started)), ..Scope::default() }, 1),
        (Scope { session: Some(session_id()), agent: Some(claude()), ..Scope::default() }, 2),
        (Scope { session: Some(session_id()), agent: Some(AgentName::anonymous()), ..Scope::default() }, 0),
        (Scope { session: Some(session_id()), until: Some(Moment(started)), ..Scope::default() }, 0),
        (Scope { until: Some(Moment(began - 1)), ..Scope::default() }, 0),
    ] {
        let report = report(&opened.store, scope.clone()).await;
        assert_eq!(report.totals.requests, requests, "{scope:?}");
        assert_eq!(report.chain.is_some(), requests > 0, "{scope:?}");
    }
}

fn opening(event: &Event) -> Change {
    let Happening::SessionOpened { session, agent, label, .. } = &event.what else { unreachable!() };
    let session = NewSession {
        id: *session,
        agent: agent.clone(),
        label: label.clone(),
        tool: None,
        command: None,
        repo: None,
        branch: None,
        commit: None,
        observe: false,
        implicit: false,
    };
    Change::OpenSession { session, token: None }
}

fn domains(report: &Report) -> Vec<&str> {
    report.new_domains.rows.iter().map(|row| row.domain.as_str()).collect()
}

#[tokio::test]
async fn more_decisions_than_a_page_are_all_counted() {
    let folder = Folder::new();
    let mut opened = folder.open().await;
    let entries = (0..PAGE + 1)
        .flat_map(|_| exchange("a.example", |_, outcome| outcome.findings = vec![Finding::GitPush]));
    commit(&mut opened.writer, entries).await;
    let mut pages = Vec::new();
    let report = opened.store.report(&Scope::default(), clock::now(), |read| pages.push(read)).await.unwrap();
    assert_eq!(pages, [1000, 1001]);
    assert_eq!((report.totals.requests, report.totals.bytes_up), (1001, 100_100));
    assert_eq!(report.findings[0].requests, 1001);
    assert_eq!(report.chain.unwrap().records, 2002);
}

#[tokio::test]
async fn records_that_were_touched_are_told() {
    for (damage, problem) in [
        (
            "UPDATE records SET record = replace(record, 'a.example', 'b.example') WHERE seq = 3",
            "record 3: the hash",
        ),
        ("DELETE FROM records WHERE seq = 4", "record 5: records from 4"),
        ("DELETE FROM records WHERE seq = 6", "record 5: the chain ends here, but record 6 had been written"),
    ] {
        let folder = Folder::new();
        let mut opened = folder.open().await;
        commit(&mut opened.writer, (0..3).flat_map(|_| exchange("a.example", |_, _| {}))).await;
        folder.execute(damage).await;
        let chain = opened.store.span_status(1, 6).await.unwrap();
        assert!(!chain.intact, "{damage}");
        let told = chain.problem.unwrap();
        assert!(told.contains(problem), "{damage}: {told}");
    }
}

#[tokio::test]
async fn checking_begins_where_records_begin_and_names_the_newest_checkpoint() {
    let folder = Folder::new();
    let mut opened = folder.open().await;
    let signer = Signer::open(folder.path()).unwrap();
    let checkpoint = || Entry::checkpoint(signer.clone());
    commit(&mut opened.writer, exchange("a.example", |_, _| {})).await;
    commit(&mut opened.writer, [checkpoint()]).await;
    commit(&mut opened.writer, exchange("a.example", |_, _| {})).await;
    commit(&mut opened.writer, [checkpoint()]).await;
    for (first, last, expected, checkpoints) in
        [(1, 6, (1, 6, 6), 2), (4, 5, (4, 5, 2), 0), (2, 3, (2, 3, 2), 1)]
    {
        let chain = opened.store.span_status(first, last).await.unwrap();
        assert_eq!((chain.checked_from, chain.checked_through, chain.records), expected);
        assert_eq!((chain.checkpoints, chain.last_checkpoint.unwrap().through), (checkpoints, 5));
        assert!(chain.intact, "{:?}", chain.problem);
    }
    // Pruned, and then pruned by somebody who does not say so.
    assert!(!opened.writer.prune_step(2, 2, &signer).await.unwrap());
    commit(&mut opened.writer, [checkpoint()]).await;
    let chain = opened.store.span_status(1, 7).await.unwrap();
    assert_eq!(
        (chain.checked_from, chain.checked_through, chain.intact),
        (3, 7, true),
        "{:?}",
        chain.problem
    );
    folder.execute("DELETE FROM records WHERE seq = 3").await;
    let chain = opened.store.span_status(1, 7).await.unwrap();
    assert!(chain.problem.unwrap().contains("records from 3 up to here are missing"));
}
