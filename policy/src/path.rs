//! The path of a request in the one spelling in which it is matched and sent on.
//!
//! A server and a rule that read one path differently are how path rules are bypassed, so a path that could be
//! read in two ways about *where* it points (dot segments, backslashes, control characters) is refused, and one
//! that could be read in two ways about *what it is called* (`//`, `%2F`, `;x`, case) keeps its second reading
//! beside it: rules that allow see the first, rules that stop see both.

use std::fmt;

/// An absolute path, percent-decoded where that changes nothing, without dot segments; and the raw query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestPath {
    path: String,
    query: Option<String>,
    /// The reading of a lenient server, where it differs: decoded, folded, without parameters and empty segments.
    lenient: Option<String>,
}

/// Why a path is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// It does not begin with `/`; `*` is among these.
    NotAbsolute,
    /// It begins with `//`, which some read as an authority.
    DoubleSlash,
    /// A `.` or `..` segment, plain, encoded once or twice, or with parameters (`..;x`).
    DotSegment,
    /// A backslash, plain or encoded, which some read as a slash.
    Backslash,
    /// A control character, plain or encoded; NUL among them.
    Control,
    /// A byte beyond ASCII, or an ASCII character that no URL may hold.
    Character(u8),
    /// A `%` without two hexadecimal digits.
    Percent,
}

impl RequestPath {
    /// Reads what stands in a request line from the path on: `/path?query`. Empty is `/`.
    ///
    /// Percent-encoded unreserved characters are decoded and what stays encoded is written in upper case
    /// (RFC 3986, section 6.2.2); nothing else changes. `%2F` stays encoded, so `@scope%2fname` is one segment.
    /// The query is not touched.
    ///
    /// # Errors
    /// What makes it malformed or ambiguous.
    pub fn parse(path_and_query: &[u8]) -> Result<RequestPath, PathError> {
        let (path, query) = match path_and_query.iter().position(|b| *b == b'?') {
            Some(at) => (&path_and_query[..at], Some(&path_and_query[at + 1..])),
            None => (path_and_query, None),
        };
        let path = if path.is_empty() { "/".to_owned() } else { canonical(path)? };
        let query = query.map(plain_query).transpose()?;
        refuse_dot_segments(&path)?;
        let lenient = lenient_reading(&path);
        Ok(RequestPath { path, query, lenient })
    }

    /// The canonical path, beginning with `/`.
    pub fn as_str(&self) -> &str {
        &self.path
    }

    /// The query as sent, without `?`.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// Exactly what is sent on: the canonical path, and the query where there is one.
    pub fn forwarded(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }

    /// How a lenient server may read the path, where that is not how it stands.
    pub(crate) fn lenient(&self) -> Option<&str> {
        self.lenient.as_deref()
    }
}

fn canonical(path: &[u8]) -> Result<String, PathError> {
    match path {
        [b'/', b'/', ..] => return Err(PathError::DoubleSlash),
        [b'/', ..] => {}
        _ => return Err(PathError::NotAbsolute),
    }
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let [byte, after @ ..] = rest {
        rest = after;
        match byte {
            b'%' => {
                let (byte, after) = percent_decoded(after)?;
                rest = after;
                push_decoded(&mut out, byte)?;
            }
            b'\\' => return Err(PathError::Backslash),
            0..=31 | 127 => return Err(PathError::Control),
            b' ' | b'"' | b'#' | b'<' | b'>' | 128.. => return Err(PathError::Character(*byte)),
            _ => out.push(char::from(*byte)),
        }
    }
    Ok(out)
}

fn percent_decoded(after: &[u8]) -> Result<(u8, &[u8]), PathError> {
    match after {
        [high, low, rest @ ..] => match (hex(*high), hex(*low)) {
            (Some(high), Some(low)) => Ok(((high << 4) | low, rest)),
            _ => Err(PathError::Percent),
        },
        _ => Err(PathError::Percent),
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

fn push_decoded(out: &mut String, byte: u8) -> Result<(), PathError> {
    match byte {
        0..=31 | 127 => Err(PathError::Control),
        b'\\' => Err(PathError::Backslash),
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            out.push(char::from(byte));
            Ok(())
        }
        _ => {
            push_encoded(out, byte);
            Ok(())
        }
    }
}

/// Writes a byte as `%XX` in upper case.
pub(crate) fn push_encoded(out: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

fn plain_query(query: &[u8]) -> Result<String, PathError> {
    match query.iter().find(|b| !b.is_ascii_graphic()) {
        Some(0..=31 | 127) => Err(PathError::Control),
        Some(byte) => Err(PathError::Character(*byte)),
        None => Ok(query.iter().map(|b| char::from(*b)).collect()),
    }
}

/// Refuses what any server could take for a step upwards, however often it decodes.
fn refuse_dot_segments(path: &str) -> Result<(), PathError> {
    let decoded = fully_decoded(path);
    let steps = decoded
        .split(|b| matches!(b, b'/' | b'\\'))
        .any(|segment| matches!(without_parameters(segment), b"." | b".."));
    if steps { Err(PathError::DotSegment) } else { Ok(()) }
}

/// The path as read by a server that decodes until nothing is left to decode.
fn fully_decoded(path: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        // `%25` before two more digits is an escaped escape: `%25252e` ends as a dot.
        while let [b'2', b'5', inner @ ..] = rest
            && percent_decoded(inner).is_ok()
        {
            rest = inner;
        }
        match percent_decoded(rest) {
            Ok((decoded, after)) => {
                out.push(decoded);
                rest = after;
            }
            Err(_) => out.push(b'%'),
        }
    }
    out
}

fn without_parameters(segment: &[u8]) -> &[u8] {
    segment.split(|b| *b == b';').next().unwrap_or(segment)
}

fn lenient_reading(path: &str) -> Option<String> {
    let plain =
        !path.bytes().any(|b| b == b'%' || b == b';' || b.is_ascii_uppercase()) && !path.contains("//");
    if plain {
        return None;
    }
    let decoded = fully_decoded(path);
    let mut out = String::with_capacity(path.len());
    for segment in decoded.split(|b| *b == b'/').map(without_parameters).filter(|segment| !segment.is_empty())
    {
        out.push('/');
        push_folded(&mut out, segment);
    }
    if decoded.ends_with(b"/") || out.is_empty() {
        out.push('/');
    }
    (out != path).then_some(out)
}

/// Writes a segment in lower case, with the bytes encoded that a pattern holds encoded too.
pub(crate) fn push_folded(out: &mut String, segment: &[u8]) {
    for byte in segment {
        if byte.is_ascii_graphic() && !matches!(byte, b'%' | b'"' | b'#' | b'<' | b'>' | b'?') {
            out.push(char::from(byte.to_ascii_lowercase()));
        } else {
            push_encoded(out, *byte);
        }
    }
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathError::NotAbsolute => f.write_str("the path does not begin with `/`"),
            PathError::DoubleSlash => f.write_str("the path begins with `//`"),
            PathError::DotSegment => f.write_str("the path has a dot segment"),
            PathError::Backslash => f.write_str("the path has a backslash"),
            PathError::Control => f.write_str("the path or query has a control character"),
            PathError::Character(b) if b.is_ascii_graphic() => {
                write!(f, "the path has the character `{}`, which must be percent-encoded", char::from(*b))
            }
            PathError::Character(b) => write!(f, "the path or query has the byte 0x{b:02x}"),
            PathError::Percent => f.write_str("the path has a `%` without two hexadecimal digits"),
        }
    }
}

impl std::error::Error for PathError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_one_spelling() {
        for (given, canonical, query) in [
            ("/", "/", None),
            ("", "/", None),
            ("?q=1", "/", Some("q=1")),
            ("/a/b", "/a/b", None),
            ("/a/b?", "/a/b", Some("")),
            ("/a?b?c=/../%00", "/a", Some("b?c=/../%00")),
            ("/%61%2d%7E%5f", "/a-~_", None),
            ("/@scope%2fname", "/@scope%2Fname", None),
            ("/%40scope%2Fname", "/%40scope%2Fname", None),
            ("/a//b/", "/a//b/", None),
            ("/a;v=1/b", "/a;v=1/b", None),
            ("/caf%c3%a9", "/caf%C3%A9", None),
            ("/...", "/...", None),
            ("/.well-known/x", "/.well-known/x", None),
            ("/a..b/.c", "/a..b/.c", None),
            ("/100%25", "/100%25", None),
            ("/a%252Fb", "/a%252Fb", None),
            ("/v1/models/m:generateContent", "/v1/models/m:generateContent", None),
            ("/a{b}|c^`d'", "/a{b}|c^`d'", None),
        ] {
            let path = RequestPath::parse(given.as_bytes()).unwrap_or_else(|e| panic!("`{given}`: {e}"));
            assert_eq!((path.as_str(), path.query()), (canonical, query), "`{given}`");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused_with_its_reason() {
        use PathError::*;
        for (given, reason) in [
            ("*", NotAbsolute),
            ("a/b", NotAbsolute),
            ("http://a.test/", NotAbsolute),
            ("//secret", DoubleSlash),
            ("//", DoubleSlash),
            ("/public/../secret", DotSegment),
            ("/public/%2e%2e/secret", DotSegment),
            ("/public/.%2E/secret", DotSegment),
            ("/public/..%2fsecret", DotSegment),
            ("/public/..;/secret", DotSegment),
            ("/public/..;x=1/secret", DotSegment),
            ("/public/..%3bx/secret", DotSegment),
            ("/public/.;/secret", DotSegment),
            ("/public/./secret", DotSegment),
            ("/public/..", DotSegment),
            ("/.", DotSegment),
            ("/public/%252e%252e/secret", DotSegment),
            ("/public/%25252e./secret", DotSegment),
            ("/public/a%2f..%2fsecret", DotSegment),
            ("/public/..%255csecret", DotSegment),
            ("/public\\..\\secret", Backslash),
            ("/public/..%5csecret", Backslash),
            ("/a%00b", Control),
            ("/a%0d%0aHost:%20x", Control),
            ("/a\tb", Control),
            ("/a\u{7f}", Control),
            ("/caf\u{e9}", Character(0xc3)),
            ("/a b", Character(b' ')),
            ("/a#b", Character(b'#')),
            ("/a<b", Character(b'<')),
            ("/100%", Percent),
            ("/%zz", Percent),
            ("/%2", Percent),
            ("/a?b c", Character(b' ')),
            ("/a?b\r\n", Control),
            ("/a?\u{e9}", Character(0xc3)),
        ] {
            assert_eq!(RequestPath::parse(given.as_bytes()), Err(reason), "`{given}`");
        }
    }

    #[test]
    fn a_second_reading_is_kept_where_there_is_one() {
        for (given, lenient) in [
            ("/plain/path", None),
            ("/a//b", Some("/a/b")),
            ("/a/b;v=1/c", Some("/a/b/c")),
            ("/Repos/Example", Some("/repos/example")),
            ("/a%2Fb", Some("/a/b")),
            ("/%40scope%252Fname/", Some("/@scope/name/")),
            ("/caf%C3%A9", None),
            ("/a;", Some("/a")),
        ] {
            assert_eq!(RequestPath::parse(given.as_bytes()).unwrap().lenient(), lenient, "`{given}`");
        }
    }

    #[test]
    fn the_query_is_sent_on_untouched() {
        for given in ["/a?x=%2e%2E&y=%zz", "/a?", "/a", "/?a=1?b"] {
            assert_eq!(RequestPath::parse(given.as_bytes()).unwrap().forwarded(), given);
        }
    }

    proptest::proptest! {
        #[test]
        fn parsing_is_idempotent(text in "/?([a-zA-Z0-9%./;\\\\?@~-]|%2[5eEfF]|%[0-9a-f]{2}|\\.\\.){0,24}") {
            if let Ok(path) = RequestPath::parse(text.as_bytes()) {
                let again = RequestPath::parse(path.forwarded().as_bytes());
                assert_eq!(again, Ok(path));
            }
        }

        #[test]
        fn any_bytes_are_refused_or_canonical(bytes in proptest::collection::vec(0u8..=255, 0..60)) {
            if let Ok(path) = RequestPath::parse(&bytes) {
                assert!(path.forwarded().bytes().all(|b| b.is_ascii_graphic()));
                assert!(path.as_str().starts_with('/') && !path.as_str().starts_with("//"));
            }
        }
    }
}
