//! A policy made ready to decide, and what else it says: what is passed through, which addresses may be dialled.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::Policy;
use super::index::{Entry, Index, Ports, Reading};
use crate::address::AddressRules;
use crate::catalogue::Catalogue;
use crate::document::{self, Document, KnownSource, Mistake, Source};
use crate::target::Target;
use crate::verdict::{Action, Class, Mode, SecretAction, UploadLimits};

impl Policy {
    /// Reads files into a policy. `catalogue` is the one inside the program; the files may add to it.
    ///
    /// # Errors
    /// Every mistake of every file.
    pub fn parse(sources: &[Source<'_>], catalogue: &Catalogue) -> Result<Policy, Vec<Mistake>> {
        document::parse(sources, catalogue).map(Policy::new)
    }

    /// Makes a checked document ready to decide.
    pub fn new(document: Document) -> Policy {
        let digest = Sha256::digest(document.to_string().as_bytes());
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut policy = Policy {
            index: Index::default(),
            passthrough: Index::default(),
            known: Index::default(),
            approved: HashMap::new(),
            service_names: HashMap::new(),
            digest: format!("sha256:{digest}").into(),
            document,
        };
        policy.fill();
        policy
    }

    fn fill(&mut self) {
        let Document { rules, passthrough, known, approved, catalogue, .. } = &self.document;
        for (id, rule) in (0..).zip(rules) {
            for to in &rule.to {
                let ports = match (rule.action, to.port) {
                    (Action::Deny, None) => Ports::All,
                    (_, port) => Ports::written(port),
                };
                self.index.insert(to, Entry { id, ports }, catalogue);
            }
        }
        for to in passthrough {
            self.passthrough.insert(to, Entry { id: 0, ports: Ports::written(to.port) }, catalogue);
        }
        for (id, source) in (0..).zip(known) {
            for to in &source.to {
                self.known.insert(to, Entry { id, ports: Ports::written(to.port) }, catalogue);
            }
        }
        for approval in approved {
            self.approved.entry(approval.host.clone()).or_default().push(approval.clone());
        }
        self.service_names =
            catalogue.services().iter().map(|service| (service.id, service.name.as_str().into())).collect();
    }

    /// Whether connections to a destination are passed on undecrypted.
    pub fn passthrough(&self, target: &Target) -> bool {
        self.says(&self.passthrough, target, |_| true)
    }

    /// Whether values of the known source number `source` belong to a destination.
    pub fn known_belongs(&self, source: usize, target: &Target) -> bool {
        self.says(&self.known, target, |id| usize::try_from(id) == Ok(source))
    }

    fn says(&self, index: &Index, target: &Target, wanted: impl Fn(u32) -> bool) -> bool {
        let place = self.place(target);
        let mut said = false;
        index.each(&target.host, &place, |entry, reading| {
            said |=
                reading == Reading::Plain && wanted(entry.id) && entry.ports.contain(target, place.service);
        });
        said
    }

    /// Which addresses may be dialled.
    pub fn addresses(&self) -> &AddressRules {
        &self.document.addresses
    }

    /// Whether the policy is enforced or only observed.
    pub fn mode(&self) -> Mode {
        self.document.mode
    }

    /// What is done with secrets towards a class.
    pub fn secrets(&self, class: Class) -> SecretAction {
        *self.document.secrets.of(class)
    }

    /// Where exact values to look for are read from; [`Policy::known_belongs`] counts as this does.
    pub fn known_sources(&self) -> &[KnownSource] {
        &self.document.known
    }

    /// What may leave towards a class, rules apart.
    pub fn uploads(&self, class: Class) -> &UploadLimits {
        self.document.uploads.of(class)
    }

    /// Length of the upload window, the same for all classes.
    pub fn window_seconds(&self) -> u32 {
        self.document.uploads.unknown.window_seconds
    }

    /// The catalogue, with what the policy adds to it.
    pub fn catalogue(&self) -> &Catalogue {
        self.document.catalogue()
    }

    /// What is not wrong in the files, but will not do what its author means.
    pub fn warnings(&self) -> &[Mistake] {
        &self.document.warnings
    }

    /// The checked document.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// `sha256:…` of the whole policy in its one spelling.
    pub fn digest(&self) -> &Arc<str> {
        &self.digest
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.document.fmt(f)
    }
}
