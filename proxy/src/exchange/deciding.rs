//! Who asks and what the policy says to it: for requests, and for connections that are not read.

use std::sync::Arc;
use std::time::Instant;

use http::header::HeaderMap;
use policy::decide::Reach;
use policy::record::OutcomeKind;
use policy::request::Kind;
use policy::target::{Scheme, Target};
use policy::usage::Usage;
use policy::verdict::{Action, Denial, Judgement, Permit, Reason, SecretAction, Verdict};

use super::refusing::{Stopped, closes, denied, record, record_refusal, unattended};
use super::subject::{Subject, decision};
use crate::clock;
use crate::connection::{Scope, Tunnel};
use crate::entry::{Entry, Progress};
use crate::gateway::CurrentPolicy;
use crate::head::Head;
use crate::identify::Client;
use crate::inspect;
use crate::reply::Refusal;

/// Who asks: the tunnel's opener, or whoever this request's own credentials name. A tunnel may outlive the agent that
/// opened it, so its credentials have to hold for every request.
pub(super) async fn client_of(scope: &Scope, headers: &HeaderMap) -> Result<Client, Refusal> {
    match &scope.tunnel {
        Some(tunnel) => scope.gateway.identify_by(tunnel.credentials.as_ref()).await,
        None => scope.identify(headers).await,
    }
}

/// Decides for each method the request may be taken for; the strictest verdict counts.
pub(super) fn decide(scope: &Scope, policy: &CurrentPolicy, client: &Client, head: &Head) -> Verdict {
    // A length is whatever the client wrote, up to 2^64 - 1.
    let upload = head.bytes.saturating_add(head.declared.unwrap_or(0));
    let began = Instant::now();
    let usage = scope.gateway.usage(&client.agent, &head.target.host);
    let now = clock::now();
    let one = |method: &str| {
        let request = policy::request::Request {
            agent: &client.agent,
            kind: head.kind,
            target: &head.target,
            method,
            path: Some(&head.path),
            upload,
            observe: client.observe,
        };
        policy.rules.decide(&request, &usage, &scope.gateway.grants(), now)
    };
    let verdicts = head.methods.iter().map(|method| one(method));
    let verdict = verdicts.reduce(stricter).unwrap_or_else(|| one(""));
    scope.gateway.metrics.decide_took(began.elapsed());
    verdict
}

fn stricter(one: Verdict, other: Verdict) -> Verdict {
    if action(&other) > action(&one) { other } else { one }
}

fn action(verdict: &Verdict) -> Action {
    match verdict {
        Verdict::Allow(_) => Action::Allow,
        Verdict::Ask(_) => Action::Ask,
        Verdict::Deny(_) => Action::Deny,
    }
}

/// Whether clear HTTP came through a tunnel to a port where policy allows TLS.
pub(super) fn tls_only(scope: &Scope, policy: &CurrentPolicy, denial: &Denial) -> bool {
    let clear = scope.tunnel.as_ref().filter(|tunnel| tunnel.target.scheme == Scheme::Http);
    denial.judgement.reason == Reason::PortRefused
        && clear.is_some_and(|tunnel| {
            let target = Target { scheme: Scheme::Https, ..tunnel.target.clone() };
            unreachable(policy, &Tunnel { target, ..tunnel.clone() }).is_none()
        })
}

/// Why no request to a tunnel's destination could be allowed, where that is certain already.
pub fn unreachable(policy: &CurrentPolicy, tunnel: &Tunnel) -> Option<Refusal> {
    if tunnel.client.observe {
        return None;
    }
    match policy.rules.reach(&tunnel.client.agent, &tunnel.target) {
        Reach::Never(denial) => Some(denied(&denial, &tunnel.target)),
        Reach::Possible => None,
    }
}

/// Returns when a new policy no longer allows what was permitted under the one in force now.
pub async fn no_longer_allowed(scope: &Scope, client: &Client, request: policy::request::Request<'_>) {
    loop {
        let policy = scope.gateway.policy();
        let again =
            policy::request::Request { agent: &client.agent, upload: 0, observe: client.observe, ..request };
        let verdict = policy.rules.decide(&again, &Usage::default(), &scope.gateway.grants(), clock::now());
        if action(&verdict) != Action::Allow {
            return;
        }
        policy.superseded.cancelled().await;
    }
}

/// What is asked about a connection that will not be read.
pub fn unread_request<'a>(
    client: &'a Client,
    kind: Kind,
    target: &'a Target,
) -> policy::request::Request<'a> {
    policy::request::Request {
        agent: &client.agent,
        kind,
        target,
        method: "",
        path: None,
        upload: 0,
        observe: client.observe,
    }
}

/// Decides a connection that will not be read, and commits the decision.
pub async fn permit_unread(
    scope: &Scope,
    subject: &Subject,
    started: Instant,
) -> Result<(Permit, Entry), Box<Stopped>> {
    let policy = scope.gateway.policy();
    let (Some(client), Some(target)) = (&subject.client, &subject.target) else {
        let refusal = Refusal::plain(Reason::MalformedRequest, "it names no host");
        let entry = record_refusal(scope, subject.clone(), &refusal, started).await;
        let (outcome, subject) = (OutcomeKind::Denied, subject.clone());
        return Err(Box::new(Stopped { entry, refusal, outcome, subject, close: true }));
    };
    let usage = scope.gateway.usage(&client.agent, &target.host);
    let request = unread_request(client, subject.kind, target);
    let verdict = policy.rules.decide(&request, &usage, &scope.gateway.grants(), clock::now());
    let (judgement, refusal) = match verdict {
        Verdict::Allow(permit) => return enter(scope, &policy, subject, permit, started).await,
        Verdict::Ask(question) => {
            let refusal = unattended(&question.judgement, target);
            (Judgement { action: Action::Deny, reason: refusal.reason, ..question.judgement }, refusal)
        }
        Verdict::Deny(denial) => {
            let refusal = denied(&denial, target);
            (denial.judgement, refusal)
        }
    };
    let entry = record(&scope.gateway, &policy, subject, &judgement, started).await;
    let (outcome, close) = (OutcomeKind::Denied, closes(subject, &refusal));
    Err(Box::new(Stopped { entry, refusal, outcome, subject: subject.clone(), close }))
}

/// Commits the decision for a connection that is allowed, unless the name it asks for gives a secret away.
async fn enter(
    scope: &Scope,
    policy: &CurrentPolicy,
    subject: &Subject,
    permit: Permit,
    started: Instant,
) -> Result<(Permit, Entry), Box<Stopped>> {
    let mut judgement = permit.judgement().clone();
    let secrets = inspect::host(policy, permit.target());
    judgement.findings.extend(secrets.findings);
    let decision = decision(policy, subject, &judgement);
    let progress = Arc::new(Progress::default());
    let Ok(entry) = Entry::commit(&scope.gateway, decision, progress, started).await else {
        let refusal = Refusal::plain(Reason::AuditUnavailable, "the decision cannot be recorded");
        let (outcome, subject) = (OutcomeKind::Denied, subject.clone());
        return Err(Box::new(Stopped { entry: None, refusal, outcome, subject, close: true }));
    };
    if secrets.misplaced.is_none() || permit.secrets() == SecretAction::Alert {
        return Ok((permit, entry));
    }
    if permit.enforces() {
        let refusal = Refusal::plain(Reason::SecretFound, "the name of the host holds a secret");
        return Err(Box::new(Stopped::failed(entry, refusal, subject.clone())));
    }
    entry.progress().would_stop(Reason::SecretFound);
    Ok((permit, entry))
}
