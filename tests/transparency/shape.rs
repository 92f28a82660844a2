//! What a shape is, and the words to write one with.

use super::message::latin1;
use crate::harness::{Frame, Request};

/// One request, or several on one connection, with what the origin answers.
pub struct Shape {
    /// A sentence on what is special about it.
    pub name: String,
    /// Which way it goes.
    pub route: Route,
    /// What the client sends.
    pub sends: Sends,
    /// What the recorder answers; the other origins answer by their own script.
    pub answers: Vec<Vec<u8>>,
    /// Whether Outgate refuses it, where the reference passes on whatever it can.
    pub refused: bool,
}

/// Protocols on both sides of the proxy. All but `Clear` are inside TLS on both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Absolute form in clear text, on to the recorder's clear-text port.
    Clear,
    /// HTTP/1.1, on to the recorder.
    Http1,
    /// HTTP/2, on to the recorder, which speaks HTTP/1.1 alone.
    Http2ToHttp1,
    /// HTTP/1.1, on to an origin that offers HTTP/2.
    Http1ToHttp2,
    /// HTTP/2 on both sides.
    Http2,
    /// A WebSocket, on to an origin that speaks HTTP/1.1 alone.
    WebSocket,
}

/// What the client sends.
pub enum Sends {
    /// Requests of HTTP/1.1 to the letter, one after the other.
    Written(Vec<Written>),
    /// A request that a library writes.
    Described(Request),
    /// A handshake with further fields, then frames.
    Frames(Vec<(&'static str, &'static str)>, Vec<Frame>),
}

/// A request to the letter.
#[derive(Clone)]
pub struct Written {
    /// Request line without version, then fields, a line each.
    pub head: String,
    /// What follows the head, framing included.
    pub body: Vec<u8>,
}

impl Written {
    /// Its method.
    pub fn method(&self) -> &str {
        self.head.split(' ').next().unwrap_or_default()
    }

    /// The head as bytes for the server `authority`, in absolute form or not.
    pub fn head(&self, authority: &str, absolute: bool) -> Vec<u8> {
        let (line, fields) = self.head.split_once('\n').unwrap_or((&self.head, ""));
        let (method, target) = line.split_once(' ').expect("a method and a target");
        let (target, version) = target.split_once(' ').unwrap_or((target, "HTTP/1.1"));
        let origin = if absolute { format!("http://{authority}") } else { String::new() };
        let host = format!("{method} {origin}{target} {version}\nHost: {authority}\n");
        latin1(&format!("{host}{fields}{}\n", end_of_line(fields)).replace('\n', "\r\n"))
    }
}

/// A request of HTTP/1.1 with `head`, answered with a greeting.
pub fn http1(name: impl Into<String>, head: &str) -> Shape {
    let written = Written { head: head.into(), body: Vec::new() };
    Shape {
        name: name.into(),
        route: Route::Http1,
        sends: Sends::Written(vec![written]),
        answers: vec![ok("hello")],
        refused: false,
    }
}

/// A request of HTTP/2, answered with a greeting.
pub fn http2(name: String, route: Route, request: Request) -> Shape {
    let head = request.method == "HEAD";
    let answer = if head { bytes("HTTP/1.1 200 OK\ncontent-length: 9", "") } else { ok("hello") };
    Shape { name, route, sends: Sends::Described(request), answers: vec![answer], refused: false }
}

impl Shape {
    /// With a body on its first request, framing included.
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Shape {
        if let Sends::Written(requests) = &mut self.sends {
            requests[0].body = body.as_ref().into();
        }
        self
    }

    /// With another request on the same connection.
    pub fn then(mut self, head: &str, body: &str) -> Shape {
        if let Sends::Written(requests) = &mut self.sends {
            requests.push(Written { head: head.into(), body: body.into() });
        }
        self
    }

    /// One that Outgate refuses.
    pub fn refused(self) -> Shape {
        Shape { refused: true, ..self }
    }

    /// Answered like this: status line and fields, a line each, and what follows them.
    pub fn answer(self, head: &str, body: impl AsRef<[u8]>) -> Shape {
        Shape { answers: vec![bytes(head, body)], ..self }
    }
}

/// A complete answer of text.
pub fn ok(body: &str) -> Vec<u8> {
    bytes(&format!("HTTP/1.1 200 OK\ncontent-type: text/plain\ncontent-length: {}", body.len()), body)
}

/// An answer as bytes; none for an empty head.
pub fn bytes(head: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    if head.is_empty() {
        return Vec::new();
    }
    [&latin1(&format!("{head}\n\n").replace('\n', "\r\n")), body.as_ref()].concat()
}

/// A chunked body with trailers, each a line with its end.
pub fn chunked(pieces: &[&[u8]], trailers: &str) -> Vec<u8> {
    let mut all = Vec::new();
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        all.extend(format!("{:x}\r\n", piece.len()).into_bytes());
        all.extend_from_slice(piece);
        all.extend(b"\r\n");
    }
    all.extend(format!("0\r\n{trailers}\r\n").into_bytes());
    all
}

/// All bytes there are.
pub fn every_byte() -> Vec<u8> {
    (0..=255).collect()
}

/// Bytes in which nothing repeats and no detector finds text.
pub fn noise(length: u64) -> Vec<u8> {
    crate::harness::stream(length).flatten().collect()
}

fn end_of_line(fields: &str) -> &'static str {
    if fields.is_empty() { "" } else { "\n" }
}
