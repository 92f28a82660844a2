//! The internet of the demo: a parent proxy on loopback, behind which every host is one small server.
//!
//! The gateway believes that it reaches `api.anthropic.com` on port 443; what it reaches is this file. So the
//! destinations, ports and certificates of the demo are the real ones, and nothing leaves the machine.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// What a CONNECT may be long.
const HEAD_LIMIT: usize = 8 * 1024;

/// A request as it arrived out there.
#[derive(Clone, Debug)]
pub(super) struct Arrived {
    /// For which host.
    pub(super) host: String,
    /// With which body, as far as it is text.
    pub(super) body: String,
}

/// The servers out there.
pub(super) struct Internet {
    /// Where the gateway finds them, as its parent proxy.
    pub(super) address: SocketAddr,
    /// The certificate by which it trusts them, in PEM.
    pub(super) certificate: String,
    arrived: Arc<Mutex<Vec<Arrived>>>,
}

impl Internet {
    /// Serves `hosts` until the runtime ends.
    ///
    /// # Errors
    /// Where loopback cannot be listened on.
    pub(super) async fn start(hosts: &[&str]) -> io::Result<Internet> {
        let (certificate, tls) = certificates(hosts).map_err(io::Error::other)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let arrived = Arc::new(Mutex::new(Vec::new()));
        let (acceptor, log) = (TlsAcceptor::from(Arc::new(tls)), Arc::clone(&arrived));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A connection that breaks is the gateway's to report.
                tokio::spawn(serve(stream, acceptor.clone(), Arc::clone(&log)));
            }
        });
        Ok(Internet { address, certificate, arrived })
    }

    /// What arrived for a host, the last first.
    pub(super) fn last_for(&self, host: &str) -> Option<Arrived> {
        let arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        arrived.iter().rev().find(|request| request.host == host).cloned()
    }
}

fn certificates(hosts: &[&str]) -> Result<(String, ServerConfig), Box<dyn std::error::Error + Send + Sync>> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "the internet of the demo");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let names: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new(names)?.signed_by(&key, &authority)?;
    let key = PrivateKeyDer::try_from(key.serialize_der())?;
    let tls =
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key)?;
    Ok((authority.pem(), tls))
}

async fn serve(mut stream: TcpStream, tls: TlsAcceptor, arrived: Arc<Mutex<Vec<Arrived>>>) -> io::Result<()> {
    let host = read_connect(&mut stream).await?;
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    let stream = tls.accept(stream).await?;
    let service = service_fn(move |request| answer(request, host.clone(), Arc::clone(&arrived)));
    let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    served.await.map_err(io::Error::other)
}

/// The host of the CONNECT that the connection begins with.
async fn read_connect(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > HEAD_LIMIT {
            return Err(io::ErrorKind::InvalidData.into());
        }
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head);
    let host = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(':').next());
    host.map(str::to_owned).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

async fn answer(
    request: Request<Incoming>,
    host: String,
    arrived: Arc<Mutex<Vec<Arrived>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = match request.into_body().collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Err(_) => "(broken off)".to_owned(),
    };
    let reply = format!(r#"{{"from":"{host}","received":{}}}"#, body.len());
    arrived.lock().unwrap_or_else(PoisonError::into_inner).push(Arrived { host, body });
    Ok(Response::new(Full::new(reply.into())))
}
