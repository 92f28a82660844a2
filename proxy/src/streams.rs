//! What is under way on a connection: whether anything is, and whether the client takes what it asked for.
//!
//! hyper times heads and whole connections. That a client answers pings and asks for nothing, or leaves the window of
//! one stream of many shut, is seen here: a response body that is not asked for its next piece is not being taken.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::rt::Executor;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long a gateway that stops, or a connection that is being closed, waits for a client that takes nothing.
pub const GOODBYE: Duration = Duration::from_secs(5);
/// Requests that a client may take back before their answer, where it lets fewer be answered (CVE-2023-44487). Each
/// costs a decision and its record, and makes room at once for the next: no limit on open streams ends that.
const TAKEN_BACK: usize = 200;

/// Whether a client takes a response. Cheap to clone; all clones speak of the same one.
#[derive(Clone, Default)]
pub struct Taking(Arc<Mutex<Option<Instant>>>);

impl Taking {
    /// The client was offered something, and has to ask for more.
    pub fn offered(&self) {
        *self.since() = Some(Instant::now());
    }

    /// The client has asked, and waits for us.
    pub fn asked(&self) {
        *self.since() = None;
    }

    /// Returns once an offer has stood for `patience`, or for [`GOODBYE`] when the gateway is about to stop.
    pub async fn stalled(&self, patience: Duration, draining: &CancellationToken) {
        tokio::select! {
            () = self.stands(patience) => {}
            () = draining.cancelled() => self.stands(GOODBYE.min(patience)).await,
        }
    }

    async fn stands(&self, patience: Duration) {
        loop {
            let stood = self.since().map_or(Duration::ZERO, |since| since.elapsed());
            if stood >= patience {
                return;
            }
            tokio::time::sleep(patience - stood).await;
        }
    }

    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        // Nothing that holds it can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The streams of one HTTP/2 connection, and the tasks that serve them.
#[derive(Clone)]
pub struct Streams(Arc<Shared>);

struct Shared {
    open: watch::Sender<usize>,
    patience: Duration,
    draining: CancellationToken,
    requests: Mutex<Requests>,
    too_much: CancellationToken,
    /// Of the request that was handed over last, until its task is started: hyper does so in the same breath.
    next: Mutex<Option<Taking>>,
}

#[derive(Default)]
struct Requests {
    answered: usize,
    taken_back: usize,
}

/// A stream is open for as long as this lives.
pub struct Stream {
    streams: Streams,
    taking: Taking,
    answered: bool,
}

impl Streams {
    /// None yet. A stream whose client takes nothing for `patience` will be broken off.
    pub fn new(patience: Duration, draining: CancellationToken) -> Streams {
        Streams(Arc::new(Shared {
            open: watch::Sender::new(0),
            patience,
            draining,
            requests: Mutex::default(),
            too_much: CancellationToken::new(),
            next: Mutex::default(),
        }))
    }

    /// A request came.
    pub fn begin(&self) -> Stream {
        self.0.open.send_modify(|open| *open += 1);
        let taking = Taking::default();
        *self.next() = Some(taking.clone());
        Stream { streams: self.clone(), taking, answered: false }
    }

    /// Returns once the client has taken back so many requests that it can mean nothing by them.
    pub async fn too_much(&self) {
        self.0.too_much.cancelled().await;
    }

    /// Returns once no stream has been open for long: `first`, before there was any, and `between` afterwards.
    pub async fn idle(&self, first: Duration, between: Duration) {
        let mut open = self.0.open.subscribe();
        let mut patience = first;
        loop {
            // The sender lives as long as `self`.
            let _ = open.wait_for(|open| *open == 0).await;
            if tokio::time::timeout(patience, open.changed()).await.is_err() {
                return;
            }
            patience = between;
        }
    }

    fn next(&self) -> MutexGuard<'_, Option<Taking>> {
        // Nothing that holds it can panic.
        self.0.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    /// Whether its client takes the response.
    pub fn taking(&self) -> &Taking {
        &self.taking
    }

    /// Its request has its answer, or the head of it.
    pub fn is_answered(&mut self) {
        self.answered = true;
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Counts are whole after any panic.
        let mut requests = self.streams.0.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *if self.answered { &mut requests.answered } else { &mut requests.taken_back } += 1;
        if requests.taken_back >= TAKEN_BACK && requests.taken_back > requests.answered {
            self.streams.0.too_much.cancel();
        }
        drop(requests);
        self.streams.0.open.send_modify(|open| *open -= 1);
    }
}

impl<F> Executor<F> for Streams
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, serving: F) {
        let Some(taking) = self.next().take() else {
            tokio::spawn(serving);
            return;
        };
        let shared = Arc::clone(&self.0);
        tokio::spawn(async move {
            tokio::select! {
                _ = serving => {}
                // Dropping what serves it resets the stream, and that one alone.
                () = taking.stalled(shared.patience, &shared.draining) => {}
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(100);

    fn streams() -> Streams {
        Streams::new(SHORT, CancellationToken::new())
    }

    async fn within(time: Duration, future: impl Future<Output = ()>) -> bool {
        tokio::time::timeout(time, future).await.is_ok()
    }

    #[tokio::test]
    async fn a_connection_is_idle_once_no_stream_has_been_open_for_long() {
        let streams = streams();
        assert!(within(SHORT * 5, streams.idle(SHORT, SHORT * 50)).await, "nothing ever came");
        let first = streams.begin();
        assert!(!within(SHORT * 3, streams.idle(SHORT, SHORT)).await, "one is open");
        let idle = tokio::spawn({
            let streams = streams.clone();
            async move { streams.idle(SHORT, SHORT * 3).await }
        });
        tokio::task::yield_now().await;
        drop(first);
        tokio::time::sleep(SHORT).await;
        assert!(!idle.is_finished(), "it has not been idle for long");
        drop(streams.begin());
        tokio::time::sleep(SHORT * 2).await;
        assert!(!idle.is_finished(), "a short stream counts");
        assert!(within(SHORT * 20, async { idle.await.unwrap() }).await);
    }

    #[tokio::test]
    async fn a_stream_that_nobody_takes_is_dropped_and_the_others_are_not() {
        let streams = streams();
        let slow = streams.begin();
        let taking = slow.taking().clone();
        streams.execute(async move {
            let _slow = slow;
            std::future::pending::<()>().await;
        });
        let waits = streams.begin();
        streams.execute(async move {
            let _waits = waits;
            std::future::pending::<()>().await;
        });
        tokio::time::sleep(SHORT * 3).await;
        assert_eq!(*streams.0.open.borrow(), 2, "nothing was offered, so nothing is amiss");
        taking.offered();
        tokio::time::sleep(SHORT * 4).await;
        assert_eq!(*streams.0.open.borrow(), 1);
    }

    #[tokio::test]
    async fn a_client_that_takes_back_more_than_it_lets_be_answered_has_done_enough() {
        let (patient, hasty) = (streams(), streams());
        for number in 0..2 * TAKEN_BACK {
            let mut answered = patient.begin();
            answered.is_answered();
            drop((answered, patient.begin()));
            if number < TAKEN_BACK - 1 {
                drop(hasty.begin());
            }
        }
        assert!(!within(SHORT, patient.too_much()).await, "as many were answered");
        assert!(!within(SHORT, hasty.too_much()).await, "not yet");
        drop(hasty.begin());
        assert!(within(SHORT, hasty.too_much()).await);
    }

    #[tokio::test]
    async fn a_client_that_goes_on_asking_is_waited_for() {
        let taking = Taking::default();
        let stalled = {
            let taking = taking.clone();
            tokio::spawn(async move { taking.stalled(SHORT * 2, &CancellationToken::new()).await })
        };
        for _ in 0..5 {
            taking.offered();
            tokio::time::sleep(SHORT).await;
            taking.asked();
        }
        assert!(!stalled.is_finished());
        taking.offered();
        assert!(within(SHORT * 20, async { stalled.await.unwrap() }).await);
    }
}
