//! The recorder against stores that work, fail, and work again.

use std::time::{Duration, Instant};

use policy::record::OutcomeKind;
use policy::verdict::{Action, Reason};
use sqlx::Connection;

use super::*;
use crate::config::CHECKPOINT_FILE;
use crate::signing::Signer;
use crate::store::query::Filter;
use crate::store::tests::{Folder, decision, outcome};
use crate::store::{Opened, Store};

async fn started() -> (Folder, Store, Recorder) {
    let folder = Folder::new();
    let Opened { store, writer, .. } = folder.open().await;
    (folder, store, Recorder::start(writer))
}

/// Every decision's host with how it ended, oldest first; fails where the chain is not whole.
async fn ends(folder: &Folder, store: &Store) -> Vec<(String, Option<OutcomeKind>)> {
    let mut views = store.decisions(&Filter::default()).await.unwrap();
    views.reverse();
    let report = store.verify().await.unwrap();
    assert_eq!(report.first_bad, None, "{}", folder.path().display());
    views.into_iter().map(|view| (view.host.unwrap().as_str().to_owned(), view.outcome)).collect()
}

async fn exchange(recorder: &Recorder, host: &'static str) -> Result<(), AuditUnavailable> {
    let decision = decision(host);
    recorder.decision(&decision).await?;
    recorder.outcome(&outcome(&decision));
    Ok(())
}

fn completed(host: &str) -> (String, Option<OutcomeKind>) {
    (host.to_owned(), Some(OutcomeKind::Completed))
}

#[tokio::test]
async fn a_decision_is_in_the_store_when_the_recorder_says_so() {
    let (_folder, store, recorder) = started().await;
    let decision = decision("a.example");
    recorder.decision(&decision).await.unwrap();
    let view = store.decision(decision.id).await.unwrap().unwrap();
    assert_eq!((view.seq, view.outcome), (1, None));
    recorder.outcome(&outcome(&decision));
    recorder.close().await.unwrap();
}

#[tokio::test]
async fn closing_writes_everything_and_refuses_what_comes_later() {
    let (folder, store, recorder) = started().await;
    for _ in 0..20 {
        exchange(&recorder, "a.example").await.unwrap();
    }
    recorder.close().await.unwrap();
    assert_eq!(exchange(&recorder, "late.example").await, Err(AuditUnavailable));
    let store = {
        drop(store);
        Store::open_read_only(folder.path()).await.unwrap()
    };
    assert_eq!(ends(&folder, &store).await, vec![completed("a.example"); 20]);
    assert_eq!(folder.open().await.interrupted, 0);
}

#[tokio::test]
async fn many_at_once_are_committed_in_groups_and_the_chain_has_no_gap() {
    let (folder, store, recorder) = started().await;
    let tasks: Vec<_> = (0..200)
        .map(|_| {
            let recorder = recorder.clone();
            tokio::spawn(async move { exchange(&recorder, "a.example").await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    recorder.event(Happening::Stopped, None).await.unwrap();
    assert_eq!(store.last_seq().await.unwrap(), 401);
    let commits = recorder.counters().commits.load(Ordering::Relaxed);
    assert!(commits <= 40, "{commits} commits for 401 records are no groups");
    assert_eq!(recorder.counters().records.load(Ordering::Relaxed), 401);
    assert_eq!(recorder.counters().queue_depth.load(Ordering::Relaxed), 0);
    assert_eq!(ends(&folder, &store).await.len(), 200);
}

#[tokio::test]
async fn an_outcome_shares_the_commit_of_the_decision_that_follows() {
    let (folder, store, recorder) = started().await;
    for _ in 0..20 {
        exchange(&recorder, "a.example").await.unwrap();
    }
    recorder.close().await.unwrap();
    let commits = recorder.counters().commits.load(Ordering::Relaxed);
    // One more for the last outcome; a busy machine may let some time run out.
    assert!((21..=28).contains(&commits), "{commits} commits for twenty exchanges one after the other");
    assert_eq!(recorder.counters().records.load(Ordering::Relaxed), 40);
    drop(store);
    let store = Store::open_read_only(folder.path()).await.unwrap();
    assert_eq!(ends(&folder, &store).await, vec![completed("a.example"); 20]);
}

#[tokio::test]
async fn an_outcome_that_finds_no_company_is_written_soon() {
    let (_folder, store, recorder) = started().await;
    exchange(&recorder, "a.example").await.unwrap();
    let begun = Instant::now();
    while store.last_seq().await.unwrap() < 2 {
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "the outcome waits for a decision that does not come"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    recorder.close().await.unwrap();
}

/// What fifty thousand decisions a second come to: the writer writes what it can, who comes too fast waits, and one agent
/// that has thousands waiting is refused more. Nothing piles up, and nothing is half written.
#[tokio::test]
async fn more_than_can_be_written_waits_or_is_refused_and_does_not_pile_up() {
    let (folder, store, recorder) = started().await;
    let ask = |agent: &str| {
        let (recorder, mut decision) = (recorder.clone(), decision("a.example"));
        decision.agent = agent.parse().unwrap();
        tokio::spawn(async move {
            recorder.decision(&decision).await?;
            recorder.outcome(&outcome(&decision));
            Ok(recorder.counters().queue_depth.load(Ordering::Relaxed))
        })
    };
    let flood: Vec<_> = (0..5_000).map(|_| ask("flood")).collect();
    let others: Vec<_> = (0..500).map(|n| ask(&format!("other-{}", n % 5))).collect();
    let (mut written, mut refused, mut deepest) = (0, 0, 0);
    for answer in flood {
        match answer.await.unwrap() {
            Ok(depth) => (written, deepest) = (written + 1, deepest.max(depth)),
            Err(AuditUnavailable) => refused += 1,
        }
    }
    for answer in others {
        assert!(answer.await.unwrap().is_ok(), "another agent's decision was refused");
        written += 1;
    }
    assert!(refused > 0 && written > 4_000, "{written} written, {refused} refused");
    assert!(deepest <= QUEUE, "{deepest} waited for the writer at once");
    recorder.event(Happening::Stopped, None).await.unwrap();
    assert_eq!(store.last_seq().await.unwrap(), 2 * written + 1);
    let report = store.verify().await.unwrap();
    assert_eq!(report.first_bad, None, "{}", folder.path().display());
}

#[tokio::test]
async fn a_second_outcome_or_one_without_decision_is_left_out() {
    let (_folder, store, recorder) = started().await;
    let [known, unknown] = ["a.example", "b.example"].map(decision);
    recorder.decision(&known).await.unwrap();
    recorder.outcome(&outcome(&unknown));
    recorder.outcome(&outcome(&known));
    recorder.outcome(&outcome(&known));
    recorder.abandon(known.id);
    recorder.event(Happening::Stopped, None).await.unwrap();
    assert_eq!(store.last_seq().await.unwrap(), 3);
}

#[tokio::test]
async fn who_is_dropped_while_waiting_leaves_an_abandoned_exchange() {
    let (folder, store, recorder) = started().await;
    let decision = decision("a.example");
    {
        let mut waiting = Box::pin(recorder.decision(&decision));
        // Polled once, so that it is queued; never again.
        assert!(futures_util::poll!(&mut waiting).is_pending());
    }
    recorder.event(Happening::Stopped, None).await.unwrap();
    assert_eq!(ends(&folder, &store).await, [("a.example".to_owned(), Some(OutcomeKind::Abandoned))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_store_refuses_within_two_seconds_and_recovers() {
    let (folder, store, recorder) = started().await;
    let open = decision("open.example");
    recorder.decision(&open).await.unwrap();
    let mut stranger = folder.stranger().await;
    let lock = stranger.begin_with("BEGIN EXCLUSIVE").await.unwrap();

    let started = Instant::now();
    let attempts: Vec<_> = (0..100)
        .map(|_| {
            let recorder = recorder.clone();
            tokio::spawn(async move { exchange(&recorder, "refused.example").await })
        })
        .collect();
    recorder.outcome(&outcome(&open));
    for attempt in attempts {
        assert_eq!(attempt.await.unwrap(), Err(AuditUnavailable));
    }
    assert!(started.elapsed() < Duration::from_millis(2500), "{:?}", started.elapsed());
    assert!(recorder.counters().failures.load(Ordering::Relaxed) >= 1);

    lock.rollback().await.unwrap();
    exchange(&recorder, "after.example").await.unwrap();
    recorder.event(Happening::Stopped, None).await.unwrap();
    assert_eq!(ends(&folder, &store).await, [completed("open.example"), completed("after.example")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outcomes_are_written_when_a_lock_goes_without_anybody_asking() {
    let (folder, store, recorder) = started().await;
    let open = decision("open.example");
    recorder.decision(&open).await.unwrap();
    let mut stranger = folder.stranger().await;
    let lock = stranger.begin_with("BEGIN EXCLUSIVE").await.unwrap();
    recorder.outcome(&outcome(&open));
    tokio::time::sleep(Duration::from_millis(1300)).await;
    lock.rollback().await.unwrap();
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if store.last_seq().await.unwrap() == 2 {
            break;
        }
    }
    assert_eq!(ends(&folder, &store).await, [completed("open.example")]);
}

#[tokio::test]
async fn a_full_store_refuses_and_recovers() {
    let folder = Folder::new();
    let Opened { store, mut writer, .. } = folder.open().await;
    writer.limit_pages(Some(40));
    let recorder = Recorder::start(writer);
    let mut kept = 0;
    let refused = loop {
        match exchange(&recorder, "a.example").await {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 10_000, "the store is never full");
    };
    assert_eq!(refused, AuditUnavailable);
    // Room returns: what may be dropped is dropped.
    folder.execute("DROP INDEX records_host").await;
    folder.execute("VACUUM").await;
    exchange(&recorder, "a.example").await.unwrap();
    recorder.event(Happening::Stopped, None).await.unwrap();
    assert_eq!(ends(&folder, &store).await, vec![completed("a.example"); kept + 1]);
}

#[tokio::test]
async fn a_store_that_was_moved_refuses_until_it_is_back() {
    let (folder, store, recorder) = started().await;
    exchange(&recorder, "before.example").await.unwrap();
    let (there, away) = (folder.database(), folder.path().join("away.db"));
    std::fs::rename(&there, &away).unwrap();
    assert_eq!(exchange(&recorder, "away.example").await, Err(AuditUnavailable));
    assert_eq!(exchange(&recorder, "away.example").await, Err(AuditUnavailable));
    std::fs::rename(&away, &there).unwrap();
    exchange(&recorder, "after.example").await.unwrap();
    recorder.event(Happening::Stopped, None).await.unwrap();
    assert_eq!(ends(&folder, &store).await, [completed("before.example"), completed("after.example")]);
}

#[tokio::test]
async fn another_database_in_its_place_is_not_written_to() {
    let (folder, _store, recorder) = started().await;
    exchange(&recorder, "before.example").await.unwrap();
    let there = folder.database();
    std::fs::remove_file(&there).unwrap();
    assert_eq!(exchange(&recorder, "gone.example").await, Err(AuditUnavailable));
    std::fs::write(&there, "").unwrap();
    assert_eq!(exchange(&recorder, "empty.example").await, Err(AuditUnavailable));
}

#[tokio::test]
async fn a_removed_log_does_not_lose_what_it_held() {
    let (folder, store, recorder) = started().await;
    exchange(&recorder, "before.example").await.unwrap();
    recorder.event(Happening::Stopped, None).await.unwrap();
    std::fs::remove_file(folder.path().join("outgate.db-wal")).unwrap();
    exchange(&recorder, "after.example").await.unwrap();
    recorder.event(Happening::Stopped, None).await.unwrap();
    assert_eq!(ends(&folder, &store).await, [completed("before.example"), completed("after.example")]);
}

#[tokio::test]
async fn a_decision_refused_but_written_is_ended_as_refused() {
    let folder = Folder::new();
    let Opened { store, mut writer, .. } = folder.open().await;
    writer.fail_after_commit();
    let recorder = Recorder::start(writer);
    let decision = decision("a.example");
    assert_eq!(recorder.decision(&decision).await, Err(AuditUnavailable));
    recorder.event(Happening::Stopped, None).await.unwrap();
    let view = store.decision(decision.id).await.unwrap().unwrap();
    assert_eq!(
        (view.action, view.reason, view.decided, view.outcome),
        (Action::Deny, Reason::AuditUnavailable, Some(Action::Allow), Some(OutcomeKind::Denied))
    );
    assert_eq!(store.last_seq().await.unwrap(), 3);
}

#[tokio::test]
async fn a_chain_that_somebody_else_continued_wrongly_stops_the_gateway_from_allowing() {
    let (folder, store, recorder) = started().await;
    exchange(&recorder, "before.example").await.unwrap();
    recorder.event(Happening::Stopped, None).await.unwrap();
    folder
        .execute("INSERT INTO records (seq, kind, time, record, hash) VALUES (4, 'event', 0, '{\"event\":\"stopped\"}', zeroblob(32))")
        .await;
    assert_eq!(exchange(&recorder, "after.example").await, Err(AuditUnavailable));
    folder.execute("DELETE FROM records WHERE seq = 4").await;
    exchange(&recorder, "after.example").await.unwrap();
    recorder.event(Happening::Stopped, None).await.unwrap();
    assert_eq!(ends(&folder, &store).await, [completed("before.example"), completed("after.example")]);
}

/// Not a check but a measurement: `cargo test --release -- --ignored --nocapture what_a_record_costs`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn what_a_record_costs() {
    /// User and system time of the process, of which Linux tells hundredths of a second.
    fn cpu() -> f64 {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }
    for clients in [1, 16, 64, 256] {
        let (_folder, _store, recorder) = started().await;
        let exchanges = 20_000 / clients * clients;
        let (began, before) = (Instant::now(), cpu());
        let tasks: Vec<_> = (0..clients)
            .map(|_| {
                let recorder = recorder.clone();
                tokio::spawn(async move {
                    for _ in 0..exchanges / clients {
                        exchange(&recorder, "a.example").await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        recorder.event(Happening::Stopped, None).await.unwrap();
        let per = |seconds: f64| seconds * 1e6 / f64::from(exchanges);
        let commits = recorder.counters().commits.load(Ordering::Relaxed);
        println!(
            "{clients} clients: {:.1} µs CPU, {:.1} µs wall per exchange, {:.1} records per commit",
            per(cpu() - before),
            per(began.elapsed().as_secs_f64()),
            f64::from(2 * exchanges) / commits as f64,
        );
    }
}

fn signed(folder: &Folder, records: u64, interval: Duration) -> CheckpointOptions {
    CheckpointOptions {
        signer: Signer::open(folder.path()).unwrap(),
        records,
        interval,
        file: folder.path().join(CHECKPOINT_FILE),
        flush: true,
        webhook: None,
    }
}

#[tokio::test]
async fn the_chain_is_signed_by_number_by_time_and_at_the_end() {
    let folder = Folder::new();
    let Opened { store, writer, .. } = folder.open().await;
    let recorder = Recorder::signing(writer, signed(&folder, 10, Duration::from_millis(300)));
    for _ in 0..10 {
        exchange(&recorder, "a.example").await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(600)).await;
    let file = folder.path().join(CHECKPOINT_FILE);
    let kept = || crate::evidence::read_checkpoints(&file).unwrap();
    let by_then = kept().len();
    assert!((2..=3).contains(&by_then), "{by_then}");
    assert_eq!(kept().last().unwrap().through + 1, store.last_seq().await.unwrap(), "nothing is unsigned");
    exchange(&recorder, "b.example").await.unwrap();
    recorder.close().await.unwrap();
    let store = Store::open_read_only(folder.path()).await.unwrap();
    assert_eq!(kept().last().unwrap().through + 1, store.last_seq().await.unwrap());
    let report = store.verify().await.unwrap();
    assert_eq!(
        (report.first_bad, report.checkpoints, report.kept),
        (None, kept().len() as u64, report.checkpoints)
    );
}

#[tokio::test]
async fn a_cut_end_and_a_rewritten_chain_show_in_what_was_kept_outside() {
    let cases: [(&'static str, &str); 3] = [
        (
            "DELETE FROM records WHERE seq > 3; DELETE FROM meta WHERE name = 'mark'",
            "the chain ends here, but record",
        ),
        (
            "UPDATE records SET record = replace(record, 'a.example', 'b.example') WHERE seq = 1",
            "the hash does not fit",
        ),
        (
            "UPDATE records SET record = replace(record, '\"key\":\"', '\"key\":\"0') WHERE kind = 'event'",
            "the hash does not fit",
        ),
    ];
    for (damage, expected) in cases {
        let folder = Folder::new();
        let Opened { store, writer, .. } = folder.open().await;
        let recorder = Recorder::signing(writer, signed(&folder, 1000, Duration::from_secs(60)));
        exchange(&recorder, "a.example").await.unwrap();
        exchange(&recorder, "a.example").await.unwrap();
        recorder.close().await.unwrap();
        drop(store);
        let store = Store::open_read_only(folder.path()).await.unwrap();
        for statement in damage.split("; ") {
            folder.execute(statement).await;
        }
        let bad = store.verify().await.unwrap().first_bad.unwrap_or_else(|| panic!("not noticed: {damage}"));
        assert!(bad.problem.contains(expected), "{damage}: {}", bad.problem);
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_written_holds_up_nothing_and_is_made_up_for() {
    let folder = Folder::new();
    let Opened { store, writer, .. } = folder.open().await;
    let mut options = signed(&folder, 2, Duration::from_secs(60));
    let aside = folder.path().join("mount");
    options.file = aside.join("checkpoints.jsonl");
    let file = options.file.clone();
    let recorder = Recorder::signing(writer, options);
    for _ in 0..5 {
        exchange(&recorder, "a.example").await.unwrap();
    }
    std::fs::create_dir(&aside).unwrap();
    recorder.close().await.unwrap();
    let kept = crate::evidence::read_checkpoints(&file).unwrap();
    assert!(kept.len() >= 3, "{kept:?}");
    drop(store);
    let store = Store::open_read_only(folder.path()).await.unwrap();
    assert_eq!(store.verify().await.unwrap().checkpoints, kept.len() as u64);
}

#[tokio::test]
async fn old_records_go_in_the_gaps_and_nobody_waits_long() {
    let folder = Folder::new();
    let Opened { store, writer, .. } = folder.open().await;
    let recorder = Recorder::signing(writer, signed(&folder, 10_000, Duration::from_secs(60)));
    for _ in 0..400 {
        exchange(&recorder, "a.example").await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let plan = recorder.prune(Cut::Before(clock::now()), None).await.unwrap().unwrap();
    assert!(plan.through >= 799, "{plan:?}");
    let deadline = Instant::now() + Duration::from_secs(20);
    while store.stub().await.unwrap().is_none_or(|stub| stub.through < plan.through) {
        exchange(&recorder, "b.example").await.unwrap();
        assert!(Instant::now() < deadline, "they are still there");
    }
    recorder.close().await.unwrap();
    let store = Store::open_read_only(folder.path()).await.unwrap();
    let report = store.verify().await.unwrap();
    assert_eq!((report.first_bad, report.after), (None, plan.through));
    assert!(
        store.decisions(&Filter::default()).await.unwrap().iter().all(|view| view
            .host
            .as_ref()
            .unwrap()
            .as_str()
            == "b.example")
    );
}

#[tokio::test]
async fn what_a_session_asked_last_is_known_of_it() {
    let folder = Folder::new();
    let Opened { store, writer, .. } = folder.open().await;
    let recorder = Recorder::start(writer);
    let start = crate::agents::SessionStart {
        agent: policy::identity::AgentName::anonymous(),
        label: None,
        tool: None,
        command: None,
        repo: None,
        branch: None,
        commit: None,
        observe: false,
    };
    let (session, _) = crate::agents::open_session(&store, &recorder, start, None).await.unwrap();
    for (model, expected) in [(Some("large-1"), "large-1"), (None, "large-1"), (Some("small-2"), "small-2")] {
        let mut decision = decision("api.example");
        (decision.session, decision.class, decision.service) =
            (Some(session), policy::verdict::Class::Model, Some("example".into()));
        recorder.decision(&decision).await.unwrap();
        let mut outcome = outcome(&decision);
        outcome.model = model.map(Redacted::literal);
        recorder.outcome(&outcome);
        exchange(&recorder, "a.example").await.unwrap();
        let seen = store.session(session).await.unwrap().unwrap();
        let seen = [seen.provider, seen.model].map(|text| text.map(|text| text.as_str().to_owned()));
        assert_eq!(seen, [Some("example".to_owned()), Some(expected.to_owned())]);
    }
}

#[tokio::test]
async fn half_a_line_that_was_left_in_the_file_spoils_no_other() {
    let folder = Folder::new();
    let Opened { writer, .. } = folder.open().await;
    let file = folder.path().join(CHECKPOINT_FILE);
    std::fs::write(&file, "{\"hash\":\"ab").unwrap();
    let recorder = Recorder::signing(writer, signed(&folder, 1, Duration::from_secs(60)));
    exchange(&recorder, "a.example").await.unwrap();
    recorder.close().await.unwrap();
    let kept = crate::evidence::read_checkpoints(&file).unwrap();
    let store = Store::open_read_only(folder.path()).await.unwrap();
    let report = store.verify().await.unwrap();
    assert!(!kept.is_empty());
    assert_eq!((report.first_bad, report.kept), (None, kept.len() as u64));
}

/// How many decisions the search indexes do not know yet.
async fn fresh(folder: &Folder) -> i64 {
    let row = sqlx::query_scalar("SELECT count(*) FROM records WHERE fresh = 1");
    row.fetch_one(&mut folder.stranger().await).await.unwrap()
}

async fn all_is_filed(folder: &Folder) {
    let begun = Instant::now();
    while fresh(folder).await > 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "nobody files what was committed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_decision_is_filed_soon_although_nothing_follows() {
    let (folder, store, recorder) = started().await;
    exchange(&recorder, "a.example").await.unwrap();
    assert_eq!(fresh(&folder).await, 1, "not within the commit");
    all_is_filed(&folder).await;
    assert_eq!(ends(&folder, &store).await, [completed("a.example")]);
    recorder.close().await.unwrap();
}

#[tokio::test]
async fn much_is_filed_while_more_comes() {
    let (folder, store, recorder) = started().await;
    let begun = Instant::now();
    let mut most = 0;
    for _ in 0..20 {
        let exchanges = (0..200).map(|_| exchange(&recorder, "a.example"));
        for done in futures_util::future::join_all(exchanges).await {
            done.unwrap();
        }
        most = fresh(&folder).await.max(most);
    }
    // A busy machine may take longer than the second after which few are filed, too.
    assert!((1..1500).contains(&most), "{most} of 4000 were not filed at once, after {:?}", begun.elapsed());
    recorder.close().await.unwrap();
    drop(store);
    assert_eq!(fresh(&folder).await, 0, "closing files the rest");
    assert_eq!(folder.open().await.writer.unfiled(), 0);
}

#[tokio::test]
async fn where_filing_fails_nobody_is_refused_and_it_is_tried_again() {
    let (folder, store, recorder) = started().await;
    let refuse =
        "CREATE TRIGGER refuse BEFORE UPDATE OF fresh ON records BEGIN SELECT RAISE(ABORT, 'no'); END";
    folder.execute(refuse).await;
    for _ in 0..15 {
        exchange(&recorder, "a.example").await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(fresh(&folder).await, 15);
    assert_eq!(recorder.counters().failures.load(Ordering::Relaxed), 0);
    folder.execute("DROP TRIGGER refuse").await;
    all_is_filed(&folder).await;
    assert_eq!(ends(&folder, &store).await, vec![completed("a.example"); 15]);
    recorder.close().await.unwrap();
}
