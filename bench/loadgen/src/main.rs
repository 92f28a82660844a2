//! Load generator for MITM / CONNECT proxies. One JSON line on stdout.
//!
//! A request counts as good only if: CONNECT answered 200, the TLS certificate chains to --ca
//! (the proxy's CA for a MITM, the origin's CA for a tunnel: so success *proves* who terminated
//! TLS), the status is 200, and the body has the expected length.
//!
//! CPU is read from the kernel's per-process CPU clock (ns), summed over --pids and all their
//! descendants, between the first and the last measured request (warm-up is outside).
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{combinators::BoxBody, BodyExt, Empty, StreamBody};
use hyper::{body::Frame, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::{
    client::TlsStream,
    rustls::{
        self,
        pki_types::{pem::PemObject, CertificateDer, ServerName},
    },
    TlsConnector,
};

type Res<T> = Result<T, String>;
type Body = BoxBody<Bytes, Infallible>;

struct Opt {
    proxy: Option<String>,
    proxy_header: Option<String>,
    origin: String,
    port: u16,
    admin: String,
    host: String,
    conc: usize,
    streams: usize,
    n: u64,
    secs: f64,
    warm: u64,
    h2: bool,
    size: u64,
    hosts: usize,
    hold: f64,
    pids: Vec<i32>,
    origin_pid: i32,
    path: String,
    tls: TlsConnector,
}

fn mono_ns() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

// ---------- process accounting ----------
fn cpu_ns(pid: i32) -> u64 {
    unsafe {
        let mut c: libc::clockid_t = 0;
        if libc::clock_getcpuclockid(pid, &mut c) != 0 {
            return 0;
        }
        let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        if libc::clock_gettime(c, &mut t) != 0 {
            return 0;
        }
        t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
    }
}
fn tree(roots: &[i32]) -> Vec<i32> {
    let mut kids: HashMap<i32, Vec<i32>> = HashMap::new();
    for e in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = e.file_name().to_str().and_then(|s| s.parse::<i32>().ok()) else { continue };
        let Ok(s) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let Some(r) = s.rfind(')') else { continue };
        if let Some(pp) = s[r + 2..].split(' ').nth(1).and_then(|x| x.parse().ok()) {
            kids.entry(pp).or_default().push(pid);
        }
    }
    let mut out: Vec<i32> = roots.to_vec();
    let mut i = 0;
    while i < out.len() {
        if let Some(k) = kids.get(&out[i]) {
            for p in k.clone() {
                if !out.contains(&p) {
                    out.push(p)
                }
            }
        }
        i += 1;
    }
    out
}
fn field_kb(path: String, key: &str) -> u64 {
    std::fs::read_to_string(path)
        .unwrap_or_default()
        .lines()
        .find(|l| l.starts_with(key))
        .and_then(|l| l.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0)
}
fn pss_kb(p: &[i32]) -> u64 {
    p.iter().map(|p| field_kb(format!("/proc/{p}/smaps_rollup"), "Pss:")).sum()
}
fn rss_kb(p: &[i32]) -> u64 {
    p.iter().map(|p| field_kb(format!("/proc/{p}/status"), "VmRSS:")).sum()
}
fn hwm_kb(p: &[i32]) -> u64 {
    p.iter().map(|p| field_kb(format!("/proc/{p}/status"), "VmHWM:")).sum()
}
struct Acct {
    t: Instant,
    proxy: HashMap<i32, u64>,
    origin: u64,
    me: u64,
    stats: BTreeMap<String, u64>,
}
fn admin_stats(addr: &str) -> BTreeMap<String, u64> {
    use std::io::{Read, Write};
    let mut m = BTreeMap::new();
    if let Ok(mut s) = std::net::TcpStream::connect(addr) {
        let _ = s.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut b = String::new();
        let _ = s.read_to_string(&mut b);
        for l in b.lines() {
            if let Some((k, v)) = l.split_once(' ') {
                if let Ok(v) = v.trim().parse() {
                    m.insert(k.to_string(), v);
                }
            }
        }
    }
    m
}
fn acct(o: &Opt) -> Acct {
    let t = tree(&o.pids);
    Acct {
        proxy: t.iter().map(|p| (*p, cpu_ns(*p))).collect(),
        origin: if o.origin_pid > 0 { cpu_ns(o.origin_pid) } else { 0 },
        me: cpu_ns(std::process::id() as i32),
        stats: admin_stats(&o.admin),
        t: Instant::now(),
    }
}

// ---------- connections ----------
async fn dial(o: &Opt, host: &str) -> Res<TlsStream<TcpStream>> {
    let f = async {
        let s = match &o.proxy {
            None => TcpStream::connect(&o.origin).await.map_err(|e| format!("tcp: {e}"))?,
            Some(p) => {
                let mut s = TcpStream::connect(p).await.map_err(|e| format!("tcp proxy: {e}"))?;
                let _ = s.set_nodelay(true);
                let mut r = format!("CONNECT {host}:{p} HTTP/1.1\r\nHost: {host}:{p}\r\n", p = o.port);
                if let Some(h) = &o.proxy_header {
                    r.push_str(h);
                    r.push_str("\r\n");
                }
                r.push_str("\r\n");
                s.write_all(r.as_bytes()).await.map_err(|e| format!("connect write: {e}"))?;
                let mut b = Vec::with_capacity(512);
                // byte-wise read: never swallows bytes after the header
                let mut one = [0u8; 1];
                while !b.ends_with(b"\r\n\r\n") {
                    let n = s.read(&mut one).await.map_err(|e| format!("connect read: {e}"))?;
                    if n == 0 || b.len() > 16384 {
                        return Err(format!("connect eof after {} bytes", b.len()));
                    }
                    b.push(one[0]);
                }
                if b.len() < 12 || &b[9..12] != b"200" {
                    let l = String::from_utf8_lossy(&b);
                    return Err(format!("connect status: {}", l.lines().next().unwrap_or("")));
                }
                s
            }
        };
        let _ = s.set_nodelay(true);
        let sn = ServerName::try_from(host.to_string()).map_err(|e| e.to_string())?;
        o.tls.connect(sn, s).await.map_err(|e| format!("tls: {e}"))
    };
    tokio::time::timeout(Duration::from_secs(30), f).await.map_err(|_| "dial timeout".to_string())?
}

enum Tx {
    H1(hyper::client::conn::http1::SendRequest<Body>),
    H2(hyper::client::conn::http2::SendRequest<Body>),
}
impl Tx {
    async fn send(&mut self, r: Request<Body>) -> Res<hyper::Response<hyper::body::Incoming>> {
        match self {
            Tx::H1(s) => {
                s.ready().await.map_err(|e| format!("ready: {e}"))?;
                s.send_request(r).await.map_err(|e| format!("send: {e}"))
            }
            Tx::H2(s) => {
                s.ready().await.map_err(|e| format!("ready: {e}"))?;
                s.send_request(r).await.map_err(|e| format!("send: {e}"))
            }
        }
    }
}
async fn open(o: &Opt, host: &str) -> Res<Tx> {
    let s = dial(o, host).await?;
    if o.h2 {
        if s.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err("alpn: no h2".into());
        }
        let (tx, c) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .handshake(TokioIo::new(s))
            .await
            .map_err(|e| format!("h2: {e}"))?;
        tokio::spawn(async move {
            let _ = c.await;
        });
        Ok(Tx::H2(tx))
    } else {
        let (tx, c) =
            hyper::client::conn::http1::handshake(TokioIo::new(s)).await.map_err(|e| format!("h1: {e}"))?;
        tokio::spawn(async move {
            let _ = c.await;
        });
        Ok(Tx::H1(tx))
    }
}
fn authority(o: &Opt, host: &str) -> String {
    if o.port == 443 {
        host.to_string()
    } else {
        format!("{host}:{}", o.port)
    }
}
fn get(o: &Opt, host: &str, path: &str) -> Request<Body> {
    let b =
        Request::get(if o.h2 { format!("https://{}{path}", authority(o, host)) } else { path.to_string() });
    let b = if o.h2 { b } else { b.header("host", authority(o, host)) };
    b.header("user-agent", "rig").header("accept", "*/*").body(Empty::new().boxed()).unwrap()
}
fn post(o: &Opt, host: &str, size: u64) -> Request<Body> {
    let chunk = Bytes::from(vec![0x5au8; 64 << 10]);
    let s = stream::unfold(size, move |left| {
        let chunk = chunk.clone();
        async move {
            if left == 0 {
                return None;
            }
            let n = left.min(chunk.len() as u64);
            Some((Ok::<_, Infallible>(Frame::data(chunk.slice(..n as usize))), left - n))
        }
    });
    let b =
        Request::post(if o.h2 { format!("https://{}/upload", authority(o, host)) } else { "/upload".into() });
    let b = if o.h2 { b } else { b.header("host", authority(o, host)) };
    b.header("content-length", size)
        .header("content-type", "application/octet-stream")
        .body(BodyExt::boxed(StreamBody::new(SyncStream(Box::pin(s)))))
        .unwrap()
}
struct SyncStream<S>(S);
unsafe impl<S> Sync for SyncStream<S> {}
impl<S: futures_util::Stream + Unpin> futures_util::Stream for SyncStream<S> {
    type Item = S::Item;
    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<S::Item>> {
        std::pin::Pin::new(&mut self.0).poll_next(cx)
    }
}
async fn exchange(tx: &mut Tx, r: Request<Body>, want: Option<u64>) -> Res<u64> {
    let f = async {
        let resp = tx.send(r).await?;
        if resp.status() != 200 {
            return Err(format!("status {}", resp.status().as_u16()));
        }
        let mut b = resp.into_body();
        let (mut n, mut small) = (0u64, Vec::new());
        while let Some(f) = b.frame().await {
            let f = f.map_err(|e| format!("body: {e}"))?;
            if let Some(d) = f.data_ref() {
                n += d.len() as u64;
                if want.is_none() && small.len() < 64 {
                    small.extend_from_slice(d);
                }
            }
        }
        match want {
            Some(w) if w != n => Err(format!("length {n} != {w}")),
            Some(_) => Ok(n),
            None => String::from_utf8_lossy(&small).trim().parse().map_err(|e| format!("upload reply: {e}")),
        }
    };
    tokio::time::timeout(Duration::from_secs(60), f).await.map_err(|_| "request timeout".to_string())?
}

#[derive(Default)]
struct Out {
    lat: Vec<u64>,
    ok: u64,
    bytes: u64,
    errs: BTreeMap<String, u64>,
}
impl Out {
    fn err(&mut self, e: String) {
        let e: String = e.chars().take(90).collect();
        *self.errs.entry(e).or_default() += 1;
    }
    fn merge(&mut self, o: Out) {
        self.lat.extend(o.lat);
        self.ok += o.ok;
        self.bytes += o.bytes;
        for (k, v) in o.errs {
            *self.errs.entry(k).or_default() += v;
        }
    }
}
fn pct(v: &[u64], p: f64) -> f64 {
    if v.is_empty() {
        return 0.0;
    }
    v[(((v.len() as f64) * p).ceil() as usize).clamp(1, v.len()) - 1] as f64 / 1e3
}

struct Shared {
    next: AtomicU64,
    stop: Mutex<Option<Instant>>,
}

fn want_len(path: &str) -> u64 {
    match path {
        "/1k" => 1024,
        "/10k" => 10240,
        _ => 1 << 20,
    }
}

async fn run_phase(
    o: Arc<Opt>,
    mode: &str,
    phase: &str,
    js: &mut serde_json::Map<String, serde_json::Value>,
) {
    let sh = Arc::new(Shared { next: AtomicU64::new(0), stop: Mutex::new(None) });
    let total_tasks = o.conc * o.streams.max(1);
    let start = Arc::new(tokio::sync::Barrier::new(total_tasks + 1));
    let mut hs = Vec::new();
    let mut pre = Out::default();
    for _ in 0..o.conc {
        // persistent connection set-up (and warm-up) before the clock starts
        let persistent = matches!(mode, "get" | "upload" | "sse");
        let mut tx0 = None;
        if persistent {
            match open(&o, &o.host).await {
                Ok(mut tx) => {
                    for _ in 0..o.warm {
                        if let Err(e) = exchange(&mut tx, get(&o, &o.host, "/1k"), Some(1024)).await {
                            pre.err(format!("warm: {e}"));
                            break;
                        }
                    }
                    tx0 = Some(tx)
                }
                Err(e) => pre.err(format!("warm: {e}")),
            }
        }
        for s in 0..o.streams.max(1) {
            let (o, sh, start, mode) = (o.clone(), sh.clone(), start.clone(), mode.to_string());
            let mut tx = match (&tx0, s) {
                (Some(Tx::H2(t)), _) => Some(Tx::H2(t.clone())),
                (Some(Tx::H1(_)), 0) => tx0.take(),
                _ => None,
            };
            hs.push(tokio::spawn(async move {
                let mut out = Out::default();
                start.wait().await;
                let end = sh.stop.lock().unwrap().unwrap();
                loop {
                    let i = sh.next.fetch_add(1, Relaxed);
                    if i >= o.n || Instant::now() >= end {
                        break;
                    }
                    let t = Instant::now();
                    match mode.as_str() {
                        "conn" | "sni" => {
                            let h = if mode == "sni" {
                                format!("host{:04}.bench.test", i % o.hosts as u64 + 1)
                            } else {
                                o.host.clone()
                            };
                            let r = async {
                                let mut tx = open(&o, &h).await?;
                                exchange(&mut tx, get(&o, &h, "/1k"), Some(1024)).await
                            }
                            .await;
                            match r {
                                Ok(n) => {
                                    out.ok += 1;
                                    out.bytes += n;
                                    out.lat.push(t.elapsed().as_nanos() as u64)
                                }
                                Err(e) => out.err(e),
                            }
                        }
                        _ => {
                            if tx.is_none() {
                                match open(&o, &o.host).await {
                                    Ok(t) => tx = Some(t),
                                    Err(e) => {
                                        out.err(format!("reopen: {e}"));
                                        tokio::time::sleep(Duration::from_millis(10)).await;
                                        continue;
                                    }
                                }
                            }
                            let c = tx.as_mut().unwrap();
                            let r = match mode.as_str() {
                                "upload" => {
                                    exchange(c, post(&o, &o.host, o.size), None).await.and_then(|n| {
                                        if n == o.size {
                                            Ok(n)
                                        } else {
                                            Err(format!("origin got {n}"))
                                        }
                                    })
                                }
                                "sse" => sse(c, &o, &mut out).await,
                                _ => exchange(c, get(&o, &o.host, &o.path), Some(want_len(&o.path))).await,
                            };
                            match r {
                                Ok(n) => {
                                    out.ok += 1;
                                    out.bytes += n;
                                    if mode != "sse" {
                                        out.lat.push(t.elapsed().as_nanos() as u64)
                                    }
                                }
                                Err(e) => {
                                    out.err(e);
                                    tx = None
                                }
                            }
                        }
                    }
                }
                out
            }));
        }
    }
    let roots = tree(&o.pids);
    let rss0 = rss_kb(&roots);
    for p in &roots {
        let _ = std::fs::write(format!("/proc/{p}/clear_refs"), "5");
    }
    *sh.stop.lock().unwrap() = Some(Instant::now() + Duration::from_secs_f64(o.secs));
    let a = acct(&o);
    start.wait().await;
    let mut out = pre;
    for h in hs {
        if let Ok(x) = h.await {
            out.merge(x)
        }
    }
    let b = acct(&o);
    report(&o, phase, a, b, rss0, out, js);
}

fn report(
    o: &Opt,
    phase: &str,
    a: Acct,
    b: Acct,
    rss0: u64,
    mut out: Out,
    js: &mut serde_json::Map<String, serde_json::Value>,
) {
    let secs = (b.t - a.t).as_secs_f64();
    let t = tree(&o.pids);
    let cpu: u64 = b.proxy.iter().map(|(p, c)| c.saturating_sub(*a.proxy.get(p).unwrap_or(&0))).sum();
    out.lat.sort_unstable();
    let l = &out.lat;
    let errs: u64 = out.errs.values().sum();
    let d = |k: &str| b.stats.get(k).unwrap_or(&0).saturating_sub(*a.stats.get(k).unwrap_or(&0));
    let mut put = |k: &str, v: serde_json::Value| {
        js.insert(if phase.is_empty() { k.to_string() } else { format!("{phase}_{k}") }, v);
    };
    let r = |x: f64| serde_json::json!((x * 1e6).round() / 1e6);
    put("ok", out.ok.into());
    put("errors", errs.into());
    put("error_kinds", serde_json::json!(out.errs));
    put("secs", r(secs));
    put("rps", r(out.ok as f64 / secs));
    put("mibps", r(out.bytes as f64 / 1048576.0 / secs));
    put("p50_us", r(pct(l, 0.50)));
    put("p95_us", r(pct(l, 0.95)));
    put("p99_us", r(pct(l, 0.99)));
    put("p999_us", r(pct(l, 0.999)));
    put("max_us", r(pct(l, 1.0)));
    let per = |ns: u64| {
        if out.ok > 0 {
            r(ns as f64 / 1e9 / out.ok as f64 * 1000.0)
        } else {
            serde_json::Value::Null
        }
    };
    put("cpu_proxy_s", r(cpu as f64 / 1e9));
    put("cpu_proxy_per_1k_s", per(cpu));
    put("cpu_origin_per_1k_s", per(b.origin - a.origin));
    put("cpu_loadgen_per_1k_s", per(b.me - a.me));
    if out.bytes > 0 {
        put("cpu_proxy_per_gib_s", r(cpu as f64 / 1e9 / (out.bytes as f64 / 1073741824.0)));
        put(
            "cpu_origin_per_gib_s",
            r((b.origin - a.origin) as f64 / 1e9 / (out.bytes as f64 / 1073741824.0)),
        );
    }
    put("rss_start_kb", rss0.into());
    put("rss_end_kb", rss_kb(&t).into());
    put("rss_peak_kb", hwm_kb(&t).into());
    put("origin_requests", d("requests").into());
    put("origin_conns", d("conns").into());
    put("origin_resumed", d("resumed").into());
    put("origin_h2conns", d("h2conns").into());
}

async fn sse(tx: &mut Tx, o: &Opt, out: &mut Out) -> Res<u64> {
    let f = async {
        let t0 = Instant::now();
        let resp = tx.send(get(o, &o.host, "/sse?n=50&ms=20")).await?;
        if resp.status() != 200 {
            return Err(format!("status {}", resp.status().as_u16()));
        }
        let mut b = resp.into_body();
        let (mut buf, mut n, mut first) = (String::new(), 0u64, None);
        while let Some(f) = b.frame().await {
            let f = f.map_err(|e| format!("body: {e}"))?;
            if let Some(d) = f.data_ref() {
                first.get_or_insert_with(|| t0.elapsed().as_nanos() as u64);
                let now = mono_ns();
                buf.push_str(&String::from_utf8_lossy(d));
                while let Some(p) = buf.find("\n\n") {
                    if let Some(x) =
                        buf[..p].split("data: ").nth(1).and_then(|x| x.trim().parse::<u64>().ok())
                    {
                        out.lat.push(now.saturating_sub(x));
                        n += 1;
                    }
                    buf.drain(..p + 2);
                }
            }
        }
        if n != 50 {
            return Err(format!("{n} events"));
        }
        FIRST.lock().unwrap().push(first.unwrap_or(0));
        Ok(0)
    };
    tokio::time::timeout(Duration::from_secs(30), f).await.map_err(|_| "request timeout".to_string())?
}
static FIRST: Mutex<Vec<u64>> = Mutex::new(Vec::new());

async fn idle(o: Arc<Opt>, js: &mut serde_json::Map<String, serde_json::Value>) {
    let roots = tree(&o.pids);
    let (rss0, pss0) = (rss_kb(&roots), pss_kb(&roots));
    let a = acct(&o);
    let mut out = Out::default();
    let mut held = Vec::new();
    let mut i = 0;
    while i < o.n {
        let batch = (o.n - i).min(o.conc as u64);
        let hs: Vec<_> = (0..batch)
            .map(|_| {
                let o = o.clone();
                tokio::spawn(async move {
                    let mut tx = open(&o, &o.host).await?;
                    exchange(&mut tx, get(&o, &o.host, "/1k"), Some(1024)).await?;
                    Ok::<_, String>(tx)
                })
            })
            .collect();
        for h in hs {
            match h.await.unwrap() {
                Ok(t) => {
                    out.ok += 1;
                    held.push(t)
                }
                Err(e) => out.err(e),
            }
        }
        i += batch;
    }
    tokio::time::sleep(Duration::from_secs_f64(o.hold)).await;
    let t = tree(&o.pids);
    let (rss1, pss1) = (rss_kb(&t), pss_kb(&t));
    let c0: u64 = t.iter().map(|p| cpu_ns(*p)).sum();
    tokio::time::sleep(Duration::from_secs_f64(o.hold)).await;
    let c1: u64 = t.iter().map(|p| cpu_ns(*p)).sum();
    let mut alive = 0u64;
    for tx in held.iter_mut() {
        if exchange(tx, get(&o, &o.host, "/1k"), Some(1024)).await.is_ok() {
            alive += 1
        }
    }
    let b = acct(&o);
    let ok = out.ok.max(1);
    report(&o, "", a, b, rss0, out, js);
    js.insert("held".into(), (held.len() as u64).into());
    js.insert("alive_after_hold".into(), alive.into());
    js.insert(
        "rss_per_conn_kb".into(),
        serde_json::json!(((rss1 as f64 - rss0 as f64) / ok as f64 * 10.0).round() / 10.0),
    );
    js.insert(
        "pss_per_conn_kb".into(),
        serde_json::json!(((pss1 as f64 - pss0 as f64) / ok as f64 * 10.0).round() / 10.0),
    );
    js.insert("rss_held_kb".into(), rss1.into());
    js.insert("idle_cpu_ms_per_s".into(), serde_json::json!((c1 - c0) as f64 / 1e6 / o.hold));
}

fn main() {
    let mut m: HashMap<String, String> = HashMap::new();
    let mut it = std::env::args().skip(1);
    while let Some(k) = it.next() {
        let k = k.trim_start_matches("--").to_string();
        let v = if k == "h2" || k == "resume" { "1".into() } else { it.next().expect("value") };
        m.insert(k, v);
    }
    let g = |k: &str, d: &str| m.get(k).cloned().unwrap_or(d.to_string());
    let mode = g("mode", "get");
    let mut roots = rustls::RootCertStore::empty();
    for c in CertificateDer::pem_file_iter(g("ca", "ca.pem")).expect("ca") {
        roots.add(c.unwrap()).unwrap();
    }
    let mut p = rustls::crypto::aws_lc_rs::default_provider();
    p.kx_groups =
        vec![rustls::crypto::aws_lc_rs::kx_group::X25519, rustls::crypto::aws_lc_rs::kx_group::SECP256R1];
    let mut cfg = rustls::ClientConfig::builder_with_provider(Arc::new(p))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let h2 = m.contains_key("h2");
    cfg.alpn_protocols = vec![if h2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    if !m.contains_key("resume") {
        cfg.resumption = rustls::client::Resumption::disabled();
    }
    let o = Arc::new(Opt {
        proxy: m.get("proxy").cloned().filter(|s| !s.is_empty()),
        proxy_header: m.get("proxy-header").cloned().filter(|s| !s.is_empty()),
        origin: g("origin", "127.0.0.1:443"),
        port: g("port", "443").parse().unwrap(),
        admin: g("admin", "127.0.0.1:8081"),
        host: g("host", "host0001.bench.test"),
        conc: g("conc", "1").parse().unwrap(),
        streams: g("streams", "1").parse().unwrap(),
        n: g("n", "1000").parse().unwrap(),
        secs: g("secs", "10").parse().unwrap(),
        warm: g("warm", "20").parse().unwrap(),
        h2,
        size: g("size", "1048576").parse().unwrap(),
        hosts: g("hosts", "1000").parse().unwrap(),
        hold: g("hold", "3").parse().unwrap(),
        pids: g("pids", "").split(',').filter_map(|s| s.parse().ok()).collect(),
        origin_pid: g("origin-pid", "0").parse().unwrap(),
        path: g("path", "/1k"),
        tls: TlsConnector::from(Arc::new(cfg)),
    });
    let rt = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(g("threads", "2").parse().unwrap())
        .enable_all()
        .build()
        .unwrap();
    let mut js = serde_json::Map::new();
    js.insert("mode".into(), mode.clone().into());
    rt.block_on(async {
        match mode.as_str() {
            "idle" => idle(o.clone(), &mut js).await,
            "sni" => {
                run_phase(o.clone(), "sni", "cold", &mut js).await;
                run_phase(o.clone(), "sni", "warm", &mut js).await;
            }
            m => run_phase(o.clone(), m, "", &mut js).await,
        }
    });
    let mut f = std::mem::take(&mut *FIRST.lock().unwrap());
    if !f.is_empty() {
        f.sort_unstable();
        js.insert("first_p50_us".into(), serde_json::json!(pct(&f, 0.5)));
        js.insert("first_p99_us".into(), serde_json::json!(pct(&f, 0.99)));
    }
    println!("{}", serde_json::Value::Object(js));
}
