//! The beginning of a JSON object, read as far as it is there: which keys it has, and the strings that stand by them.
//!
//! A body is judged by its first kilobytes, which are seldom a whole document, so this reads tokens and no more: what
//! is cut off or badly formed ends the reading, and what was read until there counts.

use std::borrow::Cow;

/// Keys beyond this are not kept: a body that needs more to be recognised is not one of those looked for.
const KEY_LIMIT: usize = 256;
/// Deeper nesting ends the reading.
const DEPTH_LIMIT: usize = 64;

/// What the beginning of an object says.
#[derive(Debug, Default)]
pub(crate) struct Start<'a> {
    members: Vec<Member<'a>>,
    /// Whether the object ended within what was given.
    complete: bool,
}

#[derive(Debug)]
struct Member<'a> {
    /// The key of the outermost object that this is somewhere under; `None` for that object's own keys.
    parent: Option<usize>,
    key: Cow<'a, str>,
    value: Value<'a>,
}

/// The beginning of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value<'a> {
    Text(Cow<'a, str>),
    Array,
    Object,
    /// A number, a literal, or cut off.
    Other,
}

impl<'a> Start<'a> {
    /// Reads a JSON object, or the first object of an array (a batch). `None` where it is neither.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Start<'a>> {
        let mut reader = Reader { bytes, at: 0 };
        if reader.peek()? == b'[' {
            reader.at += 1;
        }
        (reader.peek()? == b'{').then(|| reader.object())
    }

    /// Whether every key of the object was read.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether the object has the key.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.top(key).is_some()
    }

    /// Whether the object has the key, with an array.
    pub(crate) fn has_array(&self, key: &str) -> bool {
        self.top(key) == Some(&Value::Array)
    }

    /// The string that stands by the key.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        as_text(self.top(key)?)
    }

    /// Whether `key` stands somewhere under the object's own key `parent`.
    pub(crate) fn has_under(&self, parent: &str, key: &str) -> bool {
        self.under(parent, key).next().is_some()
    }

    /// The first string that stands by `key` somewhere under the object's own key `parent`.
    pub(crate) fn text_under(&self, parent: &str, key: &str) -> Option<&str> {
        self.under(parent, key).find_map(as_text)
    }

    /// Of a key that stands there twice the last counts, as it does for almost every server.
    fn top(&self, key: &str) -> Option<&Value<'a>> {
        self.members
            .iter()
            .rev()
            .find(|member| member.parent.is_none() && member.key == key)
            .map(|member| &member.value)
    }

    fn under(&self, parent: &str, key: &str) -> impl Iterator<Item = &Value<'a>> {
        self.members
            .iter()
            .filter(move |member| member.key == key)
            .filter(move |member| member.parent.is_some_and(|at| self.members[at].key == parent))
            .map(|member| &member.value)
    }
}

fn as_text<'v>(value: &'v Value<'_>) -> Option<&'v str> {
    match value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
        self.bytes.get(self.at).copied()
    }

    /// Reads the object that begins here. Below its own keys nesting is flattened: what matters is what is there,
    /// not where.
    fn object(&mut self) -> Start<'a> {
        let mut start = Start::default();
        // One entry for each open bracket: whether strings before a colon are keys there.
        let mut open: Vec<u8> = Vec::new();
        let mut parent = None;
        let mut key: Option<Cow<'a, str>> = None;
        while let Some(byte) = self.peek() {
            let value = match byte {
                b'{' | b'[' => {
                    self.at += 1;
                    open.push(byte);
                    if byte == b'{' { Value::Object } else { Value::Array }
                }
                b'}' | b']' => {
                    self.at += 1;
                    open.pop();
                    if open.is_empty() {
                        start.complete = true;
                        break;
                    }
                    continue;
                }
                b'"' => {
                    let Some(text) = self.string() else { break };
                    if key.is_none() && open.last() == Some(&b'{') && self.peek() == Some(b':') {
                        self.at += 1;
                        key = Some(text);
                        continue;
                    }
                    Value::Text(text)
                }
                b',' | b':' => {
                    self.at += 1;
                    continue;
                }
                _ => {
                    self.scalar();
                    Value::Other
                }
            };
            let opened = matches!(value, Value::Array | Value::Object);
            if let Some(key) = key.take() {
                // The bracket just opened is the value's own.
                let own = open.len() - usize::from(opened) == 1;
                if own {
                    parent = Some(start.members.len());
                }
                start.members.push(Member { parent: if own { None } else { parent }, key, value });
            }
            if start.members.len() >= KEY_LIMIT || open.len() >= DEPTH_LIMIT {
                break;
            }
        }
        start
    }

    /// Reads the string that begins here; `None` where it is cut off or not text.
    fn string(&mut self) -> Option<Cow<'a, str>> {
        let begin = self.at + 1;
        let mut end = begin;
        loop {
            match self.bytes.get(end)? {
                b'"' => break,
                b'\\' => end += 2,
                _ => end += 1,
            }
        }
        self.at = end + 1;
        let text = std::str::from_utf8(&self.bytes[begin..end]).ok()?;
        if !text.contains('\\') {
            return Some(Cow::Borrowed(text));
        }
        serde_json::from_slice(&self.bytes[begin - 1..=end]).ok().map(Cow::Owned)
    }

    /// Skips a number or a literal, or a byte that is neither.
    fn scalar(&mut self) {
        self.at += 1;
        while self
            .bytes
            .get(self.at)
            .is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'+' | b'-'))
        {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_strings_are_read_from_a_whole_object() {
        let start = Start::read(
            br#" { "model": "m-1", "n": 1.5e3, "on": true, "messages": [{"role": "user", "content": "a \"b\" } ]"}],
                 "p": {"name": "x", "q": {"deep": "y"}}, "\u006dethod": "z" } "#,
        )
        .unwrap();
        assert!(start.is_complete());
        assert_eq!(start.text("model"), Some("m-1"));
        assert_eq!(start.text("method"), Some("z"));
        assert!(start.has("n") && start.has("on") && start.has_array("messages"));
        assert!(!start.has("role") && !start.has("name"));
        assert_eq!(start.text_under("messages", "role"), Some("user"));
        assert_eq!(start.text_under("p", "deep"), Some("y"));
        assert!(!start.has_under("messages", "name"));
    }

    #[test]
    fn what_is_cut_off_ends_the_reading_and_nothing_else() {
        let whole = br#"{"model":"m","messages":[{"role":"user","content":"hello"}],"stream":true}"#;
        for end in 0..whole.len() {
            let start = Start::read(&whole[..end]);
            assert!(start.as_ref().is_none_or(|start| !start.is_complete()), "cut at {end}");
            let knows_model = start.is_some_and(|start| start.text("model") == Some("m"));
            assert_eq!(knows_model, end > 11, "cut at {end}");
        }
    }

    #[test]
    fn a_batch_is_its_first_object_and_other_text_is_nothing() {
        assert_eq!(
            Start::read(br#"[{"method":"ping"},{"method":"x"}]"#).unwrap().text("method"),
            Some("ping")
        );
        for other in ["", "  ", "null", "\"text\"", "12", "a=b&c=d", "--boundary", "[1,2]", "\u{1f}\u{8b}"] {
            assert!(Start::read(other.as_bytes()).is_none(), "`{other}`");
        }
        let deep = "{\"a\":".repeat(1000);
        assert!(!Start::read(deep.as_bytes()).unwrap().is_complete());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = Start::read(&[b"{".as_slice(), &bytes].concat());
        }

        #[test]
        fn no_brackets_make_it_panic(text in "[\\[\\]{}:,\"a\\\\ ]{0,80}") {
            let _ = Start::read(text.as_bytes());
        }
    }
}
