//! A request or an answer as it stood on the wire, and where two of them differ.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

use crate::harness::{Answer, Seen, Tally};

/// One message of HTTP. Bytes are kept as the characters with their numbers (Latin-1), so that none is lost.
#[derive(Clone, Default)]
pub struct Message {
    /// Request line or status line.
    pub start: String,
    /// Values by lower-case name, those of one name in their order.
    pub fields: BTreeMap<String, Vec<String>>,
    /// The body without its framing.
    pub body: Tally,
    /// As `fields`.
    pub trailers: BTreeMap<String, Vec<String>>,
    /// Why it did not come to its end.
    pub broken: Option<String>,
}

/// How a message without a length and without chunks ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unframed {
    /// After its head: requests, answers to HEAD.
    Head,
    /// With the connection: answers.
    Connection,
}

impl Message {
    /// Reads one message; `None` where the other side closed before one began.
    pub async fn read(input: &mut (impl AsyncBufRead + Unpin), unframed: Unframed) -> Option<Message> {
        let mut message = Message { start: line(input).await.ok()?, ..Message::default() };
        if let Err(error) = message.read_rest(input, unframed).await {
            message.broken = Some(error.kind().to_string());
        }
        Some(message)
    }

    /// Its status, where it is an answer.
    pub fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
    }

    /// Whether a field lists `value` as its only one, in whatever case.
    pub fn says(&self, name: &str, value: &str) -> bool {
        self.fields.get(name).is_some_and(|values| values.len() == 1 && values[0].eq_ignore_ascii_case(value))
    }

    async fn read_rest(
        &mut self,
        input: &mut (impl AsyncBufRead + Unpin),
        unframed: Unframed,
    ) -> io::Result<()> {
        self.fields = fields(input).await?;
        let bodiless = self.start.starts_with("HTTP/") && matches!(self.status(), 100..200 | 204 | 304);
        let asks_for_head = unframed == Unframed::Head && self.start.starts_with("HTTP/");
        if bodiless || asks_for_head {
            return Ok(());
        }
        if self.says("transfer-encoding", "chunked") {
            return self.read_chunks(input).await;
        }
        match self.fields.get("content-length").map(|values| values[0].parse().unwrap_or_default()) {
            Some(length) => self.read_exactly(input, length).await,
            None if unframed == Unframed::Head => Ok(()),
            None => self.read_up_to(input, u64::MAX).await.map(drop),
        }
    }

    async fn read_chunks(&mut self, input: &mut (impl AsyncBufRead + Unpin)) -> io::Result<()> {
        loop {
            let head = line(input).await?;
            let size = head.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(io::Error::other)?;
            if size == 0 {
                self.trailers = fields(input).await?;
                return Ok(());
            }
            self.read_exactly(input, size).await?;
            line(input).await?;
        }
    }

    async fn read_exactly(&mut self, input: &mut (impl AsyncBufRead + Unpin), length: u64) -> io::Result<()> {
        let read = self.read_up_to(input, length).await?;
        if read == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    async fn read_up_to(&mut self, input: &mut (impl AsyncBufRead + Unpin), most: u64) -> io::Result<u64> {
        let mut rest = input.take(most);
        loop {
            let piece = rest.fill_buf().await?;
            let length = piece.len();
            if length == 0 {
                return Ok(most - rest.limit());
            }
            self.body.add(piece);
            rest.consume(length);
        }
    }
}

/// From what the HTTP/2 client of the harness was told.
impl From<Answer> for Message {
    fn from(answer: Answer) -> Message {
        Message {
            start: format!("HTTP {}", answer.status),
            fields: gathered(answer.headers),
            body: answer.body,
            trailers: gathered(answer.trailers),
            broken: answer.error,
        }
    }
}

/// From what the origin of the harness was asked.
impl From<Seen> for Message {
    fn from(seen: Seen) -> Message {
        let mut fields = gathered(seen.headers);
        fields.insert("host".into(), vec![seen.authority]);
        Message {
            start: format!("{} {} {}", seen.method, seen.path, seen.version),
            fields,
            body: seen.body,
            trailers: gathered(seen.trailers),
            broken: (seen.end != crate::harness::End::Complete).then(|| format!("{:?}", seen.end)),
        }
    }
}

/// A part of a message in which two differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// How many messages there are.
    Count,
    /// Request line or status line.
    Start,
    /// A header field.
    Field(String),
    /// The body.
    Body,
    /// A trailer field.
    Trailer(String),
    /// Whether it came to its end.
    End,
}

/// One difference: what the one showed, and what the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where in the message.
    pub part: Part,
    /// Through Outgate; empty where nothing.
    pub outgate: String,
    /// Through the reference; empty where nothing.
    pub reference: String,
}

/// Everything in which the messages through Outgate differ from those through the reference.
pub fn differences(outgate: &[Message], reference: &[Message]) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut differ = |part: Part, outgate: String, reference: String| {
        if outgate != reference {
            found.push(Difference { part, outgate, reference });
        }
    };
    let starts = |messages: &[Message]| messages.iter().map(|message| message.start.clone()).collect();
    if outgate.len() != reference.len() {
        let (outgate, reference): (Vec<String>, Vec<String>) = (starts(outgate), starts(reference));
        differ(Part::Count, outgate.join(" | "), reference.join(" | "));
        return found;
    }
    for (ours, theirs) in outgate.iter().zip(reference) {
        differ(Part::Start, ours.start.clone(), theirs.start.clone());
        for name in names(&ours.fields, &theirs.fields) {
            let [ours, theirs] = [ours, theirs].map(|message| values(&message.fields, name));
            differ(Part::Field(name.clone()), ours, theirs);
        }
        differ(Part::Body, summary(&ours.body), summary(&theirs.body));
        for name in names(&ours.trailers, &theirs.trailers) {
            let [ours, theirs] = [ours, theirs].map(|message| values(&message.trailers, name));
            differ(Part::Trailer(name.clone()), ours, theirs);
        }
        let end = |message: &Message| message.broken.clone().unwrap_or_default();
        differ(Part::End, end(ours), end(theirs));
    }
    found
}

type Fields = BTreeMap<String, Vec<String>>;

fn names<'a>(one: &'a Fields, other: &'a Fields) -> BTreeSet<&'a String> {
    one.keys().chain(other.keys()).collect()
}

fn values(fields: &Fields, name: &str) -> String {
    let Some(values) = fields.get(name) else { return String::new() };
    // A server or proxy that adds a date adds the time of day; only a date of the corpus is compared.
    if name == "date" && !values[0].contains(" 1970 ") {
        return "now".into();
    }
    format!("{values:?}")
}

fn summary(body: &Tally) -> String {
    format!("{} {body:?}", body.sha256())
}

fn gathered(pairs: Vec<(String, String)>) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in pairs {
        fields.entry(name).or_default().push(value);
    }
    fields
}

async fn fields(input: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Fields> {
    let mut pairs = Vec::new();
    loop {
        let line = line(input).await?;
        if line.is_empty() {
            return Ok(gathered(pairs));
        }
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        pairs.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
    }
}

async fn line(input: &mut (impl AsyncBufRead + Unpin)) -> io::Result<String> {
    let mut line = Vec::new();
    input.read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.into_iter().map(char::from).collect::<String>().trim_end_matches(['\r', '\n']).to_owned())
}

/// The bytes that a text with the characters of Latin-1 stands for.
pub fn latin1(text: &str) -> Vec<u8> {
    text.chars()
        .map(|character| u8::try_from(u32::from(character)).expect("a character of Latin-1"))
        .collect()
}
