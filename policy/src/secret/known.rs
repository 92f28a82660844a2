//! Values an operator knows: found exactly as they are, in every common encoding.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::cursor::{Cursor, Next, View};
use super::lead::{Beginning, Entry, Kinds, Lead, Rest, Start, Way, starts_of};
use super::pattern::LEAD;

/// Shorter values occur by chance.
pub const SHORTEST: usize = 8;

/// Longer values are known by their beginning.
const LONGEST: usize = 4096;

/// A value to be found, and the name it is reported by (`env:GITHUB_TOKEN`). Debug does not print the value.
#[derive(Clone)]
pub struct KnownValue {
    name: Arc<str>,
    value: Arc<[u8]>,
}

/// Two are equal where the value is: by what name it is reported does not count.
impl PartialEq for KnownValue {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Eq for KnownValue {}

impl Hash for KnownValue {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.value.hash(state);
    }
}

/// Why a value is not looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// It has fewer than eight bytes.
    Short,
    /// It is a number.
    Number,
    /// It is a word of lower-case letters.
    Word,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Short => "it has fewer than eight bytes and would be found by chance",
            Self::Number => "it is a plain number and would be found by chance",
            Self::Word => "it is a plain word and would be found by chance",
        })
    }
}

impl KnownValue {
    /// A value worth looking for. White space around it does not belong to it.
    ///
    /// # Errors
    /// Values that would be found where nobody put them are refused with the reason, to be shown as a warning.
    pub fn new(name: impl Into<Arc<str>>, value: &[u8]) -> Result<Self, Skipped> {
        let value = value.trim_ascii();
        if value.len() < SHORTEST {
            return Err(Skipped::Short);
        }
        if value.iter().all(|byte| byte.is_ascii_digit() || b".,-+ ".contains(byte)) {
            return Err(Skipped::Number);
        }
        if value.iter().all(u8::is_ascii_lowercase) {
            return Err(Skipped::Word);
        }
        Ok(Self { name: name.into(), value: value[..value.len().min(LONGEST)].into() })
    }

    /// The name it is reported by.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn value(&self) -> &[u8] {
        &self.value
    }

    /// Everything the value can begin with.
    pub(crate) fn starts(&self, target: u32) -> Vec<Start> {
        let Some(first) = self.value.first_chunk::<LEAD>() else { return Vec::new() };
        // A form writes a space as `+`, which is of the same kind.
        let then = Kinds::of(self.value.get(LEAD).copied());
        let rest = self.value[LEAD..].split(|byte| *byte == b' ').next().unwrap_or_default();
        let beginning = Beginning { lead: *first, then, rest: Rest::of(rest, false) };
        let mut starts = starts_of(beginning, false, target);
        let entry = |view| Entry { target, view, rest: Rest::default() };
        let start = |lead, view| Start { lead, then: Kinds::ALL, entry: entry(view) };
        starts.extend(short_escapes(&self.value).map(|lead| start(lead, Way::Text)));
        starts.extend(form_spaces(*first).map(|lead| start(lead, Way::Text)));
        for hex in [format!("{:02x}{:02x}", first[0], first[1]), format!("{:02X}{:02X}", first[0], first[1])]
        {
            let lead = hex.as_bytes().first_chunk::<LEAD>();
            starts.extend(lead.map(|lead| start(Lead::of(*lead), Way::Hex)));
        }
        starts
    }

    /// Whether the value stands at the cursor.
    pub(crate) fn matches(&self, text: &[u8], cursor: Cursor<'_>, view: View) -> KnownMatch {
        let (pos, _) = cursor.place();
        let raw = if view == View::Text { self.stands_raw(text, cursor) } else { KnownMatch::No };
        match raw {
            KnownMatch::No => self.stands_encoded(cursor, view),
            // What may still be raw may be encoded too, where an escape is in it; the longer reading decides.
            KnownMatch::Wait { .. } => match self.stands_encoded(cursor, view) {
                KnownMatch::No | KnownMatch::Wait { .. } => KnownMatch::Wait { hold: pos },
                matched => matched,
            },
            matched => matched,
        }
    }

    fn stands_raw(&self, text: &[u8], cursor: Cursor<'_>) -> KnownMatch {
        let (pos, _) = cursor.place();
        let rest = &text[pos..];
        if rest.starts_with(&self.value) {
            KnownMatch::Yes { start: (pos, 0), end: pos + self.value.len() }
        } else if !cursor.is_last() && self.value.starts_with(rest) {
            KnownMatch::Wait { hold: pos }
        } else {
            KnownMatch::No
        }
    }

    fn stands_encoded(&self, mut cursor: Cursor<'_>, view: View) -> KnownMatch {
        let start = cursor.place();
        for expected in self.value.iter() {
            match cursor.next() {
                Next::Byte(byte) if byte == *expected => {}
                Next::Byte(b'+') if *expected == b' ' && view == View::Text => {}
                Next::Wait => return KnownMatch::Wait { hold: start.0 },
                _ => return KnownMatch::No,
            }
        }
        KnownMatch::Yes { start, end: cursor.pos() }
    }
}

/// Whether a known value stands at a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum KnownMatch {
    No,
    Wait { hold: usize },
    Yes { start: (usize, u8), end: usize },
}

/// The lead of a value whose first bytes JSON writes with a short escape.
fn short_escapes(value: &[u8]) -> impl Iterator<Item = Lead> {
    let escaped: Vec<u8> = value[..LEAD]
        .iter()
        .flat_map(|byte| match byte {
            b'"' => b"\\\"".to_vec(),
            b'\\' => b"\\\\".to_vec(),
            b'\n' => b"\\n".to_vec(),
            b'\r' => b"\\r".to_vec(),
            b'\t' => b"\\t".to_vec(),
            other => vec![*other],
        })
        .collect();
    escaped.first_chunk::<LEAD>().map(|lead| Lead::of(*lead)).into_iter()
}

/// The lead of a value with a space in it, as a form writes it.
fn form_spaces(first: [u8; LEAD]) -> impl Iterator<Item = Lead> {
    first
        .contains(&b' ')
        .then(|| Lead::of(first.map(|byte| if byte == b' ' { b'+' } else { byte })))
        .into_iter()
}

impl fmt::Debug for KnownValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KnownValue").field(&self.name).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_occur_by_chance_are_refused_with_the_reason() {
        for (value, reason) in [
            ("", Skipped::Short),
            ("s3cr3t!", Skipped::Short),
            ("  s3cr3t!  ", Skipped::Short),
            ("123456789012", Skipped::Number),
            ("2024-01-01", Skipped::Number),
            ("development", Skipped::Word),
        ] {
            assert_eq!(KnownValue::new("env:X", value.as_bytes()).unwrap_err(), reason, "{value}");
        }
        assert!(KnownValue::new("env:X", b"correct horse").is_ok());
    }

    #[test]
    fn debug_prints_the_name_alone() {
        let known = KnownValue::new("env:TOKEN", b"Tr0ub4dor&3").expect("long enough");
        assert_eq!(format!("{known:?}"), "KnownValue(\"env:TOKEN\")");
    }
}
