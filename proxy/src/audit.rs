//! The recorder: a decision is committed before anything is sent, its outcome after; where that fails, nothing is.
//!
//! One task writes. It takes everything that waits, writes it in one transaction, and takes again, so that
//! batches grow with load and nothing waits for company. What may fail (decisions, events, changes) is answered;
//! what must not (outcomes, endings) is kept and tried again, in order, until the store takes it. Those are never
//! more than there are open exchanges, because no new one begins while the store refuses.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use policy::record::{Decision, Event, Happening, Outcome};
use policy::redact::Redacted;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use ulid::Ulid;

use crate::clock;
use crate::store::{Change, Closing, CommitError, Entry, Settled, Writer};

/// Decisions that may wait for the writer; more wait for their turn to wait.
const QUEUE: usize = 4096;
/// Records of one transaction.
const BATCH: usize = 512;
/// How long a commit may take before those who wait for it are refused. It goes on all the same.
const PATIENCE: Duration = Duration::from_secs(2);
/// When what must not be lost is tried again without anybody asking.
const RETRY: Duration = Duration::from_millis(250);
/// How long a drain tries to write what is left.
const DRAIN: Duration = Duration::from_secs(10);

/// The record cannot be kept, so what it is about must not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the audit record cannot be written")]
pub struct AuditUnavailable;

/// Why a change was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The store does not take it now.
    #[error(transparent)]
    Unavailable(#[from] AuditUnavailable),
    /// What was to be changed is not as it was.
    #[error("this has changed in the meantime")]
    Stale,
}

/// What the recorder did so far, for metrics.
#[derive(Debug, Default)]
pub struct Counters {
    /// Transactions committed.
    pub commits: AtomicU64,
    /// Records in them.
    pub records: AtomicU64,
    /// Transactions that failed or took too long.
    pub failures: AtomicU64,
    /// Decisions and events that wait for the writer now.
    pub queue_depth: AtomicUsize,
}

/// Writes records. Cheap to clone; all clones feed one writer.
#[derive(Clone, Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: mpsc::UnboundedSender<Message>,
    room: Arc<Semaphore>,
    counters: Arc<Counters>,
}

type CloseReply = oneshot::Sender<Result<(), AuditUnavailable>>;

#[derive(Debug)]
enum Message {
    /// Fails if it cannot be written now.
    Ask(Entry, Asker),
    /// Is written, now or later.
    Keep(Entry),
    /// Ends the task once everything is written.
    Close(CloseReply),
}

impl Recorder {
    /// Starts the task that writes.
    pub fn start(writer: Writer) -> Recorder {
        let (queue, messages) = mpsc::unbounded_channel();
        let counters = Arc::new(Counters::default());
        let task = Task {
            writer,
            messages,
            counters: Arc::clone(&counters),
            kept: Vec::new(),
            doubtful: None,
            closing: None,
            failing: false,
        };
        tokio::spawn(task.run());
        Recorder { shared: Arc::new(Shared { queue, room: Arc::new(Semaphore::new(QUEUE)), counters }) }
    }

    /// Commits a decision. When this returns `Ok` the decision survives the death of the process, and its outcome
    /// must follow. A caller that is dropped while it waits need do nothing: the exchange is ended as abandoned.
    ///
    /// # Errors
    /// The decision is not in the store, or is there as refused: nothing may be sent.
    pub async fn decision(&self, decision: &Decision) -> Result<(), AuditUnavailable> {
        let mut waiting = Waiting { recorder: self, decision: Some(decision.id) };
        let answer = self.ask(Entry::decision(decision)).await;
        waiting.decision = None;
        answer.map_err(|_| AuditUnavailable)
    }

    /// Adds what became of an exchange. Does not wait: it is written in order, and kept for as long as the process
    /// lives where the store does not take it.
    pub fn outcome(&self, outcome: &Outcome) {
        self.keep(Entry::outcome(outcome));
    }

    /// Ends an exchange of which nobody can say more than that it is over, such as one whose task panicked.
    pub fn abandon(&self, decision: Ulid) {
        self.keep(Entry::close(decision, Closing::Abandoned));
    }

    /// Commits an event.
    ///
    /// # Errors
    /// It is not in the store.
    pub async fn event(&self, what: Happening, by: Option<Redacted>) -> Result<(), AuditUnavailable> {
        let event = Event { time: clock::now(), by, what };
        self.ask(Entry::event(&event)).await.map_err(|_| AuditUnavailable)
    }

    /// Commits a change to agents or sessions together with its event.
    ///
    /// # Errors
    /// It was not made.
    pub async fn change(&self, change: Change, by: Option<Redacted>) -> Result<(), ChangeError> {
        let event = Event { time: clock::now(), by, what: change.happening() };
        self.ask(Entry::change(&event, change, true)).await
    }

    /// Makes a change like [`Recorder::change`], without waiting and without fail: before any decision that is
    /// recorded after this returns.
    pub fn note(&self, change: Change) {
        let event = Event { time: clock::now(), by: None, what: change.happening() };
        self.keep(Entry::change(&event, change, false));
    }

    /// Writes everything that is left and ends the task. What is recorded afterwards is refused.
    ///
    /// # Errors
    /// Something could not be written for ten seconds and is lost.
    pub async fn close(&self) -> Result<(), AuditUnavailable> {
        let (reply, answer) = oneshot::channel();
        self.shared.queue.send(Message::Close(reply)).map_err(|_| AuditUnavailable)?;
        answer.await.unwrap_or(Err(AuditUnavailable))
    }

    /// What was done so far.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.shared.counters
    }

    async fn ask(&self, entry: Entry) -> Result<(), ChangeError> {
        let room = Arc::clone(&self.shared.room).acquire_owned().await.map_err(|_| AuditUnavailable)?;
        let (reply, answer) = oneshot::channel();
        let asker = Asker::new(reply, room, Arc::clone(&self.shared.counters));
        self.shared.queue.send(Message::Ask(entry, asker)).map_err(|_| AuditUnavailable)?;
        answer.await.map_err(|_| AuditUnavailable)?
    }

    fn keep(&self, entry: Entry) {
        if self.shared.queue.send(Message::Keep(entry)).is_err() {
            tracing::error!("a record came after the recorder was closed and is lost");
        }
    }
}

/// Whoever is dropped while waiting for a decision leaves it to the writer to end.
struct Waiting<'a> {
    recorder: &'a Recorder,
    decision: Option<Ulid>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(decision) = self.decision {
            self.recorder.abandon(decision);
        }
    }
}

/// Somebody who waits for an answer, counted and holding a place in the queue until it is dropped.
#[derive(Debug)]
struct Asker {
    /// `None` once answered.
    reply: Option<oneshot::Sender<Result<(), ChangeError>>>,
    counters: Arc<Counters>,
    _room: OwnedSemaphorePermit,
}

impl Asker {
    fn new(
        reply: oneshot::Sender<Result<(), ChangeError>>,
        room: OwnedSemaphorePermit,
        counters: Arc<Counters>,
    ) -> Asker {
        counters.queue_depth.fetch_add(1, Ordering::Relaxed);
        Asker { reply: Some(reply), counters, _room: room }
    }

    fn answer(&mut self, answer: Result<(), ChangeError>) {
        if let Some(reply) = self.reply.take() {
            // Whoever went while waiting has told so by a message of their own.
            let _ = reply.send(answer);
        }
    }

    fn refuse(&mut self) {
        self.answer(Err(ChangeError::Unavailable(AuditUnavailable)));
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.counters.queue_depth.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Entries of one transaction, and for each who asked for it; the others must be written.
#[derive(Debug, Default)]
struct Batch {
    entries: Vec<Entry>,
    askers: Vec<Option<Asker>>,
}

impl Batch {
    fn push(&mut self, entry: Entry, asker: Option<Asker>) {
        self.entries.push(entry);
        self.askers.push(asker);
    }

    /// The decisions that somebody asked for, to be ended in case they were refused and written all the same.
    fn asked_decisions(&self) -> impl Iterator<Item = Ulid> {
        let asked = self.entries.iter().zip(&self.askers).filter(|(_, asker)| asker.is_some());
        asked.filter_map(|(entry, _)| entry.decides())
    }
}

/// A batch whose commit failed, until it is certain that it was not written all the same.
#[derive(Debug)]
struct Doubtful {
    refused: Vec<Ulid>,
    must: Vec<Entry>,
}

struct Task {
    writer: Writer,
    messages: mpsc::UnboundedReceiver<Message>,
    counters: Arc<Counters>,
    /// What must be written and was not yet, oldest first.
    kept: Vec<Entry>,
    doubtful: Option<Doubtful>,
    closing: Option<CloseReply>,
    failing: bool,
}

impl Task {
    async fn run(mut self) {
        let mut inbox = Vec::with_capacity(BATCH);
        while self.closing.is_none() {
            let received = self.messages.recv_many(&mut inbox, BATCH);
            let all_gone = if self.kept.is_empty() && self.doubtful.is_none() {
                received.await == 0
            } else {
                matches!(tokio::time::timeout(RETRY, received).await, Ok(0))
            };
            self.take(&mut inbox).await;
            if all_gone {
                break;
            }
        }
        self.finish(inbox).await;
    }

    /// Writes what came, in order, and what was kept before it.
    async fn take(&mut self, inbox: &mut Vec<Message>) {
        let mut batch = Batch::default();
        for message in inbox.drain(..) {
            match message {
                Message::Keep(entry) => batch.push(entry, None),
                // A change that turns out to be stale fails its transaction, so it has one of its own.
                Message::Ask(entry, asker) if entry.is_change() => {
                    self.flush(std::mem::take(&mut batch)).await;
                    batch.push(entry, Some(asker));
                    self.flush(std::mem::take(&mut batch)).await;
                }
                Message::Ask(entry, asker) => batch.push(entry, Some(asker)),
                Message::Close(reply) => self.closing = Some(reply),
            }
        }
        self.flush(batch).await;
    }

    async fn flush(&mut self, asked: Batch) {
        if let Err(error) = self.settle().await {
            return self.failed(asked, &error);
        }
        let mut batch = Batch::default();
        for entry in std::mem::take(&mut self.kept) {
            batch.push(entry, None);
        }
        batch.entries.extend(asked.entries);
        batch.askers.extend(asked.askers);
        if batch.entries.is_empty() {
            return;
        }
        match self.commit(&mut batch).await {
            Ok(()) => self.committed(batch),
            Err(CommitError::Stale) => self.stale(batch),
            Err(error) => self.failed(batch, &error),
        }
    }

    /// Commits, and refuses those who wait once that takes too long.
    async fn commit(&mut self, batch: &mut Batch) -> Result<(), CommitError> {
        let commit = self.writer.commit(&batch.entries);
        tokio::pin!(commit);
        if let Ok(result) = tokio::time::timeout(PATIENCE, &mut commit).await {
            return result;
        }
        tracing::error!(
            "the store takes longer than {} s to commit; requests are refused",
            PATIENCE.as_secs()
        );
        self.counters.failures.fetch_add(1, Ordering::Relaxed);
        batch.askers.iter_mut().flatten().for_each(Asker::refuse);
        let mut meanwhile = Vec::new();
        let result = loop {
            tokio::select! {
                result = &mut commit => break result,
                Some(message) = self.messages.recv() => match message {
                    Message::Ask(_, mut asker) => asker.refuse(),
                    Message::Keep(entry) => meanwhile.push(entry),
                    Message::Close(reply) => self.closing = Some(reply),
                },
            }
        };
        if result.is_ok() {
            self.kept.extend(batch.asked_decisions().map(|id| Entry::close(id, Closing::Unavailable)));
        }
        self.kept.extend(meanwhile);
        result
    }

    fn committed(&mut self, batch: Batch) {
        self.counters.commits.fetch_add(1, Ordering::Relaxed);
        self.counters.records.fetch_add(batch.entries.len() as u64, Ordering::Relaxed);
        if std::mem::take(&mut self.failing) {
            tracing::info!("the store takes records again");
        }
        for mut asker in batch.askers.into_iter().flatten() {
            asker.answer(Ok(()));
        }
    }

    /// Answers the change that no longer applies; what was to be written with it is written next time.
    fn stale(&mut self, batch: Batch) {
        for (entry, asker) in batch.entries.into_iter().zip(batch.askers) {
            match asker {
                Some(mut asker) => asker.answer(Err(ChangeError::Stale)),
                None => self.kept.push(entry),
            }
        }
    }

    /// Refuses everybody who waits, also those who came meanwhile: they would wait as long, for the same.
    fn failed(&mut self, batch: Batch, error: &CommitError) {
        self.counters.failures.fetch_add(1, Ordering::Relaxed);
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(%error, "records cannot be written; requests are refused until they can");
        }
        let mut doubtful = self.doubtful.take().unwrap_or(Doubtful { refused: Vec::new(), must: Vec::new() });
        doubtful.refused.extend(batch.asked_decisions());
        for (entry, asker) in batch.entries.into_iter().zip(batch.askers) {
            match asker {
                Some(mut asker) => asker.refuse(),
                None => doubtful.must.push(entry),
            }
        }
        self.doubtful = Some(doubtful);
        while let Ok(message) = self.messages.try_recv() {
            match message {
                Message::Ask(_, mut asker) => asker.refuse(),
                Message::Keep(entry) => self.kept.push(entry),
                Message::Close(reply) => self.closing = Some(reply),
            }
        }
    }

    /// Finds out what became of the batch that failed last.
    async fn settle(&mut self) -> Result<(), CommitError> {
        let Some(doubtful) = self.doubtful.take() else { return Ok(()) };
        let mut first = match self.writer.settle().await {
            Ok(Settled::Nothing) => doubtful.must,
            Ok(Settled::Written) => {
                doubtful.refused.into_iter().map(|id| Entry::close(id, Closing::Unavailable)).collect()
            }
            Err(error) => {
                self.doubtful = Some(doubtful);
                return Err(error);
            }
        };
        first.append(&mut self.kept);
        self.kept = first;
        Ok(())
    }

    async fn finish(mut self, mut inbox: Vec<Message>) {
        self.messages.close();
        let deadline = tokio::time::Instant::now() + DRAIN;
        loop {
            let received = self.messages.recv_many(&mut inbox, BATCH).await;
            self.take(&mut inbox).await;
            let done = received == 0 && self.kept.is_empty() && self.doubtful.is_none();
            if done || tokio::time::Instant::now() >= deadline {
                break;
            }
            if self.failing {
                tokio::time::sleep(RETRY).await;
            }
        }
        let lost = self.kept.len() + self.doubtful.map_or(0, |doubtful| doubtful.must.len());
        if lost > 0 {
            tracing::error!(lost, "records could not be written and are lost");
        } else if let Err(error) = self.writer.mark().await {
            tracing::warn!(%error, "the end of the record could not be noted");
        }
        self.writer.close().await;
        if let Some(reply) = self.closing {
            // Whoever asked for it may have stopped waiting.
            let _ = reply.send(if lost == 0 { Ok(()) } else { Err(AuditUnavailable) });
        }
    }
}

#[cfg(test)]
mod tests;
