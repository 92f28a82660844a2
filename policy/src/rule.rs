//! One rule of a policy: which requests it matches, and what it does with them.
//!
//! A rule that allows matches only what it plainly says; a rule that asks or denies matches every reading of a
//! request that some server may have (path spelling, letter case of a method), and one that denies a host without
//! naming a port denies it on all of them. So no spelling of a request turns a denial into an allowance.

use std::sync::Arc;

use crate::identity::AgentName;
use crate::path::RequestPath;
use crate::request::Request;
use crate::verdict::{Action, UploadLimits};

mod destination;
mod name;
mod pattern;

pub use destination::{Destination, Hosts};
pub(crate) use name::to_ascii;
pub use pattern::{AgentPattern, PathPattern};

/// A rule: an entry of `allow`, `ask` or `deny`, or a `[[rule]]`.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its name; of a list entry, the entry as written: `allow "@github"`.
    pub name: Arc<str>,
    /// What it does.
    pub action: Action,
    /// Where to.
    pub to: Vec<Destination>,
    /// Methods it is about; empty for all.
    pub methods: Vec<Arc<str>>,
    /// Paths it is about; empty for all.
    pub paths: Vec<PathPattern>,
    /// Agents it is about; empty for all.
    pub agents: Vec<AgentPattern>,
    /// Whether it only records what it would do.
    pub observe: bool,
    /// Upload limits of its own.
    pub uploads: LimitChanges,
    /// Whether `to` may hold wildcards on public suffixes.
    pub wide: bool,
    /// Why it is there.
    pub why: Option<Arc<str>>,
    /// Whether it stands in a list of the top level.
    pub listed: bool,
    /// Where it is written.
    pub origin: Origin,
}

/// A place in a policy file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file, as it was named to the parser.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
}

impl Rule {
    /// Whether it is about this request, its destination apart.
    pub fn matches(&self, request: &Request<'_>) -> bool {
        self.matches_agent(request.agent)
            && self.matches_method(request.method)
            && self.matches_path(request.path)
    }

    /// Whether it is about this agent.
    pub fn matches_agent(&self, agent: &AgentName) -> bool {
        self.agents.is_empty() || self.agents.iter().any(|pattern| pattern.matches(agent))
    }

    /// Whether it stops every request to its destinations that it is about, whatever the method and path.
    pub fn is_unconditional(&self) -> bool {
        self.methods.is_empty() && self.paths.is_empty()
    }

    /// Whether two rules of one name are one rule written twice.
    pub(crate) fn says_the_same(&self, other: &Rule) -> bool {
        self.name == other.name
            && (self.action, self.observe, self.uploads) == (other.action, other.observe, other.uploads)
            && (&self.to, &self.methods, &self.paths) == (&other.to, &other.methods, &other.paths)
            && self.agents == other.agents
    }

    /// What keeps it from being about a request to one of its destinations.
    pub(crate) fn but(&self, request: &Request<'_>) -> String {
        let listed = |items: Vec<String>| items.join(", ");
        let mut words = Vec::new();
        if !self.matches_method(request.method) {
            let methods = listed(self.methods.iter().map(ToString::to_string).collect());
            words.push(format!("{methods}, not {}", request.method));
        }
        if !self.matches_path(request.path) {
            let paths = listed(self.paths.iter().map(ToString::to_string).collect());
            words.push(format!(
                "{paths}, not {}",
                request.path.map_or("one that is not seen", RequestPath::as_str)
            ));
        }
        if !self.matches_agent(request.agent) {
            let agents = listed(self.agents.iter().map(|agent| agent.as_str().to_owned()).collect());
            words.push(format!("agents {agents}, not {}", request.agent));
        }
        words.join("; ")
    }

    fn matches_method(&self, method: &str) -> bool {
        let stops = self.action != Action::Allow;
        self.methods.is_empty()
            || self
                .methods
                .iter()
                .any(|named| &**named == method || (stops && named.eq_ignore_ascii_case(method)))
    }

    fn matches_path(&self, path: Option<&RequestPath>) -> bool {
        if self.paths.is_empty() {
            return true;
        }
        let Some(path) = path else { return false };
        let stops = self.action != Action::Allow;
        self.paths.iter().any(|pattern| {
            pattern.matches(path.as_str())
                || (stops && pattern.matches_folded(path.lenient().unwrap_or(path.as_str())))
        })
    }
}

/// Upload limits as a table of a policy writes them: only some of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitChanges {
    /// See [`UploadLimits::request_alert`].
    pub request_alert: Option<u64>,
    /// See [`UploadLimits::request_block`].
    pub request_block: Option<u64>,
    /// See [`UploadLimits::window_alert`].
    pub window_alert: Option<u64>,
    /// See [`UploadLimits::window_block`].
    pub window_block: Option<u64>,
}

impl LimitChanges {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        *self == LimitChanges::default()
    }

    /// Sets what is given, looser or tighter.
    pub fn replace(&self, limits: &mut UploadLimits) {
        self.each(limits, |limit, value| *limit = value);
    }

    /// Sets what is given where it is tighter.
    pub fn tighten(&self, limits: &mut UploadLimits) {
        self.each(limits, |limit, value| *limit = value.min(*limit));
    }

    /// Of two tables the smaller value of each limit.
    pub fn unite(&mut self, other: &LimitChanges) {
        let smaller = |a: &mut Option<u64>, b: Option<u64>| *a = [*a, b].into_iter().flatten().min();
        smaller(&mut self.request_alert, other.request_alert);
        smaller(&mut self.request_block, other.request_block);
        smaller(&mut self.window_alert, other.window_alert);
        smaller(&mut self.window_block, other.window_block);
    }

    fn each(&self, limits: &mut UploadLimits, set: impl Fn(&mut u64, u64)) {
        for (value, limit) in [
            (self.request_alert, &mut limits.request_alert),
            (self.request_block, &mut limits.request_block),
            (self.window_alert, &mut limits.window_alert),
            (self.window_block, &mut limits.window_block),
        ] {
            if let Some(value) = value {
                set(limit, value);
            }
        }
    }
}
