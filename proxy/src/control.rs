//! What the admin listener may ask of the gateway.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use policy::approval::{Answer, Question, State, Wanted};
use policy::decide::Point;
use policy::identity::AgentName;
use policy::redact::{Redacted, Redactor};
use policy::request::{Kind, Request};
use policy::usage::Usage;
use policy::view::{DecisionView, rfc3339};
use tokio::sync::broadcast::error::RecvError;
use ulid::Ulid;

use crate::admin;
use crate::alert::Waiting;
use crate::answering::{AnswerError, Given, Preview};
use crate::asked::read_url;
use crate::clock;
use crate::config::Word as _;
use crate::gateway::Gateway;
use crate::hold::BadReply;
use crate::running::Running;

/// A gateway under control.
pub struct Control {
    /// The gateway.
    pub gateway: Arc<Gateway>,
    /// Where it listens.
    pub running: Running,
}

impl admin::Control for Control {
    fn status(&self) -> admin::Status {
        let policy = self.gateway.policy();
        let started = self.running.started;
        admin::Status {
            version: env!("CARGO_PKG_VERSION"),
            pid: self.running.pid,
            started: rfc3339(started),
            uptime_seconds: u64::try_from((clock::now() - started) / 1_000_000).unwrap_or(0),
            policy: policy.rules.digest().to_string(),
            mode: policy.rules.mode().as_str(),
            listen: self.gateway.config.listen.iter().map(ToString::to_string).collect(),
            admin: self.running.admin.to_string(),
            data_dir: self.gateway.config.data_dir.display().to_string(),
        }
    }

    fn unready(&self) -> BoxFuture<'_, Vec<String>> {
        async {
            let mut reasons = Vec::new();
            if self.gateway.draining.is_cancelled() {
                reasons.push("the gateway is stopping".to_owned());
            }
            if let Err(error) = self.gateway.store.last_seq().await {
                reasons.push(error.to_string());
            }
            reasons.extend(self.gateway.recorder.counters().problem());
            reasons
        }
        .boxed()
    }

    fn policy(&self) -> serde_json::Value {
        let policy = self.gateway.policy();
        serde_json::json!({
            "digest": &**policy.rules.digest(),
            "mode": policy.rules.mode().as_str(),
            "policy": policy.rules.to_string(),
        })
    }

    fn explain(
        &self,
        url: &str,
        method: &str,
        agent: &AgentName,
        bytes: u64,
    ) -> Result<serde_json::Value, String> {
        let (target, path) = read_url(url)?;
        let kind = Kind::Http;
        let request = Request {
            agent,
            kind,
            target: &target,
            method,
            path: Some(&path),
            upload: bytes,
            observe: false,
        };
        let rules = &self.gateway.policy().rules;
        let mut explanation =
            rules.explain(&request, &Usage::default(), &self.gateway.hold.grants(), clock::now());
        explanation.judge_address(&target, rules.addresses());
        let mut told = serde_json::to_value(&explanation).map_err(|error| error.to_string())?;
        told["policy"] = rules.digest().as_ref().into();
        told["allow"] = explanation.allow_with.map(|with| format!("outgate policy allow {with}")).into();
        Ok(told)
    }

    fn record_keeping(&self) -> serde_json::Value {
        let audit = &self.gateway.config.audit;
        serde_json::json!({
            "durability": audit.durability.word(),
            "excerpt_bytes": audit.excerpt,
            "retention_seconds": audit.retention.as_secs(),
            "max_bytes": audit.max_bytes,
            "checkpoint_records": audit.checkpoint_records,
            "checkpoint_seconds": audit.checkpoint_interval.as_secs(),
        })
    }

    fn redactor(&self) -> Redactor {
        self.gateway.policy().redactor.clone()
    }

    fn reload(&self) -> BoxFuture<'_, Result<(), Vec<String>>> {
        self.gateway.ask_for_reload().boxed()
    }

    fn approvals(&self) -> Vec<admin::Approval> {
        let redactor = &self.gateway.policy().redactor;
        self.gateway.hold.questions().iter().map(|question| approval(question, redactor)).collect()
    }

    fn answer(
        &self,
        id: Ulid,
        answer: Answer,
        shown: Option<usize>,
        by: Redacted,
    ) -> BoxFuture<'_, Result<Given, AnswerError>> {
        self.gateway.answer(id, answer, shown, by).boxed()
    }

    fn answer_refusal<'a>(
        &'a self,
        refusal: &'a DecisionView,
        answer: Answer,
        by: Redacted,
    ) -> BoxFuture<'a, Result<Given, AnswerError>> {
        self.gateway.answer_refusal(refusal, answer, by).boxed()
    }

    fn preview(&self, id: Ulid, by: &Redacted) -> Result<Preview, AnswerError> {
        self.gateway.preview(id, by)
    }

    fn preview_refusal(&self, refusal: &DecisionView, by: &Redacted) -> Result<Preview, AnswerError> {
        self.gateway.preview_refusal(refusal, by)
    }

    fn check_reply(&self, id: Ulid, answer: Answer, expires: i64, token: &str) -> Result<(), BadReply> {
        self.gateway.hold.key.check(id, answer, expires, token)
    }
}

/// Tells the alerts of every question, with URLs below `admin` by which it is answered.
pub async fn tell_of_questions(gateway: Arc<Gateway>, admin: String) {
    let mut news = gateway.hold.listen();
    loop {
        let question = match news.recv().await {
            Ok(question) => question,
            // Who lags behind is told of the next ones; `approvals list` has them all.
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        let shown = approval(&question, &gateway.policy().redactor);
        let hold = &gateway.hold;
        let reply = |answer| format!("{admin}{}", hold.key.reply_path(&question, answer, hold.answerable));
        gateway.alerts.approval_waiting(&Waiting {
            id: shown.id,
            agent: &shown.agent,
            session: shown.session,
            destination: &shown.destination,
            rule: shown.rule.as_ref(),
            reply_url: Some(&reply(Answer::Once)),
            deny_url: Some(&reply(Answer::Deny)),
        });
    }
}

/// Stands for what a question wants that wants nothing.
const NOTHING: Wanted = Wanted { method: None, path: None };

/// A question as lists show it.
pub fn approval(question: &Question, redactor: &Redactor) -> admin::Approval {
    let rule = match &question.about.point {
        Point::Rule(name) => Some(redactor.text(&**name)),
        Point::Default | Point::Refused => None,
    };
    let (first, others) = question.wanted.split_first().map_or((&NOTHING, &[][..]), |split| split);
    let other = |wanted: &Wanted| admin::Other { method: wanted.method.clone(), path: wanted.path.clone() };
    admin::Approval {
        id: question.id,
        agent: question.about.agent.clone(),
        session: question.session,
        destination: redactor.host(question.about.target.to_string()),
        method: first.method.clone(),
        path: first.path.clone(),
        others: others.iter().map(other).collect(),
        unlisted: question.unlisted() as u64,
        rule,
        asked: rfc3339(question.asked),
        expires: rfc3339(question.expires),
        requests: question.requests,
        state: match question.state {
            State::Pending => "pending".into(),
            State::Denied => "denied".into(),
            State::Once => "approved".into(),
        },
    }
}
