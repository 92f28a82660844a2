//! A batch with its place in the chain, and everything that is written with it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use policy::anchor::Anchor;
use policy::chain::Head;
use policy::identity::SessionId;
use policy::verdict::{Action, Reason};
use rusqlite::{Connection, params};
use ulid::Ulid;

use super::CommitError;
use super::committer::note;
use super::entry::PlannedChange;
use super::prune::note_target;
use super::recover::Mark;
use super::row::{Row, number};

/// What one transaction writes, and what the writer knows once it is committed.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub rows: Vec<Row>,
    pub last_words: Vec<(u64, Action, Reason)>,
    pub opened: HashMap<Ulid, OpenDecision>,
    pub closed: HashSet<Ulid>,
    pub changes: Vec<PlannedChange>,
    pub anchors: Vec<Anchor>,
    pub models: HashMap<SessionId, Asked>,
    pub prune: Option<u64>,
    pub mark: Option<Mark>,
    /// The chain's head from then on; `None` where no record is written.
    pub head: Option<Head>,
}

/// What the writer remembers of a decision until its outcome comes.
#[derive(Clone, Debug)]
pub(super) struct OpenDecision {
    pub seq: u64,
    pub action: Action,
    pub reason: Reason,
    pub session: Option<SessionId>,
    pub provider: Option<Arc<str>>,
}

/// A model, and the service it was asked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub provider: Option<Arc<str>>,
    pub model: Option<Arc<str>>,
}

impl Plan {
    /// Whether nothing is written but records.
    pub(super) fn is_rows_alone(&self) -> bool {
        self.last_words.is_empty()
            && self.changes.is_empty()
            && self.models.is_empty()
            && self.prune.is_none()
            && self.mark.is_none()
    }

    /// Writes it, within the caller's transaction.
    pub(super) fn write(&self, connection: &Connection) -> Result<(), CommitError> {
        for row in &self.rows {
            row.insert(connection)?;
        }
        for (seq, action, reason) in &self.last_words {
            set_last_word(connection, *seq, *action, *reason)?;
        }
        for (session, asked) in &self.models {
            set_model(connection, *session, asked)?;
        }
        for change in &self.changes {
            if !change.change.apply(connection, change.time)? && change.must_apply {
                return Err(CommitError::Stale);
            }
        }
        if let Some(through) = self.prune {
            note_target(connection, through)?;
        }
        if let Some(mark) = &self.mark {
            note(connection, "mark", &mark.text())?;
        }
        Ok(())
    }
}

fn set_last_word(connection: &Connection, seq: u64, action: Action, reason: Reason) -> rusqlite::Result<()> {
    let update = "UPDATE records SET action = ?2, reason = ?3 WHERE seq = ?1";
    let mut update = connection.prepare_cached(update)?;
    update.execute(params![number(seq), action.as_str(), reason.as_str()]).map(drop)
}

fn set_model(connection: &Connection, session: SessionId, asked: &Asked) -> rusqlite::Result<()> {
    let update =
        "UPDATE sessions SET provider = coalesce(?2, provider), model = coalesce(?3, model) WHERE id = ?1";
    let mut update = connection.prepare_cached(update)?;
    let session = session.to_string();
    update.execute(params![session, asked.provider.as_deref(), asked.model.as_deref()]).map(drop)
}
