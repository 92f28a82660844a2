//! Many clients at once, on connections that they keep, as fast as they are answered.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinSet;

use super::agent::{Agent, Way};
use super::answer::Answer;
use super::raw::Raw;
use super::request::{Body, Request};

/// Requests that a connection is kept for.
const KEPT_FOR: usize = 64;
/// Streams of a connection of HTTP/2 at a time.
const STREAMS: usize = 8;
/// How long a client that was refused waits, so that refusals are not all that is measured.
const REFUSED: Duration = Duration::from_millis(5);

/// Clients that send until they are told to stop or nobody listens any more.
///
/// They take turns in how they send. Each path is used once: `/NAME/CLIENT-NUMBER`. Every other request is a POST.
pub struct Load {
    clients: JoinSet<Told>,
    stop: Arc<AtomicBool>,
}

/// How often which status was answered with which reason; 0 where there was no answer.
pub type Told = BTreeMap<(u16, String), usize>;

impl Load {
    /// Starts `clients` of them.
    pub fn start(agent: &Agent, clients: usize, name: &str) -> Load {
        Load::paced(agent, clients, name, Duration::ZERO)
    }

    /// Starts `clients` that pause after each answer.
    pub fn paced(agent: &Agent, clients: usize, name: &str, pause: Duration) -> Load {
        let stop = Arc::<AtomicBool>::default();
        let mut tasks = JoinSet::new();
        for number in 0..clients {
            let client = Client {
                agent: agent.clone(),
                way: Way::ALL[number % Way::ALL.len()],
                prefix: format!("/{name}/{number}"),
                sent: 0,
                told: Told::new(),
                pause,
                stop: stop.clone(),
            };
            tasks.spawn(client.run());
        }
        Load { clients: tasks, stop }
    }

    /// What they were told, once the gateway is gone.
    pub async fn ended(mut self) -> Told {
        let mut all = Told::new();
        while let Some(told) = self.clients.join_next().await {
            for (answer, count) in told.unwrap() {
                *all.entry(answer).or_default() += count;
            }
        }
        all
    }

    /// Tells them to stop, and gives what they were told.
    pub async fn stop(self) -> Told {
        self.stop.store(true, Ordering::SeqCst);
        self.ended().await
    }
}

struct Client {
    agent: Agent,
    way: Way,
    prefix: String,
    sent: usize,
    told: Told,
    pause: Duration,
    stop: Arc<AtomicBool>,
}

impl Client {
    async fn run(mut self) -> Told {
        while !self.stop.load(Ordering::SeqCst) {
            let kept = match self.way {
                Way::Absolute | Way::Http1 => self.http1().await,
                Way::Http2 => self.http2().await,
                Way::WebSocket => self.websocket().await,
            };
            if kept.is_err() {
                break;
            }
        }
        self.told
    }

    /// The next request, of a path that nobody else has.
    fn next(&mut self) -> Request {
        self.sent += 1;
        let path = format!("{}-{}", self.prefix, self.sent);
        match self.sent % 4 {
            0 => Request::get("allowed.test", &path).method("POST").pieces(["a body ", "in ", "pieces"]),
            2 => Request::post("allowed.test", &path, "x".repeat(self.sent % 1500)),
            _ => Request::get("allowed.test", &path),
        }
    }

    /// Sends over one connection until it is used up or says that it will end.
    async fn http1(&mut self) -> io::Result<()> {
        let mut raw = match self.way {
            Way::Absolute => Raw::try_open(self.agent.proxy).await?,
            _ => self.tls(b"http/1.1").await?,
        };
        for _ in 0..KEPT_FOR {
            let request = self.next();
            let pieces = match self.way {
                Way::Absolute => self.agent.absolute(&request),
                _ => self.agent.origin_form(&request),
            };
            let answer = raw.exchange(&request.method, &pieces).await;
            // Whoever is refused before their body was read finds the connection closed.
            let refused = answer.reason().is_some() && request.body != Body::Empty;
            let over = !answer.complete || refused || answer.header("connection") == Some("close");
            self.hear(&answer).await;
            if over || self.stop.load(Ordering::SeqCst) {
                break;
            }
        }
        Ok(())
    }

    async fn http2(&mut self) -> io::Result<()> {
        let stream = TokioIo::new(self.tls(b"h2").await?.into_stream());
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await;
        let (sender, connection) = handshake.map_err(io::Error::other)?;
        let driver = tokio::spawn(connection);
        for _ in 0..KEPT_FOR / STREAMS {
            let authority = format!("allowed.test:{}", self.agent.ports.1);
            let requests: Vec<_> = (0..STREAMS).map(|_| message(&authority, &self.next())).collect();
            let answers = join_all(requests.into_iter().map(|request| ask(sender.clone(), request))).await;
            let over = answers.iter().any(|answer| answer.status == 0);
            for answer in answers {
                self.hear(&answer).await;
            }
            if over || self.stop.load(Ordering::SeqCst) {
                break;
            }
        }
        driver.abort();
        Ok(())
    }

    async fn websocket(&mut self) -> io::Result<()> {
        let raw = self.tls(b"http/1.1").await?;
        let request = Request::get("allowed.test", &self.next().path).pieces(["hello", "again"]);
        let answer = self.agent.send_websocket(raw, &request).await;
        self.hear(&answer).await;
        Ok(())
    }

    /// A tunnel with TLS inside. Only that nobody listens is an error to give up for.
    async fn tls(&self, alpn: &[u8]) -> io::Result<Raw> {
        loop {
            let mut raw = Raw::try_open(self.agent.proxy).await?;
            let answer = raw.connect(&format!("allowed.test:{}", self.agent.ports.1)).await;
            if answer.status == 200
                && let Ok(raw) = raw.start_tls("allowed.test", self.agent.tls_config(&[alpn], true)).await
            {
                return Ok(raw);
            }
            if self.stop.load(Ordering::SeqCst) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            tokio::time::sleep(REFUSED).await;
        }
    }

    async fn hear(&mut self, answer: &Answer) {
        let reason = answer.reason().unwrap_or_default().to_owned();
        if !reason.is_empty() {
            tokio::time::sleep(REFUSED).await;
        }
        *self.told.entry((answer.status, reason)).or_default() += 1;
        if !self.pause.is_zero() {
            tokio::time::sleep(self.pause).await;
        }
    }
}

fn message(authority: &str, request: &Request) -> http::Request<Full<Bytes>> {
    http::Request::builder()
        .method(&request.method[..])
        .uri(format!("https://{authority}{}", request.path))
        .version(http::Version::HTTP_2)
        .body(Full::new(request.body_pieces().concat().into()))
        .unwrap()
}

async fn ask(mut sender: SendRequest<Full<Bytes>>, request: http::Request<Full<Bytes>>) -> Answer {
    let Ok(response) = sender.send_request(request).await else { return Answer::default() };
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = response.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let status = response.status().as_u16();
    let complete = response.into_body().collect().await.is_ok();
    Answer { status, headers, complete, ..Answer::default() }
}
