//! The only way text gets from a request into a record.
//!
//! A [`Redacted`] is made by the [`Redactor`], by the program's own literals, or by reading a record back; nothing
//! else makes one, so whatever takes a `Redacted` cannot be given a secret by mistake.

mod personal;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::secret::{Class, Exempt, Hit, Search, Secrets, Step};

/// Text that has passed the redactor, or never came from a request.
///
/// It can be read back, because records are; whatever is read was redacted before it was written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Redacted(String);

impl Redacted {
    /// Text of the program itself.
    pub fn literal(text: &'static str) -> Redacted {
        Redacted(text.to_owned())
    }

    /// Text read back from a record, where it arrived redacted.
    pub fn from_store(text: String) -> Redacted {
        Redacted(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Fields longer than this many bytes are cut.
const LONGEST_FIELD: usize = 2048;

/// What stands at the end of what was cut.
const CUT: &str = "…[truncated]";

/// Headers whose values say nothing secret; those of all others are not kept.
const PLAIN_HEADERS: [&str; 19] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "cache-control",
    "connection",
    "content-encoding",
    "content-language",
    "content-length",
    "content-type",
    "date",
    "expect",
    "host",
    "range",
    "server",
    "te",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
];

/// Takes secrets out of text.
#[derive(Clone, Debug)]
pub struct Redactor {
    secrets: Arc<Secrets>,
}

impl Redactor {
    /// A redactor that knows the detectors and these known values.
    pub fn new(secrets: Arc<Secrets>) -> Self {
        Self { secrets }
    }

    /// Any text: secrets become `[redacted:DETECTOR]`, control characters are written out, what is long is cut.
    pub fn text(&self, text: impl AsRef<[u8]>) -> Redacted {
        Redacted(cut(printable(&self.without_secrets(text.as_ref())), LONGEST_FIELD))
    }

    /// A path with or without a query, whose values all become `[redacted:query]`.
    pub fn path(&self, path: impl AsRef<[u8]>) -> Redacted {
        // As a whole first: a value may have a question mark in it.
        Redacted(cut(self.plain_path(&self.without_secrets(path.as_ref())), LONGEST_FIELD))
    }

    /// An absolute URL, or one without scheme: loses user and password, its host and path are redacted like those.
    pub fn url(&self, url: impl AsRef<[u8]>) -> Redacted {
        // As a whole first: some secrets are told by the host before them.
        let url = &self.without_secrets(url.as_ref())[..];
        let (scheme, rest) = match memchr::memmem::find(url, b"://") {
            Some(end) => url.split_at(end + 3),
            None => return self.path(url),
        };
        let end = rest.iter().position(|byte| b"/?#".contains(byte)).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let host = authority.rsplit(|byte| *byte == b'@').next().unwrap_or_default();
        let scheme = printable(&self.without_secrets(scheme));
        Redacted(cut(format!("{scheme}{}{}", self.plain_host(host), self.plain_path(path)), LONGEST_FIELD))
    }

    /// A host with or without port: labels that hold a secret are redacted.
    pub fn host(&self, host: impl AsRef<[u8]>) -> Redacted {
        Redacted(cut(self.plain_host(host.as_ref()), LONGEST_FIELD))
    }

    /// A header's value: kept where the header is known to say nothing secret, and redacted even there.
    pub fn header_value(&self, name: &str, value: impl AsRef<[u8]>) -> Redacted {
        let name = name.to_ascii_lowercase();
        match name.as_str() {
            "referer" | "origin" | "location" => self.url(value),
            _ if PLAIN_HEADERS.contains(&name.as_str()) => self.text(value),
            _ => Redacted::literal("[redacted:header]"),
        }
    }

    /// The beginning of a body, and whether it was cut to `limit` bytes. Secrets, card and account numbers and mail
    /// addresses are taken out first, so that a cut through one of them leaves no part of it.
    pub fn excerpt(&self, body: &[u8], limit: usize) -> (Redacted, bool) {
        let mut excerpt = Excerpt::new(limit);
        excerpt.push(body);
        excerpt.finish(self)
    }

    fn plain_host(&self, host: &[u8]) -> String {
        // Hosts arrive in lower case, in which credentials of capitals only would not be recognised.
        let found = self.name_of_secret(host).or_else(|| self.name_of_secret(&host.to_ascii_uppercase()));
        let Some(name) = found else { return printable(host) };
        let hidden = format!("[redacted:{name}]");
        if self.crosses_labels(host) || self.crosses_labels(&host.to_ascii_uppercase()) {
            return hidden;
        }
        // As a whole first: what stands in the label before may belong to it.
        let host = self.without_secrets(host);
        let labels = host.split(|byte| *byte == b'.').map(|label| {
            let secret = |label: &[u8]| self.name_of_secret(label).is_some();
            let taken_out = memchr::memmem::find(label, b"[redacted:").is_some();
            if taken_out || secret(label) || secret(&label.to_ascii_uppercase()) {
                hidden.clone()
            } else {
                printable(label)
            }
        });
        let labels: Vec<String> = labels.collect();
        if labels.contains(&hidden) { labels.join(".") } else { hidden }
    }

    /// Whether a secret has dots in it: no label shows it by itself, not even beside one that holds another secret.
    fn crosses_labels(&self, host: &[u8]) -> bool {
        let (mut from, mut decoded) = (0, Vec::new());
        while let Step::Hit(hit) = self.search().next(host, from, true, &mut decoded) {
            let end = end_of(&hit, host);
            if host[hit.start.0..end].contains(&b'.') {
                return true;
            }
            from = from.max(hit.start.0) + 1;
        }
        false
    }

    fn plain_path(&self, path: &[u8]) -> String {
        let end = path.iter().position(|byte| b"?#".contains(byte)).unwrap_or(path.len());
        let (path, query) = path.split_at(end);
        let mut text = printable(&self.without_secrets(path));
        if let Some((mark, query)) = query.split_first() {
            text.push(char::from(*mark));
            let pairs: Vec<String> =
                query.split(|byte| b"&;".contains(byte)).map(|pair| self.plain_pair(pair)).collect();
            text.push_str(&pairs.join("&"));
        }
        text
    }

    /// `key=value` of a query. A key by itself may be a value pasted without one.
    fn plain_pair(&self, pair: &[u8]) -> String {
        const LONGEST_KEY: usize = 48;
        match pair.iter().position(|byte| *byte == b'=') {
            _ if pair.is_empty() => String::new(),
            Some(end) if end <= LONGEST_KEY => {
                format!("{}=[redacted:query]", printable(&self.without_secrets(&pair[..end])))
            }
            _ => "[redacted:query]".to_owned(),
        }
    }

    fn search(&self) -> Search<'_> {
        Search { secrets: &self.secrets, exempt: NOTHING, for_records: true }
    }

    fn name_of_secret(&self, text: &[u8]) -> Option<Arc<str>> {
        match self.search().next(text, 0, true, &mut Vec::new()) {
            Step::Hit(hit) => Some(self.secrets.name(hit.source)),
            _ => None,
        }
    }

    fn without_secrets<'t>(&self, text: &'t [u8]) -> Cow<'t, [u8]> {
        self.without_secrets_of(text, true)
    }

    /// `complete` says that the text is all there is; else what may be a secret cut short goes too.
    fn without_secrets_of<'t>(&self, text: &'t [u8], complete: bool) -> Cow<'t, [u8]> {
        let mut kept = Vec::new();
        let (mut copied, mut from) = (0, 0);
        let mut decoded = Vec::new();
        let end = loop {
            match self.search().next(text, from, complete, &mut decoded) {
                Step::Hit(hit) => {
                    let end = end_of(&hit, text);
                    if hit.start.0 >= copied {
                        kept.extend_from_slice(&text[copied..hit.start.0]);
                        kept.extend_from_slice(
                            format!("[redacted:{}]", self.secrets.name(hit.source)).as_bytes(),
                        );
                    }
                    copied = copied.max(end);
                    // Not from its end: another secret may begin within and go on beyond it.
                    from = from.max(hit.start.0) + 1;
                }
                Step::Open { start, .. } => break start,
                Step::Done { .. } => break text.len(),
            }
        };
        if copied == 0 && end == text.len() {
            return Cow::Borrowed(text);
        }
        kept.extend_from_slice(text.get(copied..end).unwrap_or_default());
        Cow::Owned(kept)
    }
}

/// Where a secret ends, with what carries a long one on.
fn end_of(hit: &Hit, text: &[u8]) -> usize {
    let tail = |class: &Class| text[hit.end..].iter().take_while(|byte| class.has(**byte)).count();
    hit.end + hit.tail.as_ref().map_or(0, tail)
}

const NOTHING: &Exempt = &Exempt { detectors: Vec::new(), known: Vec::new() };

/// Gathers the beginning of a body for its record, in bounded memory.
pub struct Excerpt {
    limit: usize,
    bytes: Vec<u8>,
    /// Whether there was more than is kept here.
    overflowed: bool,
}

/// Read beyond the limit, so that a secret which begins before it is recognised whole.
const BEYOND: usize = 16 << 10;

impl Excerpt {
    /// An excerpt of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, bytes: Vec::new(), overflowed: false }
    }

    /// Takes the next bytes of the body, decoded.
    pub fn push(&mut self, bytes: &[u8]) {
        let room = (self.limit + BEYOND).saturating_sub(self.bytes.len());
        self.overflowed |= bytes.len() > room;
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// The excerpt, and whether the body was longer.
    pub fn finish(self, redactor: &Redactor) -> (Redacted, bool) {
        let clean = redactor.without_secrets_of(&self.bytes, !self.overflowed);
        let clean = personal::without_personal(&clean);
        // Nothing becomes shorter by being printable: what is more than this, and a character cut in two, is cut off.
        let text = printable(&clean[..clean.len().min(self.limit + 4)]);
        let truncated = self.overflowed || text.len() > self.limit;
        (Redacted(cut(text, self.limit)), truncated)
    }
}

impl fmt::Debug for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Excerpt")
            .field("limit", &self.limit)
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// Text that does nothing to a terminal or to the eye: control characters and those that reorder or hide are written
/// out, bytes that are no UTF-8 become `�`.
fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    if !text.chars().any(is_treacherous) {
        return text.into_owned();
    }
    let mut plain = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        if is_treacherous(char) { plain.extend(char.escape_default()) } else { plain.push(char) }
    }
    plain
}

fn is_treacherous(char: char) -> bool {
    let hidden = matches!(char, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    char.is_control() || hidden
}

/// At most `limit` bytes, with a mark where something is missing.
fn cut(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        let end =
            (0..=limit.saturating_sub(CUT.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        if limit >= CUT.len() {
            text.push_str(CUT);
        }
    }
    text
}

#[cfg(test)]
mod tests;
