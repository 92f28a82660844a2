//! Deciding, and where the policy asks, waiting for a person and deciding again: the one place where anything is held.
//!
//! Whatever is held has had its head read and nothing else: no body, no `100 Continue`, no name resolved. What an
//! answer gives is one more input to the next decision, so that a denial, a limit or another question still holds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use http::header::HeaderMap;
use policy::approval::{About, Refused};
use policy::decide::{Grant, Grants, Methods, Point};
use policy::record::OutcomeKind;
use policy::request::Kind;
use policy::target::Target;
use policy::usage::Usage;
use policy::verdict::{Action, Denial, Judgement, Permit, Reason, Verdict};

use super::deciding::{client_of, decide};
use super::refusing::{asked, record};
use super::subject::Subject;
use super::unread_request;
use crate::clock;
use crate::connection::Scope;
use crate::gateway::{CurrentPolicy, Gateway};
use crate::head::Head;
use crate::hold::{Asking, Settled, Waiting};
use crate::identify::Client;
use crate::metrics::Answer;
use crate::presence::{LOOK, Presence};
use crate::reply::Refusal;

/// How often the credentials of what is held are looked at, in looks at the connection.
const LOOKS_BETWEEN_IDENTITIES: u32 = 4;

/// What is decided.
pub(super) enum Matter<'a> {
    /// A request.
    Request { headers: &'a HeaderMap, head: &'a Head },
    /// A connection that will not be read, with what shows that its client is there where nothing else does.
    Unread {
        credentials: Option<&'a HeaderValue>,
        kind: Kind,
        target: &'a Target,
        socket: Option<&'a (dyn Presence + Sync)>,
    },
}

/// What was decided at last, under which policy.
pub(super) struct Decided {
    pub(super) policy: Arc<CurrentPolicy>,
    pub(super) verdict: Last,
    /// How long a person was waited for.
    pub(super) held: Duration,
}

/// A verdict that is no question.
pub(super) enum Last {
    Allow(Permit),
    Deny(Denial),
    /// Refused by what became of its question.
    Refused {
        judgement: Judgement,
        refusal: Refusal,
        outcome: OutcomeKind,
    },
}

/// Decides for as long as it takes.
pub(super) async fn settle(
    scope: &Scope,
    subject: &Subject,
    matter: &Matter<'_>,
    client: Client,
    started: Instant,
) -> Decided {
    let mut asking = Held { scope, subject, matter, client, started, own: Arc::default(), asked: None };
    loop {
        let policy = scope.gateway.policy();
        let question = match asking.decide(&policy) {
            Verdict::Allow(permit) => return asking.end(policy, Last::Allow(permit)),
            Verdict::Deny(denial) => match asking.spend(&denial) {
                true => continue,
                false => return asking.end(policy, Last::Deny(denial)),
            },
            Verdict::Ask(question) => question,
        };
        let about = asking.about(question.point(), &question.target);
        asking.ask(&policy, about, &question.judgement);
        if let Some(refusal) = asking.wait(&policy, &question.judgement).await {
            return asking.end(policy, refusal);
        }
    }
}

/// What is being decided. Dropped before its end it was abandoned, and leaves a row.
struct Held<'a> {
    scope: &'a Scope,
    subject: &'a Subject,
    matter: &'a Matter<'a>,
    client: Client,
    started: Instant,
    /// The answers for this one request.
    own: Arc<[Grant]>,
    asked: Option<Open>,
}

/// A question that was asked for it, and is waited for, or was.
struct Open {
    since: Instant,
    deadline: tokio::time::Instant,
    waiting: Option<Waiting>,
    policy: Arc<CurrentPolicy>,
    judgement: Judgement,
}

impl Held<'_> {
    fn gateway(&self) -> &Arc<Gateway> {
        &self.scope.gateway
    }

    fn decide(&self, policy: &CurrentPolicy) -> Verdict {
        let grants = self.gateway().grants(&self.client).with_own(Arc::clone(&self.own));
        match self.matter {
            Matter::Request { head, .. } => decide(self.scope, policy, &self.client, head, &grants),
            Matter::Unread { kind, target, .. } => {
                let usage = self.gateway().usage(&self.client.agent, &target.host);
                decide_unread(policy, &self.client, *kind, target, &usage, &grants)
            }
        }
    }

    fn about(&self, point: Point, target: &Target) -> About {
        let methods = match self.matter {
            Matter::Request { head, .. } => {
                head.methods.iter().map(|method| Methods::of(head.kind, method)).max()
            }
            Matter::Unread { .. } => None,
        };
        About {
            agent: self.client.agent.clone(),
            target: target.clone(),
            methods: methods.unwrap_or(Methods::Unread),
            point,
        }
    }

    /// Takes the answer that somebody gave to a refusal of this, for once.
    fn spend(&mut self, denial: &Denial) -> bool {
        if !is_offered(denial.judgement.reason) {
            return false;
        }
        let Some(target) = self.subject.target.as_ref() else { return false };
        let about = self.about(Point::Refused, target);
        let grant = self.gateway().hold.spend(&about);
        grant.map(|grant| self.add(grant)).is_some()
    }

    fn add(&mut self, grant: Grant) {
        self.own = self.own.iter().cloned().chain([grant]).collect();
    }

    /// Puts the question, unless it is the one that is waited for.
    fn ask(&mut self, policy: &Arc<CurrentPolicy>, about: About, judgement: &Judgement) {
        let gateway = Arc::clone(self.gateway());
        let open = self.asked.get_or_insert_with(|| Open {
            since: Instant::now(),
            deadline: tokio::time::Instant::now() + gateway.hold.timeout,
            waiting: None,
            policy: Arc::clone(policy),
            judgement: judgement.clone(),
        });
        open.policy = Arc::clone(policy);
        open.judgement = judgement.clone();
        if gateway.hold.unattended || open.waiting.as_ref().is_some_and(|open| *open.about() == about) {
            return;
        }
        let redactor = &policy.redactor;
        let asking = Asking {
            about,
            session: self.client.session,
            method: self.subject.method.as_deref().map(|method| redactor.text(method)),
            path: self.subject.path.as_deref().map(|path| redactor.path(path)),
        };
        let left = open.deadline.saturating_duration_since(tokio::time::Instant::now());
        open.waiting = Some(gateway.hold.ask(asking, left));
    }

    /// Waits until there is something to be decided anew, or to be refused.
    async fn wait(&mut self, policy: &CurrentPolicy, judgement: &Judgement) -> Option<Last> {
        let hold = Arc::clone(&self.gateway().hold);
        if hold.unattended {
            hold.unattended();
            return Some(self.refused(Reason::ApprovalUnattended, judgement));
        }
        let draining = self.gateway().draining.clone();
        // Tells the connection, where nothing is read from it, to look whether its client is there.
        let _held = self.scope.serving.as_ref().map(crate::patience::Serving::hold);
        let mut looks = tokio::time::interval(LOOK);
        let mut since_identity = 0_u32;
        loop {
            let open = self.asked.as_mut()?;
            let waiting = open.waiting.as_mut()?;
            tokio::select! {
                settled = waiting.settled(open.deadline) => {
                    open.waiting = None;
                    return self.settled(settled, judgement).await;
                }
                () = policy.superseded.cancelled() => return None,
                () = draining.cancelled() => return Some(self.refused(Reason::Overloaded, judgement)),
                _ = looks.tick() => {
                    if self.is_gone() {
                        hold.withdrawn();
                        return Some(self.gone(judgement));
                    }
                    since_identity += 1;
                    if since_identity.is_multiple_of(LOOKS_BETWEEN_IDENTITIES)
                        && let Some(last) = self.identify(judgement).await
                    {
                        return Some(last);
                    }
                }
            }
        }
    }

    async fn settled(&mut self, settled: Settled, judgement: &Judgement) -> Option<Last> {
        match settled {
            Settled::Decide(grant) => {
                grant.into_iter().for_each(|grant| self.add(grant));
                // The agent may have been revoked while it waited.
                self.identify(judgement).await
            }
            Settled::Refused(why) => {
                let reason = match why {
                    Refused::Denied => Reason::ApprovalDenied,
                    Refused::TimedOut => {
                        self.gateway().metrics.answered(Answer::Timeout);
                        Reason::ApprovalTimeout
                    }
                    Refused::Crowded => Reason::Overloaded,
                };
                Some(self.refused(reason, judgement))
            }
        }
    }

    /// Looks again at who asks; the refusal, where that is nobody any more.
    async fn identify(&mut self, judgement: &Judgement) -> Option<Last> {
        let identified = match self.matter {
            Matter::Request { headers, .. } => client_of(self.scope, headers).await,
            Matter::Unread { credentials, .. } => self.gateway().identify_by(*credentials).await,
        };
        match identified {
            Ok(client) => {
                self.client = client;
                None
            }
            Err(refusal) => Some(last(refusal, judgement, OutcomeKind::Denied)),
        }
    }

    fn is_gone(&self) -> bool {
        matches!(self.matter, Matter::Unread { socket: Some(socket), .. } if socket.is_gone())
    }

    fn refused(&self, reason: Reason, judgement: &Judgement) -> Last {
        let refusal = asked(reason, judgement, self.subject.target.as_ref(), &self.gateway().hold);
        last(refusal, judgement, OutcomeKind::Denied)
    }

    fn gone(&self, judgement: &Judgement) -> Last {
        let refusal =
            asked(Reason::ApprovalTimeout, judgement, self.subject.target.as_ref(), &self.gateway().hold);
        last(refusal, judgement, OutcomeKind::Abandoned)
    }

    fn end(&mut self, policy: Arc<CurrentPolicy>, verdict: Last) -> Decided {
        let held = self.asked.take().map_or(Duration::ZERO, |open| open.since.elapsed());
        Decided { policy, verdict, held }
    }
}

impl Drop for Held<'_> {
    /// The client went while a person was waited for: that too is a request with an end.
    fn drop(&mut self) {
        let Some(open) = self.asked.take() else { return };
        let gateway = Arc::clone(self.gateway());
        gateway.hold.withdrawn();
        let subject = Subject { held: open.since.elapsed(), ..self.subject.clone() };
        let Open { policy, judgement, .. } = open;
        let judgement = Judgement { action: Action::Deny, reason: Reason::ApprovalTimeout, ..judgement };
        let started = self.started;
        gateway.tasks.clone().spawn(async move {
            if let Some(entry) = record(&gateway, &policy, &subject, &judgement, started).await {
                entry.finish(OutcomeKind::Abandoned);
            }
        });
    }
}

fn last(refusal: Refusal, judgement: &Judgement, outcome: OutcomeKind) -> Last {
    let judgement = Judgement { action: Action::Deny, reason: refusal.reason, ..judgement.clone() };
    Last::Refused { judgement, refusal, outcome }
}

/// Whether a person may answer a refusal for this reason: nothing in the policy is against it, it names it nowhere.
pub fn is_offered(reason: Reason) -> bool {
    matches!(reason, Reason::UnknownDestination | Reason::DeniedByDefault)
}

fn decide_unread(
    policy: &CurrentPolicy,
    client: &Client,
    kind: Kind,
    target: &Target,
    usage: &Usage,
    grants: &Grants,
) -> Verdict {
    policy.rules.decide(&unread_request(client, kind, target), usage, grants, clock::now())
}
