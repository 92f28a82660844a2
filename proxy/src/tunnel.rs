//! CONNECT: who asks, where to, and what the first bytes turn out to be. Nothing unidentified is relayed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::header::{CONTENT_LENGTH, PROXY_AUTHORIZATION, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use policy::record::OutcomeKind;
use policy::request::Kind;
use policy::target::{Host, Scheme, Target};
use policy::verdict::Reason;
use rustls::server::Acceptor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::LazyConfigAcceptor;

use crate::accept::Stream;
use crate::body::ReplyBody;
use crate::config::RefuseMode;
use crate::connection::{Scope, Tunnel, serve_http1, serve_http2};
use crate::exchange::{self, Subject};
use crate::passthrough;
use crate::patience::Patience;
use crate::reply::{Audience, Refusal};
use crate::rewind::Rewind;

/// How many bytes tell what a tunnel carries: the longest known method and a space.
const SNIFF_LIMIT: usize = 24;
/// First byte of a TLS handshake record (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;
/// A fatal `unrecognized_name` alert (RFC 6066, section 3) in a TLS 1.2 record, which every version reads.
pub const UNRECOGNIZED_NAME: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x70];
/// Methods by which clear HTTP in a tunnel is known.
const METHODS: [&str; 16] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "REPORT",
    "SEARCH",
];

/// Answers a CONNECT. A readable tunnel is answered 200 before anything is dialled; its requests are decided
/// inside it, one by one.
pub async fn open(scope: &Scope, mut request: Request<Incoming>) -> Response<ReplyBody> {
    let started = Instant::now();
    let upgrade = hyper::upgrade::on(&mut request);
    let (parts, _) = request.into_parts();
    let audience = Audience::of(&parts.headers);
    let client = match scope.identify_in_turn(&parts.headers).await {
        Ok(client) => client,
        Err(refusal) => {
            let subject = Subject::connect(read_target(&parts).ok(), None);
            return exchange::refuse(scope, subject, &refusal, audience, started).await;
        }
    };
    let target = match read_target(&parts) {
        Ok(target) => target,
        Err(refusal) => {
            return exchange::refuse(
                scope,
                Subject::connect(None, Some(client)),
                &refusal,
                audience,
                started,
            )
            .await;
        }
    };
    let Some(slot) = scope.slot(&client.agent) else {
        let refusal = Refusal::plain(Reason::Overloaded, "this agent has too many connections open");
        let subject = Subject::connect(Some(target), Some(client));
        return exchange::refuse(scope, subject, &refusal, audience, started).await;
    };
    let presented = parts.headers.get(PROXY_AUTHORIZATION);
    let credentials = scope.credentials.as_ref().or(presented).cloned();
    let tunnel = Tunnel { client, target, credentials, slot };
    let policy = scope.gateway.policy();
    if policy.rules.passthrough(&tunnel.target) {
        return passthrough::open(scope, tunnel, upgrade, audience, started).await;
    }
    if scope.gateway.config.refuse == RefuseMode::Connect
        && let Some(refusal) = exchange::unreachable(&scope.gateway, &policy, &tunnel)
    {
        let subject = Subject::connect(Some(tunnel.target), Some(tunnel.client));
        return exchange::refuse(scope, subject, &refusal, audience, started).await;
    }
    let scope = Scope { tunnel: Some(tunnel.clone()), ..scope.clone() };
    let tasks = scope.gateway.tasks.clone();
    tasks.spawn(serve(scope, tunnel, upgrade));
    Response::new(ReplyBody::empty())
}

/// A tunnel serves requests, and a request may open a tunnel: the type of this future must not hold itself.
fn serve(scope: Scope, tunnel: Tunnel, upgrade: OnUpgrade) -> BoxFuture<'static, ()> {
    async move {
        if let Some(stream) = raw(upgrade).await {
            read(scope, tunnel, stream).await;
        }
    }
    .boxed()
}

/// Serves a connection that leads to a destination without anybody having asked for a tunnel.
pub fn serve_stream(scope: Scope, tunnel: Tunnel, stream: Stream) -> BoxFuture<'static, ()> {
    let scope = Scope { tunnel: Some(tunnel.clone()), ..scope };
    let stream = Rewind::new(Bytes::new(), stream);
    async move {
        if scope.gateway.policy().rules.passthrough(&tunnel.target) {
            passthrough::serve(&scope, &tunnel, stream).await;
        } else {
            read(scope, tunnel, stream).await;
        }
    }
    .boxed()
}

/// The destination of a CONNECT. Its other fields have no say in it.
fn read_target(parts: &Parts) -> Result<Target, Refusal> {
    let malformed = |what: String| Refusal::plain(Reason::MalformedRequest, what);
    debug_assert_eq!(parts.method, Method::CONNECT);
    let body = parts.headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0");
    if body || parts.headers.contains_key(TRANSFER_ENCODING) {
        return Err(malformed("a CONNECT has no body".to_owned()));
    }
    let authority = match (parts.uri.scheme(), parts.uri.authority(), parts.uri.path_and_query()) {
        (None, Some(authority), None) => authority,
        _ => return Err(malformed("CONNECT takes `host:port`".to_owned())),
    };
    let target =
        Target::from_connect(authority.as_str().as_bytes()).map_err(|error| malformed(error.to_string()))?;
    check_host_header(parts, &target)?;
    Ok(target)
}

/// A `Host` beside CONNECT must name the same host (RFC 9112, section 3.2); clients write it with and without port.
fn check_host_header(parts: &Parts, target: &Target) -> Result<(), Refusal> {
    let mut hosts = parts.headers.get_all(http::header::HOST).iter();
    let Some(host) = hosts.next() else { return Ok(()) };
    if hosts.next().is_some() {
        return Err(Refusal::plain(Reason::MalformedRequest, "it has more than one `host` header"));
    }
    match Target::from_authority(Scheme::Https, host.as_bytes()) {
        Ok(named) if named.host == target.host => Ok(()),
        Ok(_) => Err(Refusal::plain(Reason::AuthorityMismatch, "its `host` header names another host")),
        Err(error) => Err(Refusal::plain(Reason::MalformedRequest, error.to_string())),
    }
}

/// The client's socket, with what hyper had already read from it.
pub async fn raw(upgrade: OnUpgrade) -> Option<Rewind<Stream>> {
    let upgraded = upgrade.await.ok()?;
    let parts = upgraded.downcast::<TokioIo<Patience<Stream>>>().ok()?;
    Some(Rewind::new(parts.read_buf, parts.io.into_inner().into_inner()))
}

/// What the first bytes of a tunnel are.
#[derive(Debug, PartialEq, Eq)]
enum Protocol {
    Tls,
    Http,
    Other,
    /// The client said nothing in time, or went.
    Silent,
}

async fn read(scope: Scope, tunnel: Tunnel, mut stream: Rewind<Stream>) {
    let deadline = scope.gateway.config.limits.header_timeout;
    let mut ahead = BytesMut::new();
    match sniff(&mut stream, &mut ahead, deadline).await {
        Protocol::Tls => decrypt(scope, tunnel, Rewind::new(ahead.freeze(), stream)).await,
        Protocol::Http => clear(scope, tunnel, ahead.freeze(), stream).await,
        Protocol::Other => {
            let what = "the tunnel carries neither TLS nor HTTP";
            close_unread(&scope, &tunnel, Reason::ProtocolRefused, what).await;
        }
        Protocol::Silent => {}
    }
}

async fn sniff(stream: &mut Rewind<Stream>, ahead: &mut BytesMut, deadline: Duration) -> Protocol {
    let reading = async {
        loop {
            match stream.read_buf(ahead).await {
                Ok(0) | Err(_) => return Protocol::Silent,
                Ok(_) => {}
            }
            if let Some(protocol) = recognise(ahead) {
                return protocol;
            }
        }
    };
    tokio::time::timeout(deadline, reading).await.unwrap_or(Protocol::Silent)
}

/// `None` where more bytes are needed.
fn recognise(bytes: &[u8]) -> Option<Protocol> {
    if bytes.first() == Some(&TLS_HANDSHAKE) {
        return Some(Protocol::Tls);
    }
    let word = bytes.split(|b| *b == b' ').next().unwrap_or_default();
    if word.len() < bytes.len() {
        let known = METHODS.iter().any(|method| method.as_bytes() == word);
        return Some(if known { Protocol::Http } else { Protocol::Other });
    }
    let possible = METHODS.iter().any(|method| method.as_bytes().starts_with(bytes));
    if possible && bytes.len() < SNIFF_LIMIT { None } else { Some(Protocol::Other) }
}

/// Clear HTTP in a tunnel is plain HTTP to the same host and port, where policy could allow that.
async fn clear(scope: Scope, tunnel: Tunnel, ahead: Bytes, stream: Rewind<Stream>) {
    let target = Target { scheme: Scheme::Http, ..tunnel.target.clone() };
    let policy = scope.gateway.policy();
    let as_http = Tunnel { target, ..tunnel.clone() };
    let http_possible = exchange::unreachable(&scope.gateway, &policy, &as_http).is_none();
    let https_possible = exchange::unreachable(&scope.gateway, &policy, &tunnel).is_none();
    if !http_possible && https_possible {
        let what = "the tunnel carries clear HTTP to a destination that is allowed over TLS only";
        return close_unread(&scope, &tunnel, Reason::ProtocolRefused, what).await;
    }
    let scope = Scope { tunnel: Some(as_http), ..scope };
    serve_http1(scope, Rewind::new(ahead, stream)).await;
}

/// Shakes hands as the destination and serves what is inside.
async fn decrypt(scope: Scope, tunnel: Tunnel, stream: Rewind<Rewind<Stream>>) {
    let metrics = Arc::clone(&scope.gateway.metrics);
    let deadline = tokio::time::Instant::now() + scope.gateway.config.limits.header_timeout;
    let acceptor = LazyConfigAcceptor::new(Acceptor::default(), stream);
    let hello = match tokio::time::timeout_at(deadline, acceptor).await {
        Ok(Ok(hello)) => hello,
        Ok(Err(error)) => {
            metrics.client_handshake(false);
            let what = format!("its TLS hello is not one: {error}");
            return close_unread(&scope, &tunnel, Reason::ProtocolRefused, &what).await;
        }
        Err(_) => return metrics.client_handshake(false),
    };
    let named = hello.client_hello().server_name().map(|name| Host::parse(name.as_bytes()));
    if named.is_some_and(|name| name.as_ref() != Ok(&tunnel.target.host)) {
        metrics.client_handshake(false);
        let mut stream = hello.io;
        let _ = stream.write_all(&UNRECOGNIZED_NAME).await;
        let _ = stream.shutdown().await;
        let what = "the server name of its TLS hello is not the host of the CONNECT";
        return close_unread(&scope, &tunnel, Reason::AuthorityMismatch, what).await;
    }
    let config = match scope.gateway.mint.config_for(&tunnel.target.host) {
        Ok(config) => config,
        Err(error) => {
            tracing::error!(%error, "cannot make a certificate");
            return close_unread(&scope, &tunnel, Reason::ClientTlsFailed, "no certificate could be made")
                .await;
        }
    };
    match tokio::time::timeout_at(deadline, hello.into_stream(config)).await {
        Ok(Ok(stream)) => {
            metrics.client_handshake(true);
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                serve_http2(scope, stream).await;
            } else {
                serve_http1(scope, stream).await;
            }
        }
        Ok(Err(error)) => {
            metrics.client_handshake(false);
            let what = handshake_cure(&error);
            close_unread(&scope, &tunnel, Reason::ClientTlsFailed, &what).await;
        }
        Err(_) => metrics.client_handshake(false),
    }
}

/// What most likely mends a client that broke the handshake off.
fn handshake_cure(error: &std::io::Error) -> String {
    let text = error.to_string();
    let untrusted = ["UnknownCA", "BadCertificate", "CertificateUnknown", "DecryptError", "eof"];
    if untrusted.iter().any(|word| text.contains(word)) {
        "the client does not trust Outgate's certificate authority: point it at the file that `outgate ca export` \
         writes, or list the host under `[tls] passthrough` if it pins its certificate"
            .to_owned()
    } else {
        format!("the TLS handshake with the client failed: {text}")
    }
}

/// Records a tunnel that was closed without being read further.
async fn close_unread(scope: &Scope, tunnel: &Tunnel, reason: Reason, what: &str) {
    let subject = Subject {
        kind: Kind::Connect,
        ..Subject::connect(Some(tunnel.target.clone()), Some(tunnel.client.clone()))
    };
    let refusal = Refusal::plain(reason, what);
    if let Some(entry) = exchange::record_refusal(scope, subject, &refusal, Instant::now()).await {
        entry.finish(OutcomeKind::Denied);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_the_protocol() {
        for (bytes, protocol) in [
            (&b"\x16"[..], Some(Protocol::Tls)),
            (b"\x16\x03\x01", Some(Protocol::Tls)),
            (b"G", None),
            (b"GE", None),
            (b"GET", None),
            (b"GET ", Some(Protocol::Http)),
            (b"POST /exfil HTTP/1.1\r\n", Some(Protocol::Http)),
            (b"SSH-2.0-x\r\n", Some(Protocol::Other)),
            (b"PRI * HTTP/2.0\r\n", Some(Protocol::Other)),
            (b"get / HTTP/1.1", Some(Protocol::Other)),
            (b"GETX /", Some(Protocol::Other)),
            (b"\x05\x01\x00", Some(Protocol::Other)),
            (b"\x15\x03\x01", Some(Protocol::Other)),
            (b" GET /", Some(Protocol::Other)),
        ] {
            assert_eq!(recognise(bytes), protocol, "{bytes:?}");
        }
    }
}
