//! Carries alerts to one webhook: gathers, posts, tries again a while, gives up and says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::header::{HeaderName, HeaderValue};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::digest::{Digest, Message};
use super::sign::AlertKey;
use super::{Alert, shape};
use crate::clock;
use crate::config::{AlertFormat, AlertKind};
use crate::metrics::Metrics;
use crate::webhook::{Webhook, WebhookError};

/// How often one message is tried, and how long is waited after the first time; twice as long after each.
const ATTEMPTS: u32 = 6;
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Signs the body.
const SIGNATURE: HeaderName = HeaderName::from_static("x-outgate-signature");
/// Names the message, the same each time it is tried.
const MESSAGE: HeaderName = HeaderName::from_static("x-outgate-alert");

/// A webhook that takes alerts.
#[derive(Debug)]
pub struct Receiver {
    /// Where to.
    pub webhook: Webhook,
    /// In which shape.
    pub format: AlertFormat,
    /// About what.
    pub wants: Vec<AlertKind>,
    /// Equal alerts within this time become one.
    pub digest: Duration,
    /// What signs them.
    pub key: AlertKey,
}

/// A receiver with what it reports to.
struct Carrier {
    receiver: Receiver,
    metrics: Arc<Metrics>,
    failed: Arc<AtomicU64>,
    closing: CancellationToken,
}

impl Receiver {
    /// Carries what comes, until the end.
    pub(super) async fn carry(
        self,
        mut waiting: mpsc::Receiver<Alert>,
        metrics: Arc<Metrics>,
        failed: Arc<AtomicU64>,
        closing: CancellationToken,
    ) {
        let mut digest = Digest::new(self.digest);
        let carrier = Carrier { receiver: self, metrics, failed, closing };
        while !carrier.closing.is_cancelled() {
            let messages = carrier.next(&mut digest, &mut waiting).await;
            for message in messages {
                carrier.deliver(&message).await;
            }
        }
        // What came last is gathered, and everything is tried once.
        while let Ok(alert) = waiting.try_recv() {
            if let Some(message) = carrier.gather(&mut digest, alert) {
                carrier.deliver(&message).await;
            }
        }
        for message in digest.flush() {
            carrier.deliver(&message).await;
        }
    }
}

impl Carrier {
    /// Waits for something to send.
    async fn next(&self, digest: &mut Digest, waiting: &mut mpsc::Receiver<Alert>) -> Vec<Message> {
        let due = async {
            match digest.next() {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.closing.cancelled() => Vec::new(),
            alert = waiting.recv() => match alert {
                Some(alert) => self.gather(digest, alert).into_iter().collect(),
                None => {
                    self.closing.cancelled().await;
                    Vec::new()
                }
            },
            () = due => digest.due(Instant::now()),
        }
    }

    fn gather(&self, digest: &mut Digest, alert: Alert) -> Option<Message> {
        let kind = alert.kinds.iter().copied().find(|kind| self.receiver.wants.contains(kind))?;
        digest.add(kind, alert, Instant::now())
    }

    async fn deliver(&self, message: &Message) {
        let id = clock::ulid(clock::now());
        let body = shape::body(self.receiver.format, id, message);
        let sent = self.attempt(&id.to_string(), &body).await;
        self.metrics.alert_sent(sent.is_ok());
        match sent {
            Ok(()) => {
                for alert in message.others.iter().chain([&message.alert]) {
                    alert.sent.told.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(error) => {
                self.failed.fetch_add(message.count, Ordering::Relaxed);
                tracing::warn!(%error, "an alert was not sent");
            }
        }
    }

    async fn attempt(&self, id: &str, body: &str) -> Result<(), WebhookError> {
        let mut wait = FIRST_WAIT;
        for attempt in 1.. {
            let error = match self.post(id, body).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            // At an end everything is tried once.
            if attempt == ATTEMPTS || !is_passing(&error) || self.closing.is_cancelled() {
                return Err(error);
            }
            tracing::debug!(%error, attempt, "an alert was not taken; it is tried again");
            let _ = tokio::time::timeout(wait, self.closing.cancelled()).await;
            wait *= 2;
        }
        Ok(())
    }

    async fn post(&self, id: &str, body: &str) -> Result<(), WebhookError> {
        let signature = self.receiver.key.sign(clock::now() / 1_000_000, body);
        let value = |text: &str| HeaderValue::from_str(text).ok();
        let headers = [(SIGNATURE, value(&signature)), (MESSAGE, value(id))];
        let headers = headers.into_iter().filter_map(|(name, value)| Some((name, value?)));
        self.receiver.webhook.post_with(body.to_owned(), headers.collect()).await
    }
}

/// Whether it may be taken later. What was understood and refused, or may not be dialled, stays so.
fn is_passing(error: &WebhookError) -> bool {
    match error {
        WebhookError::Refused(_, status) => {
            status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429)
        }
        WebhookError::Dial(_, error) => !error.is_forbidden(),
        WebhookError::Http(..) | WebhookError::Timeout(_) => true,
    }
}
