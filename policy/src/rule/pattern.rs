//! Patterns over agent names and paths.

use std::fmt;
use std::sync::Arc;

use crate::identity::AgentName;
use crate::path::{RequestPath, push_encoded};

/// A pattern over agent names: `*` stands for any characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AgentPattern(Arc<str>);

impl AgentPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong, with the right spelling.
    pub fn parse(text: &str) -> Result<AgentPattern, String> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.*".contains(&b);
        if !text.is_empty() && text.bytes().all(allowed) {
            return Ok(AgentPattern(text.into()));
        }
        let folded = text.to_ascii_lowercase();
        if !text.is_empty() && folded.bytes().all(allowed) {
            return Err(format!("is not in lower case, as agents are: write `{folded}`"));
        }
        Err("is no agent: they are named with `a-z`, `0-9`, `-`, `_` and `.`, and `*` stands for any of these".to_owned())
    }

    /// Whether the name fits.
    pub fn matches(&self, agent: &AgentName) -> bool {
        glob(self.0.as_bytes(), agent.as_str().as_bytes())
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A pattern over paths: in a segment `*` stands for any characters, and `**` for any number of segments, none
/// among them. `/repos/**` is `/repos` and everything under it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PathPattern {
    text: Arc<str>,
    /// The same in lower case, for the lenient reading of a path; `None` where that is the text.
    folded: Option<Arc<str>>,
}

impl PathPattern {
    /// Reads a pattern into the spelling that request paths are brought into.
    ///
    /// # Errors
    /// What is wrong, with the right spelling where there is one.
    pub fn parse(text: &str) -> Result<PathPattern, String> {
        if !text.starts_with('/') {
            return Err(format!("does not begin with `/`: write `/{text}`"));
        }
        if let Some((path, _)) = text.split_once('?') {
            return Err(format!("has a query, which is not matched: write `{path}`"));
        }
        if let Some(segment) = text.split('/').find(|segment| segment.contains("**") && *segment != "**") {
            return Err(format!("has `**` inside the segment `{segment}`: it must be a segment of its own"));
        }
        let canonical = RequestPath::parse(encode_readable(text).as_bytes())
            .map_err(|error| format!("fits no request: {error}"))?;
        let text: Arc<str> = canonical.as_str().into();
        let folded = fold(&text);
        Ok(PathPattern { folded: (folded != *text).then(|| folded.into()), text })
    }

    /// Whether a canonical path fits.
    pub fn matches(&self, path: &str) -> bool {
        matches_segments(&self.text, path)
    }

    /// Whether a path, letter case and encoding apart, fits.
    pub(super) fn matches_folded(&self, lenient: &str) -> bool {
        matches_segments(self.folded.as_deref().unwrap_or(&self.text), lenient)
    }

    /// The pattern in canonical spelling.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Paths are written as people read them: spaces and letters beyond ASCII are encoded here.
fn encode_readable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && !matches!(byte, b'"' | b'#' | b'<' | b'>') {
            out.push(char::from(byte));
        } else {
            push_encoded(&mut out, byte);
        }
    }
    out
}

/// The lenient spelling of a pattern, as [`RequestPath::lenient`] spells paths. `*` and `**` are kept.
fn fold(text: &str) -> String {
    let path = RequestPath::parse(text.as_bytes());
    path.ok().and_then(|path| path.lenient().map(str::to_owned)).unwrap_or_else(|| text.to_owned())
}

fn matches_segments(pattern: &str, path: &str) -> bool {
    let pattern: &str = pattern.strip_prefix('/').unwrap_or(pattern);
    let path: &str = path.strip_prefix('/').unwrap_or(path);
    // Two cursors over segments; `retry` is where to go on when the last `**` has to take one more segment.
    let (mut wanted, mut given) = (Some(pattern), Some(path));
    let mut retry: Option<(Option<&str>, &str)> = None;
    loop {
        let step = match (wanted.map(first_segment), given.map(first_segment)) {
            (Some(("**", after)), _) => {
                if after.is_none() {
                    return true;
                }
                retry = given.map(|rest| (after, rest));
                wanted = after;
                continue;
            }
            (Some((want, want_after)), Some((give, give_after)))
                if glob(want.as_bytes(), give.as_bytes()) =>
            {
                (want_after, give_after)
            }
            (None, None) => return true,
            _ => match retry.take() {
                None => return false,
                Some((after, rest)) => {
                    let (_, rest) = first_segment(rest);
                    let Some(rest) = rest else { return false };
                    retry = Some((after, rest));
                    (after, Some(rest))
                }
            },
        };
        (wanted, given) = step;
    }
}

fn first_segment(path: &str) -> (&str, Option<&str>) {
    match path.split_once('/') {
        Some((segment, rest)) => (segment, Some(rest)),
        None => (path, None),
    }
}

/// `*` stands for any bytes. Linear but for backtracking to the last `*`.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && pattern[p] == text[t] {
            p += 1;
            t += 1;
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            p = at + 1;
            t = taken + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_matched_segment_by_segment() {
        for (pattern, path, fits) in [
            ("/", "/", true),
            ("/", "/a", false),
            ("/a", "/a", true),
            ("/a", "/a/", false),
            ("/a", "/A", false),
            ("/a/*", "/a/b", true),
            ("/a/*", "/a/", true),
            ("/a/*", "/a", false),
            ("/a/*", "/a/b/c", false),
            ("/a/*", "/a//b", false),
            ("/*", "/@scope%2Fname", true),
            ("/a/**", "/a", true),
            ("/a/**", "/a/", true),
            ("/a/**", "/a/b/c", true),
            ("/a/**", "/ab", false),
            ("/**", "/", true),
            ("/**", "/a/b", true),
            ("/**/c", "/c", true),
            ("/**/c", "/a/b/c", true),
            ("/**/c", "/a/b/cd", false),
            ("/**/c", "/c/c/c/d/c", true),
            ("/a/**/d/*", "/a/b/c/d/e", true),
            ("/a/**/d/*", "/a/d/e", true),
            ("/a/**/d/*", "/a/d", false),
            ("/a/**/d/**/f", "/a/d/d/e/f", true),
            ("/a*c/d", "/abc/d", true),
            ("/a*c/d", "/ac/d", true),
            ("/a*c/d", "/ab/d", false),
            ("/v1/models/*:generateContent", "/v1/models/m-1:generateContent", true),
            ("/caf\u{e9}", "/caf%C3%A9", true),
            ("/a b", "/a%20b", true),
            ("/%7Euser", "/~user", true),
            ("/%41", "/A", true),
        ] {
            let pattern = PathPattern::parse(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
            assert_eq!(pattern.matches(path), fits, "{pattern} {path}");
        }
    }

    #[test]
    fn bad_patterns_say_how_to_write_them() {
        for (pattern, message) in [
            ("repos/**", "does not begin with `/`: write `/repos/**`"),
            ("/a?b=c", "has a query, which is not matched: write `/a`"),
            ("/a/**b", "has `**` inside the segment `**b`: it must be a segment of its own"),
            ("/a/../b", "fits no request: the path has a dot segment"),
            ("//a", "fits no request: the path begins with `//`"),
            ("/a\\b", "fits no request: the path has a backslash"),
            ("/a%", "fits no request: the path has a `%` without two hexadecimal digits"),
        ] {
            assert_eq!(PathPattern::parse(pattern).unwrap_err(), message, "{pattern}");
        }
    }

    #[test]
    fn agents_are_matched_whole() {
        for (pattern, agent, fits) in [
            ("claude", "claude", true),
            ("claude", "claude-2", false),
            ("claude-*", "claude-2", true),
            ("claude-*", "claude-", true),
            ("claude-*", "claude", false),
            ("*-ci", "team-a-ci", true),
            ("*", "anonymous", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
        ] {
            let agent: AgentName = agent.parse().unwrap();
            assert_eq!(AgentPattern::parse(pattern).unwrap().matches(&agent), fits, "{pattern} {agent}");
        }
        assert!(AgentPattern::parse("Claude-*").unwrap_err().ends_with("write `claude-*`"));
        assert!(AgentPattern::parse("").is_err());
        assert!(AgentPattern::parse("a b").is_err());
    }

    proptest::proptest! {
        #[test]
        fn a_glob_agrees_with_its_definition(pattern in "[ab*]{0,6}", text in "[ab]{0,8}") {
            fn slow(p: &[u8], t: &[u8]) -> bool {
                match (p, t) {
                    ([], []) => true,
                    ([b'*', rest @ ..], _) => slow(rest, t) || (!t.is_empty() && slow(p, &t[1..])),
                    ([a, p @ ..], [b, t @ ..]) => a == b && slow(p, t),
                    _ => false,
                }
            }
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), slow(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn segments_agree_with_their_definition(pattern in "(/(a|b|\\*|\\*\\*)){1,5}", path in "(/[ab]?){1,6}") {
            fn slow(p: &[&str], t: &[&str]) -> bool {
                match (p, t) {
                    ([], []) => true,
                    (["**", rest @ ..], _) => slow(rest, t) || (!t.is_empty() && slow(p, &t[1..])),
                    ([a, p @ ..], [b, t @ ..]) => (*a == "*" || a == b) && slow(p, t),
                    _ => false,
                }
            }
            let split = |text: &str| text[1..].split('/').map(str::to_owned).collect::<Vec<_>>();
            let (p, t) = (split(&pattern), split(&path));
            let (p, t): (Vec<_>, Vec<_>) = (p.iter().map(String::as_str).collect(), t.iter().map(String::as_str).collect());
            assert_eq!(matches_segments(&pattern, &path), slow(&p, &t));
        }
    }
}
