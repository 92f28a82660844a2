//! Questions to a person: which requests wait for which question, what an answer lets pass, and when a question ends.
//!
//! A state machine without a clock: [`Desk::handle`] takes what happened and when, and gives what is to be done about
//! it. What it lets pass is decided again by the caller, with the grant as one more input; nothing here is a permit.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use ulid::Ulid;

use crate::decide::{Grant, Holder, Point};
use crate::identity::{AgentName, SessionId};

mod answer;
mod question;

pub use answer::{Answer, Unanswerable};
pub use question::{About, Asked, Question, RequestId, State, WANTED, Wanted};

/// Questions that may be open at once. More than a person will read; less than a flood.
pub const QUESTIONS: usize = 1000;
/// Questions that one agent may have open at once, so that it cannot take every place.
pub const QUESTIONS_OF_AGENT: usize = 100;
/// Answers that are kept; the oldest makes room.
const GRANTS: usize = 4096;
/// Questions that are over and of which it is still known that they were answered.
const REMEMBERED: usize = 1000;
/// An hour, in microseconds.
const HOUR: i64 = 3_600_000_000;

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A request has to be asked about.
    Asked(Asked),
    /// A request that the policy refuses came: it passes where somebody said so for once.
    Refused {
        /// The request.
        request: RequestId,
        /// What was in its way.
        about: About,
    },
    /// A request has waited for as long as it may.
    TimedOut(RequestId),
    /// A request is waited for no longer: its client went, or the question is no longer the one to ask.
    Withdrawn(RequestId),
    /// A person answered a question.
    Answered {
        /// The question.
        question: Ulid,
        /// The answer.
        answer: Answer,
        /// How much of what is wanted they were shown, from the first on. An answer for once is about no more than that.
        shown: usize,
    },
    /// A person answered a refusal.
    Offered {
        /// What was refused.
        about: About,
        /// The session it was refused to.
        session: Option<SessionId>,
        /// The answer.
        answer: Answer,
        /// Name of what is kept of it.
        id: Ulid,
    },
    /// Time passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The request waits. `new` where its question is one that nobody was told of.
    Wait {
        /// The request.
        request: RequestId,
        /// The question.
        question: Ulid,
        /// Whether nobody was told of it.
        new: bool,
    },
    /// The request is decided again, with one more answer where one was given for it alone.
    Decide {
        /// The request.
        request: RequestId,
        /// The answer for it alone.
        once: Option<Grant>,
    },
    /// The request is refused.
    Refuse {
        /// The request.
        request: RequestId,
        /// Why.
        why: Refused,
    },
    /// What [`Desk::grants`] gives has changed. Before any request is decided again.
    Granted,
}

/// Why a request is refused by what became of its question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A person said no.
    Denied,
    /// Nobody answered in time.
    TimedOut,
    /// There are too many questions.
    Crowded,
}

/// All questions, and the answers that hold.
#[derive(Debug)]
pub struct Desk {
    /// How long a question can be answered after nobody waits for it any more, in microseconds.
    answerable: i64,
    questions: BTreeMap<Ulid, Question>,
    by_subject: HashMap<About, Ulid>,
    by_request: HashMap<RequestId, Ulid>,
    grants: VecDeque<Grant>,
    answered: VecDeque<Ulid>,
}

impl Desk {
    /// No questions. They can be answered for `answerable` microseconds after the last request that waited.
    pub fn new(answerable: i64) -> Desk {
        Desk {
            answerable,
            questions: BTreeMap::new(),
            by_subject: HashMap::new(),
            by_request: HashMap::new(),
            grants: VecDeque::new(),
            answered: VecDeque::new(),
        }
    }

    /// Takes what happened at `now`, in microseconds since the Unix epoch.
    pub fn handle(&mut self, event: Event, now: i64) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Asked(asked) => effects.push(self.ask(&asked, now)),
            Event::Refused { request, about } => effects.extend(self.spend(request, &about, now)),
            Event::TimedOut(request) => {
                if self.leave(request, now) {
                    effects.push(Effect::Refuse { request, why: Refused::TimedOut });
                }
            }
            Event::Withdrawn(request) => {
                self.leave(request, now);
            }
            Event::Answered { question, answer, shown } => {
                self.answer(question, answer, shown, now, &mut effects);
            }
            Event::Offered { about, session, answer, id } => {
                self.offer(about, session, answer, id, now, &mut effects);
            }
            Event::Tick => self.expire(now, &mut effects),
        }
        effects
    }

    /// Every question that can be answered, or whose answer waits for a retry, the oldest first.
    pub fn questions(&self) -> impl Iterator<Item = &Question> {
        self.questions.values()
    }

    /// A question that can be answered now.
    ///
    /// # Errors
    /// There is none of this name, or it was answered before.
    pub fn pending(&self, id: Ulid, now: i64) -> Result<&Question, Unanswerable> {
        match self.questions.get(&id) {
            Some(question) if question.state == State::Pending && !question.is_over(now) => Ok(question),
            Some(question) if question.state != State::Pending => Err(Unanswerable::Answered),
            None if self.answered.contains(&id) => Err(Unanswerable::Answered),
            _ => Err(Unanswerable::Unknown),
        }
    }

    /// Whether nobody waits and no question is left; answers may hold.
    pub fn is_empty(&self) -> bool {
        self.questions.is_empty() && self.by_subject.is_empty() && self.by_request.is_empty()
    }

    /// How many questions wait for a person.
    pub fn count_pending(&self) -> usize {
        self.questions.values().filter(|question| question.state == State::Pending).count()
    }

    /// The answers that hold, for `decide`.
    pub fn grants(&self) -> impl Iterator<Item = &Grant> {
        self.grants.iter()
    }

    /// Targets that one more request may be made to though the policy refuses it.
    pub fn offers(&self) -> impl Iterator<Item = &About> {
        self.questions
            .values()
            .filter(|question| question.state == State::Once && question.about.point == Point::Refused)
            .map(|question| &question.about)
    }

    fn ask(&mut self, asked: &Asked, now: i64) -> Effect {
        let request = asked.request;
        let mut known = self.current(&asked.about, now).map(|question| question.state);
        let is_shown = |desk: &mut Self| {
            desk.current(&asked.about, now).is_some_and(|question| question.shows(asked, WANTED))
        };
        if known == Some(State::Once) && !is_shown(self) {
            // The answer was about something else that is wanted there.
            self.close(&asked.about);
            known = None;
        }
        match known {
            Some(State::Denied) => return Effect::Refuse { request, why: Refused::Denied },
            Some(State::Once) => {
                let once = asked.about.grant(Holder::Agent, None);
                self.close(&asked.about);
                return Effect::Decide { request, once: Some(once) };
            }
            Some(State::Pending) => {}
            None if self.is_crowded(&asked.about.agent, now) => {
                return Effect::Refuse { request, why: Refused::Crowded };
            }
            None => self.open(asked, State::Pending, now),
        }
        let new = known.is_none();
        let question = self.join(asked);
        Effect::Wait { request, question, new }
    }

    /// The question about a subject. One that is over makes room.
    fn current(&mut self, about: &About, now: i64) -> Option<&mut Question> {
        let id = *self.by_subject.get(about)?;
        if self.questions.get(&id).is_none_or(|question| question.is_over(now)) {
            self.by_subject.remove(about);
            self.questions.remove(&id);
            return None;
        }
        self.questions.get_mut(&id)
    }

    fn is_crowded(&mut self, agent: &AgentName, now: i64) -> bool {
        if self.questions.len() >= QUESTIONS_OF_AGENT {
            self.forget(now);
        }
        let theirs = self.questions.values().filter(|question| question.about.agent == *agent).count();
        self.questions.len() >= QUESTIONS || theirs >= QUESTIONS_OF_AGENT
    }

    fn open(&mut self, asked: &Asked, state: State, now: i64) {
        let question = Question {
            id: asked.id,
            about: asked.about.clone(),
            session: asked.session,
            wanted: vec![asked.wanted()],
            asked: now,
            expires: now.saturating_add(self.answerable),
            requests: 0,
            state,
            waiting: BTreeMap::new(),
            sessions: BTreeSet::new(),
        };
        self.by_subject.insert(asked.about.clone(), asked.id);
        self.questions.insert(asked.id, question);
    }

    fn join(&mut self, asked: &Asked) -> Ulid {
        let id = self.by_subject.get(&asked.about).copied().unwrap_or(asked.id);
        if let Some(question) = self.questions.get_mut(&id) {
            if question.wanted.len() < WANTED && !question.shows(asked, WANTED) {
                question.wanted.push(asked.wanted());
            }
            question.waiting.insert(asked.request, asked.clone());
            question.sessions.insert(asked.session);
            question.requests = question.requests.saturating_add(1);
            question.expires = question.expires.max(asked.until.saturating_add(self.answerable));
            self.by_request.insert(asked.request, id);
        }
        id
    }

    /// A request waits no longer; whether it did. Its question lives on.
    fn leave(&mut self, request: RequestId, now: i64) -> bool {
        let Some(id) = self.by_request.remove(&request) else { return false };
        if let Some(question) = self.questions.get_mut(&id) {
            question.waiting.remove(&request);
            if question.waiting.is_empty() {
                question.expires = now.saturating_add(self.answerable);
            }
        }
        true
    }

    /// Ends the question about a subject that has been answered, with what is left of it.
    fn close(&mut self, about: &About) {
        let Some(id) = self.by_subject.remove(about) else { return };
        self.questions.remove(&id);
        if self.answered.len() >= REMEMBERED {
            self.answered.pop_front();
        }
        self.answered.push_back(id);
    }

    fn expire(&mut self, now: i64, effects: &mut Vec<Effect>) {
        self.forget(now);
        let before = self.grants.len();
        self.grants.retain(|grant| grant.until.is_none_or(|until| now < until));
        if self.grants.len() < before {
            effects.push(Effect::Granted);
        }
    }

    /// Ends questions whose time is up.
    fn forget(&mut self, now: i64) {
        let over: Vec<About> = self
            .questions
            .values()
            .filter(|question| question.is_over(now))
            .map(|question| question.about.clone())
            .collect();
        for about in over {
            self.current(&about, now);
        }
    }
}
