//! Tells a place that the operator named: one JSON body, one POST, one answer that counts.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use policy::address::{AddressEntry, AddressRules};
use policy::target::{Scheme, Target};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::Endpoint;
use crate::dial::{DialError, Dialer};

/// From the lookup to the head of the answer.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Headers besides the usual ones.
pub type Headers = Vec<(HeaderName, HeaderValue)>;

/// Where to, and by which way.
#[derive(Clone)]
pub struct Webhook {
    url: Endpoint,
    target: Target,
    dialer: Arc<Dialer>,
    tls: Arc<ClientConfig>,
    /// Which addresses its name may lead to; `None` for any, as the operator named it.
    rules: Option<Arc<AddressRules>>,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Webhook").field(&self.url).finish()
    }
}

/// Why nobody was told.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// No connection.
    #[error("`{0:?}`: {1}")]
    Dial(Endpoint, DialError),
    /// The connection ended, or what came is not HTTP.
    #[error("`{0:?}`: {1}")]
    Http(Endpoint, hyper::Error),
    /// It answered, and not with success.
    #[error("`{0:?}` answered {1}")]
    Refused(Endpoint, StatusCode),
    /// It took too long.
    #[error("`{0:?}` did not answer in time")]
    Timeout(Endpoint),
}

impl Webhook {
    /// A webhook by its URL, reached by the operator's `dialer` and verified by `tls`. `None` where the URL's host is
    /// no host.
    pub fn new(url: &Endpoint, dialer: Arc<Dialer>, tls: Arc<ClientConfig>) -> Option<Webhook> {
        let uri = url.uri();
        let scheme = if uri.scheme_str() == Some("https") { Scheme::Https } else { Scheme::Http };
        let authority = match uri.port_u16() {
            Some(port) => format!("{}:{port}", uri.host()?),
            None => format!("{}:{}", uri.host()?, scheme.default_port()),
        };
        let target = Target::from_authority(scheme, authority.as_bytes()).ok()?;
        Some(Webhook { url: url.clone(), target, dialer, tls, rules: None })
    }

    /// The same, with its addresses judged like those of any destination. An address that stands in the URL itself is
    /// what was meant, and so is `localhost`.
    #[must_use]
    pub fn judged(self, mut allowed: Vec<AddressEntry>) -> Webhook {
        let (host, port) = (&self.target.host, Some(self.target.port));
        let local = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
        let named = match host.ip() {
            Some(ip) => vec![ip],
            None if host.as_str() == "localhost" => local.to_vec(),
            None => Vec::new(),
        };
        allowed.extend(named.into_iter().map(|ip| AddressEntry { block: IpNet::from(ip), port }));
        Webhook { rules: Some(Arc::new(AddressRules::new(allowed))), ..self }
    }

    /// Posts a body of JSON. Only an answer of 200 to 299 counts as told.
    ///
    /// # Errors
    /// Why it was not told.
    pub async fn post(&self, json: String) -> Result<(), WebhookError> {
        self.post_with(json, Vec::new()).await
    }

    /// As [`Webhook::post`], with headers besides.
    ///
    /// # Errors
    /// As [`Webhook::post`].
    pub async fn post_with(&self, json: String, headers: Headers) -> Result<(), WebhookError> {
        let told = tokio::time::timeout(TIMEOUT, self.post_unlimited(json, headers)).await;
        told.unwrap_or_else(|_| Err(WebhookError::Timeout(self.url.clone())))
    }

    async fn post_unlimited(&self, json: String, headers: Headers) -> Result<(), WebhookError> {
        let failed = |error| WebhookError::Dial(self.url.clone(), error);
        let (dialer, target) = (&self.dialer, &self.target);
        let status = match (target.scheme, &self.rules) {
            (Scheme::Https, None) => {
                let stream = dialer.named_tls(target, &self.tls).await.map_err(failed)?;
                self.send(stream, json, headers).await
            }
            (Scheme::Https, Some(rules)) => {
                let dialled = dialer.tls(target, rules, &self.tls).await.map_err(failed)?;
                self.send(dialled.stream, json, headers).await
            }
            (_, None) => self.send(dialer.named(target).await.map_err(failed)?, json, headers).await,
            (_, Some(rules)) => {
                let dialled = dialer.tcp(target, rules).await.map_err(failed)?;
                self.send(dialled.stream, json, headers).await
            }
        };
        match status.map_err(|error| WebhookError::Http(self.url.clone(), error))? {
            status if status.is_success() => Ok(()),
            status => Err(WebhookError::Refused(self.url.clone(), status)),
        }
    }

    async fn send<S>(&self, stream: S, json: String, more: Headers) -> Result<StatusCode, hyper::Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the sender, which is dropped once the head of the answer is here.
        tokio::spawn(connection);
        let path = self.url.uri().path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::new(Full::new(Bytes::from(json)));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = path.parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static("outgate"));
        if let Ok(host) = HeaderValue::from_str(&self.target.authority()) {
            headers.insert(HOST, host);
        }
        headers.extend(more);
        Ok(sender.send_request(request).await?.status())
    }
}
