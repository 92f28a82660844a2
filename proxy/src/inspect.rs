//! Looking into a request: head fields, body, trailers. The policy crate finds; here is where it is pointed at.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Parts;
use policy::catalogue::Spot;
use policy::decode::{BodyInspector, InspectError};
use policy::record::{BodyExcerpt, Finding};
use policy::scan::{Place, Scanner, scan_field};
use policy::secret::{Detector, Exempt, KnownId};
use policy::target::Target;
use policy::verdict::{Class, Permit, Reason, SecretAction};

use crate::config::Config;
use crate::entry::Progress;
use crate::gateway::CurrentPolicy;
use crate::head::Head;

/// What the head of a request holds.
#[derive(Default)]
pub struct HeadSecrets {
    /// Secrets and credentials, each once.
    pub findings: Vec<Finding>,
    /// Where a secret stands that does not belong there; it must not leave.
    pub misplaced: Option<String>,
}

/// Looks through every field of a head. Fields that hold something are looked at again one by one, since only then
/// it matters which credential belongs where.
pub fn head(policy: &CurrentPolicy, parts: &Parts, head: &Head) -> HeadSecrets {
    let mut look = HeadLook { policy, target: &head.target, seen: HeadSecrets::default() };
    if look.is_clean(&flat(parts, head)) {
        return look.seen;
    }
    look.field(&Place::Method, &Exempt::none(), parts.method.as_str().as_bytes());
    look.field(&Place::Path, &look.exempt(&[Spot::Path]), head.path.as_str().as_bytes());
    if let Some(query) = head.path.query() {
        look.query(query);
    }
    for (name, value) in &parts.headers {
        look.header(name.as_str(), value.as_bytes());
    }
    look.seen
}

/// All that a head says, for one quick look.
fn flat(parts: &Parts, head: &Head) -> Vec<u8> {
    let mut all = Vec::with_capacity(512);
    all.extend_from_slice(parts.method.as_str().as_bytes());
    all.push(b'\n');
    all.extend_from_slice(head.path.as_str().as_bytes());
    all.push(b'\n');
    all.extend_from_slice(head.path.query().unwrap_or_default().as_bytes());
    for (name, value) in &parts.headers {
        all.push(b'\n');
        all.extend_from_slice(name.as_str().as_bytes());
        all.extend_from_slice(b": ");
        all.extend_from_slice(value.as_bytes());
    }
    all
}

struct HeadLook<'a> {
    policy: &'a CurrentPolicy,
    target: &'a Target,
    seen: HeadSecrets,
}

impl HeadLook<'_> {
    fn is_clean(&self, all: &[u8]) -> bool {
        self.scan(&Place::Body, &Exempt::none(), all).is_empty()
    }

    fn scan(&self, place: &Place, exempt: &Exempt, value: &[u8]) -> Vec<Finding> {
        let CurrentPolicy { secrets, digest_key, .. } = self.policy;
        match scan_field(secrets, digest_key, SecretAction::Alert, exempt, place, value) {
            Ok(scanned) => scanned.findings,
            // Alert never stops; if it did, the field would have to be taken for a secret.
            Err(found) => {
                vec![Finding::Secret { detector: found.detector, count: 1, place: place.to_string().into(), key: found.key }]
            }
        }
    }

    fn exempt(&self, spots: &[Spot<'_>]) -> Exempt {
        exempt(self.policy, self.target, spots)
    }

    fn field(&mut self, place: &Place, exempt: &Exempt, value: &[u8]) {
        for finding in self.scan(place, exempt, value) {
            if matches!(finding, Finding::Secret { .. }) {
                self.seen.misplaced.get_or_insert_with(|| place.to_string());
            }
            if !self.seen.findings.contains(&finding) {
                self.seen.findings.push(finding);
            }
        }
    }

    /// Each parameter where only its own credentials belong, then the whole, since a secret may run over an `&`.
    fn query(&mut self, query: &str) {
        let mut belongs = Exempt::none();
        for pair in query.split('&') {
            let name = pair.split('=').next().unwrap_or_default();
            let own = self.exempt(&[Spot::Query(name)]);
            self.field(&Place::Query, &own, pair.as_bytes());
            belongs.detectors.extend(own.detectors);
            belongs.known.extend(own.known);
        }
        self.field(&Place::Query, &belongs, query.as_bytes());
    }

    fn header(&mut self, name: &str, value: &[u8]) {
        let place = Place::header(name);
        self.field(&place, &Exempt::none(), name.as_bytes());
        let basic = (name == AUTHORIZATION.as_str()).then(|| basic_credentials(value)).flatten();
        let mut spots = vec![Spot::Header(name)];
        if let Some(credentials) = basic {
            self.field(&Place::BasicAuth, &self.exempt(&[Spot::Basic]), &credentials);
            spots.push(Spot::Basic);
        }
        self.field(&place, &self.exempt(&spots), value);
    }
}

/// User and password of basic authentication (RFC 7617).
fn basic_credentials(value: &[u8]) -> Option<Vec<u8>> {
    let (scheme, rest) = value.split_at_checked(6)?;
    let encoded = rest.trim_ascii();
    scheme.eq_ignore_ascii_case(b"basic ").then(|| STANDARD.decode(encoded).ok()).flatten()
}

/// The credentials that belong at any of `spots` of a request to `target`.
fn exempt(policy: &CurrentPolicy, target: &Target, spots: &[Spot<'_>]) -> Exempt {
    let service = policy.rules.catalogue().classify(&target.host, target.port).service;
    let takes = |detector: &Detector| {
        service.is_some_and(|service| spots.iter().any(|spot| service.takes(detector.name(), &target.host, spot)))
    };
    let known = (0..).zip(&policy.known_sources).filter(|(_, source)| policy.rules.known_belongs(**source, target));
    Exempt { detectors: Detector::all().filter(takes).collect(), known: known.map(|(id, _)| KnownId(id)).collect() }
}

/// A scanner for a stream of a permitted request that is not its body.
pub fn scanner(policy: &CurrentPolicy, permit: &Permit, place: Place) -> Scanner {
    let action = if permit.enforces() { permit.secrets() } else { SecretAction::Alert };
    let exempt = exempt(policy, permit.target(), &[]);
    Scanner::new(Arc::clone(&policy.secrets), policy.digest_key.clone(), action, exempt, place)
}

/// Adds what a scanner found to the record.
pub fn note_secrets(scanner: &Scanner, permit_secrets: SecretAction, progress: &Progress) {
    note(scanner.findings(), permit_secrets, progress);
}

fn note(findings: &[Finding], action: SecretAction, progress: &Progress) {
    for finding in findings {
        if matches!(finding, Finding::Secret { .. }) && action == SecretAction::Block {
            progress.would_stop(Reason::SecretFound);
        }
        progress.find(finding.clone());
    }
}
