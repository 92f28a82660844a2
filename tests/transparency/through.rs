//! Sends a shape through a proxy and gathers what both ends saw.

use std::sync::Arc;

use tokio::time::timeout;

use super::message::{Message, Unframed};
use super::recorder::Recorder;
use super::shape::{Route, Sends, Shape, Written};
use crate::harness::{Agent, End, Frame, Opcode, Origin, PATIENCE, Raw, Request, Tally, TestCa, eventually};

/// The servers that the corpus is sent to.
pub struct Upstreams {
    recorder: Recorder,
    http1: Origin,
    http2: Origin,
}

/// What both ends saw of one shape.
pub struct Through {
    /// The requests that the server received.
    pub server: Vec<Message>,
    /// The answers that the client received.
    pub client: Vec<Message>,
}

impl Upstreams {
    /// Starts them, with certificates that `ca` signs.
    pub async fn start(ca: &Arc<TestCa>) -> Upstreams {
        Upstreams {
            recorder: Recorder::start(ca).await,
            http1: Origin::with_authority(ca).at("127.0.0.1").http1_only().start().await,
            http2: Origin::with_authority(ca).at("127.0.0.1").start().await,
        }
    }

    /// Every port that a shape may go to.
    pub fn ports(&self) -> [u16; 4] {
        [self.recorder.ports.0, self.recorder.ports.1, self.http1.tls, self.http2.tls]
    }

    /// Sends `shape` through the proxy of `agent`.
    pub async fn send(&self, agent: &Agent, shape: &Shape) -> Through {
        self.recorder.answers(&shape.answers);
        let before = [&self.http1, &self.http2].map(|origin| origin.requests().len());
        let client = self.ask(agent, shape).await;
        let server = match shape.route {
            Route::Clear | Route::Http1 | Route::Http2ToHttp1 => self.recorder.seen(),
            Route::WebSocket => seen_since(&self.http1, before[0]).await,
            Route::Http1ToHttp2 | Route::Http2 => seen_since(&self.http2, before[1]).await,
        };
        Through { server, client }
    }

    async fn ask(&self, agent: &Agent, shape: &Shape) -> Vec<Message> {
        let port = match shape.route {
            Route::Clear => self.recorder.ports.0,
            Route::Http1 | Route::Http2ToHttp1 => self.recorder.ports.1,
            Route::WebSocket => self.http1.tls,
            Route::Http1ToHttp2 | Route::Http2 => self.http2.tls,
        };
        let place = Request::get("localhost", "/").port(port);
        let authority = format!("localhost:{port}");
        match &shape.sends {
            Sends::Written(requests) if shape.route == Route::Clear => {
                written(&mut Raw::open(agent.proxy).await, requests, &authority, true).await
            }
            Sends::Written(requests) => {
                let mut raw = agent.tls(&place, b"http/1.1").await.unwrap();
                written(&mut raw, requests, &authority, false).await
            }
            Sends::Described(request) => {
                let raw = agent.tls(&place, b"h2").await.unwrap();
                let request = Request { port: Some(port), ..request.clone() };
                let answer = timeout(PATIENCE, agent.send_http2(raw, &request)).await.unwrap();
                vec![Message::from(answer)]
            }
            Sends::Frames(fields, frames) => {
                let mut raw = agent.tls(&place, b"http/1.1").await.unwrap();
                converse(&mut raw, &authority, fields, frames).await
            }
        }
    }
}

/// What the origin was asked after its first `before` requests, once it has read all of it.
async fn seen_since(origin: &Origin, before: usize) -> Vec<Message> {
    let seen = eventually("the origin to have read its requests", async || {
        let seen = origin.requests().split_off(before);
        seen.iter().all(|seen| seen.end != End::Reading).then_some(seen)
    })
    .await;
    seen.into_iter().map(Message::from).collect()
}

/// Sends the requests one after the other and gathers every answer, those of 1xx as well.
async fn written(raw: &mut Raw, requests: &[Written], authority: &str, absolute: bool) -> Vec<Message> {
    let mut answers = Vec::new();
    for request in requests {
        let head = request.head(authority, absolute);
        let waits = request.head.to_ascii_lowercase().contains("\nexpect:");
        raw.send(if waits { head } else { [head, request.body.clone()].concat() }).await;
        let unframed = if request.method() == "HEAD" { Unframed::Head } else { Unframed::Connection };
        loop {
            let answer = timeout(PATIENCE, Message::read(&mut raw.input, unframed)).await;
            let Ok(Some(answer)) = answer else { return answers };
            let status = answer.status();
            answers.push(answer);
            match status {
                100 if waits => raw.send(&request.body).await,
                100 | 102..200 => {}
                _ => break,
            }
        }
    }
    answers
}

/// A handshake and a conversation: the answer to the handshake, then every frame that came back as a message.
async fn converse(
    raw: &mut Raw,
    authority: &str,
    fields: &[(&'static str, &'static str)],
    frames: &[Frame],
) -> Vec<Message> {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    let handshake = format!(
        "GET /ws HTTP/1.1\nconnection: Upgrade\nupgrade: websocket\nsec-websocket-version: 13\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\n{fields}"
    );
    let handshake = Written { head: handshake.trim_end().into(), body: Vec::new() };
    let mut seen = written(raw, &[handshake], authority, false).await;
    for frame in frames {
        let _ = frame.write(&mut raw.output, true).await;
    }
    let messages = frames.iter().filter(|frame| frame.last && !is_control(frame)).count();
    let closes_first = frames.iter().all(|frame| !frame.payload.starts_with(b"code:"));
    let mut returned = 0;
    while let Ok(Ok(frame)) = timeout(PATIENCE, Frame::read(&mut raw.input)).await {
        let start = format!("{:?}{}", frame.opcode, if frame.last { "" } else { ", and more" });
        seen.push(Message { start, body: Tally::of(&frame.payload), ..Message::default() });
        if frame.opcode == Opcode::Close {
            break;
        }
        returned += usize::from(frame.last && !is_control(&frame));
        if closes_first && returned == messages && !is_control(&frame) {
            let _ = Frame::close(1000).write(&mut raw.output, true).await;
        }
    }
    if !closes_first {
        let _ = Frame::close(4001).write(&mut raw.output, true).await;
    }
    seen
}

fn is_control(frame: &Frame) -> bool {
    matches!(frame.opcode, Opcode::Close | Opcode::Ping | Opcode::Pong)
}
