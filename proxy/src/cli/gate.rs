//! The running gateway as commands talk to it: its admin API, on loopback, with the token from the data folder.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use super::Failure;
use super::context::running;
use super::output::Shown;
use crate::config::Config;
use crate::folder;
use crate::running::Running;

/// File in the data folder that holds the admin token.
const TOKEN: &str = "admin.token";
/// The gateway answers from memory or from one query; whatever takes longer hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// A gateway that runs, and the right to ask it.
#[derive(Debug)]
pub(crate) struct Gate {
    running: Running,
    token: String,
    runtime: Runtime,
}

/// A connection to the gateway itself.
///
/// # Errors
/// Nothing that listens there.
#[expect(
    clippy::disallowed_methods,
    reason = "a command speaks to its own gateway here, never to a destination"
)]
pub(crate) async fn connect(gateway: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect(gateway).await
}

/// What the API says when it refuses.
#[derive(Deserialize)]
struct ErrorAnswer {
    error: ErrorBody,
}

#[derive(Deserialize)]
struct ErrorBody {
    message: String,
}

impl Gate {
    /// The gateway that runs on the data folder, if one does.
    ///
    /// # Errors
    /// A gateway whose token cannot be read.
    pub(crate) fn find(config: &Config) -> Result<Option<Gate>, Failure> {
        running(config)?.map(|running| Gate::of(running, config)).transpose()
    }

    fn of(running: Running, config: &Config) -> Result<Gate, Failure> {
        let path = config.data_dir.join(TOKEN);
        let token = folder::read_secret(&path)
            .map_err(Failure::failed)?
            .ok_or_else(|| Failure::Failed(format!("a gateway runs, but `{}` is missing", path.display())))?;
        let token = String::from_utf8_lossy(&token).trim().to_owned();
        Ok(Gate { running, token, runtime: super::context::runtime()? })
    }

    /// Asks for something.
    ///
    /// # Errors
    /// A gateway that does not answer, or answers with an error.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.exchange(Method::GET, path, Bytes::new())
    }

    /// Sends something and takes the answer.
    ///
    /// # Errors
    /// A gateway that does not answer, or answers with an error.
    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let body: Bytes = serde_json::to_vec(body).map_err(Failure::failed)?.into();
        self.exchange(Method::POST, path, body)
    }

    fn exchange<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, Failure> {
        self.runtime.block_on(async {
            let answer = tokio::time::timeout(ANSWER_TIMEOUT, async {
                let response = self.send(method, path, body).await?;
                let (parts, body) = response.into_parts();
                let bytes = body.collect().await.map_err(|error| self.lost(error))?.to_bytes();
                Ok((parts.status, bytes))
            });
            let (status, bytes) =
                answer.await.map_err(|_| self.lost("no answer within fifteen seconds"))??;
            self.read(status, &bytes)
        })
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, Failure> {
        let stream = connect(self.running.admin).await.map_err(|error| self.lost(error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.lost(error))?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.running.admin.to_string())
            .header(AUTHORIZATION, format!("Bearer {}", self.token))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(Failure::failed)?;
        sender.send_request(request).await.map_err(|error| self.lost(error))
    }

    fn read<T: DeserializeOwned>(&self, status: StatusCode, bytes: &[u8]) -> Result<T, Failure> {
        if status.is_success() {
            // `204 No Content` reads as nothing.
            let bytes = if bytes.is_empty() { b"null" } else { bytes };
            return serde_json::from_slice(bytes).map_err(|error| {
                Failure::Failed(format!(
                    "the gateway's answer cannot be read: {error}; is it another version?"
                ))
            });
        }
        Err(Failure::Failed(match serde_json::from_slice::<ErrorAnswer>(bytes) {
            Ok(answer) => Shown(&answer.error.message).to_string(),
            Err(_) => format!("the gateway answered {status}"),
        }))
    }

    fn lost(&self, error: impl std::fmt::Display) -> Failure {
        let Running { pid, admin, .. } = &self.running;
        Failure::Failed(format!("the gateway (process {pid}, admin {admin}) does not answer: {error}"))
    }
}
