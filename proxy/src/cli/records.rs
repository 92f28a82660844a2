//! What is recorded, as commands read it: the store itself, whether or not a gateway runs.
//!
//! The store is made to be read beside a running gateway, so that the record can be read also when the gateway cannot
//! be asked any more.

use std::path::Path;

use policy::identity::SessionId;
use policy::observed::Observed;
use policy::report::{self, Scope};
use policy::view::DecisionView;
use tokio::runtime::Runtime;
use ulid::Ulid;

use super::output::{self, Progress};
use super::{Failure, context};
use crate::config::Config;
use crate::evidence::{Evidence, Report};
use crate::store::agents::Agent;
use crate::store::query::Filter;
use crate::store::sessions::Session;
use crate::store::{Store, StoreError};

/// The store, opened for reading.
#[derive(Debug)]
pub(crate) struct Records {
    store: Store,
    runtime: Runtime,
}

impl Records {
    /// The records of a data folder; `None` where nothing was recorded yet.
    ///
    /// # Errors
    /// A store that cannot be opened.
    pub(crate) fn open(config: &Config) -> Result<Option<Records>, Failure> {
        let runtime = context::runtime()?;
        match runtime.block_on(Store::open_read_only(&config.data_dir)) {
            Ok(store) => Ok(Some(Records { store, runtime })),
            Err(StoreError::Missing(_)) => Ok(None),
            Err(error) => Err(Failure::failed(error)),
        }
    }

    /// Decisions, the latest first.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub(crate) fn decisions(&self, filter: &Filter) -> Result<Vec<DecisionView>, Failure> {
        self.runtime.block_on(self.store.decisions(filter)).map_err(Failure::failed)
    }

    /// One decision, by the identifier that a reply carries.
    ///
    /// # Errors
    /// Text that is no identifier, and a store that cannot be read.
    pub(crate) fn decision(&self, id: &str) -> Result<Option<DecisionView>, Failure> {
        let id = Ulid::from_string(id).map_err(Failure::failed)?;
        self.runtime.block_on(self.store.decision(id)).map_err(Failure::failed)
    }

    /// Decisions that ended after the record of that number, in the order in which they ended.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub(crate) fn ended_after(&self, seq: u64, filter: &Filter) -> Result<Vec<DecisionView>, Failure> {
        self.runtime.block_on(self.store.ended_after(seq, filter)).map_err(Failure::failed)
    }

    /// All agents, by name.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub(crate) fn agents(&self) -> Result<Vec<Agent>, Failure> {
        self.runtime.block_on(self.store.agents()).map_err(Failure::failed)
    }

    /// Sessions, the latest first.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub(crate) fn sessions(&self, limit: Option<u32>) -> Result<Vec<Session>, Failure> {
        self.runtime.block_on(self.store.sessions(limit)).map_err(Failure::failed)
    }

    /// One session.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub(crate) fn session(&self, id: SessionId) -> Result<Option<Session>, Failure> {
        self.runtime.block_on(self.store.session(id)).map_err(Failure::failed)
    }

    /// The records of a store that lies somewhere else, such as a copy.
    ///
    /// # Errors
    /// A file that is no store.
    pub(crate) fn of_copy(path: &Path) -> Result<Records, Failure> {
        let runtime = context::runtime()?;
        let store = runtime.block_on(Store::open_copy(path)).map_err(Failure::failed)?;
        Ok(Records { store, runtime })
    }

    /// The report of what fits a scope; `progress` is told now and then how many decisions were read.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub(crate) fn report(
        &self,
        scope: &Scope,
        now: i64,
        progress: impl FnMut(u64),
    ) -> Result<report::Report, Failure> {
        self.runtime.block_on(self.store.report(scope, now, progress)).map_err(Failure::failed)
    }

    /// Calls `each` with every decision of a scope, oldest first, showing how far it is. Gives how many there were.
    ///
    /// # Errors
    /// A store that cannot be read, and what `each` gives back.
    pub(crate) fn observed(
        &self,
        scope: &Scope,
        mut each: impl FnMut(&Observed) -> Result<(), Failure>,
    ) -> Result<u64, Failure> {
        let mut progress = Progress::new("records read");
        let read = self.store.observed(scope, &mut each, |at, all| {
            progress.of(all);
            progress.at(at);
        });
        let read = self.runtime.block_on(read);
        progress.end();
        read.map_err(Failure::failed)?
    }

    /// Checks the whole chain; `progress` is told now and then how many records were checked.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub(crate) fn verify(&self, evidence: &Evidence, progress: impl FnMut(u64)) -> Result<Report, Failure> {
        self.runtime.block_on(self.store.verify_against(evidence, progress)).map_err(Failure::failed)
    }

    /// The store, for what is asked of it in other ways.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Runs what is asked of the store to its end.
    pub(crate) fn run<T>(&self, asked: impl Future<Output = T>) -> T {
        self.runtime.block_on(asked)
    }

    /// Number of the last record.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub(crate) fn last_seq(&self) -> Result<u64, Failure> {
        self.runtime.block_on(self.store.last_seq()).map_err(Failure::failed)
    }
}

/// Says that nothing was recorded, and where that was looked for if there is not even a folder.
pub(crate) fn nothing_yet(config: &Config) {
    let folder = &config.data_dir;
    match folder.exists() {
        true => output::note("nothing has been recorded yet"),
        false => output::note(format_args!(
            "nothing has been recorded yet: the folder `{}` does not exist",
            folder.display()
        )),
    }
}

/// All decisions of a data folder, the oldest first.
///
/// # Errors
/// A store that cannot be read.
pub(crate) fn all(config: &Config) -> Result<Vec<DecisionView>, Failure> {
    let Some(records) = Records::open(config)? else { return Ok(Vec::new()) };
    let mut decisions = records.decisions(&Filter::default())?;
    decisions.reverse();
    Ok(decisions)
}
