//! Which hosts a catalogue entry means: patterns, and the index that finds the most specific one.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

use crate::target::{Host, HostError};

/// A set of hosts, in the catalogue's small grammar.
///
/// * `api.example.com` is that host.
/// * `*.example.com` is every name under it, however deep, and not `example.com` itself.
/// * Elsewhere `*` stands for one or more characters of one label: `*-api.example.com`, `api.*.example.com`.
///   A label holds at most one.
///
/// The labels right of the last `*` must be more than a public suffix, or the pattern would claim what
/// strangers register there.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HostPattern {
    text: Box<str>,
    /// Where the labels without `*` begin: the text from here on is a plain name.
    anchor: usize,
    /// How much stands before the first `*`: most hosts are told apart by that alone.
    start: usize,
}

/// Why some text is not a host pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatternError {
    /// The text without its wildcards is not a host.
    Host(HostError),
    /// More than one `*` in a label.
    Wildcards,
    /// Nothing stands right of the last `*`.
    Everything,
    /// What stands right of the last `*` is a public suffix: strangers' names.
    PublicSuffix,
}

impl HostPattern {
    /// Reads a pattern; case is folded and one trailing dot dropped, as for a [`Host`].
    ///
    /// # Errors
    /// What is outside the grammar, and a wildcard on a public suffix.
    pub fn parse(text: &str) -> Result<HostPattern, PatternError> {
        let pattern = HostPattern::parse_wide(text)?;
        if pattern.is_wide() { Err(PatternError::PublicSuffix) } else { Ok(pattern) }
    }

    /// As [`HostPattern::parse`], for an entry that means to name everyone under a public suffix (`wide = true`).
    ///
    /// # Errors
    /// What is outside the grammar.
    pub fn parse_wide(text: &str) -> Result<HostPattern, PatternError> {
        if text.split('.').any(|label| label.matches('*').count() > 1) {
            return Err(PatternError::Wildcards);
        }
        // A `*` stands for at least one character, so `x` in its place is the shortest host it can mean.
        let shortest = text.replace('*', "x");
        let host = Host::parse(shortest.as_bytes()).map_err(PatternError::Host)?;
        if !text.contains('*') {
            return Ok(HostPattern { text: host.as_str().into(), anchor: 0, start: host.as_str().len() });
        }
        let text = text.trim_end_matches('.').to_ascii_lowercase();
        let last_star = text.rfind('*').unwrap_or(0);
        let anchor =
            text[last_star..].find('.').map(|dot| last_star + dot + 1).ok_or(PatternError::Everything)?;
        let start = text.find('*').unwrap_or(0);
        Ok(HostPattern { text: text.into(), anchor, start })
    }

    /// The pattern as written, in lower case.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether this is one host and no wildcard.
    pub fn is_exact(&self) -> bool {
        self.anchor == 0
    }

    /// Whether `host` is in the set.
    pub fn matches(&self, host: &Host) -> bool {
        let host = host.as_str();
        if self.is_exact() {
            return host == &*self.text;
        }
        let Some(before) = host.strip_suffix(self.anchor_name()) else { return false };
        before.strip_suffix('.').is_some_and(|before| self.matches_before_anchor(before))
    }

    /// The name without wildcards that every host of the set ends in.
    pub(super) fn anchor_name(&self) -> &str {
        &self.text[self.anchor..]
    }

    fn is_wide(&self) -> bool {
        !self.is_exact() && psl::domain_str(self.anchor_name()).is_none()
    }

    /// `before` is what stands left of the anchor and its dot.
    fn matches_before_anchor(&self, before: &str) -> bool {
        if !before.as_bytes().starts_with(&self.text.as_bytes()[..self.start]) {
            return false;
        }
        let mut wanted = self.text[..self.anchor - 1].rsplit('.').peekable();
        let mut given = before.rsplit('.');
        while let Some(label) = wanted.next() {
            let Some(found) = given.next() else { return false };
            let leftmost = wanted.peek().is_none();
            if leftmost && label == "*" {
                return true;
            }
            if !label_matches(label, found) {
                return false;
            }
        }
        given.next().is_none()
    }

    /// More literal characters mean a smaller set.
    fn literal_length(&self) -> usize {
        self.text.len() - self.text.matches('*').count()
    }
}

fn label_matches(pattern: &str, label: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == label,
        Some((start, end)) => {
            label.len() > start.len() + end.len() && label.starts_with(start) && label.ends_with(end)
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostPattern({})", self.text)
    }
}

impl serde::Serialize for HostPattern {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PatternError::Host(error) => error.fmt(f),
            PatternError::Wildcards => f.write_str("a label may hold one `*`"),
            PatternError::Everything => f.write_str("a name must stand right of the last `*`"),
            PatternError::PublicSuffix => {
                f.write_str("everyone can register names there: name the domain, or set `wide = true`")
            }
        }
    }
}

impl std::error::Error for PatternError {}

/// Finds what is said of a host (`T`: a service, a risk) by one hash lookup for each of its parent names.
#[derive(Clone, Debug)]
pub(super) struct Index<T> {
    names: NameMap<Claims<T>>,
    /// Labels of the longest name in `names`: longer suffixes of a host are not looked up.
    depth: usize,
}

/// What is said of one name.
#[derive(Clone, Debug)]
struct Claims<T> {
    exact: Option<T>,
    below: Option<T>,
    /// Patterns anchored at this name other than "everything below", most literal characters first.
    patterns: Vec<(HostPattern, T)>,
}

impl<T> Default for Index<T> {
    fn default() -> Index<T> {
        Index { names: HashMap::default(), depth: 0 }
    }
}

impl<T> Default for Claims<T> {
    fn default() -> Claims<T> {
        Claims { exact: None, below: None, patterns: Vec::new() }
    }
}

impl<T: Copy> Index<T> {
    /// Adds a pattern. Returns what was said of exactly this pattern before.
    pub(super) fn insert(&mut self, pattern: &HostPattern, value: T) -> Option<T> {
        let claims = self.claims(pattern.anchor_name());
        if pattern.is_exact() {
            return claims.exact.replace(value);
        }
        if pattern.anchor == "*.".len() {
            return claims.below.replace(value);
        }
        if let Some((_, old)) = claims.patterns.iter_mut().find(|(known, _)| known == pattern) {
            return Some(std::mem::replace(old, value));
        }
        claims.patterns.push((pattern.clone(), value));
        claims.patterns.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.literal_length()));
        None
    }

    /// Adds a registrable domain: its apex and everything below. Returns what was said of either before.
    pub(super) fn insert_domain(&mut self, domain: &str, value: T) -> Option<T> {
        let claims = self.claims(domain);
        let (apex, below) = (claims.exact.replace(value), claims.below.replace(value));
        apex.or(below)
    }

    fn claims(&mut self, name: &str) -> &mut Claims<T> {
        self.depth = self.depth.max(name.split('.').count());
        self.names.entry(name.into()).or_default()
    }

    /// What the most specific pattern says that `host` is in: the longest name first, and for one name the
    /// host itself before patterns before everything below.
    pub(super) fn find(&self, host: &str) -> Option<T> {
        let mut dots = 0;
        let beyond_depth = host.bytes().rposition(|byte| {
            dots += usize::from(byte == b'.');
            byte == b'.' && dots == self.depth
        });
        let mut start = beyond_depth.map_or(0, |dot| dot + 1);
        loop {
            let name = &host[start..];
            if let Some(claims) = self.names.get(name)
                && let Some(value) = claims.find(start.checked_sub(1).map(|dot| &host[..dot]))
            {
                return Some(value);
            }
            start += memchr::memchr(b'.', name.as_bytes())? + 1;
        }
    }
}

impl<T: Copy> Claims<T> {
    /// `before` is what stands left of the claimed name, if anything does.
    fn find(&self, before: Option<&str>) -> Option<T> {
        let Some(before) = before else { return self.exact };
        let pattern = self.patterns.iter().find(|(pattern, _)| pattern.matches_before_anchor(before));
        pattern.map(|(_, value)| *value).or(self.below)
    }
}

/// A map by names of the catalogue and the policy.
pub(crate) type NameMap<T> = HashMap<Box<str>, T, BuildHasherDefault<NameHasher>>;

/// A set of names of the catalogue and the policy.
pub(crate) type NameSet = HashSet<Box<str>, BuildHasherDefault<NameHasher>>;

/// A hash of a few nanoseconds. Its keys come from the catalogue and the policy, never from a request, so nobody can
/// make them collide; a request's host is only looked up.
#[derive(Clone, Copy, Default)]
pub(crate) struct NameHasher(u64);

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(byte.into());
    }

    fn write_u64(&mut self, word: u64) {
        // An odd multiplier spreads upwards, the rotation brings the spread bits back down.
        self.0 = (self.0.rotate_left(26) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Host {
        Host::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn patterns_mean_what_the_grammar_says() {
        for (pattern, given, expected) in [
            ("api.example.com", "api.example.com", true),
            ("API.Example.com.", "api.example.com", true),
            ("api.example.com", "x.api.example.com", false),
            ("*.example.com", "example.com", false),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "a.b.c.example.com", true),
            ("*.example.com", "notexample.com", false),
            ("*-api.example.com", "eu-api.example.com", true),
            ("*-api.example.com", "-api.example.com", false),
            ("*-api.example.com", "x.eu-api.example.com", false),
            ("api.*.example.com", "api.eu.example.com", true),
            ("api.*.example.com", "api.eu.west.example.com", false),
            ("api.*.example.com", "x.api.eu.example.com", false),
            ("*.s3.*.example.com", "a.b.s3.eu.example.com", true),
            ("*.s3.*.example.com", "s3.eu.example.com", false),
            ("192.0.2.1", "192.0.2.1", true),
        ] {
            let pattern = HostPattern::parse(pattern).unwrap();
            assert_eq!(pattern.matches(&host(given)), expected, "`{pattern}` and `{given}`");
            let mut index = Index::default();
            index.insert(&pattern, 0);
            assert_eq!(index.find(host(given).as_str()).is_some(), expected, "index: `{pattern}`, `{given}`");
        }
    }

    #[test]
    fn patterns_that_claim_too_much_are_refused_with_their_reason() {
        for (given, reason) in [
            ("*", PatternError::Everything),
            ("a.*", PatternError::Everything),
            ("*.com", PatternError::PublicSuffix),
            ("*.co.uk", PatternError::PublicSuffix),
            ("*.github.io", PatternError::PublicSuffix),
            ("api.*.com", PatternError::PublicSuffix),
            ("a*b*c.example.com", PatternError::Wildcards),
            ("**.example.com", PatternError::Wildcards),
            ("", PatternError::Host(HostError::Empty)),
            ("a..example.com", PatternError::Host(HostError::EmptyLabel)),
            ("https://example.com", PatternError::Host(HostError::Character(b':'))),
        ] {
            assert_eq!(HostPattern::parse(given), Err(reason), "`{given}`");
        }
        assert!(HostPattern::parse_wide("*.github.io").is_ok());
    }

    #[test]
    fn the_most_specific_claim_wins() {
        let mut index = Index::default();
        for (id, pattern) in [
            "*.example.com",
            "api.example.com",
            "*.eu.example.com",
            "api.*.example.com",
            "api.e*.example.com",
        ]
        .iter()
        .enumerate()
        {
            index.insert(&HostPattern::parse(pattern).unwrap(), id);
        }
        assert_eq!(index.insert_domain("example.org", 5), None);
        for (given, expected) in [
            ("example.com", None),
            ("www.example.com", Some(0)),
            ("api.example.com", Some(1)),
            ("x.api.example.com", Some(0)),
            ("a.eu.example.com", Some(2)),
            ("api.us.example.com", Some(3)),
            ("api.east.example.com", Some(4)),
            ("example.org", Some(5)),
            ("a.b.c.d.e.f.example.org", Some(5)),
            ("com", None),
        ] {
            assert_eq!(index.find(given), expected, "`{given}`");
        }
    }
}
