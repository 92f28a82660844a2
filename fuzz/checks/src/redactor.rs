//! The redactor: no eight bytes of a planted secret survive, on any way into a record.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use policy::redact::{Excerpt, Redacted, Redactor};
use policy::scan::{DigestKey, Place, Scanner, SecretAction};
use policy::secret::Exempt;

use crate::cuts::Cuts;
use crate::planted::{self, KNOWN, SECRETS};

static REDACTOR: LazyLock<Redactor> = LazyLock::new(|| Redactor::new(Arc::clone(&SECRETS)));

/// Takes a seed and a text in which secrets are planted.
pub fn check(input: &[u8]) {
    let Some((mut cuts, template)) = Cuts::of(input) else { return };
    let text = planted::expand(template);
    let parts = Parts::of(&text);
    let limit = cuts.below(600);
    let (excerpt, truncated) = REDACTOR.excerpt(&text, limit);
    assert!(excerpt.as_str().len() <= limit && (truncated || excerpt.as_str().len() <= limit));
    for (way, redacted) in ways(&text) {
        parts.are_gone(way, &redacted);
        assert!(!redacted.as_str().contains(char::is_control), "{way}: {redacted:?}");
    }
    parts.are_gone("excerpt", &excerpt);
    let mut pushed = Excerpt::new(limit);
    cuts.pieces(&text).iter().for_each(|piece| pushed.push(piece));
    assert_eq!(pushed.finish(&REDACTOR), (excerpt, truncated), "an excerpt depends on the cuts");
}

fn ways(text: &[u8]) -> [(&'static str, Redacted); 8] {
    let redactor = &*REDACTOR;
    [
        ("text", redactor.text(text)),
        ("path", redactor.path([b"/", text].concat())),
        ("query", redactor.path([b"/x?", text].concat())),
        ("url", redactor.url(text)),
        ("url with path", redactor.url([b"https://h.example/", text].concat())),
        ("host", redactor.host(text)),
        ("user-agent", redactor.header_value("user-agent", text)),
        ("referer", redactor.header_value("referer", text)),
    ]
}

/// What must not survive: every eight bytes of a secret that do not stand elsewhere in the text too.
struct Parts(Vec<Vec<u8>>);

impl Parts {
    /// The scanner's opinion of what is secret, and the known values wherever they stand.
    fn of(text: &[u8]) -> Parts {
        let mut rest = masked(text);
        let mut parts: Vec<Vec<u8>> = Vec::new();
        for value in KNOWN.map(str::as_bytes) {
            let stands = |at: &usize| text[*at..].starts_with(value);
            for start in (0..text.len()).filter(stands) {
                rest[start..start + value.len()].fill(0);
            }
        }
        let mut open = false;
        for (now, before) in rest.iter().zip(text) {
            let secret = now != before || *before == b'*';
            if secret && !open {
                parts.push(Vec::new());
            }
            open = secret;
            if let Some(part) = parts.last_mut().filter(|_| secret) {
                part.push(*before);
            }
        }
        // What ends a line is written as an escape, whose letter is then part of what stands beside it.
        let escaped = [("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")];
        let written = escaped.iter().fold(rest.clone(), |text, (raw, written)| {
            let pieces: Vec<&[u8]> = text.split(|byte| *byte == raw.as_bytes()[0]).collect();
            pieces.join(written.as_bytes())
        });
        rest.push(0);
        rest.extend(written);
        // The check's own words.
        rest.extend_from_slice(b"\0https://h.example/x?");
        let elsewhere = |window: &[u8]| rest.windows(window.len()).any(|other| other == window);
        let windows = parts.iter().flat_map(|part| part.windows(8));
        Parts(windows.filter(|window| !is_word(window) && !elsewhere(window)).map(<[u8]>::to_vec).collect())
    }

    fn are_gone(&self, way: &str, redacted: &Redacted) {
        // A detector's name may be part of its prefix.
        let text = redacted.as_str().split("[redacted:");
        let text = text.map(|rest| rest.split_once(']').map_or(rest, |(_, rest)| rest));
        let text = text.collect::<Vec<_>>().join("\0");
        for window in &self.0 {
            let survives = text.as_bytes().windows(8).any(|other| other == window);
            assert!(!survives, "{way}: {:?} survives in {redacted:?}", window.escape_ascii().to_string());
        }
    }
}

/// Words are of a prefix, which is public.
fn is_word(window: &[u8]) -> bool {
    let all = |letter: fn(&u8) -> bool| window.iter().all(|byte| letter(byte) || b"_-".contains(byte));
    all(u8::is_ascii_lowercase) || all(u8::is_ascii_uppercase)
}

fn masked(text: &[u8]) -> Vec<u8> {
    let key = DigestKey::new([1; 32]);
    let mut scanner =
        Scanner::new(Arc::clone(&SECRETS), key, SecretAction::Mask, Exempt::none(), Place::Body);
    let mut out = Vec::new();
    scanner.push(Bytes::copy_from_slice(text), &mut out).expect("mask lets pass");
    scanner.finish(&mut out).expect("mask lets pass");
    out.concat()
}
