//! Looking into a request: head fields, body, trailers. The policy crate finds; here is where it is pointed at.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use policy::catalogue::Spot;
use policy::decode::{BodyInspector, DecodeLimits, Encoding, Refusal, Undecodable};
use policy::model::{self, ModelShape};
use policy::record::{BodyExcerpt, Finding};
use policy::redact::Excerpt;
use policy::scan::{Place, Scanner, scan_field};
use policy::secret::{Detector, Exempt, KnownId};
use policy::target::Target;
use policy::verdict::{Class, Permit, Reason, SecretAction};
use policy::{git, mcp};

use crate::config::Config;
use crate::entry::Progress;
use crate::gateway::CurrentPolicy;
use crate::head::{Head, METHOD_OVERRIDES};

/// Headers by which MCP is known.
static MCP_SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
static MCP_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

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
    look.host();
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

/// Looks at the name a tunnel is asked for that will not be read: the name itself leaves, for whoever resolves it.
pub fn host(policy: &CurrentPolicy, target: &Target) -> HeadSecrets {
    let mut look = HeadLook { policy, target, seen: HeadSecrets::default() };
    look.host();
    look.seen
}

/// All that a head says, for one quick look.
fn flat(parts: &Parts, head: &Head) -> Vec<u8> {
    let mut all = Vec::with_capacity(512);
    for spelling in spellings(&head.target) {
        all.extend_from_slice(spelling.as_bytes());
        all.push(b'\n');
    }
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

/// A host arrives in lower case, in which credentials of capitals alone would not be recognised.
fn spellings(target: &Target) -> [String; 2] {
    let host = target.host.as_str();
    [host.to_owned(), host.to_ascii_uppercase()]
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
                vec![Finding::Secret {
                    detector: found.detector,
                    count: 1,
                    place: place.to_string().into(),
                    key: found.key,
                }]
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

    fn host(&mut self) {
        for spelling in spellings(self.target) {
            self.field(&Place::Host, &Exempt::none(), spelling.as_bytes());
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
        service.is_some_and(|service| {
            spots.iter().any(|spot| service.takes(detector.name(), &target.host, spot))
        })
    };
    let known =
        (0..).zip(&policy.known_sources).filter(|(_, source)| policy.rules.known_belongs(**source, target));
    Exempt {
        detectors: Detector::all().filter(takes).collect(),
        known: known.map(|(id, _)| KnownId(id)).collect(),
    }
}

/// A scanner for a stream of a permitted request that is not its body.
pub fn scanner(policy: &CurrentPolicy, permit: &Permit, place: Place) -> Scanner {
    let action = if permit.enforces() { permit.secrets() } else { SecretAction::Alert };
    let exempt = exempt(policy, permit.target(), &[]);
    Scanner::new(Arc::clone(&policy.secrets), policy.digest_key.clone(), action, exempt, place)
}

/// Looks into the body of one request, and into its trailers.
pub struct Inspection {
    policy: Arc<CurrentPolicy>,
    target: Target,
    shape: Shape,
    inspector: Option<BodyInspector>,
    /// Set once a body that could not be decoded passes unseen, because nothing is enforced.
    unseen: bool,
    action: SecretAction,
    enforces: bool,
    class: Class,
    start: Vec<u8>,
    noted: bool,
}

/// Why a body is not sent on.
pub struct Refused {
    /// The code.
    pub reason: Reason,
    /// Goes on from "outgate refused this request: ".
    pub what: String,
}

impl Inspection {
    /// Prepares for the body of a permitted request.
    pub fn new(
        config: &Config,
        policy: &Arc<CurrentPolicy>,
        permit: &Permit,
        parts: &Parts,
        head: &Head,
    ) -> Inspection {
        let target = permit.target().clone();
        let path = head.path.as_str();
        let enforces = permit.enforces();
        let maskable = !parts.headers.keys().any(|name| BOUND_TO_CONTENT.contains(&name.as_str()));
        let action = match permit.secrets() {
            _ if !enforces => SecretAction::Alert,
            SecretAction::Mask if !maskable => SecretAction::Block,
            action => action,
        };
        let class = permit.judgement().class;
        let exempt = exempt(policy, &target, &[Spot::Body { path, field: None }]);
        let scanner =
            Scanner::new(Arc::clone(&policy.secrets), policy.digest_key.clone(), action, exempt, Place::Body);
        let limits = DecodeLimits {
            decoded_bytes: config.limits.decoded_bytes,
            ratio: u32::try_from(config.limits.decoded_ratio).unwrap_or(u32::MAX),
        };
        let encodings = encodings(&parts.headers);
        // A coding that is not known cannot be undone: the bytes are looked at as they are, and that is a finding.
        let unseen = encodings.is_err();
        let mut inspector = BodyInspector::new(&encodings.unwrap_or_default(), scanner, limits);
        if class != Class::Model && config.audit.excerpt > 0 {
            inspector = inspector.with_excerpt(Excerpt::new(config.audit.excerpt));
        }
        Inspection {
            policy: Arc::clone(policy),
            target,
            shape: Shape::of(parts, head),
            inspector: Some(inspector),
            unseen,
            action: permit.secrets(),
            enforces,
            class,
            start: Vec::new(),
            noted: false,
        }
    }

    /// Takes the next bytes, and appends to `out` those that may go.
    pub fn push(&mut self, data: Bytes, out: &mut Vec<Bytes>) -> Result<(), Refused> {
        if self.unseen && self.enforces {
            return Err(self.undecodable("its content encoding is not known, so it cannot be looked into"));
        }
        let room = model::BODY_START.saturating_sub(self.start.len()).min(data.len());
        self.start.extend_from_slice(&data[..room]);
        let Some(inspector) = &mut self.inspector else {
            out.push(data);
            return Ok(());
        };
        let pushed = inspector.push(data, out);
        self.settle(pushed, out)
    }

    /// Says that the body is complete, and appends the rest of it.
    pub fn finish(&mut self, out: &mut Vec<Bytes>) -> Result<(), Refused> {
        let Some(inspector) = &mut self.inspector else { return Ok(()) };
        let finished = inspector.finish(out);
        self.settle(finished, out)
    }

    fn settle(&mut self, result: Result<(), Refusal>, out: &mut Vec<Bytes>) -> Result<(), Refused> {
        match result {
            Ok(()) => Ok(()),
            Err(Refusal::Secret(found)) => Err(Refused {
                reason: Reason::SecretFound,
                what: format!(
                    "it holds a secret (`{}`) in its {} that does not belong at {}",
                    found.detector, found.place, self.target.host
                ),
            }),
            Err(refusal) if self.enforces => {
                let what = format!("it cannot be looked into: {refusal}");
                match refusal {
                    Refusal::TooLarge { .. } => Err(Refused { reason: Reason::UploadTooLarge, what }),
                    _ => Err(self.undecodable(&what)),
                }
            }
            Err(_) => {
                // Observing: it passes as it is, and the record says that nobody saw inside.
                self.unseen = true;
                if let Some(inspector) = self.inspector.take() {
                    out.extend(inspector.into_held());
                }
                Ok(())
            }
        }
    }

    fn undecodable(&mut self, what: &str) -> Refused {
        self.unseen = true;
        Refused { reason: Reason::MalformedRequest, what: what.to_owned() }
    }

    /// Looks through trailers like through a head.
    pub fn trailers(&mut self, trailers: &HeaderMap, progress: &Progress) -> Result<(), Refused> {
        let policy = Arc::clone(&self.policy);
        let mut look = HeadLook { policy: &policy, target: &self.target, seen: HeadSecrets::default() };
        for (name, value) in trailers {
            let place = Place::trailer(name.as_str());
            look.field(&place, &Exempt::none(), name.as_str().as_bytes());
            look.field(&place, &look.exempt(&[Spot::Header(name.as_str())]), value.as_bytes());
        }
        let HeadSecrets { findings, misplaced } = look.seen;
        note(&findings, self.action, self.enforces, progress);
        match misplaced {
            Some(place) if self.enforces && self.action != SecretAction::Alert => Err(Refused {
                reason: Reason::SecretFound,
                what: format!(
                    "it holds a secret in its {place} that does not belong at {}",
                    self.target.host
                ),
            }),
            _ => Ok(()),
        }
    }

    /// How many bytes the body decoded to.
    pub fn decoded_bytes(&self) -> u64 {
        self.inspector.as_ref().map_or(0, BodyInspector::decoded_bytes)
    }

    /// Puts what was seen into the record; once.
    pub fn note(&mut self, progress: &Progress) {
        if std::mem::replace(&mut self.noted, true) {
            return;
        }
        let findings = self.inspector.as_ref().map(BodyInspector::findings).unwrap_or_default();
        note(findings, self.action, self.enforces, progress);
        if self.unseen {
            progress.find(Finding::Undecodable { encoding: self.policy.redactor.text("content-encoding") });
        }
        if let Some(excerpt) = self.inspector.as_mut().and_then(BodyInspector::take_excerpt) {
            let (excerpt, truncated) = excerpt.finish(&self.policy.redactor);
            let content_type = self.shape.content_type.as_deref().map(|text| self.policy.redactor.text(text));
            progress.excerpt(BodyExcerpt { excerpt, truncated, content_type });
        }
        self.note_shape(progress);
    }
}

impl Inspection {
    /// The model that is asked for; for an unknown host what it is spoken to as, where the head did not tell yet.
    fn note_shape(&self, progress: &Progress) {
        if let Some(model) = self.shape.model(&self.start).and_then(|shape| shape.model) {
            progress.model(self.policy.redactor.text(model.as_bytes()));
        }
        if self.class == Class::Unknown {
            let told = self.shape.findings(&[]);
            let more = self.shape.findings(&self.start).into_iter().filter(|finding| !told.contains(finding));
            more.for_each(|finding| progress.find(finding));
        }
    }
}

/// Headers that speak for the exact bytes of the body: overwriting a secret would make them untrue.
const BOUND_TO_CONTENT: [&str; 7] = [
    "content-md5",
    "digest",
    "content-digest",
    "repr-digest",
    "x-amz-content-sha256",
    "signature",
    "x-hub-signature-256",
];

fn encodings(headers: &HeaderMap) -> Result<Vec<Encoding>, Undecodable> {
    let mut all = Vec::new();
    for value in headers.get_all(CONTENT_ENCODING) {
        all.extend(Encoding::parse(value.to_str().map_err(|_| Undecodable::UnknownEncoding)?)?);
    }
    if all.len() > 2 { Err(Undecodable::TooManyLayers) } else { Ok(all) }
}

/// Adds what a scanner found to the record.
pub fn note_secrets(scanner: &Scanner, permit: &Permit, progress: &Progress) {
    note(scanner.findings(), permit.secrets(), permit.enforces(), progress);
}

fn note(findings: &[Finding], action: SecretAction, enforces: bool, progress: &Progress) {
    for finding in findings {
        if matches!(finding, Finding::Secret { .. }) && action == SecretAction::Block && !enforces {
            progress.would_stop(Reason::SecretFound);
        }
        progress.find(finding.clone());
    }
}

/// What the head of a request gives away: a push, a WebDAV-like detour, a protocol spoken to an unknown host.
pub fn shapes(parts: &Parts, head: &Head, class: Class) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (method, path) = (parts.method.as_str(), head.path.as_str());
    if git::request(method, path, head.path.query()).is_some_and(|(request, _)| request.is_push()) {
        findings.push(Finding::GitPush);
    }
    if METHOD_OVERRIDES.iter().any(|name| parts.headers.contains_key(name)) {
        findings.push(Finding::MethodOverride);
    }
    if asks_dns(parts, head) {
        findings.push(Finding::DnsOverHttps);
    }
    if class == Class::Unknown {
        findings.extend(Shape::of(parts, head).findings(&[]));
    }
    findings
}

/// A DNS query in HTTP (RFC 8484, section 4.1).
fn asks_dns(parts: &Parts, head: &Head) -> bool {
    let message =
        |name| parts.headers.get(name).is_some_and(|value| value.as_bytes() == b"application/dns-message");
    let query = head.path.query().unwrap_or_default();
    message(CONTENT_TYPE)
        || message(ACCEPT)
        || (head.path.as_str().ends_with("/dns-query")
            && query.split('&').any(|pair| pair.starts_with("dns=")))
}

/// What the signs of a request tell about the protocol that is spoken in it.
struct Shape {
    method: String,
    path: String,
    content_type: Option<String>,
    accept: Option<String>,
    mcp_session: bool,
    mcp_version: bool,
}

impl Shape {
    fn of(parts: &Parts, head: &Head) -> Shape {
        let text = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        Shape {
            method: parts.method.as_str().to_owned(),
            path: head.path.as_str().to_owned(),
            content_type: text(CONTENT_TYPE).map(str::to_owned),
            accept: text(ACCEPT).map(str::to_owned),
            mcp_session: parts.headers.contains_key(&MCP_SESSION),
            mcp_version: parts.headers.contains_key(&MCP_VERSION),
        }
    }

    fn model<'a>(&'a self, body: &'a [u8]) -> Option<ModelShape<'a>> {
        model::shape(&self.method, &self.path, self.content_type.as_deref(), body)
    }

    /// What is spoken to a host that is no known model or tool. `body` is its decoded beginning, as far as it was seen.
    fn findings(&self, body: &[u8]) -> Vec<Finding> {
        let mut findings = Vec::new();
        if let Some(shape) = self.model(body) {
            findings.push(Finding::ModelShaped { api: shape.api.as_str().into() });
        }
        let signs = mcp::Signs {
            method: &self.method,
            session: self.mcp_session,
            protocol_version: self.mcp_version,
            accept: self.accept.as_deref(),
            body,
        };
        if mcp::call(&signs).is_some() {
            findings.push(Finding::McpShaped);
        }
        findings
    }
}
