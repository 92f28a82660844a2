//! A client that says exactly what it is told to, byte by byte, in clear text or inside TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::PATIENCE;
use super::answer::Answer;

/// Anything bytes go through both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// An open connection.
pub struct Raw {
    /// What comes back.
    pub input: BufReader<ReadHalf<Box<dyn Duplex>>>,
    /// What is sent.
    pub output: WriteHalf<Box<dyn Duplex>>,
    /// The protocol that TLS agreed on.
    pub alpn: Option<Vec<u8>>,
    /// The certificate that TLS was opened with.
    pub certificate: Option<Vec<u8>>,
}

impl Raw {
    /// Connects.
    pub async fn open(address: SocketAddr) -> Raw {
        Raw::try_open(address).await.unwrap()
    }

    /// Connects, if somebody listens.
    ///
    /// # Errors
    /// Nobody does, or not in time.
    pub async fn try_open(address: SocketAddr) -> io::Result<Raw> {
        let stream = timeout(PATIENCE, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        Ok(Raw::over(Box::new(stream)))
    }

    /// Over any stream.
    pub fn over(stream: Box<dyn Duplex>) -> Raw {
        let (input, output) = tokio::io::split(stream);
        Raw { input: BufReader::new(input), output, alpn: None, certificate: None }
    }

    /// Sends bytes; that the other side is gone shows when reading.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = timeout(PATIENCE, async {
            self.output.write_all(bytes.as_ref()).await?;
            self.output.flush().await
        })
        .await;
    }

    /// Sends pieces with a pause between them, so that they arrive one by one.
    pub async fn send_slowly(&mut self, pieces: &[&[u8]], pause: Duration) {
        for (number, piece) in pieces.iter().enumerate() {
            if number > 0 {
                tokio::time::sleep(pause).await;
            }
            self.send(piece).await;
        }
    }

    /// Says that nothing more will come.
    pub async fn finish_sending(&mut self) {
        let _ = self.output.shutdown().await;
    }

    /// Reads one answer to a request of `method`.
    pub async fn answer_to(&mut self, method: &str) -> Answer {
        match timeout(PATIENCE, Answer::read(&mut self.input, method)).await {
            Ok(answer) => answer,
            Err(late) => Answer::none(late),
        }
    }

    /// Reads one answer to a GET or its like.
    pub async fn answer(&mut self) -> Answer {
        self.answer_to("GET").await
    }

    /// Sends a request and reads its answer at the same time, so that an early answer is not lost.
    pub async fn exchange(&mut self, method: &str, pieces: &[Vec<u8>]) -> Answer {
        let output = &mut self.output;
        let send = async {
            for piece in pieces {
                if output.write_all(piece).await.is_err() || output.flush().await.is_err() {
                    break;
                }
            }
            std::future::pending::<Answer>().await
        };
        let read = timeout(PATIENCE, Answer::read(&mut self.input, method));
        tokio::select! {
            answer = read => answer.unwrap_or_else(Answer::none),
            never = send => never,
        }
    }

    /// Reads until the other side closes: `None` where it stayed open for `patience`.
    pub async fn read_to_close(&mut self, patience: Duration) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        // A reset is a close as well; what came before it counts.
        timeout(patience, self.input.read_to_end(&mut bytes)).await.ok().map(|_| bytes)
    }

    /// Asserts that the other side closes, at once, and gives what it said before.
    pub async fn must_close(&mut self) -> String {
        let said = self.read_to_close(PATIENCE).await.expect("the connection was left open");
        String::from_utf8_lossy(&said).into_owned()
    }

    /// Sends a CONNECT and reads the answer to it.
    pub async fn connect(&mut self, authority: &str) -> Answer {
        self.connect_with(authority, "").await
    }

    /// Sends a CONNECT with further header lines, each ending in CRLF.
    pub async fn connect_with(&mut self, authority: &str, fields: &str) -> Answer {
        self.send(format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{fields}\r\n")).await;
        let answer = self.answer_to("CONNECT").await;
        Answer { at_connect: true, ..answer }
    }

    /// Opens TLS over what there is.
    ///
    /// # Errors
    /// Where the handshake fails.
    pub async fn start_tls(self, name: &str, config: Arc<rustls::ClientConfig>) -> io::Result<Raw> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let connector = TlsConnector::from(config);
        let stream = timeout(PATIENCE, connector.connect(name, self.into_stream())).await??;
        let session = stream.get_ref().1;
        let alpn = session.alpn_protocol().map(<[u8]>::to_vec);
        let certificate = session.peer_certificates().map(|chain| chain[0].to_vec());
        Ok(Raw { alpn, certificate, ..Raw::over(Box::new(stream)) })
    }

    /// The bare stream.
    ///
    /// # Panics
    /// Where bytes were read ahead.
    pub fn into_stream(self) -> Box<dyn Duplex> {
        assert!(self.input.buffer().is_empty(), "bytes came before anybody asked for them");
        self.input.into_inner().unsplit(self.output)
    }
}
