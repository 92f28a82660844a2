//! A listener that nobody may reach: it counts who does.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Listens, counts connections and bytes, and answers nothing.
pub struct Canary {
    /// Where it sits.
    pub ip: IpAddr,
    /// Its ports.
    pub ports: Vec<u16>,
    counts: Arc<Counts>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Counts {
    accepts: AtomicU64,
    bytes: AtomicU64,
}

impl Canary {
    /// Listens on the given ports of `ip`; port 0 picks a free one.
    ///
    /// # Errors
    /// Where a port is taken.
    pub async fn at(ip: &str, ports: &[u16]) -> std::io::Result<Canary> {
        let ip: IpAddr = ip.parse().unwrap();
        let mut canary = Canary { ip, ports: Vec::new(), counts: Arc::default(), _tasks: JoinSet::new() };
        for port in ports {
            let listener = TcpListener::bind((ip, *port)).await?;
            canary.ports.push(listener.local_addr()?.port());
            canary._tasks.spawn(count(listener, canary.counts.clone()));
        }
        Ok(canary)
    }

    /// Connections it has seen.
    pub fn accepts(&self) -> u64 {
        self.counts.accepts.load(Ordering::SeqCst)
    }

    /// Asserts that nobody came.
    pub fn must_be_untouched(&self) {
        let bytes = self.counts.bytes.load(Ordering::SeqCst);
        assert_eq!((self.accepts(), bytes), (0, 0), "the canary on {} was reached", self.ip);
    }
}

async fn count(listener: TcpListener, counts: Arc<Counts>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        counts.accepts.fetch_add(1, Ordering::SeqCst);
        let counts = counts.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                counts.bytes.fetch_add(read as u64, Ordering::SeqCst);
            }
        });
    }
}
