//! The caller: sends a described request any of the ways a real client would, through the gateway.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::time::timeout;

use super::answer::Answer;
use super::raw::Raw;
use super::request::{Body, Request};
use super::session::Inlets;
use super::{PATIENCE, provider, websocket};

/// How a request travels to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In absolute form, in clear text.
    Absolute,
    /// HTTP/1.1 inside TLS inside a tunnel.
    Http1,
    /// HTTP/2 inside TLS inside a tunnel.
    Http2,
    /// As a WebSocket, over HTTP/1.1 inside TLS inside a tunnel.
    WebSocket,
}

impl Way {
    /// All of them.
    pub const ALL: [Way; 4] = [Way::Absolute, Way::Http1, Way::Http2, Way::WebSocket];
}

/// What [`Answer::error`] says where a name was not there to be connected to.
pub const NO_NAME: &str = "no such name";

/// A client of the gateway.
#[derive(Clone)]
pub struct Agent {
    /// The gateway's proxy listener.
    pub proxy: SocketAddr,
    /// Ports that requests go to which name none: clear text and TLS.
    pub ports: (u16, u16),
    roots: Arc<RootCertStore>,
    credentials: Option<String>,
    /// It knows no proxy, and comes this way.
    inlets: Option<Arc<Inlets>>,
}

impl Agent {
    /// A client that trusts `ca` and nothing else.
    pub fn new(proxy: SocketAddr, ca: &str, ports: (u16, u16)) -> Agent {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        Agent { proxy, ports, roots: Arc::new(roots), credentials: None, inlets: None }
    }

    /// The same client, presenting `name:token` as its credentials.
    pub fn known_as(&self, credentials: &str) -> Agent {
        let value = format!("Basic {}", STANDARD.encode(credentials));
        Agent { credentials: Some(value), ..self.clone() }
    }

    /// The same client, presenting `value` as `Proxy-Authorization`.
    pub fn authorized_by(&self, value: &str) -> Agent {
        Agent { credentials: Some(value.into()), ..self.clone() }
    }

    /// The same client knowing no proxy: it looks names up and connects to where they are said to be.
    pub fn unaware(&self, inlets: Inlets) -> Agent {
        Agent { inlets: Some(Arc::new(inlets)), ..self.clone() }
    }

    /// Sends one request on a connection of its own.
    pub async fn send(&self, way: Way, request: &Request) -> Answer {
        match way {
            Way::Absolute => {
                if let Some(inlets) = &self.inlets {
                    let Some(mut raw) = inlets.connect(&request.host, 80).await else {
                        return Answer::none(NO_NAME);
                    };
                    let pieces = http1_pieces(request, &request.path, &request.host, "");
                    return raw.exchange(&request.method, &pieces).await;
                }
                let mut raw = Raw::open(self.proxy).await;
                raw.exchange(&request.method, &self.absolute(request)).await
            }
            Way::Http1 => match self.tls(request, b"http/1.1").await {
                Ok(mut raw) => raw.exchange(&request.method, &self.origin_form(request)).await,
                Err(refused) => *refused,
            },
            Way::Http2 => match self.tls(request, b"h2").await {
                Ok(raw) => match timeout(PATIENCE, self.send_http2(raw, request)).await {
                    Ok(answer) => answer,
                    Err(late) => Answer::none(late),
                },
                Err(refused) => *refused,
            },
            Way::WebSocket => match self.tls(request, b"http/1.1").await {
                Ok(raw) => self.send_websocket(raw, request).await,
                Err(refused) => *refused,
            },
        }
    }

    /// A tunnel to where the request goes.
    ///
    /// # Errors
    /// The answer to the CONNECT, where it is not 200.
    pub async fn tunnel(&self, request: &Request) -> Result<Raw, Box<Answer>> {
        if let Some(inlets) = &self.inlets {
            return inlets.connect(&request.host, 443).await.ok_or_else(|| Box::new(Answer::none(NO_NAME)));
        }
        let mut raw = Raw::open(self.proxy).await;
        let authority = format!("{}:{}", request.host, request.port.unwrap_or(self.ports.1));
        let answer = raw.connect_with(&authority, &self.identity()).await;
        if answer.status == 200 { Ok(raw) } else { Err(Box::new(answer)) }
    }

    /// A tunnel with TLS inside, for the named protocol.
    ///
    /// # Errors
    /// The answer to the CONNECT, or an empty answer where the handshake failed.
    pub async fn tls(&self, request: &Request, alpn: &[u8]) -> Result<Raw, Box<Answer>> {
        let name = request.host.trim_matches(['[', ']']).to_owned();
        self.tls_as(request, &name, alpn).await
    }

    /// A tunnel with TLS inside that asks for the certificate of `name`.
    ///
    /// # Errors
    /// As [`Agent::tls`].
    pub async fn tls_as(&self, request: &Request, name: &str, alpn: &[u8]) -> Result<Raw, Box<Answer>> {
        let raw = self.tunnel(request).await?;
        raw.start_tls(name, self.tls_config(&[alpn], true)).await.map_err(|e| Box::new(Answer::none(e)))
    }

    /// The client's TLS: trusting the gateway, with these protocols, naming the server or not.
    pub fn tls_config(&self, alpn: &[&[u8]], name_server: bool) -> Arc<rustls::ClientConfig> {
        let mut config = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        config.enable_sni = name_server;
        Arc::new(config)
    }

    /// The client's TLS 1.3 with an encrypted ClientHello, or the pretence of one.
    pub fn ech_config(&self, mode: rustls::client::EchMode) -> rustls::ClientConfig {
        rustls::ClientConfig::builder_with_provider(provider())
            .with_ech(mode)
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth()
    }

    /// The request in absolute form, in the pieces it is to be sent in.
    pub fn absolute(&self, request: &Request) -> Vec<Vec<u8>> {
        let authority = format!("{}:{}", request.host, request.port.unwrap_or(self.ports.0));
        let target = format!("http://{authority}{}", request.path);
        http1_pieces(request, &target, &authority, &self.identity())
    }

    /// The request as it stands inside a tunnel.
    pub fn origin_form(&self, request: &Request) -> Vec<Vec<u8>> {
        http1_pieces(request, &request.path, &self.tls_authority(request), "")
    }

    fn tls_authority(&self, request: &Request) -> String {
        format!("{}:{}", request.host, request.port.unwrap_or(self.ports.1))
    }

    fn identity(&self) -> String {
        let line = |value: &String| format!("Proxy-Authorization: {value}\r\n");
        self.credentials.as_ref().map(line).unwrap_or_default()
    }

    /// Sends the request as HTTP/2 over an open TLS connection.
    pub async fn send_http2(&self, raw: Raw, request: &Request) -> Answer {
        let stream = TokioIo::new(raw.into_stream());
        let connected = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await;
        let (mut sender, connection) = match connected {
            Ok(connected) => connected,
            Err(error) => return Answer::none(error),
        };
        let driver = tokio::spawn(connection);
        let authority = request.claim.clone().unwrap_or_else(|| self.tls_authority(request));
        let message = http2_message(request, &authority);
        let answer = match sender.send_request(message).await {
            Ok(response) => read_http2(response).await,
            Err(error) => Answer::none(error),
        };
        driver.abort();
        answer
    }

    /// Becomes a WebSocket, sends each piece of the body as a message and takes one message back for each.
    pub async fn send_websocket(&self, mut raw: Raw, request: &Request) -> Answer {
        let upgrade = Request { body: Body::Empty, method: "GET".into(), ..request.clone() }
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let mut answer = raw.exchange("GET", &self.origin_form(&upgrade)).await;
        if answer.status != 101 {
            return answer;
        }
        let mut end = websocket::Frame::close(1000);
        for piece in request.body_pieces() {
            if let Err(error) = timeout(PATIENCE, echo(&mut raw, &mut answer, piece)).await.unwrap() {
                answer.error = Some(error.to_string());
                answer.complete = false;
                return answer;
            }
            if let Some(code) = answer.close_code {
                end = websocket::Frame::close(code);
                break;
            }
        }
        let _ = end.write(&mut raw.output, true).await;
        answer
    }
}

async fn echo(raw: &mut Raw, answer: &mut Answer, message: Vec<u8>) -> std::io::Result<()> {
    // Text where it is text, as chat clients send it.
    let frame = match String::from_utf8(message) {
        Ok(text) => websocket::Frame::text(text),
        Err(bytes) => websocket::Frame::binary(bytes.into_bytes()),
    };
    frame.write(&mut raw.output, true).await?;
    let back = websocket::Frame::read(&mut raw.input).await?;
    answer.close_code = back.close_code();
    if answer.close_code.is_none() {
        answer.body.add(&back.payload);
    }
    Ok(())
}

/// A request of HTTP/1.1 with its head as the first piece.
pub fn http1_pieces(request: &Request, target: &str, authority: &str, fields: &str) -> Vec<Vec<u8>> {
    let host = request.claim.as_deref().unwrap_or(authority);
    let mut head = format!("{} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}", request.method);
    for (name, value) in &request.headers {
        head += &format!("{name}: {value}\r\n");
    }
    match &request.body {
        Body::Empty => vec![(head + "\r\n").into_bytes()],
        Body::Declared(body) => {
            let head = format!("{head}Content-Length: {}\r\n\r\n", body.len());
            vec![head.into_bytes(), body.clone()]
        }
        Body::Pieces(pieces) => {
            let mut all = vec![(head + "Transfer-Encoding: chunked\r\n\r\n").into_bytes()];
            all.extend(pieces.iter().map(|piece| chunk(piece)));
            let trailer = |(name, value): &(String, String)| format!("{name}: {value}\r\n");
            let trailers: String = request.trailers.iter().map(trailer).collect();
            all.push(format!("0\r\n{trailers}\r\n").into_bytes());
            all
        }
    }
}

fn chunk(piece: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()
}

type Http2Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

fn http2_message(request: &Request, authority: &str) -> http::Request<Http2Body> {
    let mut message = http::Request::builder()
        .method(&request.method[..])
        .uri(format!("https://{authority}{}", request.path))
        .version(http::Version::HTTP_2);
    for (name, value) in &request.headers {
        message = message.header(name, value);
    }
    message.body(http2_body(request)).unwrap()
}

fn http2_body(request: &Request) -> Http2Body {
    let whole = |bytes: &[u8]| Full::new(Bytes::copy_from_slice(bytes)).boxed_unsync();
    match &request.body {
        Body::Empty => whole(b""),
        Body::Declared(bytes) => whole(bytes),
        Body::Pieces(pieces) => {
            let mut frames: Vec<_> =
                pieces.iter().map(|piece| Frame::data(Bytes::from(piece.clone()))).collect();
            if !request.trailers.is_empty() {
                let header = |(name, value): &(String, String)| {
                    (name.parse::<http::HeaderName>().unwrap(), value.parse::<http::HeaderValue>().unwrap())
                };
                frames.push(Frame::trailers(request.trailers.iter().map(header).collect()));
            }
            BodyExt::boxed_unsync(StreamBody::new(stream::iter(frames.into_iter().map(Ok))))
        }
    }
}

async fn read_http2(response: http::Response<hyper::body::Incoming>) -> Answer {
    let pairs = |headers: &http::HeaderMap| -> Vec<(String, String)> {
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
    };
    let mut answer = Answer {
        status: response.status().as_u16(),
        headers: pairs(response.headers()),
        ..Answer::default()
    };
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(piece)) => answer.body.add(&piece),
            Ok(Err(trailers)) => answer.trailers = trailers.trailers_ref().map(pairs).unwrap_or_default(),
            Err(error) => {
                answer.error = Some(error.to_string());
                return answer;
            }
        }
    }
    answer.complete = true;
    answer
}
