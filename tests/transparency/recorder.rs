//! A server that keeps requests as they stood on the wire and answers with bytes it was given.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::message::{Message, Unframed};
use crate::harness::{Flaw, TestCa, provider};

/// The server, on a clear-text port and a TLS port of `localhost`, speaking HTTP/1.1 alone.
pub struct Recorder {
    /// Clear text and TLS.
    pub ports: (u16, u16),
    script: Arc<Mutex<Script>>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Script {
    answers: Vec<Vec<u8>>,
    seen: Vec<Message>,
}

impl Recorder {
    /// Listens, with certificates that `ca` signs.
    pub async fn start(ca: &Arc<TestCa>) -> Recorder {
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(ca.signer(Flaw::None));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let clear = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tls = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ports = (clear.local_addr().unwrap().port(), tls.local_addr().unwrap().port());
        let script = Arc::<Mutex<Script>>::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(listen(clear, None, script.clone()));
        tasks.spawn(listen(tls, Some(acceptor), script.clone()));
        Recorder { ports, script, _tasks: tasks }
    }

    /// From now on answers the first request with the first of `answers`, and so on; any further with the last.
    pub fn answers(&self, answers: &[Vec<u8>]) {
        *self.script.lock().unwrap() = Script { answers: answers.to_vec(), seen: Vec::new() };
    }

    /// What was asked since then.
    pub fn seen(&self) -> Vec<Message> {
        self.script.lock().unwrap().seen.clone()
    }
}

async fn listen(listener: TcpListener, acceptor: Option<TlsAcceptor>, script: Arc<Mutex<Script>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let (acceptor, script) = (acceptor.clone(), script.clone());
        tokio::spawn(async move {
            match acceptor {
                None => serve(stream, &script).await,
                Some(acceptor) => match acceptor.accept(stream).await {
                    Ok(stream) => serve(stream, &script).await,
                    Err(_) => None,
                },
            }
        });
    }
}

/// Serves requests until the client goes, or an answer is one that only the connection's end ends.
async fn serve(stream: impl AsyncRead + AsyncWrite, script: &Mutex<Script>) -> Option<()> {
    let (input, mut output) = tokio::io::split(stream);
    let mut input = BufReader::new(input);
    while let Some(request) = Message::read(&mut input, Unframed::Head).await {
        let answer = {
            let mut script = script.lock().unwrap();
            let number = script.seen.len().min(script.answers.len() - 1);
            script.seen.push(request);
            script.answers[number].clone()
        };
        output.write_all(&answer).await.ok()?;
        output.flush().await.ok()?;
        if ends_with_connection(&answer) {
            // What came before the end is to be on its way to the client: how much of a broken answer a proxy still
            // passes on is a race otherwise.
            tokio::time::sleep(Duration::from_millis(50)).await;
            break;
        }
    }
    output.shutdown().await.ok()
}

fn ends_with_connection(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer).to_ascii_lowercase();
    let last = text.rfind("http/1.").map_or("", |at| &text[at..]);
    let head = last.split("\r\n\r\n").next().unwrap_or_default();
    let framed = head.contains("\r\ncontent-length:") || head.contains("\r\ntransfer-encoding:");
    let bodiless = ["204", "304"].iter().any(|status| head.get(9..12) == Some(status));
    !(framed || bodiless) || head.contains("\r\nconnection: close")
}
