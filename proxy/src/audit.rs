//! The recorder: a decision is committed before anything is sent, its outcome after; where that fails, nothing is.
//!
//! One task writes. It takes everything that waits, writes it in one transaction, and takes again, so that
//! batches grow with load and nobody who waits waits for company. What may fail (decisions, events, changes) is answered;
//! what must not (outcomes, endings) is kept and tried again, in order, until the store takes it. Those are never
//! more than there are open exchanges, because no new one begins while the store refuses.

mod checkpoints;
mod filing;
mod prune;
mod task;
mod turns;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use policy::record::{Decision, Event, Happening, Outcome};
use policy::redact::Redacted;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use ulid::Ulid;

use crate::clock;
use crate::store::{Change, Closing, Cut, Entry, PrunePlan, Writer};
use task::Task;
use turns::{Turn, Turns};

pub use checkpoints::{CheckpointOptions, open_file};

/// Decisions that may wait for the writer; more wait for their turn to wait.
const QUEUE: usize = 4096;

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
    /// Transactions that failed or took too long, and decisions that were refused because too many of their agent wait.
    pub failures: AtomicU64,
    /// Decisions and events that wait for the writer now.
    pub queue_depth: AtomicUsize,
    /// Why nothing can be recorded now; `None` while it can.
    pub problem: Mutex<Option<String>>,
}

impl Counters {
    /// Why nothing can be recorded now; `None` while it can.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_problem(&self, problem: Option<String>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }
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
    turns: Turns,
    counters: Arc<Counters>,
}

type CloseReply = oneshot::Sender<Result<(), AuditUnavailable>>;
type PruneReply = oneshot::Sender<Result<Option<PrunePlan>, AuditUnavailable>>;

#[derive(Debug)]
enum Message {
    /// Fails if it cannot be written now.
    Ask(Entry, Asker),
    /// Is written, now or later.
    Keep(Entry),
    /// Old records are to be dropped. Answered once that is on record and has begun.
    Prune(Cut, Option<Redacted>, PruneReply),
    /// Ends the task once everything is written.
    Close(CloseReply),
}

impl Message {
    /// Nobody waits for it.
    fn can_wait(&self) -> bool {
        matches!(self, Message::Keep(_))
    }
}

impl Recorder {
    /// Starts the task that writes, without checkpoints.
    pub fn start(writer: Writer) -> Recorder {
        Recorder::begin(writer, None)
    }

    /// Starts the task that writes, and signs what it wrote now and then.
    pub fn signing(writer: Writer, checkpoints: CheckpointOptions) -> Recorder {
        Recorder::begin(writer, Some(checkpoints))
    }

    fn begin(writer: Writer, checkpoints: Option<CheckpointOptions>) -> Recorder {
        let (queue, messages) = mpsc::unbounded_channel();
        let counters = Arc::new(Counters::default());
        tokio::spawn(Task::new(writer, messages, Arc::clone(&counters), checkpoints).run());
        Recorder {
            shared: Arc::new(Shared {
                queue,
                room: Arc::new(Semaphore::new(QUEUE)),
                turns: Turns::default(),
                counters,
            }),
        }
    }

    /// Commits a decision. When this returns `Ok` the decision survives the death of the process, and its outcome
    /// must follow. A caller that is dropped while it waits need do nothing: the exchange is ended as abandoned.
    /// Agents wait their turn, so that one that asks for much delays itself.
    ///
    /// # Errors
    /// The decision is not in the store, or is there as refused: nothing may be sent.
    pub async fn decision(&self, decision: &Decision) -> Result<(), AuditUnavailable> {
        let turn = self.shared.turns.wait(&decision.agent).await.inspect_err(|_| {
            self.shared.counters.failures.fetch_add(1, Ordering::Relaxed);
        })?;
        let room = self.room().await?;
        // Until here whoever is dropped leaves nothing behind.
        let mut waiting = Waiting { recorder: self, decision: Some(decision.id) };
        let answer = self.ask_in(room, Some(turn), Entry::decision(decision)).await;
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

    /// Drops the oldest records, in steps between the batches. Answers once what is to go is on record; `None` where
    /// nothing is. What was to be dropped before is dropped as well.
    ///
    /// # Errors
    /// It cannot be recorded, or this recorder does not sign, and a stub has to be signed.
    pub async fn prune(&self, cut: Cut, by: Option<Redacted>) -> Result<Option<PrunePlan>, AuditUnavailable> {
        let (reply, answer) = oneshot::channel();
        self.shared.queue.send(Message::Prune(cut, by, reply)).map_err(|_| AuditUnavailable)?;
        answer.await.map_err(|_| AuditUnavailable)?
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
        let room = self.room().await?;
        self.ask_in(room, None, entry).await
    }

    async fn room(&self) -> Result<OwnedSemaphorePermit, AuditUnavailable> {
        Arc::clone(&self.shared.room).acquire_owned().await.map_err(|_| AuditUnavailable)
    }

    async fn ask_in(
        &self,
        room: OwnedSemaphorePermit,
        turn: Option<Turn>,
        entry: Entry,
    ) -> Result<(), ChangeError> {
        let (reply, answer) = oneshot::channel();
        let asker = Asker::new(reply, (room, turn), Arc::clone(&self.shared.counters));
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
    _place: (OwnedSemaphorePermit, Option<Turn>),
}

impl Asker {
    fn new(
        reply: oneshot::Sender<Result<(), ChangeError>>,
        place: (OwnedSemaphorePermit, Option<Turn>),
        counters: Arc<Counters>,
    ) -> Asker {
        counters.queue_depth.fetch_add(1, Ordering::Relaxed);
        Asker { reply: Some(reply), counters, _place: place }
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

#[cfg(test)]
mod tests;
