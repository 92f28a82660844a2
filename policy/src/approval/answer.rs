//! What an answer does: who passes by it now, and what it leaves behind for those who come later.

use std::collections::BTreeMap;

use ulid::Ulid;

use super::{About, Asked, Desk, Effect, GRANTS, HOUR, Refused, RequestId, State};
use crate::decide::{Grant, Holder, Point};
use crate::identity::SessionId;

/// An answer, and how far it reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Yes, to what waits and was shown; where nothing does, to the next request that wants what was shown.
    Once,
    /// Yes, for as long as the session lasts.
    Session,
    /// Yes, for an hour.
    Hour,
    /// Yes, from now on. What makes it last is written into the policy by the caller.
    Always,
    /// No.
    Deny,
}

impl Answer {
    /// All answers.
    pub const ALL: [Answer; 5] = [Answer::Once, Answer::Session, Answer::Hour, Answer::Always, Answer::Deny];

    /// How far it reaches, in the word of commands and records; a denial reaches as far as its question.
    pub fn scope(self) -> &'static str {
        match self {
            Answer::Once | Answer::Deny => "once",
            Answer::Session => "session",
            Answer::Hour => "1h",
            Answer::Always => "always",
        }
    }

    /// `approve` or `deny`.
    pub fn word(self) -> &'static str {
        if self == Answer::Deny { "deny" } else { "approve" }
    }

    /// A yes of this scope.
    pub fn approve(scope: &str) -> Option<Answer> {
        Answer::ALL.into_iter().find(|answer| *answer != Answer::Deny && answer.scope() == scope)
    }
}

/// Why a question cannot be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswerable {
    /// There is none of this name, or it is over.
    Unknown,
    /// Somebody was quicker.
    Answered,
}

impl Desk {
    pub(super) fn answer(
        &mut self,
        id: Ulid,
        answer: Answer,
        shown: usize,
        now: i64,
        effects: &mut Vec<Effect>,
    ) {
        if self.pending(id, now).is_err() {
            return;
        }
        let Some(question) = self.questions.get_mut(&id) else { return };
        let about = question.about.clone();
        let mut waiting = std::mem::take(&mut question.waiting);
        let mut unseen = Vec::new();
        if answer == Answer::Once {
            question.wanted.truncate(shown.max(1));
            let (seen, others): (BTreeMap<_, _>, _) =
                waiting.into_iter().partition(|(_, asked)| question.shows(asked, shown));
            (waiting, unseen) = (seen, others.into_values().collect());
        }
        let sessions = question.sessions.clone();
        waiting.keys().chain(unseen.iter().map(|asked: &Asked| &asked.request)).for_each(|request| {
            self.by_request.remove(request);
        });
        if answer == Answer::Deny {
            question.state = State::Denied;
            if !waiting.is_empty() {
                question.expires = now.saturating_add(self.answerable);
            }
            let why = Refused::Denied;
            effects.extend(waiting.into_keys().map(|request| Effect::Refuse { request, why }));
            return;
        }
        if answer == Answer::Once && waiting.is_empty() && unseen.is_empty() {
            question.state = State::Once;
            return;
        }
        self.grant(&about, answer, sessions, now, effects);
        self.close(&about);
        let once = (answer == Answer::Once).then(|| about.grant(Holder::Agent, None));
        effects.extend(waiting.into_keys().map(|request| Effect::Decide { request, once: once.clone() }));
        // What nobody was shown is asked about again, under the name that the first of it brought along.
        effects.extend(unseen.iter().map(|asked| self.ask(asked, now)));
    }

    /// A refusal is answered: there is nobody who waits for it.
    pub(super) fn offer(
        &mut self,
        about: About,
        session: Option<SessionId>,
        answer: Answer,
        id: Ulid,
        now: i64,
        effects: &mut Vec<Effect>,
    ) {
        match answer {
            Answer::Once if self.current(&about, now).is_none() && !self.is_crowded(&about.agent, now) => {
                let asked = Asked { request: 0, about, session, method: None, path: None, id, until: now };
                self.open(&asked, State::Once, now);
            }
            Answer::Once | Answer::Deny | Answer::Always => {}
            Answer::Session | Answer::Hour => self.grant(&about, answer, [session], now, effects),
        }
    }

    /// Lets a request pass that the policy refuses, where somebody said so for the next one.
    pub(super) fn spend(&mut self, request: RequestId, about: &About, now: i64) -> Option<Effect> {
        debug_assert_eq!(about.point, Point::Refused);
        let state = self.current(about, now)?.state;
        if state != State::Once {
            return None;
        }
        self.close(about);
        Some(Effect::Decide { request, once: Some(about.grant(Holder::Agent, None)) })
    }

    fn grant(
        &mut self,
        about: &About,
        answer: Answer,
        sessions: impl IntoIterator<Item = Option<SessionId>>,
        now: i64,
        effects: &mut Vec<Effect>,
    ) {
        let grants: Vec<Grant> = match answer {
            Answer::Session => {
                sessions.into_iter().map(|session| about.grant(Holder::Session(session), None)).collect()
            }
            Answer::Hour => vec![about.grant(Holder::Agent, Some(now.saturating_add(HOUR)))],
            Answer::Once | Answer::Always | Answer::Deny => return,
        };
        for grant in grants {
            self.grants.retain(|old| {
                let same = Grant { until: grant.until, ..old.clone() };
                same != grant
            });
            if self.grants.len() >= GRANTS {
                self.grants.pop_front();
            }
            self.grants.push_back(grant);
        }
        effects.push(Effect::Granted);
    }
}
