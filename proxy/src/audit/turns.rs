//! Whose turn it is to be recorded: no agent keeps the others waiting by asking for much at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use policy::identity::AgentName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::AuditUnavailable;

/// Decisions of one agent that the writer is given at once: half a batch, so that whatever one agent asks for,
/// another's decision is in the next batch but one.
const SHARE: usize = 256;
/// Decisions of one agent that may wait for that. Beyond, they are refused: what waits takes memory.
const WAITING: usize = 4096;

/// Everybody who waits, by agent.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns(Arc<Mutex<HashMap<AgentName, Line>>>);

#[derive(Debug)]
struct Line {
    length: usize,
    share: Arc<Semaphore>,
}

/// A place in an agent's line, given back when dropped.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Turns,
    agent: AgentName,
    permit: Option<OwnedSemaphorePermit>,
}

impl Turns {
    /// Returns when it is the agent's turn.
    ///
    /// # Errors
    /// Too much of this agent waits already.
    pub(super) async fn wait(&self, agent: &AgentName) -> Result<Turn, AuditUnavailable> {
        let (mut turn, share) = self.join(agent)?;
        turn.permit = Some(share.acquire_owned().await.map_err(|_| AuditUnavailable)?);
        Ok(turn)
    }

    fn join(&self, agent: &AgentName) -> Result<(Turn, Arc<Semaphore>), AuditUnavailable> {
        let mut lines = self.lock();
        let line = lines
            .entry(agent.clone())
            .or_insert_with(|| Line { length: 0, share: Arc::new(Semaphore::new(SHARE)) });
        if line.length >= WAITING {
            return Err(AuditUnavailable);
        }
        line.length += 1;
        let share = Arc::clone(&line.share);
        drop(lines);
        Ok((Turn { turns: self.clone(), agent: agent.clone(), permit: None }, share))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AgentName, Line>> {
        // Counts are whole after any panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Before the line may go, with the share that this is a part of.
        self.permit = None;
        let mut lines = self.turns.lock();
        if let Some(line) = lines.get_mut(&self.agent) {
            line.length -= 1;
            if line.length == 0 {
                lines.remove(&self.agent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn an_agent_waits_behind_itself_alone() {
        let turns = Turns::default();
        let (a, b): (AgentName, AgentName) = ("a".parse().unwrap(), "b".parse().unwrap());
        let mut taken = Vec::new();
        for _ in 0..SHARE {
            taken.push(turns.wait(&a).await.unwrap());
        }
        let short = Duration::from_millis(50);
        let next = tokio::time::timeout(short, turns.wait(&a));
        assert!(next.await.is_err(), "its share is used up");
        assert!(tokio::time::timeout(short, turns.wait(&b)).await.is_ok(), "another agent's turn");
        let waiting: Vec<_> = (0..WAITING - SHARE).map(|_| turns.join(&a).unwrap()).collect();
        assert_eq!(turns.wait(&a).await.err(), Some(AuditUnavailable), "its line is full");
        drop(taken.pop());
        assert!(tokio::time::timeout(short, turns.wait(&a)).await.is_ok_and(|turn| turn.is_ok()));
        drop((taken, waiting));
        assert!(turns.lock().is_empty(), "nothing is kept of those who wait no longer");
    }
}
