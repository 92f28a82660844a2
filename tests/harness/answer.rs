//! What a client was told, read from the wire without a library's good manners.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

use super::tally::Tally;

/// An answer, or as much of one as came.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Status; 0 where the connection ended without one.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body; over a WebSocket, the messages.
    pub body: Tally,
    /// Trailers.
    pub trailers: Vec<(String, String)>,
    /// Whether the body ended as its framing said.
    pub complete: bool,
    /// Statuses from 100 to 199 that came before.
    pub informational: Vec<u16>,
    /// Whether it answers the CONNECT, not the request inside the tunnel.
    pub at_connect: bool,
    /// The code a WebSocket was closed with.
    pub close_code: Option<u16>,
    /// Why there is no answer, in the client's words.
    pub error: Option<String>,
}

impl Answer {
    /// No answer, and why.
    pub fn none(error: impl Into<Box<dyn std::error::Error>>) -> Answer {
        Answer { error: Some(error.into().to_string()), ..Answer::default() }
    }

    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(seen, _)| seen == name).map(|(_, value)| &value[..])
    }

    /// The reason code of a refusal.
    pub fn reason(&self) -> Option<&str> {
        self.header("x-outgate-reason")
    }

    /// The body as text.
    pub fn text(&self) -> String {
        self.body.text()
    }

    /// Reads one answer to a request of `method` (RFC 9112): what comes before the end is kept, whatever the end is.
    pub async fn read(input: &mut (impl AsyncBufRead + Unpin), method: &str) -> Answer {
        let mut answer = Answer::default();
        match answer.read_all(input, method).await {
            Ok(()) => answer.complete = true,
            Err(error) => answer.error = Some(error.to_string()),
        }
        answer
    }

    async fn read_all(&mut self, input: &mut (impl AsyncBufRead + Unpin), method: &str) -> io::Result<()> {
        loop {
            self.read_head(input).await?;
            if !(100..200).contains(&self.status) || self.status == 101 {
                break;
            }
            self.informational.push(self.status);
        }
        let bodiless = method == "HEAD"
            || matches!(self.status, 101 | 204 | 304)
            || (method == "CONNECT" && self.status == 200);
        if bodiless {
            return Ok(());
        }
        if self.header("transfer-encoding").is_some_and(|value| value.ends_with("chunked")) {
            return self.read_chunks(input).await;
        }
        match self.header("content-length") {
            Some(length) => {
                let length = length.parse().map_err(io::Error::other)?;
                self.read_exactly(input, length).await
            }
            None => self.read_to_end(input).await,
        }
    }

    async fn read_head(&mut self, input: &mut (impl AsyncBufRead + Unpin)) -> io::Result<()> {
        let line = read_line(input).await?;
        let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
        self.status = status.ok_or_else(|| io::Error::other(format!("not a status line: {line:?}")))?;
        self.headers = read_fields(input).await?;
        Ok(())
    }

    async fn read_chunks(&mut self, input: &mut (impl AsyncBufRead + Unpin)) -> io::Result<()> {
        loop {
            let line = read_line(input).await?;
            let size = u64::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)
                .map_err(io::Error::other)?;
            if size == 0 {
                self.trailers = read_fields(input).await?;
                return Ok(());
            }
            self.read_exactly(input, size).await?;
            read_line(input).await?;
        }
    }

    async fn read_exactly(&mut self, input: &mut (impl AsyncBufRead + Unpin), length: u64) -> io::Result<()> {
        let mut rest = input.take(length);
        self.read_to_end(&mut rest).await?;
        if rest.limit() == 0 { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    async fn read_to_end(&mut self, input: &mut (impl AsyncBufRead + Unpin)) -> io::Result<()> {
        loop {
            let piece = input.fill_buf().await?;
            let length = piece.len();
            if length == 0 {
                return Ok(());
            }
            self.body.add(piece);
            input.consume(length);
        }
    }
}

async fn read_fields(input: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Vec<(String, String)>> {
    let mut fields = Vec::new();
    loop {
        let line = read_line(input).await?;
        if line.is_empty() {
            return Ok(fields);
        }
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

async fn read_line(input: &mut (impl AsyncBufRead + Unpin)) -> io::Result<String> {
    let mut line = Vec::new();
    input.read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned())
}
