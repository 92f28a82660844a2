//! The one task that writes: takes all that waits, writes it in one transaction, answers, and takes again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use policy::record::Event;
use policy::redact::Redacted;
use tokio::sync::mpsc;
use tokio::time::Instant;
use ulid::Ulid;

use super::checkpoints::{CheckpointOptions, Checkpoints};
use super::filing::{self, Filing};
use super::prune::Pruning;
use super::{Asker, AuditUnavailable, ChangeError, CloseReply, Counters, Message};
use crate::clock;
use crate::signing::Signer;
use crate::store::{Closing, CommitError, Cut, Entry, PrunePlan, Settled, Writer};

/// Records of one transaction.
const BATCH: usize = 512;
/// How long a commit may take before those who wait for it are refused. It goes on all the same.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long outcomes wait for a decision to be written with.
const COMPANY: Duration = Duration::from_millis(5);
/// When what must not be lost is tried again without anybody asking.
const RETRY: Duration = Duration::from_millis(250);
/// How long a drain tries to write what is left.
const DRAIN: Duration = Duration::from_secs(10);

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

pub(super) struct Task {
    writer: Writer,
    messages: mpsc::UnboundedReceiver<Message>,
    counters: Arc<Counters>,
    /// What must be written and was not yet, oldest first.
    kept: Vec<Entry>,
    doubtful: Option<Doubtful>,
    closing: Option<CloseReply>,
    failing: bool,
    signer: Option<Arc<Signer>>,
    checkpoints: Option<Checkpoints>,
    pruning: Option<Pruning>,
    /// Something was written since the last step of pruning.
    wrote: bool,
    filing: Filing,
}

impl Task {
    pub(super) fn new(
        writer: Writer,
        messages: mpsc::UnboundedReceiver<Message>,
        counters: Arc<Counters>,
        checkpoints: Option<CheckpointOptions>,
    ) -> Task {
        Task {
            pruning: writer.unfinished_prune().map(Pruning::through),
            writer,
            messages,
            counters,
            kept: Vec::new(),
            doubtful: None,
            closing: None,
            failing: false,
            wrote: false,
            filing: Filing::default(),
            signer: checkpoints.as_ref().map(|options| Arc::clone(&options.signer)),
            checkpoints: checkpoints.map(Checkpoints::start),
        }
    }

    pub(super) async fn run(mut self) {
        let mut inbox = Vec::with_capacity(BATCH);
        while self.closing.is_none() {
            let all_gone = self.receive(&mut inbox).await;
            self.take(&mut inbox).await;
            self.prune().await;
            self.file().await;
            if all_gone {
                break;
            }
        }
        self.finish(inbox).await;
    }

    /// Waits for messages, or until there is something to do without any. Outcomes, for which nobody waits, wait a
    /// little for somebody who does: whoever sends one request after the other then has one commit a request, not two,
    /// and none of them in the way of the next. Gives whether nobody is left who could send any.
    async fn receive(&mut self, inbox: &mut Vec<Message>) -> bool {
        let until = self.wait().map(|wait| Instant::now() + wait);
        let mut received = receive_until(&mut self.messages, inbox, until).await;
        let company = Instant::now() + COMPANY;
        while received.is_some_and(|messages| messages > 0) && self.alone(inbox) {
            received = receive_until(&mut self.messages, inbox, Some(company)).await;
        }
        if received != Some(0) {
            self.gather(inbox).await;
        }
        received == Some(0)
    }

    /// Lets everything run that can, so that what asks at the same moment is in the same transaction.
    async fn gather(&mut self, inbox: &mut Vec<Message>) {
        tokio::task::yield_now().await;
        while inbox.len() < BATCH
            && let Ok(message) = self.messages.try_recv()
        {
            inbox.push(message);
        }
    }

    /// Whether nothing is lost by writing this later.
    fn alone(&self, inbox: &[Message]) -> bool {
        inbox.len() < BATCH && !self.failing && self.kept.is_empty() && inbox.iter().all(Message::can_wait)
    }

    /// How long the task may wait for messages before it has something to do of its own.
    fn wait(&self) -> Option<Duration> {
        let retry = (!self.kept.is_empty() || self.doubtful.is_some() || self.failing).then_some(RETRY);
        let checkpoint = self.checkpoints.as_ref().and_then(Checkpoints::wait);
        let pruning = self.pruning.as_ref().filter(|_| !self.failing).map(Pruning::wait);
        let filing = self.filing.wait(self.writer.unfiled()).filter(|_| !self.failing);
        [retry, checkpoint, pruning, filing].into_iter().flatten().min()
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
                Message::Prune(cut, by, reply) => {
                    self.flush(std::mem::take(&mut batch)).await;
                    // Whoever asked may have stopped waiting.
                    let _ = reply.send(self.begin_prune(cut, by).await);
                }
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
        let ending = self.closing.is_some() || self.messages.is_closed();
        if let Some(signer) = self.checkpoints.as_mut().and_then(|checkpoints| checkpoints.due(ending)) {
            batch.push(Entry::checkpoint(signer), None);
        }
        if batch.entries.is_empty() {
            // Whoever waits for `/readyz` sends nothing that would show that the store takes records again.
            if self.failing && self.writer.mark().await.is_ok() {
                self.recovered();
            }
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
        let slow = format!("the store takes longer than {} s to commit", PATIENCE.as_secs());
        self.counters.set_problem(Some(slow));
        batch.askers.iter_mut().flatten().for_each(Asker::refuse);
        let mut meanwhile = Vec::new();
        let result = loop {
            tokio::select! {
                result = &mut commit => break result,
                Some(message) = self.messages.recv() => match message {
                    Message::Ask(_, mut asker) => asker.refuse(),
                    Message::Keep(entry) => meanwhile.push(entry),
                    Message::Prune(_, _, reply) => drop(reply.send(Err(AuditUnavailable))),
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
        self.signed(batch.entries.len() as u64);
        self.wrote = true;
        self.filing.committed();
        self.recovered();
        for mut asker in batch.askers.into_iter().flatten() {
            asker.answer(Ok(()));
        }
    }

    fn recovered(&mut self) {
        self.counters.set_problem(None);
        if std::mem::take(&mut self.failing) {
            tracing::info!("the store takes records again");
        }
    }

    /// So many records were committed, and perhaps checkpoints among them.
    fn signed(&mut self, records: u64) {
        let anchors = self.writer.take_anchors();
        if let Some(checkpoints) = &mut self.checkpoints {
            checkpoints.committed(records, anchors);
        }
    }

    /// Records what is to be dropped; the steps follow between the batches to come.
    async fn begin_prune(
        &mut self,
        cut: Cut,
        by: Option<Redacted>,
    ) -> Result<Option<PrunePlan>, AuditUnavailable> {
        if self.signer.is_none() || !self.kept.is_empty() || self.doubtful.is_some() {
            return Err(AuditUnavailable);
        }
        let unavailable = |error: CommitError| {
            tracing::warn!(%error, "old records could not be dropped");
            AuditUnavailable
        };
        let Some(plan) = self.writer.plan_prune(cut).await.map_err(unavailable)? else { return Ok(None) };
        let event = Event { time: clock::now(), by, what: plan.happening() };
        match self.writer.commit(&[Entry::pruned(&event, plan.through)]).await {
            Ok(()) => self.signed(1),
            Err(error) => {
                // Asked again it will be tried again; what is uncertain now is settled as for any batch.
                self.failed(Batch::default(), &error);
                return Err(AuditUnavailable);
            }
        }
        // Of two the farther one counts.
        self.pruning = self.writer.unfinished_prune().map(Pruning::through);
        Ok(Some(plan))
    }

    async fn prune(&mut self) {
        let (Some(pruning), Some(signer)) = (&mut self.pruning, &self.signer) else { return };
        if self.failing || !pruning.wait().is_zero() {
            return;
        }
        let busy = std::mem::take(&mut self.wrote);
        match pruning.step(&mut self.writer, signer, busy).await {
            Ok(true) => {
                self.pruning = None;
                tracing::info!("old records were dropped");
            }
            Ok(false) => {}
            Err(error @ CommitError::Foreign(_)) => {
                self.pruning = None;
                tracing::error!(%error, "old records are not dropped: they are not those that were written");
            }
            Err(error) => tracing::warn!(%error, "old records could not be dropped yet"),
        }
    }

    async fn file(&mut self) {
        let due = self.filing.wait(self.writer.unfiled()).is_some_and(|wait| wait.is_zero());
        if due && !self.failing {
            self.filing.step(&mut self.writer).await;
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
        self.counters.set_problem(Some(error.to_string()));
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
                Message::Prune(_, _, reply) => drop(reply.send(Err(AuditUnavailable))),
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
        self.signed(0);
        Ok(())
    }

    async fn finish(mut self, mut inbox: Vec<Message>) {
        self.messages.close();
        let deadline = Instant::now() + DRAIN;
        loop {
            let received = self.messages.recv_many(&mut inbox, BATCH).await;
            self.take(&mut inbox).await;
            let done = received == 0 && self.kept.is_empty() && self.doubtful.is_none();
            if done || Instant::now() >= deadline {
                break;
            }
            if self.failing {
                tokio::time::sleep(RETRY).await;
            }
        }
        let lost = self.kept.len() + self.doubtful.map_or(0, |doubtful| doubtful.must.len());
        if lost > 0 {
            tracing::error!(lost, "records could not be written and are lost");
        } else {
            filing::rest(&mut self.writer, deadline).await;
            if let Err(error) = self.writer.mark().await {
                tracing::warn!(%error, "the end of the record could not be noted");
            }
        }
        self.writer.close().await;
        if let Some(checkpoints) = self.checkpoints {
            checkpoints.close().await;
        }
        if let Some(reply) = self.closing {
            // Whoever asked for it may have stopped waiting.
            let _ = reply.send(if lost == 0 { Ok(()) } else { Err(AuditUnavailable) });
        }
    }
}

/// The number of messages that came by then; `None` where none did, zero once nobody can send any.
async fn receive_until(
    messages: &mut mpsc::UnboundedReceiver<Message>,
    inbox: &mut Vec<Message>,
    until: Option<Instant>,
) -> Option<usize> {
    let received = messages.recv_many(inbox, BATCH);
    match until {
        None => Some(received.await),
        Some(until) => tokio::time::timeout_at(until, received).await.ok(),
    }
}
