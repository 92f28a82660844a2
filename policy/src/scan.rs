//! The scanner: bytes go in as they arrive, and come out as soon as they cannot be part of a secret.
//!
//! It releases, it does not merely look. What may be the beginning of a secret is held until it is known not to be, so
//! that under [`SecretAction::Block`] a secret does not leave in pieces; everything else goes at once, as slices of
//! what came in, so that conversations do not stall. What is found does not depend on how the stream was cut.
//!
//! Two things may go while the answer is open, because they say nothing and holding them would stall a stream that
//! happens to end there: up to three bytes of a public prefix or of a known value, and the words a prefix or a field
//! begins with (`github` of `github_pat_`, all of `postgres://user:`). At most 32 KiB are held.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::record::Finding;
use crate::secret::{Class, Exempt, Hit, LOOK_BEHIND, Search, Secrets, Step, View, mask};
pub use crate::verdict::SecretAction;

/// Where in a request something stands. Displays as the `where` of a finding.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// The host asked for.
    Host,
    /// The path.
    Path,
    /// The query.
    Query,
    /// The request method, where it is none of the usual.
    Method,
    /// A header's value. See [`Place::header`].
    Header(Arc<str>),
    /// The `cookie` header.
    Cookie,
    /// User or password of basic authentication.
    BasicAuth,
    /// The body.
    Body,
    /// A trailer's value. See [`Place::trailer`].
    Trailer(Arc<str>),
    /// A WebSocket message.
    Websocket,
}

impl Place {
    /// The value of the header of that name; the cookie header has a place of its own.
    pub fn header(name: &str) -> Self {
        if name.eq_ignore_ascii_case("cookie") { Self::Cookie } else { Self::Header(field_name(name)) }
    }

    /// The value of the trailer of that name.
    pub fn trailer(name: &str) -> Self {
        Self::Trailer(field_name(name))
    }
}

/// A client chooses names freely, and places are recorded: a name that is not one word of sane length, or that holds a
/// secret itself, is not repeated.
fn field_name(name: &str) -> Arc<str> {
    let plain =
        name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let exempt = Exempt::none();
    let search = Search { secrets: &Secrets::detectors(), exempt: &exempt, for_records: true };
    let clean = matches!(search.next(name.as_bytes(), 0, true, &mut Vec::new()), Step::Done { .. });
    if plain && clean { name.to_ascii_lowercase().into() } else { "[redacted:name]".into() }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Path => f.write_str("path"),
            Self::Query => f.write_str("query"),
            Self::Method => f.write_str("method"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie => f.write_str("cookie"),
            Self::BasicAuth => f.write_str("basic-auth"),
            Self::Body => f.write_str("body"),
            Self::Trailer(name) => write!(f, "trailer:{name}"),
            Self::Websocket => f.write_str("websocket"),
        }
    }
}

/// The key under which secrets are digested: equal secrets can be told without keeping them.
#[derive(Clone)]
pub struct DigestKey(Arc<[u8]>);

impl DigestKey {
    /// A key of 32 random bytes that stay in the data folder.
    pub fn new(key: [u8; 32]) -> Self {
        Self(Arc::new(key))
    }

    /// `hmac:` and the first 16 bytes of HMAC-SHA256 (RFC 2104) in hexadecimal.
    fn digest(&self, secret: &[u8]) -> Arc<str> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(secret);
        let hex: String =
            mac.finalize().into_bytes()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("hmac:{hex}").into()
    }
}

impl fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DigestKey")
    }
}

/// A secret was found where it must not pass. Carries what is recorded of it, never the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The name of what was found: a detector, or `known:` and the name of a known value.
    pub detector: Arc<str>,
    /// Where.
    pub place: Place,
    /// Its keyed digest.
    pub key: Arc<str>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a secret (`{}`) was found in the {}", self.detector, self.place)
    }
}

impl std::error::Error for Found {}

/// Different secrets recorded of one place; more are only counted, under the last.
const MOST_FINDINGS: usize = 64;

/// Chunks below this are copied rather than looked at in place.
const SMALL: usize = 1024;

/// Scans one stream: a body, one direction of a WebSocket, or one field.
pub struct Scanner {
    secrets: Arc<Secrets>,
    key: DigestKey,
    action: SecretAction,
    exempt: Arc<Exempt>,
    place: Place,
    /// The end of what has arrived: context, what is being decided, what is held.
    kept: Bytes,
    /// How many bytes of `kept` have been released.
    released: usize,
    /// Where in `kept` the search goes on.
    from: usize,
    /// A long secret that goes on in these bytes.
    tail: Option<Tail>,
    /// What is to be written over bytes of `kept` that have not been released, in order.
    masks: Vec<Mask>,
    findings: Vec<Finding>,
    found: Option<Found>,
    decoded: Vec<u8>,
}

struct Tail {
    class: Class,
    /// What is written over it; `None` lets it pass.
    fill: Option<View>,
}

/// Bytes to be written from a position of `kept` on.
struct Mask {
    start: usize,
    bytes: Vec<u8>,
}

impl Scanner {
    /// A scanner for one stream that begins now.
    pub fn new(
        secrets: Arc<Secrets>,
        key: DigestKey,
        action: SecretAction,
        exempt: impl Into<Arc<Exempt>>,
        place: Place,
    ) -> Self {
        Self {
            secrets,
            key,
            action,
            exempt: exempt.into(),
            place,
            kept: Bytes::new(),
            released: 0,
            from: 0,
            tail: None,
            masks: Vec::new(),
            findings: Vec::new(),
            found: None,
            decoded: Vec::new(),
        }
    }

    /// Takes the next bytes and appends to `out` those that may go.
    ///
    /// # Errors
    /// Under [`SecretAction::Block`], a secret; nothing more will be released.
    pub fn push(&mut self, chunk: Bytes, out: &mut Vec<Bytes>) -> Result<(), Found> {
        self.refuse_again()?;
        let chunk = self.pass_tail(chunk, out);
        if chunk.is_empty() {
            return Ok(());
        }
        match self.cross_seam(&chunk) {
            Some(from) => {
                self.kept = chunk;
                self.released = 0;
                self.from = from;
            }
            None => self.join(chunk),
        }
        self.scan(false, out)
    }

    /// Says that the stream is complete and appends what was held.
    ///
    /// # Errors
    /// As [`Scanner::push`].
    pub fn finish(&mut self, out: &mut Vec<Bytes>) -> Result<(), Found> {
        self.refuse_again()?;
        self.scan(true, out)
    }

    /// Says that a message ends and appends what was held, so that whoever waits for the answer is not kept waiting.
    /// A secret that goes on in the next message is still found there; its beginning has left by then.
    ///
    /// # Errors
    /// As [`Scanner::push`].
    pub fn flush(&mut self, out: &mut Vec<Bytes>) -> Result<(), Found> {
        self.refuse_again()?;
        loop {
            let search = Search { secrets: &self.secrets, exempt: &self.exempt, for_records: false };
            match search.next(&self.kept, self.from, true, &mut self.decoded) {
                Step::Hit(hit) => self.found(&hit, true, out)?,
                Step::Open { .. } | Step::Done { .. } => {
                    self.release(self.kept.len(), out);
                    return Ok(());
                }
            }
        }
    }

    /// What was found, each different secret once with its count.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// How many bytes are held back.
    pub fn held(&self) -> usize {
        self.kept.len() - self.released
    }

    /// How many of the last bytes may still turn out to belong to a secret, whether they are held or not.
    pub(crate) fn undecided(&self) -> usize {
        self.held()
    }

    /// For streams that cannot be written over.
    pub(crate) fn block_instead_of_mask(&mut self) {
        if self.action == SecretAction::Mask {
            self.action = SecretAction::Block;
        }
    }

    fn refuse_again(&self) -> Result<(), Found> {
        self.found.clone().map_or(Ok(()), Err)
    }

    /// Where nothing is open, the chunk need not be copied: only its first bytes are judged together with the context
    /// from before. Gives the place in the chunk from which it can be searched by itself.
    fn cross_seam(&mut self, chunk: &Bytes) -> Option<usize> {
        if self.held() > 0 || chunk.len() < SMALL {
            return None;
        }
        if self.kept.is_empty() {
            return Some(0);
        }
        let seam = [&self.kept[..], &chunk[..SMALL / 2]].concat();
        let search = Search { secrets: &self.secrets, exempt: &self.exempt, for_records: false };
        match search.next(&seam, self.from, false, &mut self.decoded) {
            Step::Done { judged } => judged.checked_sub(self.kept.len()).filter(|from| *from >= LOOK_BEHIND),
            _ => None,
        }
    }

    fn join(&mut self, chunk: Bytes) {
        self.kept = if self.kept.is_empty() { chunk } else { [&self.kept[..], &chunk[..]].concat().into() };
    }

    fn scan(&mut self, last: bool, out: &mut Vec<Bytes>) -> Result<(), Found> {
        loop {
            let search = Search { secrets: &self.secrets, exempt: &self.exempt, for_records: false };
            match search.next(&self.kept, self.from, last, &mut self.decoded) {
                Step::Hit(hit) => self.found(&hit, last, out)?,
                Step::Open { start, hold } => {
                    let until =
                        hold.filter(|_| self.action != SecretAction::Alert).unwrap_or(self.kept.len());
                    self.release(until, out);
                    self.forget(start);
                    return Ok(());
                }
                Step::Done { judged } => {
                    self.release(self.kept.len(), out);
                    self.forget(judged);
                    return Ok(());
                }
            }
        }
    }

    fn found(&mut self, hit: &Hit, last: bool, out: &mut Vec<Bytes>) -> Result<(), Found> {
        let name = self.secrets.name(hit.source);
        let key = self.key.digest(&self.decoded);
        self.note(&name, &key, hit);
        let end = hit.tail.map_or(hit.end, |class| hit.end + run(&self.kept[hit.end..], &class));
        self.from = hit.next.max(if hit.tail.is_some() { end } else { 0 });
        let masked = !hit.exempt && self.action == SecretAction::Mask;
        if let Some(class) = hit.tail.filter(|_| end == self.kept.len() && !last) {
            self.tail = Some(Tail { class, fill: masked.then_some(hit.view) });
        }
        if masked {
            self.add_mask(hit, end);
        }
        if hit.exempt || self.action != SecretAction::Block {
            return Ok(());
        }
        self.release(hit.start.0, out);
        let found = Found { detector: name, place: self.place.clone(), key };
        self.kept = Bytes::new();
        self.released = 0;
        self.found = Some(found.clone());
        Err(found)
    }

    fn note(&mut self, detector: &Arc<str>, key: &Arc<str>, hit: &Hit) {
        let full = self.findings.len() >= MOST_FINDINGS;
        for (index, finding) in self.findings.iter_mut().enumerate() {
            let last = full && index + 1 == MOST_FINDINGS;
            match finding {
                Finding::Secret { key: other, detector: name, count, .. }
                    if !hit.exempt && (other == key && name == detector || last) =>
                {
                    *count = count.saturating_add(1);
                    return;
                }
                Finding::CredentialUsed { key: other, detector: name, .. }
                    if hit.exempt && other == key && name == detector =>
                {
                    return;
                }
                _ if last => return,
                _ => {}
            }
        }
        let (detector, key, place) = (Arc::clone(detector), Arc::clone(key), self.place.to_string().into());
        self.findings.push(match hit.exempt {
            true => Finding::CredentialUsed { detector, place, key },
            false => Finding::Secret { detector, count: 1, place, key },
        });
    }

    fn add_mask(&mut self, hit: &Hit, end: usize) {
        let mut start = hit.start.0;
        let mut bytes = mask::over(&self.kept[start..hit.end], hit.view, hit.start.1, self.decoded.len());
        bytes.extend(self.kept[hit.end..end].iter().map(|byte| mask::fill(*byte, hit.view)));
        let covered = self.masks.last().map_or(0, |mask| mask.start + mask.bytes.len()).max(self.released);
        let skip = covered.saturating_sub(start).min(bytes.len());
        bytes.drain(..skip);
        start += skip;
        if !bytes.is_empty() {
            self.masks.push(Mask { start, bytes });
        }
    }

    /// Appends what `kept` holds before `until` and has not been released, masked where it must be.
    fn release(&mut self, until: usize, out: &mut Vec<Bytes>) {
        while let Some(mask) = self.masks.first_mut().filter(|mask| mask.start < until) {
            push_slice(&self.kept, self.released..mask.start, out);
            let rest = mask.bytes.split_off(mask.bytes.len().min(until - mask.start));
            let bytes = std::mem::replace(&mut mask.bytes, rest);
            self.released = mask.start + bytes.len();
            mask.start = self.released;
            out.push(bytes.into());
            if mask.bytes.is_empty() {
                self.masks.remove(0);
            }
        }
        push_slice(&self.kept, self.released..until, out);
        self.released = self.released.max(until);
    }

    /// Drops what is no longer needed, now that the search goes on at `from`.
    fn forget(&mut self, from: usize) {
        let gone = from.saturating_sub(LOOK_BEHIND).min(self.released);
        // A short rest of a large chunk must not keep the chunk alive.
        let rest = self.kept.slice(gone..);
        self.kept = if rest.len() * 2 < self.kept.len() { Bytes::copy_from_slice(&rest) } else { rest };
        self.released -= gone;
        self.from = from - gone;
        self.masks.iter_mut().for_each(|mask| mask.start -= gone);
    }

    /// Releases, masked if need be, the bytes that carry on a long secret, and gives back the others.
    fn pass_tail(&mut self, mut chunk: Bytes, out: &mut Vec<Bytes>) -> Bytes {
        let Some(tail) = &self.tail else { return chunk };
        let length = run(&chunk, &tail.class);
        let passed = chunk.split_to(length);
        let context = [&self.kept[..], &passed[passed.len().saturating_sub(LOOK_BEHIND)..]].concat();
        if !passed.is_empty() {
            match tail.fill {
                Some(view) => {
                    out.push(passed.iter().map(|byte| mask::fill(*byte, view)).collect::<Vec<u8>>().into());
                }
                None => out.push(passed),
            }
        }
        self.kept = context[context.len().saturating_sub(LOOK_BEHIND)..].to_vec().into();
        self.released = self.kept.len();
        self.from = self.kept.len();
        if !chunk.is_empty() {
            self.tail = None;
        }
        chunk
    }
}

impl fmt::Debug for Scanner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scanner")
            .field("action", &self.action)
            .field("place", &self.place)
            .field("held", &self.held())
            .field("findings", &self.findings)
            .finish_non_exhaustive()
    }
}

/// How many bytes at the beginning of `text` are in the class.
fn run(text: &[u8], class: &Class) -> usize {
    text.iter().take_while(|byte| class.has(**byte)).count()
}

fn push_slice(kept: &Bytes, range: std::ops::Range<usize>, out: &mut Vec<Bytes>) {
    if !range.is_empty() {
        out.push(kept.slice(range));
    }
}

/// What became of one field: a header's value, a path, a query.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scanned {
    /// The field with its secrets masked, where something was.
    pub masked: Option<Vec<u8>>,
    /// What was found.
    pub findings: Vec<Finding>,
}

/// Scans one field that is there as a whole. Costs no allocation where nothing is found.
///
/// # Errors
/// Under [`SecretAction::Block`], a secret.
pub fn scan_field(
    secrets: &Arc<Secrets>,
    key: &DigestKey,
    action: SecretAction,
    exempt: &Exempt,
    place: &Place,
    value: &[u8],
) -> Result<Scanned, Found> {
    let search = Search { secrets, exempt, for_records: false };
    if matches!(search.next(value, 0, true, &mut Vec::new()), Step::Done { .. }) {
        return Ok(Scanned::default());
    }
    let mut scanner = Scanner::new(Arc::clone(secrets), key.clone(), action, exempt.clone(), place.clone());
    let mut out = Vec::new();
    scanner.push(Bytes::copy_from_slice(value), &mut out)?;
    scanner.finish(&mut out)?;
    let passed = out.concat();
    Ok(Scanned { masked: (passed != value).then_some(passed), findings: scanner.findings })
}
