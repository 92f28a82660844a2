//! Requests that wait for a person: drives [`policy::approval`] with the clock, and tells each request what became of
//! its question.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use policy::approval::{
    About, Answer, Asked, Desk, Effect, Event, Question, Refused, RequestId, Unanswerable,
};
use policy::decide::{Grant, Grants};
use policy::identity::{AgentName, SessionId};
use policy::redact::Redacted;
use policy::target::Host;
use tokio::sync::{broadcast, oneshot};
use ulid::Ulid;

use crate::clock;
use crate::config::Approvals;
use crate::metrics::{self, Metrics};

mod reply_token;

pub use reply_token::{BadReply, ReplyKey};

/// New questions that a slow listener may lag behind before it misses some.
const NEWS: usize = 1024;

/// Whoever waits, and the questions they wait for.
pub struct Hold {
    inner: Mutex<Inner>,
    grants: ArcSwap<Grants>,
    /// Whether some refusal was answered for once: without one nobody has to look.
    offers: AtomicBool,
    /// Of two who answer at once, one is first, from the look at the question to the end of what the answer does.
    answering: tokio::sync::Mutex<()>,
    news: broadcast::Sender<Question>,
    metrics: Arc<Metrics>,
    /// How long a request is held.
    pub timeout: Duration,
    /// How long its question lives on.
    pub answerable: Duration,
    /// Nobody can be asked.
    pub unattended: bool,
    /// Signs what may be answered without the admin token.
    pub key: ReplyKey,
}

struct Inner {
    desk: Desk,
    waiting: HashMap<RequestId, oneshot::Sender<Settled>>,
    next: RequestId,
}

/// What became of a request's question.
#[derive(Debug)]
pub enum Settled {
    /// It is decided again, with an answer for it alone where one was given.
    Decide(Option<Grant>),
    /// It is refused.
    Refused(Refused),
}

/// What is asked, and what people are told of it.
#[derive(Clone, Debug)]
pub struct Asking {
    /// What is asked.
    pub about: About,
    /// The session of the request.
    pub session: Option<SessionId>,
    /// Its method.
    pub method: Option<Redacted>,
    /// Its path and query.
    pub path: Option<Redacted>,
}

/// A request that waits. Dropping it withdraws it.
pub struct Waiting {
    hold: Arc<Hold>,
    request: RequestId,
    about: About,
    settled: oneshot::Receiver<Settled>,
    over: bool,
}

impl Hold {
    /// Nobody waits.
    ///
    /// # Errors
    /// A system without random numbers.
    pub fn new(approvals: &Approvals, unattended: bool, metrics: Arc<Metrics>) -> anyhow::Result<Arc<Hold>> {
        let answerable = i64::try_from(approvals.answerable.as_micros()).unwrap_or(i64::MAX);
        Ok(Arc::new(Hold {
            inner: Mutex::new(Inner { desk: Desk::new(answerable), waiting: HashMap::new(), next: 1 }),
            grants: ArcSwap::default(),
            offers: AtomicBool::new(false),
            answering: tokio::sync::Mutex::new(()),
            news: broadcast::channel(NEWS).0,
            metrics,
            timeout: approvals.timeout,
            answerable: approvals.answerable,
            unattended,
            key: ReplyKey::fresh()?,
        }))
    }

    /// The answers that hold.
    pub fn grants(&self) -> Grants {
        Grants::clone(&self.grants.load())
    }

    /// Asks about a request that gives up after `patience`.
    pub fn ask(self: &Arc<Hold>, asking: Asking, patience: Duration) -> Waiting {
        let now = clock::now();
        let patience = i64::try_from(patience.as_micros()).unwrap_or(i64::MAX);
        let Asking { about, session, method, path } = asking;
        let (sender, settled) = oneshot::channel();
        let mut inner = self.lock();
        let request = inner.next;
        inner.next += 1;
        inner.waiting.insert(request, sender);
        let asked = Asked {
            request,
            about: about.clone(),
            session,
            method,
            path,
            id: clock::ulid(now),
            until: now.saturating_add(patience),
        };
        self.handle(&mut inner, Event::Asked(asked), now);
        drop(inner);
        Waiting { hold: Arc::clone(self), request, about, settled, over: false }
    }

    /// The answer for this one request that the policy refuses, where somebody gave one.
    pub fn spend(&self, about: &About) -> Option<Grant> {
        if !self.offers.load(Ordering::Relaxed) {
            return None;
        }
        let mut inner = self.lock();
        let effects = inner.desk.handle(Event::Refused { request: 0, about: about.clone() }, clock::now());
        self.look(&inner);
        effects.into_iter().find_map(|effect| match effect {
            Effect::Decide { once, .. } => once,
            _ => None,
        })
    }

    /// Whether some request to a host may pass that the policy alone would refuse.
    pub fn opens(&self, agent: &AgentName, host: &Host) -> bool {
        let offered = || {
            let inner = self.lock();
            inner.desk.offers().any(|about| about.agent == *agent && about.target.host == *host)
        };
        self.grants.load().open(agent, host, clock::now())
            || (self.offers.load(Ordering::Relaxed) && offered())
    }

    /// Every question, the oldest first.
    pub fn questions(&self) -> Vec<Question> {
        let mut inner = self.lock();
        self.handle(&mut inner, Event::Tick, clock::now());
        inner.desk.questions().cloned().collect()
    }

    /// A question that can be answered.
    ///
    /// # Errors
    /// There is none of this name, or it was answered.
    pub fn pending(&self, id: Ulid) -> Result<Question, Unanswerable> {
        self.lock().desk.pending(id, clock::now()).cloned()
    }

    /// Until this is dropped nobody else answers anything.
    pub async fn answering(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.answering.lock().await
    }

    /// Carries an answer out that was given by somebody who was shown so much of what is wanted.
    ///
    /// # Errors
    /// As [`Hold::pending`].
    pub fn answer(&self, id: Ulid, answer: Answer, shown: usize) -> Result<(), Unanswerable> {
        let now = clock::now();
        let mut inner = self.lock();
        inner.desk.pending(id, now)?;
        self.handle(&mut inner, Event::Answered { question: id, answer, shown }, now);
        self.count(answer);
        Ok(())
    }

    /// Carries the answer to a refusal out.
    pub fn offer(&self, about: About, session: Option<SessionId>, answer: Answer) {
        let now = clock::now();
        let id = clock::ulid(now);
        self.handle(&mut self.lock(), Event::Offered { about, session, answer, id }, now);
        self.count(answer);
    }

    /// Nobody could be asked about a request.
    pub fn unattended(&self) {
        self.metrics.answered(metrics::Answer::Unattended);
    }

    /// A client went while it waited.
    pub fn withdrawn(&self) {
        self.metrics.answered(metrics::Answer::Withdrawn);
    }

    /// Ends what is over.
    pub fn tick(&self) {
        self.handle(&mut self.lock(), Event::Tick, clock::now());
    }

    /// Tells of every question that is asked from now on.
    pub fn listen(&self) -> broadcast::Receiver<Question> {
        self.news.subscribe()
    }

    fn count(&self, answer: Answer) {
        let denied = answer == Answer::Deny;
        self.metrics.answered(if denied { metrics::Answer::Denied } else { metrics::Answer::Approved });
    }

    fn handle(&self, inner: &mut Inner, event: Event, now: i64) {
        for effect in inner.desk.handle(event, now) {
            match effect {
                // Before any request that is decided again by what changed.
                Effect::Granted => {
                    let grants: Grants = inner.desk.grants().cloned().collect();
                    self.grants.store(Arc::new(grants));
                }
                Effect::Wait { question, new: true, .. } => {
                    if let Some(question) = inner.desk.questions().find(|asked| asked.id == question) {
                        // Nobody has to listen.
                        let _ = self.news.send(question.clone());
                    }
                }
                Effect::Wait { .. } => {}
                Effect::Decide { request, once } => inner.settle(request, Settled::Decide(once)),
                Effect::Refuse { request, why } => inner.settle(request, Settled::Refused(why)),
            }
        }
        self.look(inner);
    }

    fn look(&self, inner: &Inner) {
        self.offers.store(inner.desk.offers().next().is_some(), Ordering::Relaxed);
        self.metrics.approvals_pending(inner.desk.count_pending());
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Whatever panicked, a question more or less lets nothing pass.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn settle(&mut self, request: RequestId, settled: Settled) {
        if let Some(waiting) = self.waiting.remove(&request) {
            // Whoever went meanwhile is not told.
            let _ = waiting.send(settled);
        }
    }
}

impl Waiting {
    /// What is asked.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// Waits for an answer until `deadline`, which is one. To be called again where it is dropped before its end.
    pub async fn settled(&mut self, deadline: tokio::time::Instant) -> Settled {
        let settled = tokio::time::timeout_at(deadline, &mut self.settled).await;
        let settled = match settled {
            Ok(settled) => settled,
            Err(_) => {
                let hold = &self.hold;
                hold.handle(&mut hold.lock(), Event::TimedOut(self.request), clock::now());
                (&mut self.settled).await
            }
        };
        self.over = true;
        // Nobody drops the other end without saying why.
        settled.unwrap_or(Settled::Refused(Refused::TimedOut))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let mut inner = self.hold.lock();
        inner.waiting.remove(&self.request);
        self.hold.handle(&mut inner, Event::Withdrawn(self.request), clock::now());
    }
}

#[cfg(test)]
mod tests {
    use policy::approval::State;
    use policy::decide::{Methods, Point};
    use policy::target::Target;

    use super::*;

    fn hold() -> Arc<Hold> {
        Hold::new(&Approvals::default(), false, Metrics::new()).unwrap()
    }

    fn asking(host: &str) -> Asking {
        let target = Target::from_connect(format!("{host}:443").as_bytes()).unwrap();
        let (methods, point) = (Methods::Reading, Point::Default);
        let about = About { agent: "claude".parse().unwrap(), target, methods, point };
        Asking { about, session: None, method: None, path: None }
    }

    fn soon() -> tokio::time::Instant {
        tokio::time::Instant::now() + Duration::from_secs(5)
    }

    #[tokio::test]
    async fn a_signed_reply_answers_once_and_what_waited_goes_on() {
        let hold = hold();
        let mut news = hold.listen();
        let mut waiting = hold.ask(asking("asked.example"), hold.timeout);
        let question = news.recv().await.unwrap();
        // What an alert would do with it.
        let path = hold.key.reply_path(&question, Answer::Hour, hold.answerable);
        let (_, query) = path.split_once('?').unwrap();
        let value = |name: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.filter(|(known, _)| *known == name).map(|(_, value)| value.to_owned()).next().unwrap()
        };
        let expires = value("expires").parse().unwrap();
        let check = || hold.key.check(question.id, Answer::Hour, expires, &value("token"));
        assert_eq!((check(), hold.answer(question.id, Answer::Hour, 1)), (Ok(()), Ok(())));
        assert!(matches!(waiting.settled(soon()).await, Settled::Decide(None)));
        assert_eq!(hold.lock().desk.grants().count(), 1);
        // The signature is good for as long as it says; the question is not.
        assert_eq!(
            (check(), hold.answer(question.id, Answer::Hour, 1)),
            (Ok(()), Err(Unanswerable::Answered))
        );
    }

    #[tokio::test]
    async fn who_goes_leaves_the_question_and_nothing_else() {
        let hold = hold();
        drop(hold.ask(asking("asked.example"), hold.timeout));
        let question = hold.questions().remove(0);
        assert_eq!((question.waiting(), question.requests, question.state), (0, 1, State::Pending));
        let late = tokio::time::Instant::now() + Duration::from_millis(50);
        let mut waiting = hold.ask(asking("asked.example"), Duration::from_millis(50));
        assert!(matches!(waiting.settled(late).await, Settled::Refused(Refused::TimedOut)));
        assert!(hold.lock().waiting.is_empty(), "nobody is waited for");
        hold.answer(question.id, Answer::Once, 1).unwrap();
        let mut retry = hold.ask(asking("asked.example"), hold.timeout);
        assert!(matches!(retry.settled(soon()).await, Settled::Decide(Some(_))));
        assert!(hold.questions().is_empty());
    }

    #[tokio::test]
    async fn a_request_that_is_looked_away_from_waits_on() {
        let hold = hold();
        let mut waiting = hold.ask(asking("asked.example"), hold.timeout);
        let question = hold.questions().remove(0);
        for _ in 0..3 {
            let looked = tokio::time::timeout(Duration::from_millis(10), waiting.settled(soon())).await;
            assert!(looked.is_err());
        }
        assert_eq!(hold.pending(question.id).unwrap().waiting(), 1);
        hold.answer(question.id, Answer::Deny, 1).unwrap();
        assert!(matches!(waiting.settled(soon()).await, Settled::Refused(Refused::Denied)));
    }
}
