//! The framework alone: hudsucker 0.25 with no handlers, no policy and no log, forwarding everything unchanged.
//!
//! It is the peer in benchmarks and the reference of the transparency test. Started with the address to listen on, a
//! CA with its key and the roots that origins are verified against, it prints `proxy http://HOST:PORT` once it
//! listens. `UPSTREAM_H1=1` offers HTTP/1.1 alone to origins; `NODELAY=1` turns Nagle's algorithm off on both sides,
//! which hudsucker and hyper-util's connector leave on.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use hudsucker::Proxy;
use hudsucker::certificate_authority::RcgenAuthority;
use hudsucker::rcgen::{Issuer, KeyPair};
use hudsucker::rustls::crypto::aws_lc_rs;
use hudsucker::rustls::pki_types::{CertificateDer, pem::PemObject};
use hudsucker::rustls::{ClientConfig, RootCertStore};
use hudsucker::tokio_tungstenite::Connector;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::net::{TcpListener, TcpSocket};

/// How many leaf certificates are kept.
const CERTIFICATES: u64 = 10_000;
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, ca, key, roots] = &arguments[..] else {
        return Err("usage: hudsucker-min LISTEN CA.pem CA.key UPSTREAM-CA.pem".into());
    };
    let no_delay = std::env::var_os("NODELAY").is_some();
    let tls = client_tls(roots)?;
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(no_delay);
    let https = HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_or_http().enable_http1();
    let https = match std::env::var_os("UPSTREAM_H1") {
        Some(_) => https.wrap_connector(tcp),
        None => https.enable_http2().wrap_connector(tcp),
    };
    let listener = listen_at(listen.parse()?, no_delay)?;
    println!("proxy http://{}", listener.local_addr()?);
    let proxy = Proxy::builder()
        .with_listener(listener)
        .with_ca(authority(ca, key)?)
        .with_http_connector(https)
        .with_websocket_connector(Connector::Rustls(Arc::new(tls)))
        .build()?;
    Ok(proxy.start().await?)
}

fn authority(ca: &str, key: &str) -> Result<RcgenAuthority, Box<dyn Error>> {
    let key = KeyPair::from_pem(&std::fs::read_to_string(key)?)?;
    let issuer = Issuer::from_ca_cert_pem(&std::fs::read_to_string(ca)?, key)?;
    Ok(RcgenAuthority::new(issuer, CERTIFICATES, aws_lc_rs::default_provider()))
}

fn client_tls(roots: &str) -> Result<ClientConfig, Box<dyn Error>> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(roots)? {
        store.add(certificate?)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(config)
}

/// On Linux accepted sockets take `TCP_NODELAY` from the one they were accepted on.
fn listen_at(address: SocketAddr, no_delay: bool) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_nodelay(no_delay)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
