//! A person's answers: looked at before, recorded first, then carried out.
//!
//! Questions are answered by name; so are refusals of what the policy names nowhere. What is to last is written into
//! `policy.d` and read by the gateway like any other change of the policy.

use std::path::PathBuf;
use std::time::Duration;

use policy::approval::{About, Answer, Unanswerable};
use policy::decide::{Methods, Point};
use policy::identity::SessionId;
use policy::record::Happening;
use policy::redact::Redacted;
use policy::rule::Destination;
use policy::target::{Host, Scheme, Target};
use policy::view::DecisionView;
use tokio::sync::oneshot;
use ulid::Ulid;

use crate::exchange::is_offered;
use crate::gateway::Gateway;
use crate::policies::added::{self, Addition};

/// How long a reload may take before whoever answered is told that it hangs.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(10);

/// What an answer of scope `always` writes, or would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// The file.
    pub file: PathBuf,
    /// What is added to it.
    pub entry: String,
}

/// What an answer did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The answer.
    pub answer: Answer,
    /// How many requests waited for it.
    pub waited: usize,
    /// What was written, where it is to last.
    pub written: Option<Preview>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Nothing of this name can be answered.
    #[error("{0}")]
    Unknown(String),
    /// Somebody was quicker.
    #[error("this was answered already")]
    Answered,
    /// It cannot be carried out.
    #[error("{0}")]
    Impossible(String),
    /// It cannot be recorded, so it is not given.
    #[error("the answer cannot be recorded, so it was not given")]
    Unrecorded,
}

impl From<Unanswerable> for AnswerError {
    fn from(why: Unanswerable) -> AnswerError {
        match why {
            Unanswerable::Unknown => AnswerError::Unknown(
                "there is no such question, or its time is up; `outgate approvals list` lists them"
                    .to_owned(),
            ),
            Unanswerable::Answered => AnswerError::Answered,
        }
    }
}

/// What is answered.
struct Subject {
    id: Ulid,
    about: About,
    session: Option<SessionId>,
}

impl Gateway {
    /// Answers a question, by somebody who was shown so much of what is wanted; `None`: what it lists now.
    ///
    /// # Errors
    /// As [`AnswerError`] says; nothing passes by it.
    pub async fn answer(
        &self,
        id: Ulid,
        answer: Answer,
        shown: Option<usize>,
        by: Redacted,
    ) -> Result<Given, AnswerError> {
        let _turn = self.hold.answering().await;
        let question = self.hold.pending(id)?;
        // Settled now: what is asked while the answer is recorded was shown to nobody.
        let shown = shown.unwrap_or(question.wanted.len());
        // Counted now: what is to last may let them pass before the answer itself does.
        let waited = question.reached(answer, shown);
        let subject = Subject { id, about: question.about, session: question.session };
        let written = self.give(&subject, answer, by).await?;
        self.hold.answer(id, answer, shown)?;
        Ok(Given { answer, waited, written })
    }

    /// Answers a refusal: from now on the policy is asked with this answer in mind.
    ///
    /// # Errors
    /// As [`AnswerError`] says; nothing passes by it.
    pub async fn answer_refusal(
        &self,
        refusal: &DecisionView,
        answer: Answer,
        by: Redacted,
    ) -> Result<Given, AnswerError> {
        let _turn = self.hold.answering().await;
        let subject = refused_subject(refusal)?;
        let written = self.give(&subject, answer, by).await?;
        self.hold.offer(subject.about, subject.session, answer);
        Ok(Given { answer, waited: 0, written })
    }

    /// What an answer of scope `always` to a question would write, given by somebody.
    ///
    /// # Errors
    /// As [`AnswerError`] says.
    pub fn preview(&self, id: Ulid, by: &Redacted) -> Result<Preview, AnswerError> {
        let question = self.hold.pending(id)?;
        self.addition(&question.about, by.as_str()).map(|addition| Preview::of(&addition))
    }

    /// What an answer of scope `always` to a refusal would write.
    ///
    /// # Errors
    /// As [`AnswerError`] says.
    pub fn preview_refusal(&self, refusal: &DecisionView, by: &Redacted) -> Result<Preview, AnswerError> {
        let subject = refused_subject(refusal)?;
        self.addition(&subject.about, by.as_str()).map(|addition| Preview::of(&addition))
    }

    /// Records an answer, and makes what is to last last. The record comes first: nothing passes by an answer that
    /// nobody can look up.
    async fn give(
        &self,
        subject: &Subject,
        answer: Answer,
        by: Redacted,
    ) -> Result<Option<Preview>, AnswerError> {
        let addition = match answer {
            Answer::Always => Some(self.addition(&subject.about, by.as_str())?),
            _ => None,
        };
        let redactor = &self.policy().redactor;
        let rule = match &subject.about.point {
            Point::Rule(name) => Some(redactor.text(&**name)),
            Point::Default | Point::Refused => None,
        };
        let happening = Happening::ApprovalAnswered {
            approval: subject.id.to_string().into(),
            answer: answer.word().into(),
            scope: answer.scope().into(),
            agent: Some(subject.about.agent.clone()),
            destination: Some(redactor.host(subject.about.target.to_string())),
            rule,
        };
        self.recorder.event(happening, Some(by)).await.map_err(|_| AnswerError::Unrecorded)?;
        let Some(addition) = addition else { return Ok(None) };
        addition.write().map_err(AnswerError::Impossible)?;
        self.ask_for_reload().await.map_err(|mistakes| AnswerError::Impossible(mistakes.join("\n")))?;
        Ok(Some(Preview::of(&addition)))
    }

    fn addition(&self, about: &About, by: &str) -> Result<Addition, AnswerError> {
        if let Some(file) = self.config.policy.first() {
            return Err(AnswerError::Impossible(format!(
                "the policy in force is `{}`, not the data folder's, so nothing can be added to it here; write the \
                 answer there, or answer for `session` or `1h`",
                file.display()
            )));
        }
        let text = about.target.authority_to_allow();
        let addition = match &about.point {
            Point::Rule(rule) => added::approve(&self.config, about, rule, by).map(Some),
            Point::Default | Point::Refused => {
                let destination = Destination::parse(&text).map_err(|wrong| format!("`{text}` {wrong}"));
                destination.and_then(|destination| added::allow(&self.config, &text, &destination))
            }
        };
        addition
            .map_err(AnswerError::Impossible)?
            .ok_or_else(|| AnswerError::Impossible(format!("{text} is allowed already")))
    }

    /// Reads the policy files again and puts them in force.
    ///
    /// # Errors
    /// Every mistake in them; the policy in force stays.
    pub async fn ask_for_reload(&self) -> Result<(), Vec<String>> {
        let (sender, answer) = oneshot::channel();
        let unavailable = || vec!["the gateway does not answer".to_owned()];
        self.reloads.send(sender).await.map_err(|_| unavailable())?;
        match tokio::time::timeout(RELOAD_TIMEOUT, answer).await {
            Ok(Ok(reloaded)) => reloaded,
            _ => Err(unavailable()),
        }
    }
}

impl Preview {
    fn of(addition: &Addition) -> Preview {
        Preview { file: addition.file.clone(), entry: addition.entry.clone() }
    }
}

/// What was refused, where a person may answer that.
fn refused_subject(refusal: &DecisionView) -> Result<Subject, AnswerError> {
    let impossible = |what: &str| AnswerError::Impossible(what.to_owned());
    if !is_offered(refusal.reason) {
        return Err(impossible(
            "only what no rule names can be answered: `unknown_destination` and `denied_by_default`",
        ));
    }
    // Where the name was redacted nobody knows any more what it was.
    let host: Option<Host> =
        refusal.host.as_ref().and_then(|host| Host::parse(host.as_str().as_bytes()).ok());
    let host = host.ok_or_else(|| impossible("the record does not say which host it was"))?;
    // A name looked up inside a fence, where https is what follows.
    let (scheme, port) = (refusal.scheme.unwrap_or(Scheme::Https), refusal.port.unwrap_or(443));
    let method = refusal.method.as_ref().map_or("", Redacted::as_str);
    let about = About {
        agent: refusal.agent.clone(),
        target: Target { scheme, host, port },
        methods: Methods::of(refusal.kind, method),
        point: Point::Refused,
    };
    Ok(Subject { id: refusal.id, about, session: refusal.session })
}
