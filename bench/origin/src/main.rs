//! Benchmark origin: TLS (HTTP/1.1 + HTTP/2) on one port, a plain-text counter port, a tiny DNS
//! responder that answers every A query with 127.0.0.1. Loopback only.
//!
//! GET  /1k /10k /1m       fixed bodies
//! POST /upload            discards the body, answers with the byte count
//! GET  /sse?n=50&ms=20    n events, one each `ms`, payload = CLOCK_MONOTONIC ns at send time
//! admin port: any request -> "requests N\nconns N\nresumed N\nbytes_in N\n"
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{combinators::BoxBody, BodyExt, Full, StreamBody};
use hyper::{body::Frame, body::Incoming, service::service_fn, Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::rustls::{
    self,
    pki_types::{pem::PemObject, CertificateDer, PrivateKeyDer},
};

static REQS: AtomicU64 = AtomicU64::new(0);
static CONNS: AtomicU64 = AtomicU64::new(0);
static RESUMED: AtomicU64 = AtomicU64::new(0);
static BYTES_IN: AtomicU64 = AtomicU64::new(0);
static H2: AtomicU64 = AtomicU64::new(0);

fn mono_ns() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

type Body = BoxBody<Bytes, Infallible>;

fn blob(n: usize) -> Bytes {
    static K1: OnceLock<Bytes> = OnceLock::new();
    static K10: OnceLock<Bytes> = OnceLock::new();
    static M1: OnceLock<Bytes> = OnceLock::new();
    let make = || Bytes::from((0..n).map(|i| b'a' + (i % 23) as u8).collect::<Vec<u8>>());
    match n {
        1024 => K1.get_or_init(make),
        10240 => K10.get_or_init(make),
        _ => M1.get_or_init(make),
    }
    .clone()
}

fn q(query: &str, key: &str, dflt: u64) -> u64 {
    query
        .split('&')
        .filter_map(|kv| kv.split_once('='))
        .find(|(k, _)| *k == key)
        .and_then(|(_, v)| v.parse().ok())
        .unwrap_or(dflt)
}

async fn handle(req: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    REQS.fetch_add(1, Relaxed);
    let full = |b: Bytes| {
        Response::builder()
            .header("content-type", "application/octet-stream")
            .header("cache-control", "no-store")
            .body(Full::new(b).boxed())
            .unwrap()
    };
    let path = req.uri().path().to_owned();
    Ok(match (req.method(), path.as_str()) {
        (&Method::GET, "/1k") => full(blob(1024)),
        (&Method::GET, "/10k") => full(blob(10240)),
        (&Method::GET, "/1m") => full(blob(1 << 20)),
        (&Method::POST, "/upload") => {
            let mut body = req.into_body();
            let mut n = 0u64;
            while let Some(f) = body.frame().await {
                match f {
                    Ok(f) => n += f.data_ref().map_or(0, |d| d.len() as u64),
                    Err(_) => break,
                }
            }
            BYTES_IN.fetch_add(n, Relaxed);
            full(Bytes::from(n.to_string()))
        }
        (&Method::GET, "/sse") => {
            let query = req.uri().query().unwrap_or("").to_owned();
            let (n, ms) = (q(&query, "n", 50).min(10_000), q(&query, "ms", 20));
            let mut iv = tokio::time::interval(Duration::from_millis(ms.max(1)));
            iv.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let s = stream::unfold((0u64, iv), move |(i, mut iv)| async move {
                if i >= n {
                    return None;
                }
                iv.tick().await;
                let ev = format!("id: {i}\ndata: {}\n\n", mono_ns());
                Some((Ok::<_, Infallible>(Frame::data(Bytes::from(ev))), (i + 1, iv)))
            });
            Response::builder()
                .header("content-type", "text/event-stream")
                .header("cache-control", "no-store")
                .body(BodyExt::boxed(StreamBody::new(Box::pin(SyncStream(s)))))
                .unwrap()
        }
        _ => Response::builder()
            .status(StatusCode::NOT_FOUND)
            .body(Full::new(Bytes::from_static(b"no")).boxed())
            .unwrap(),
    })
}

/// BoxBody wants Sync; the stream is only polled through &mut.
struct SyncStream<S>(S);
unsafe impl<S> Sync for SyncStream<S> {}
impl<S: futures_util::Stream> futures_util::Stream for SyncStream<S> {
    type Item = S::Item;
    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<S::Item>> {
        unsafe { self.map_unchecked_mut(|s| &mut s.0) }.poll_next(cx)
    }
}

async fn dns(addr: String) {
    let Ok(sock) = tokio::net::UdpSocket::bind(&addr).await else {
        eprintln!("dns: cannot bind {addr}");
        return;
    };
    let mut b = [0u8; 1500];
    while let Ok((n, from)) = sock.recv_from(&mut b).await {
        if n < 17 {
            continue;
        }
        let mut i = 12;
        while i < n && b[i] != 0 {
            i += b[i] as usize + 1;
        }
        if i + 5 > n {
            continue;
        }
        let qtype = u16::from_be_bytes([b[i + 1], b[i + 2]]);
        let qend = i + 5;
        let is_a = qtype == 1;
        let mut r = Vec::with_capacity(qend + 16);
        r.extend_from_slice(&b[..2]);
        r.extend_from_slice(&[0x85, 0x80, 0, 1, 0, is_a as u8, 0, 0, 0, 0]);
        r.extend_from_slice(&b[12..qend]);
        if is_a {
            r.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
        }
        let _ = sock.send_to(&r, from).await;
    }
}

async fn admin(addr: String) {
    let l = tokio::net::TcpListener::bind(&addr).await.expect("admin bind");
    loop {
        let Ok((mut s, _)) = l.accept().await else { continue };
        tokio::spawn(async move {
            let mut b = [0u8; 1024];
            let _ = s.read(&mut b).await;
            let t = format!(
                "requests {}\nconns {}\nresumed {}\nh2conns {}\nbytes_in {}\n",
                REQS.load(Relaxed),
                CONNS.load(Relaxed),
                RESUMED.load(Relaxed),
                H2.load(Relaxed),
                BYTES_IN.load(Relaxed)
            );
            let _ = s
                .write_all(
                    format!(
                        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{}",
                        t.len(),
                        t
                    )
                    .as_bytes(),
                )
                .await;
        });
    }
}

#[tokio::main]
async fn main() {
    let a: Vec<String> = std::env::args().collect();
    let [listen, adm, dnsaddr, cert, key] = [&a[1], &a[2], &a[3], &a[4], &a[5]].map(|s| s.clone());
    let certs: Vec<_> = CertificateDer::pem_file_iter(cert).unwrap().map(|c| c.unwrap()).collect();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let mut p = rustls::crypto::aws_lc_rs::default_provider();
    // Classical key exchange only, so that every peer does the same handshake with the origin.
    p.kx_groups =
        vec![rustls::crypto::aws_lc_rs::kx_group::X25519, rustls::crypto::aws_lc_rs::kx_group::SECP256R1];
    let mut cfg = rustls::ServerConfig::builder_with_provider(Arc::new(p))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certs, key)
        .unwrap();
    cfg.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acc = tokio_rustls::TlsAcceptor::from(Arc::new(cfg));
    tokio::spawn(dns(dnsaddr));
    tokio::spawn(admin(adm));
    let sk = tokio::net::TcpSocket::new_v4().unwrap();
    sk.set_reuseaddr(true).unwrap();
    sk.bind(listen.parse().unwrap()).unwrap();
    let l = sk.listen(4096).unwrap();
    eprintln!("origin on {listen}");
    loop {
        let Ok((s, _)) = l.accept().await else { continue };
        let acc = acc.clone();
        tokio::spawn(async move {
            let _ = s.set_nodelay(true);
            let Ok(s) = acc.accept(s).await else { return };
            CONNS.fetch_add(1, Relaxed);
            let c = s.get_ref().1;
            if c.handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
                RESUMED.fetch_add(1, Relaxed);
            }
            if c.alpn_protocol() == Some(b"h2") {
                H2.fetch_add(1, Relaxed);
            }
            let mut b = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            b.http2()
                .timer(TokioTimer::new())
                .initial_stream_window_size(4 << 20)
                .initial_connection_window_size(16 << 20)
                .max_concurrent_streams(1000);
            let _ = b.serve_connection(TokioIo::new(s), service_fn(handle)).await;
        });
    }
}
