//! What the wanted traffic of one destination was like: how much, by which methods, under which paths.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Tally;
use crate::observed::{Observed, SeenPath};
use crate::record::Finding;
use crate::request::Kind;
use crate::target::Scheme;
use crate::verdict::Class;

/// More methods than this are as good as all.
const METHODS: usize = 8;
/// Segments of a path that a suggestion goes down to.
const DEPTH: usize = 3;

/// The traffic of one destination.
#[derive(Clone, Debug)]
pub(super) struct Traffic {
    pub tally: Tally,
    pub class: Class,
    pub methods: BTreeSet<String>,
    /// Whether every request could be read, with method and path.
    pub read: bool,
    pub websocket: bool,
    pub encrypted: bool,
    pub large: u64,
    pub model: Option<Arc<str>>,
    pub mcp: bool,
    /// What all paths begin with.
    prefix: Option<Prefix>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Prefix {
    segments: Vec<String>,
    /// All paths are this one.
    whole: bool,
}

impl Default for Traffic {
    fn default() -> Traffic {
        Traffic {
            tally: Tally::default(),
            class: Class::Unknown,
            methods: BTreeSet::new(),
            read: true,
            websocket: false,
            encrypted: false,
            large: 0,
            model: None,
            mcp: false,
            prefix: None,
        }
    }
}

impl Traffic {
    pub(super) fn add(&mut self, seen: &Observed) {
        self.tally.add(seen);
        self.class = seen.class;
        self.websocket |= seen.kind == Kind::WebSocket;
        self.encrypted |= seen.scheme == Some(Scheme::Https);
        match &seen.method {
            Some(method) if is_method(method) && seen.kind != Kind::Connect => {
                if self.methods.len() <= METHODS && !self.methods.contains(method) {
                    self.methods.insert(method.clone());
                }
            }
            _ => self.read = false,
        }
        match seen.seen_path() {
            SeenPath::Plain(path) => self.narrow(Prefix::of(path.as_str())),
            SeenPath::Hidden | SeenPath::None => self.read = false,
        }
        for finding in &seen.findings {
            match finding {
                Finding::LargeUpload { .. } => self.large += 1,
                Finding::ModelShaped { api } => self.model = Some(Arc::clone(api)),
                Finding::McpShaped => self.mcp = true,
                _ => {}
            }
        }
    }

    /// Adds the traffic of another destination that one entry is to cover, too.
    pub(super) fn join(&mut self, other: &Traffic) {
        self.tally.join(&other.tally);
        self.methods.extend(other.methods.iter().cloned());
        self.read &= other.read;
        self.websocket |= other.websocket;
        self.encrypted |= other.encrypted;
        self.large += other.large;
        self.model = self.model.take().or_else(|| other.model.clone());
        self.mcp |= other.mcp;
        match &other.prefix {
            Some(prefix) => self.narrow(prefix.clone()),
            None => self.prefix = Some(Prefix { segments: Vec::new(), whole: false }),
        }
    }

    /// Whether nothing but reading was seen.
    pub(super) fn only_reads(&self) -> bool {
        let reads = |method: &String| matches!(method.as_str(), "GET" | "HEAD" | "OPTIONS");
        self.read && !self.websocket && !self.methods.is_empty() && self.methods.iter().all(reads)
    }

    /// The pattern that all paths fit, if it says anything.
    pub(super) fn path_pattern(&self) -> Option<String> {
        let Prefix { segments, whole } = self.prefix.as_ref().filter(|_| self.read)?;
        // What would stand for other characters in a pattern ends it.
        let plain =
            segments.iter().take_while(|segment| !segment.contains('*') && !segment.is_empty()).count();
        if *whole && plain == segments.len() && plain > 0 {
            return Some(format!("/{}", segments.join("/")));
        }
        let kept = &segments[..plain.min(DEPTH)];
        (!kept.is_empty()).then(|| format!("/{}/**", kept.join("/")))
    }

    fn narrow(&mut self, other: Prefix) {
        let Some(prefix) = &mut self.prefix else {
            self.prefix = Some(other);
            return;
        };
        if *prefix == other {
            return;
        }
        let pairs = prefix.segments.iter().zip(&other.segments);
        let common = pairs.take_while(|(a, b)| a == b).count();
        prefix.segments.truncate(common);
        prefix.whole = false;
    }
}

impl Prefix {
    fn of(path: &str) -> Prefix {
        let path = path.strip_prefix('/').unwrap_or(path);
        Prefix { segments: path.split('/').map(str::to_owned).collect(), whole: true }
    }
}

/// What may stand in a rule's `methods`.
fn is_method(text: &str) -> bool {
    !text.is_empty() && text.len() <= 32 && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::observed::tests::observed;

    #[test]
    fn a_pattern_is_what_all_paths_begin_with() {
        for (paths, pattern) in [
            (&["/"][..], None),
            (&["/api/collect", "/api/collect"], Some("/api/collect")),
            (&["/api/a", "/api/b"], Some("/api/**")),
            (&["/api", "/api/b"], Some("/api/**")),
            (&["/a/b/c/d/1", "/a/b/c/d/2"], Some("/a/b/c/**")),
            (&["/a/b", "/c"], None),
            (&["/apple/x", "/apply/x"], None),
            (&["/a/*", "/a/*"], Some("/a/**")),
            (&["/docs/", "/docs/"], Some("/docs/**")),
            (&["/a/x?q=[redacted:query]", "/a/y"], Some("/a/**")),
            (&["/a/b", "/a/[redacted:aws-access-key]"], None),
        ] {
            let mut traffic = Traffic::default();
            for path in paths {
                traffic.add(&observed(json!({ "path": path })));
            }
            assert_eq!(traffic.path_pattern().as_deref(), pattern, "{paths:?}");
            let Some(pattern) = traffic.path_pattern() else { continue };
            let pattern = crate::rule::PathPattern::parse(&pattern).unwrap();
            for path in paths {
                let path = path.split('?').next().unwrap();
                assert!(pattern.matches(path), "`{pattern}` is to match `{path}`");
            }
        }
    }
}
