//! What happens, as it happens: server-sent events for the console.
//!
//! One task reads what was recorded since it last looked, and only while somebody looks on. Everybody shares one queue of
//! bounded length: who does not keep up is told to load anew what they show, and so is everybody where more was recorded
//! than is worth sending.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde_json::json;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, broadcast};
use tokio_util::sync::CancellationToken;

use super::Admin;
use super::answer::Failure;
use super::guard::Arrived;
use super::signin::SignedIn;
use crate::store::StoreError;

/// How often is looked.
const LOOK: Duration = Duration::from_millis(250);
/// Records at one look that are worth sending; where there are more, all is loaded anew.
const WORTH: u64 = 400;
/// Messages that wait for who is slowest.
const QUEUE: usize = 64;
/// Who may look on at once.
const SUBSCRIBERS: usize = 24;
/// How often a stream shows that it lives, and it is looked whether its sign-in still holds.
const BEAT: Duration = Duration::from_secs(10);

/// The console's events.
pub struct Feed {
    messages: broadcast::Sender<Arc<str>>,
    places: Arc<Semaphore>,
    /// The last record that was looked at; `None` while nobody looks on.
    position: Mutex<Option<u64>>,
    /// The questions that were told last.
    questions: Mutex<Arc<str>>,
    ended: CancellationToken,
}

impl Default for Feed {
    fn default() -> Feed {
        Feed {
            messages: broadcast::channel(QUEUE).0,
            places: Arc::new(Semaphore::new(SUBSCRIBERS)),
            position: Mutex::default(),
            questions: Mutex::new("".into()),
            ended: CancellationToken::new(),
        }
    }
}

impl Feed {
    #[cfg(test)]
    pub(super) fn has_room(&self) -> bool {
        self.places.available_permits() > 0
    }

    /// Tells everybody who looks on.
    fn tell(&self, event: &str, data: &str) {
        // An error only says that nobody does.
        let _ = self.messages.send(message(event, data));
    }
}

/// Reads for those who look on until `stopping`, and then ends their streams.
pub(super) async fn run(admin: Arc<Admin>, stopping: CancellationToken) {
    while stopping.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        if let Err(error) = look(&admin).await {
            tracing::debug!(%error, "the console's events cannot be read");
        }
    }
    admin.feed.ended.cancel();
}

async fn look(admin: &Admin) -> Result<(), StoreError> {
    let feed = &admin.feed;
    let mut position = feed.position.lock().await;
    if feed.messages.receiver_count() == 0 {
        *position = None;
        return Ok(());
    }
    tell_questions(admin).await;
    let head = admin.store.last_seq().await?;
    let after = position.replace(head).unwrap_or(head);
    if head <= after {
        return Ok(());
    }
    if head - after > WORTH {
        feed.tell("reload", "{}");
        return Ok(());
    }
    let changed = admin.store.changed(after, head).await.inspect_err(|_| feed.tell("reload", "{}"))?;
    for event in changed.events {
        feed.tell("happening", event.get());
    }
    if !changed.decisions.is_empty() {
        feed.tell("decisions", &serde_json::to_string(&changed.decisions).unwrap_or_default());
    }
    Ok(())
}

/// Tells what is held and what was answered lately, whenever that has changed.
async fn tell_questions(admin: &Admin) {
    let questions = json!({ "approvals": admin.control.approvals() }).to_string();
    let mut told = admin.feed.questions.lock().await;
    if **told != *questions {
        admin.feed.tell("approvals", &questions);
        *told = questions.into();
    }
}

/// The data is JSON, and so is on one line.
fn message(event: &str, data: &str) -> Arc<str> {
    format!("event: {event}\ndata: {data}\n\n").into()
}

/// Everything from now on. First comes `hello`: what is loaded after it misses nothing.
pub(super) async fn events(
    State(admin): State<Arc<Admin>>,
    Extension(arrived): Extension<Arrived>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let place = Arc::clone(&admin.feed.places).try_acquire_owned().map_err(|_| {
        let message = "too many look on already; close a console that is open elsewhere";
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message)
    })?;
    let messages = admin.feed.messages.subscribe();
    let mut position = admin.feed.position.lock().await;
    let head = match *position {
        Some(head) => head,
        None => *position.insert(admin.store.last_seq().await?),
    };
    drop(position);
    let signed_in = match admin.token.is_in(&headers) {
        true => None,
        false => admin.sign_ins.named(&headers, arrived.port(), Instant::now()),
    };
    let hello = format!("retry: 2000\n{}", message("hello", &json!({ "seq": head }).to_string()));
    let looker = Looker { hello: Some(hello.into()), messages, signed_in, admin, _place: place };
    let body = Body::from_stream(stream::unfold(looker, |mut looker| async {
        let text = looker.next().await?;
        Some((Ok::<_, Infallible>(text.as_bytes().to_vec()), looker))
    }));
    Ok(([(CONTENT_TYPE, "text/event-stream")], body).into_response())
}

/// Somebody who looks on.
struct Looker {
    hello: Option<Arc<str>>,
    messages: broadcast::Receiver<Arc<str>>,
    /// By which they look on; `None` for who has the token.
    signed_in: Option<SignedIn>,
    admin: Arc<Admin>,
    _place: OwnedSemaphorePermit,
}

impl Looker {
    /// What to send next; `None` at the end.
    async fn next(&mut self) -> Option<Arc<str>> {
        if let Some(hello) = self.hello.take() {
            return Some(hello);
        }
        tokio::select! {
            biased;
            () = self.admin.feed.ended.cancelled() => None,
            received = self.messages.recv() => match received {
                Ok(message) => self.still(message),
                Err(broadcast::error::RecvError::Lagged(_)) => self.still(message("reload", "{}")),
                Err(broadcast::error::RecvError::Closed) => None,
            },
            () = tokio::time::sleep(BEAT) => self.still(":\n\n".into()),
        }
    }

    /// The message, while the sign-in holds.
    fn still(&self, message: Arc<str>) -> Option<Arc<str>> {
        let holds = |signed_in| self.admin.sign_ins.is_open(signed_in, Instant::now());
        self.signed_in.is_none_or(holds).then_some(message)
    }
}
