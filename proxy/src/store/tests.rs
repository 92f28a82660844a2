//! A data folder, records to put into it, and what a start makes of what it finds there.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use policy::identity::AgentName;
use policy::record::{Decision, Finding, Outcome, OutcomeKind, Timing};
use policy::redact::Redacted;
use policy::request::Kind;
use policy::target::Scheme;
use policy::verdict::{Action, Class, Mode, Reason};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use tempfile::TempDir;

use super::query::Filter;
use super::*;
use crate::clock;

/// A gateway's data folder with its store open.
pub(crate) struct Folder {
    pub(crate) folder: TempDir,
    pub(crate) claim: Option<Claim>,
}

impl Folder {
    pub(crate) fn new() -> Folder {
        let folder = tempfile::tempdir().unwrap();
        let claim = Some(Claim::take(folder.path()).unwrap());
        Folder { folder, claim }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.path().join(FILE_NAME)
    }

    pub(crate) async fn try_open(&self) -> Result<Opened, StoreError> {
        let options = StoreOptions { data_dir: self.path().to_owned(), durability: Durability::Commit };
        Store::open(&options, self.claim.as_ref().unwrap()).await
    }

    pub(crate) async fn open(&self) -> Opened {
        self.try_open().await.unwrap()
    }

    /// Another process, which does with the database what it likes.
    pub(crate) async fn stranger(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.database()).foreign_keys(false);
        SqliteConnection::connect_with(&options.disable_statement_logging()).await.unwrap()
    }

    pub(crate) async fn execute(&self, sql: &'static str) {
        let mut stranger = self.stranger().await;
        sqlx::query(sql).execute(&mut stranger).await.unwrap();
        stranger.close().await.unwrap();
    }
}

pub(crate) fn decision(host: &'static str) -> Decision {
    let time = clock::now();
    Decision {
        action: Action::Allow,
        agent: AgentName::anonymous(),
        class: Class::Unknown,
        domain: Some(Redacted::literal(host)),
        findings: Vec::new(),
        host: Some(Redacted::literal(host)),
        http_version: Some("1.1".into()),
        id: clock::ulid(time),
        kind: Kind::Http,
        method: Some(Redacted::literal("GET")),
        mode: Mode::Enforce,
        owner: None,
        path: Some(Redacted::literal("/")),
        policy: "sha256:00".into(),
        port: Some(443),
        reason: Reason::AllowedByRule,
        rule: None,
        scheme: Some(Scheme::Https),
        service: None,
        session: None,
        time,
        would: None,
        would_reason: None,
    }
}

pub(crate) fn outcome(decision: &Decision) -> Outcome {
    Outcome {
        action: decision.action,
        body: None,
        decided: None,
        decision: decision.id,
        findings: Vec::new(),
        model: None,
        ms: Timing::default(),
        outcome: OutcomeKind::Completed,
        reason: decision.reason,
        request_bytes: 100,
        response_bytes: 2000,
        status: Some(200),
        time: clock::now(),
        upstream: None,
        would: None,
        would_reason: None,
    }
}

#[tokio::test]
async fn the_database_and_what_lies_beside_it_are_the_owners_alone() {
    let folder = Folder::new();
    let mut opened = folder.open().await;
    opened.writer.commit(&[Entry::decision(&decision("a.example"))]).await.unwrap();
    for name in [FILE_NAME.to_owned(), format!("{FILE_NAME}-wal"), format!("{FILE_NAME}-shm")] {
        let mode = std::fs::metadata(folder.path().join(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    drop(opened);
    std::fs::set_permissions(folder.database(), std::fs::Permissions::from_mode(0o644)).unwrap();
    folder.open().await;
    let mode = std::fs::metadata(folder.database()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "a loose one is tightened");
}

#[tokio::test]
async fn a_store_that_cannot_be_trusted_is_refused_with_a_reason() {
    type Damage = &'static str;
    let cases: [(&str, Damage, &str); 5] = [
        (
            "a byte of a record",
            "UPDATE records SET record = replace(record, 'a.example', 'b.example') WHERE seq = 2",
            "record 2: the hash does not fit",
        ),
        ("a hash", "UPDATE records SET hash = zeroblob(32) WHERE seq = 3", "record 3: the hash does not fit"),
        (
            "a record deleted",
            "DELETE FROM records WHERE seq = 2",
            "record 3: records from 2 up to here are missing",
        ),
        (
            "the end cut off",
            "DELETE FROM records WHERE seq = 3",
            "record 2: the chain ends here, but record 3 had been written",
        ),
        ("a table gone", "DROP TABLE records", "cannot open the store"),
    ];
    for (sentence, damage, expected) in cases {
        let folder = Folder::new();
        let mut opened = folder.open().await;
        let decisions = ["a.example"; 3].map(decision);
        opened.writer.commit(&decisions.each_ref().map(Entry::decision)).await.unwrap();
        opened.writer.mark().await.unwrap();
        opened.writer.close().await;
        folder.execute(damage).await;
        let refused = folder.try_open().await.unwrap_err().to_string();
        assert!(refused.contains(expected), "{sentence}: {refused}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_or_a_newer_one_is_refused() {
    let folder = Folder::new();
    std::fs::write(folder.database(), "something else ".repeat(100)).unwrap();
    let refused = folder.try_open().await.unwrap_err().to_string();
    assert!(refused.contains("cannot open the store") && refused.contains("not a database"), "{refused}");

    let folder = Folder::new();
    folder.open().await.writer.close().await;
    folder.execute("UPDATE _sqlx_migrations SET version = 9999 WHERE version = 1").await;
    let refused = folder.try_open().await.unwrap_err().to_string();
    assert!(refused.contains("cannot bring the store"), "{refused}");
}

#[tokio::test]
async fn what_a_killed_gateway_left_open_reads_interrupted_and_is_marked_at_the_next_start() {
    let mut folder = Folder::new();
    let [done, left, longer] = ["done.example", "left.example", "longer.example"].map(decision);
    {
        let Opened { mut writer, .. } = folder.open().await;
        writer.commit(&[Entry::decision(&longer)]).await.unwrap();
        writer.mark().await.unwrap();
        let entries = [Entry::decision(&done), Entry::decision(&left), Entry::outcome(&outcome(&done))];
        writer.commit(&entries).await.unwrap();
        // Dropped, as a process dies.
    }
    let reader = Store::open_read_only(folder.path()).await.unwrap();
    let ends = async || {
        let views = reader.decisions(&Filter::default()).await.unwrap();
        views
            .into_iter()
            .map(|view| (view.host.unwrap().as_str().to_owned(), view.outcome, view.outcome_seq))
            .collect::<Vec<_>>()
    };
    let row = |host: &str, outcome, seq| (host.to_owned(), outcome, seq);
    let completed = row("done.example", Some(OutcomeKind::Completed), Some(4));
    assert_eq!(
        ends().await,
        [row("left.example", None, None), completed.clone(), row("longer.example", None, None)],
        "while a gateway holds the folder they are in flight"
    );
    folder.claim = None;
    let interrupted = Some(OutcomeKind::Interrupted);
    assert_eq!(
        ends().await,
        [row("left.example", interrupted, None), completed.clone(), row("longer.example", interrupted, None)],
        "no gateway runs"
    );
    folder.claim = Some(Claim::take(folder.path()).unwrap());
    let opened = folder.open().await;
    assert_eq!(opened.interrupted, 2);
    assert_eq!(
        ends().await,
        [row("left.example", interrupted, Some(6)), completed, row("longer.example", interrupted, Some(5))],
        "marked, the oldest first"
    );
    drop(opened);
    assert_eq!(folder.open().await.interrupted, 0, "marked once");
}

#[tokio::test]
async fn two_writers_share_one_chain_without_a_gap() {
    let folder = Folder::new();
    let Opened { store, writer: mut gateway, .. } = folder.open().await;
    let (_, mut command) = Store::open_beside(folder.path()).await.unwrap();
    for _ in 0..3 {
        let decision = decision("a.example");
        gateway.commit(&[Entry::decision(&decision)]).await.unwrap();
        let event =
            policy::event::Event { time: clock::now(), by: None, what: policy::event::Happening::Stopped };
        command.commit(&[Entry::event(&event)]).await.unwrap();
        gateway.commit(&[Entry::outcome(&outcome(&decision))]).await.unwrap();
    }
    assert_eq!(store.last_seq().await.unwrap(), 9);
    drop((gateway, command));
    assert_eq!(folder.open().await.interrupted, 0);
}

#[tokio::test]
async fn every_filter_finds_its_own_and_the_last_word_counts() {
    let folder = Folder::new();
    let Opened { store, mut writer, .. } = folder.open().await;
    let session = policy::identity::SessionId(clock::ulid(clock::now()));
    let mut first = decision("a.example");
    first.session = Some(session);
    first.agent = "claude".parse().unwrap();
    first.class = Class::Model;
    first.time -= 3_600_000_000;
    first.id = clock::ulid(first.time);
    let mut second = decision("api.b.example");
    second.findings = vec![Finding::GitPush];
    let third = decision("b.example");
    let mut cut = outcome(&third);
    (cut.action, cut.reason, cut.decided) = (Action::Deny, Reason::SecretFound, Some(Action::Allow));
    cut.findings = vec![Finding::McpShaped];
    let ids = [first.id, second.id, third.id];
    let entries = [
        Entry::decision(&first),
        Entry::decision(&second),
        Entry::outcome(&outcome(&first)),
        Entry::decision(&third),
        Entry::outcome(&cut),
    ];
    writer.commit(&entries).await.unwrap();

    let all = Filter::default;
    let cases: [(&str, Filter, &[usize]); 18] = [
        ("everything, newest first", all(), &[2, 1, 0]),
        ("a limit", Filter { limit: Some(2), ..all() }, &[2, 1]),
        ("a page further", Filter { before: Some(4), limit: Some(1), ..all() }, &[1]),
        ("an hour less a minute", Filter { since: Some(clock::now() - 3_540_000_000), ..all() }, &[2, 1]),
        ("two hours", Filter { since: Some(clock::now() - 7_200_000_000), ..all() }, &[2, 1, 0]),
        ("the future", Filter { since: Some(clock::now() + 60_000_000), ..all() }, &[]),
        ("a session", Filter { session: Some(session), ..all() }, &[0]),
        ("an agent", Filter { agent: Some("claude".parse().unwrap()), ..all() }, &[0]),
        ("a class", Filter { class: Some(Class::Unknown), ..all() }, &[2, 1]),
        ("allowed in the end", Filter { action: Some(Action::Allow), ..all() }, &[1, 0]),
        ("denied in the end", Filter { action: Some(Action::Deny), ..all() }, &[2]),
        ("a reason found later", Filter { reason: Some(Reason::SecretFound), ..all() }, &[2]),
        ("the reason it replaced", Filter { reason: Some(Reason::AllowedByRule), ..all() }, &[1, 0]),
        ("a host, in capitals", Filter { host: Some("B.example".into()), ..all() }, &[2]),
        ("hosts below a domain", Filter { host: Some("*.b.example".into()), ..all() }, &[1]),
        ("a finding of the decision", Filter { finding: Some("git_push".into()), ..all() }, &[1]),
        ("a finding of the outcome", Filter { finding: Some("mcp_shaped".into()), ..all() }, &[2]),
        ("two at once", Filter { host: Some("a.example".into()), class: Some(Class::Unknown), ..all() }, &[]),
    ];
    for (sentence, filter, expected) in cases {
        let found: Vec<_> = store.decisions(&filter).await.unwrap().iter().map(|view| view.id).collect();
        let expected: Vec<_> = expected.iter().map(|index| ids[*index]).collect();
        assert_eq!(found, expected, "{sentence}");
    }

    let view = store.decision(third.id).await.unwrap().unwrap();
    assert_eq!(
        (view.action, view.reason, view.decided),
        (Action::Deny, Reason::SecretFound, Some(Action::Allow))
    );
    assert_eq!(view.findings, [Finding::McpShaped]);
    assert_eq!((view.seq, view.outcome_seq), (4, Some(5)));
    let before = store.decisions(&Filter { before: Some(2), ..all() }).await.unwrap().remove(0);
    assert_eq!(before.previous.as_deref(), Some("0".repeat(64).as_str()));
    let second = store.decision(ids[1]).await.unwrap().unwrap();
    assert_eq!(second.previous, Some(before.hash));
    assert_eq!(store.decision(clock::ulid(0)).await.unwrap(), None);
}

#[tokio::test]
async fn following_shows_exchanges_as_they_end() {
    let folder = Folder::new();
    let Opened { store, mut writer, .. } = folder.open().await;
    let [slow, quick] = ["slow.example", "quick.example"].map(decision);
    let entries = [Entry::decision(&slow), Entry::decision(&quick), Entry::outcome(&outcome(&quick))];
    writer.commit(&entries).await.unwrap();
    let first = store.ended_after(0, &Filter::default()).await.unwrap();
    assert_eq!(first.iter().map(|view| view.id).collect::<Vec<_>>(), [quick.id]);
    let after = first[0].outcome_seq.unwrap();
    assert!(store.ended_after(after, &Filter::default()).await.unwrap().is_empty());
    writer.commit(&[Entry::outcome(&outcome(&slow))]).await.unwrap();
    let then = store.ended_after(after, &Filter { limit: Some(10), ..Filter::default() }).await.unwrap();
    assert_eq!(then.iter().map(|view| view.id).collect::<Vec<_>>(), [slow.id]);
    let other = Filter { host: Some("other.example".into()), ..Filter::default() };
    assert!(store.ended_after(0, &other).await.unwrap().is_empty());
}

#[tokio::test]
async fn uploads_are_summed_by_agent_domain_and_time() {
    let folder = Folder::new();
    let Opened { store, mut writer, .. } = folder.open().await;
    let minute = 60_000_000;
    let now = clock::now() / minute * minute;
    let mut entries = Vec::new();
    for (agent, host, time, bytes) in [
        ("a", "x.example", now, 10),
        ("a", "x.example", now + 1, 20),
        ("a", "y.example", now, 40),
        ("b", "x.example", now, 80),
        ("a", "x.example", now - minute, 160),
        ("a", "x.example", now - 10 * minute, 320),
    ] {
        let mut decision = decision(host);
        decision.agent = agent.parse().unwrap();
        let mut outcome = outcome(&decision);
        (outcome.time, outcome.request_bytes) = (time, bytes);
        entries.extend([Entry::decision(&decision), Entry::outcome(&outcome)]);
    }
    writer.commit(&entries).await.unwrap();
    let mut sums: Vec<_> = store.uploads_since(now - 5 * minute).await.unwrap();
    sums.sort_by_key(|sum| sum.bytes);
    let sums: Vec<_> =
        sums.iter().map(|s| (s.agent.as_str(), s.domain.as_str(), s.time - now, s.bytes)).collect();
    assert_eq!(
        sums,
        [
            ("a", "x.example", 0, 30),
            ("a", "y.example", 0, 40),
            ("b", "x.example", 0, 80),
            ("a", "x.example", -minute, 160)
        ]
    );
}

#[tokio::test]
async fn reading_before_anything_was_written_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let error = Store::open_read_only(folder.path()).await.unwrap_err().to_string();
    assert!(error.starts_with("nothing has been recorded yet"), "{error}");
}

#[tokio::test]
async fn what_a_command_writes_beside_a_dead_gateway_does_not_hide_what_it_left_open() {
    let folder = Folder::new();
    {
        let Opened { mut writer, .. } = folder.open().await;
        writer.commit(&[Entry::decision(&decision("left.example"))]).await.unwrap();
    }
    let (_, command) = Store::open_beside(folder.path()).await.unwrap();
    let recorder = crate::audit::Recorder::start(command);
    recorder.event(policy::event::Happening::Stopped, None).await.unwrap();
    recorder.close().await.unwrap();
    assert_eq!(folder.open().await.interrupted, 1);
}
