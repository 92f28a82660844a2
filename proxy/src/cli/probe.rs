//! A client that does as proxy variables say, like any other: the agent of the demo, and the probe of `doctor`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, PROXY_AUTHORIZATION};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use super::gate;

/// A client with a proxy and the certificate it was told to trust.
pub(crate) struct Client {
    proxy: SocketAddr,
    /// `Proxy-Authorization`, where it has credentials.
    authorization: Option<String>,
    tls: Arc<ClientConfig>,
}

/// What it got.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Of the response.
    pub(crate) status: StatusCode,
    /// `x-outgate-decision`, where the gateway answered.
    pub(crate) decision: Option<String>,
    /// `x-outgate-reason`, where the gateway answered.
    pub(crate) reason: Option<String>,
    /// The body.
    pub(crate) body: String,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Errand {
    pub(crate) method: Method,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
}

impl Errand {
    /// A request without a body.
    pub(crate) fn get(host: &str, path: &str) -> Errand {
        Errand {
            method: Method::GET,
            host: host.to_owned(),
            path: path.to_owned(),
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }
}

impl Client {
    /// A client that trusts the certificates of a PEM file's text and nothing else.
    ///
    /// # Errors
    /// Text without a certificate.
    pub(crate) fn new(
        proxy: SocketAddr,
        authorization: Option<String>,
        certificates: &[u8],
    ) -> io::Result<Client> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(certificates) {
            roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
        }
        let mut tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        // HTTP/2 gives an answer that comes before the request's body has gone; libraries for HTTP/1.1 often do not.
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Client { proxy, authorization, tls: Arc::new(tls) })
    }

    /// Does one errand, over TLS through the proxy, on connections of its own.
    ///
    /// # Errors
    /// A proxy that cannot be reached, a certificate that is not trusted, a connection that breaks.
    pub(crate) async fn run(&self, errand: Errand) -> io::Result<Answer> {
        let tunnel = match self.connect(&errand.host).await? {
            Ok(tunnel) => tunnel,
            Err(refused) => return Ok(refused),
        };
        let name = ServerName::try_from(errand.host.clone()).map_err(io::Error::other)?;
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, tunnel).await?;
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.map_err(io::Error::other)?;
        let driver = tokio::spawn(connection);
        let mut request = Request::builder()
            .method(errand.method)
            .uri(format!("https://{}{}", errand.host, errand.path))
            .header(CONTENT_TYPE, "application/json");
        for (name, value) in errand.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(errand.body)).map_err(io::Error::other)?;
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        let answer = answer(response).await;
        // A connection that nobody drives any more would keep the gateway waiting when it stops.
        driver.abort();
        let _ = driver.await;
        answer
    }

    /// A tunnel to port 443 of a host, or what the proxy said instead.
    async fn connect(&self, host: &str) -> io::Result<Result<TokioIo<hyper::upgrade::Upgraded>, Answer>> {
        let stream = gate::connect(self.proxy).await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(connection.with_upgrades());
        let authority = format!("{host}:443");
        let mut request = Request::builder().method(Method::CONNECT).uri(&authority).header(HOST, &authority);
        if let Some(authorization) = &self.authorization {
            request = request.header(PROXY_AUTHORIZATION, authorization);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(io::Error::other)?;
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        if response.status() != StatusCode::OK {
            return Ok(Err(answer(response).await?));
        }
        Ok(Ok(TokioIo::new(hyper::upgrade::on(response).await.map_err(io::Error::other)?)))
    }
}

async fn answer(response: http::Response<hyper::body::Incoming>) -> io::Result<Answer> {
    let (parts, body) = response.into_parts();
    let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (decision, reason) = (header("x-outgate-decision"), header("x-outgate-reason"));
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    Ok(Answer { status: parts.status, decision, reason, body: String::from_utf8_lossy(&body).into_owned() })
}
