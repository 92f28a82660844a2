//! A request as it stands on the wire, read by the letter of RFC 9112: whatever is lenient here is refused.

/// A request that can be read in one way only.
pub(crate) struct Sent {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Sent {
    /// The values of a field.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.fields.iter().filter(move |(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The value of a field that must not stand there twice.
    pub(crate) fn only(&self, name: &str) -> Option<&str> {
        let mut values = self.all(name);
        let value = values.next();
        assert!(values.next().is_none(), "`{name}` is there twice");
        value
    }
}

/// Whether a whole request has been written.
pub(crate) fn is_complete(bytes: &[u8]) -> bool {
    !matches!(read(bytes), Err(Wrong::Incomplete))
}

/// Why bytes are not one request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    Incomplete,
    Is(&'static str),
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Wrong::Incomplete => "the request is incomplete",
            Wrong::Is(what) => what,
        })
    }
}

/// Reads exactly one request.
pub(crate) fn read(bytes: &[u8]) -> Result<Sent, Wrong> {
    let (line, mut rest) = line(bytes)?;
    let [method, target, version] = line
        .split(' ')
        .collect::<Vec<_>>()
        .try_into()
        .map_err(|_| Wrong::Is("the request line has not three parts"))?;
    let plain = target.starts_with('/') && target.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_token(method) || !plain || version != "HTTP/1.1" {
        return Err(Wrong::Is("the request line is not strict"));
    }
    let mut fields = Vec::new();
    loop {
        let (text, after) = self::line(rest)?;
        rest = after;
        if text.is_empty() {
            break;
        }
        let (name, value) = text.split_once(": ").ok_or(Wrong::Is("a field is no field"))?;
        if !is_token(name) || value.contains(['\r', '\n', '\0']) {
            return Err(Wrong::Is("a field is not strict"));
        }
        fields.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let mut sent = Sent { method: method.to_owned(), target: target.to_owned(), fields, body: Vec::new() };
    sent.body = body(&sent, rest)?;
    Ok(sent)
}

fn body(sent: &Sent, rest: &[u8]) -> Result<Vec<u8>, Wrong> {
    match (sent.only("content-length"), sent.only("transfer-encoding")) {
        (None, None) if rest.is_empty() => Ok(Vec::new()),
        (None, None) => Err(Wrong::Is("bytes follow a request without length")),
        (Some(length), None) => {
            let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
            let length: usize =
                length.parse().ok().filter(|_| digits).ok_or(Wrong::Is("the length is none"))?;
            exactly(rest, length)
        }
        (None, Some("chunked")) => chunked(rest),
        (None, Some(_)) => Err(Wrong::Is("the coding is not `chunked`")),
        (Some(_), Some(_)) => Err(Wrong::Is("two lengths are given")),
    }
}

fn exactly(rest: &[u8], length: usize) -> Result<Vec<u8>, Wrong> {
    match rest.len() {
        short if short < length => Err(Wrong::Incomplete),
        same if same == length => Ok(rest.to_vec()),
        _ => Err(Wrong::Is("bytes follow the body")),
    }
}

fn chunked(mut rest: &[u8]) -> Result<Vec<u8>, Wrong> {
    let mut body = Vec::new();
    loop {
        let (size, after) = line(rest)?;
        let size = usize::from_str_radix(&size, 16).map_err(|_| Wrong::Is("a chunk's size is none"))?;
        if size == 0 {
            return exactly(after, 2).and_then(|end| match &end[..] {
                b"\r\n" => Ok(body),
                _ => Err(Wrong::Is("the last chunk is followed by something")),
            });
        }
        let chunk = after.get(..size + 2).ok_or(Wrong::Incomplete)?;
        body.extend_from_slice(
            chunk.strip_suffix(b"\r\n").ok_or(Wrong::Is("a chunk is longer than it says"))?,
        );
        rest = &after[size + 2..];
    }
}

/// The next line, which ends with CR and LF and has neither within.
fn line(bytes: &[u8]) -> Result<(String, &[u8]), Wrong> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n").ok_or(Wrong::Incomplete)?;
    let line = &bytes[..end];
    if line.iter().any(|byte| b"\r\n".contains(byte)) {
        return Err(Wrong::Is("a line has an end within"));
    }
    Ok((line.iter().map(|byte| char::from(*byte)).collect(), &bytes[end + 2..]))
}

fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
