//! Policy files into one checked [`Document`]: every mistake of every file at once, each with file, line and the
//! right spelling.
//!
//! Files are read into TOML and their shape is checked (`reader`, against the tables in `keys`), then each is
//! taken into one draft (`draft`), where lists unite and the stricter of two scalars wins. What is left, names of
//! the catalogue and rules that get in each other's way, can be judged only when all files are read.

use std::fmt;
use std::sync::Arc;

use crate::address::AddressRules;
use crate::catalogue::{Catalogue, ServiceSpec};
use crate::identity::AgentName;
use crate::rule::{Destination, LimitChanges, Origin, Rule};
use crate::target::Host;
use crate::verdict::{Action, Class, Mode, SecretAction, UploadLimits};

pub(crate) mod advice;
mod draft;
mod keys;
pub(crate) mod print;
mod reader;
mod scalar;
mod schema;
mod service;

pub use schema::schema;

/// Every key that may stand at the top of a policy file.
pub fn keys() -> impl Iterator<Item = &'static str> {
    keys::POLICY.keys.iter().map(|key| key.name)
}

/// The policy that a data folder begins with.
pub const STARTER: &str = include_str!("../starter.toml");

/// What may leave where a policy says nothing else.
pub const DEFAULT_LIMITS: UploadLimits = UploadLimits {
    request_alert: 1 << 20,
    request_block: 32 << 20,
    window_alert: 8 << 20,
    window_block: 128 << 20,
    window_block_agent: 1 << 30,
    window_seconds: 600,
};

/// A policy file.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Its name, as messages and `explain` show it; `known` values are read from where it lies.
    pub name: &'a str,
    /// What it holds.
    pub text: &'a str,
}

/// Something wrong in a policy file. Displays as `file:line: message`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// The file, as named to the parser.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
    /// What is wrong and how to write it.
    pub message: String,
}

impl Mistake {
    /// A mistake whose words quote what somebody wrote: what a terminal would obey is spelled out.
    pub(crate) fn new(file: Arc<str>, line: u32, message: impl AsRef<str>) -> Mistake {
        let spelled =
            |char: char| if char.is_control() { char.escape_debug().to_string() } else { char.into() };
        Mistake { file, line, message: message.as_ref().chars().map(spelled).collect() }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

impl std::error::Error for Mistake {}

/// A policy, checked and united from its files.
#[derive(Clone, Debug)]
pub struct Document {
    /// Whether what it would stop is stopped.
    pub mode: Mode,
    /// All rules, entries of the lists among them, by name.
    pub rules: Vec<Rule>,
    /// What is done where no rule matches.
    pub defaults: ByClass<Action>,
    /// How much may leave, by class.
    pub uploads: ByClass<UploadLimits>,
    /// What is done with secrets, by class.
    pub secrets: ByClass<SecretAction>,
    /// Where exact values to look for are read from.
    pub known: Vec<KnownSource>,
    /// What is not decrypted.
    pub passthrough: Vec<Destination>,
    /// What may be dialled besides public addresses.
    pub addresses: AddressRules,
    /// Services that the files add to the catalogue.
    pub services: Vec<ServiceSpec>,
    /// Standing answers.
    pub approved: Vec<Approval>,
    /// What is not wrong, but will not do what its author means.
    pub warnings: Vec<Mistake>,
    pub(crate) catalogue: Catalogue,
}

/// A value for each class of destinations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByClass<T> {
    /// For [`Class::Model`].
    pub model: T,
    /// For [`Class::Tool`].
    pub tool: T,
    /// For [`Class::Unknown`].
    pub unknown: T,
}

impl<T> ByClass<T> {
    /// The value of a class.
    pub fn of(&self, class: Class) -> &T {
        match class {
            Class::Model => &self.model,
            Class::Tool => &self.tool,
            Class::Unknown => &self.unknown,
        }
    }

    pub(crate) fn of_mut(&mut self, class: Class) -> &mut T {
        match class {
            Class::Model => &mut self.model,
            Class::Tool => &mut self.tool,
            Class::Unknown => &mut self.unknown,
        }
    }

    fn map<U>(&self, f: impl Fn(&T) -> U) -> ByClass<U> {
        ByClass { model: f(&self.model), tool: f(&self.tool), unknown: f(&self.unknown) }
    }
}

/// Where exact values that must not leak are read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownSource {
    /// The source.
    pub from: KnownFrom,
    /// Where its values belong; empty for nowhere.
    pub to: Vec<Destination>,
    /// The policy file that names it: relative paths are read from where that lies.
    pub origin: Origin,
}

/// A kind of source of known values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KnownFrom {
    /// Every value of a file of `NAME=value` lines.
    Dotenv(Arc<str>),
    /// The content of a file.
    File(Arc<str>),
    /// An environment variable.
    Env(Arc<str>),
}

impl fmt::Display for KnownFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KnownFrom::Dotenv(path) => write!(f, "dotenv:{path}"),
            KnownFrom::File(path) => write!(f, "file:{path}"),
            KnownFrom::Env(name) => write!(f, "env:{name}"),
        }
    }
}

/// A standing answer to what one rule asks: `[[approved]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    /// The host that was asked about.
    pub host: Host,
    /// Its port; `None` for https on 443 and http on 80.
    pub port: Option<u16>,
    /// The agent that asked.
    pub agent: AgentName,
    /// Name of the rule that asks.
    pub rule: Arc<str>,
    /// Who answered.
    pub by: Option<Arc<str>>,
    /// When, in RFC 3339.
    pub at: Option<Arc<str>>,
    /// Where it is written.
    pub origin: Origin,
}

/// Reads files into one policy.
///
/// # Errors
/// Every mistake of every file, in the order of files and lines.
pub fn parse(sources: &[Source<'_>], catalogue: &Catalogue) -> Result<Document, Vec<Mistake>> {
    let mut draft = draft::Draft::default();
    let mut mistakes = Vec::new();
    for source in sources {
        let (mut page, table) = reader::Page::open(source);
        if let Some(table) = table {
            draft.take(&mut page, &table);
        }
        mistakes.append(&mut page.mistakes);
    }
    let document = draft.finish(catalogue, &mut mistakes);
    match document {
        Some(document) if mistakes.is_empty() => Ok(document),
        _ => {
            let place = |file: &str| sources.iter().position(|source| source.name == file);
            mistakes.sort_by(|a, b| {
                (place(&a.file), a.line, &a.message).cmp(&(place(&b.file), b.line, &b.message))
            });
            mistakes.dedup();
            Err(mistakes)
        }
    }
}

impl Document {
    /// The sources of known values, for whoever may read files and the environment.
    pub fn known_sources(&self) -> &[KnownSource] {
        &self.known
    }

    /// The catalogue, with the services that the files add.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }
}

impl fmt::Display for Document {
    /// The whole policy as one file, in one spelling and order: parsing it gives the same policy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print::print(self, f)
    }
}

fn effective_limits(general: &UploadLimits, class: &LimitChanges) -> UploadLimits {
    let mut limits = *general;
    class.replace(&mut limits);
    limits
}

#[cfg(test)]
mod tests;
