//! Who asks and what the policy says to it: for requests, and for connections that are not read.

use std::sync::Arc;
use std::time::Instant;

use http::HeaderValue;
use http::header::HeaderMap;
use policy::decide::{Grants, LookUp, Reach};
use policy::record::OutcomeKind;
use policy::request::Kind;
use policy::target::{Host, Scheme, Target};
use policy::usage::Usage;
use policy::verdict::{Action, Denial, Judgement, Permit, Reason, SecretAction, Verdict};

use super::holding::{Decided, Last, Matter, is_offered, settle};
use super::refusing::{Stopped, closes, denied, record, record_refusal};
use super::subject::{Subject, decision};
use crate::clock;
use crate::connection::{Scope, Tunnel};
use crate::entry::{Entry, Progress};
use crate::gateway::{CurrentPolicy, Gateway};
use crate::head::Head;
use crate::identify::Client;
use crate::inspect;
use crate::presence::Presence;
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
pub(super) fn decide(
    scope: &Scope,
    policy: &CurrentPolicy,
    client: &Client,
    head: &Head,
    grants: &Grants,
) -> Verdict {
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
        policy.rules.decide(&request, &usage, grants, now)
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
            unreachable(&scope.gateway, policy, &Tunnel { target, ..tunnel.clone() }).is_none()
        })
}

/// Why no request to a tunnel's destination could be allowed, where that is certain already.
pub fn unreachable(gateway: &Gateway, policy: &CurrentPolicy, tunnel: &Tunnel) -> Option<Refusal> {
    if tunnel.client.observe || gateway.hold.opens(&tunnel.client.agent, &tunnel.target.host) {
        return None;
    }
    match policy.rules.reach(&tunnel.client.agent, &tunnel.target) {
        Reach::Never(denial) => Some(denied(&denial, &tunnel.target)),
        Reach::Possible => None,
    }
}

/// Whether a name is answered inside a fence: where the policy could let something pass, or a person has.
pub fn look_up(gateway: &Gateway, policy: &CurrentPolicy, client: &Client, host: &Host) -> LookUp {
    match policy.rules.look_up(&client.agent, host, client.observe) {
        LookUp::Refused(denial)
            if is_offered(denial.judgement.reason) && gateway.hold.opens(&client.agent, host) =>
        {
            let (action, reason) = (Action::Allow, Reason::AllowedByApproval);
            LookUp::Answered(Judgement { action, reason, ..denial.judgement })
        }
        looked => looked,
    }
}

/// Returns when a new policy no longer allows what was permitted under the one in force now.
pub async fn no_longer_allowed(
    scope: &Scope,
    client: &Client,
    request: policy::request::Request<'_>,
    permit: &Permit,
) {
    loop {
        let policy = scope.gateway.policy();
        let grants = scope.gateway.grants(client).with_own(Arc::clone(permit.given()));
        let again =
            policy::request::Request { agent: &client.agent, upload: 0, observe: client.observe, ..request };
        let verdict = policy.rules.decide(&again, &Usage::default(), &grants, clock::now());
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

/// Decides a connection that will not be read, and commits the decision. `credentials` have to hold for as long as it
/// waits for a person, and its `socket` to be open, where nothing else tells.
pub async fn permit_unread(
    scope: &Scope,
    subject: &Subject,
    credentials: Option<&HeaderValue>,
    socket: Option<&(dyn Presence + Sync)>,
    started: Instant,
) -> Result<(Permit, Entry), Box<Stopped>> {
    let (Some(client), Some(target)) = (&subject.client, &subject.target) else {
        let refusal = Refusal::plain(Reason::MalformedRequest, "it names no host");
        let entry = record_refusal(scope, subject.clone(), &refusal, started).await;
        let (outcome, subject) = (OutcomeKind::Denied, subject.clone());
        return Err(Box::new(Stopped { entry, refusal, outcome, subject, close: true }));
    };
    let matter = Matter::Unread { credentials, kind: subject.kind, target, socket };
    let Decided { policy, verdict, held } = settle(scope, subject, &matter, client.clone(), started).await;
    let subject = Subject { held, ..subject.clone() };
    let (judgement, refusal, outcome) = match verdict {
        Last::Allow(permit) => return enter(scope, &policy, &subject, permit, started).await,
        Last::Refused { judgement, refusal, outcome } => (judgement, refusal, outcome),
        Last::Deny(denial) => {
            let refusal = denied(&denial, target);
            (denial.judgement, refusal, OutcomeKind::Denied)
        }
    };
    let entry = record(&scope.gateway, &policy, &subject, &judgement, started).await;
    let close = closes(&subject, &refusal);
    Err(Box::new(Stopped { entry, refusal, outcome, subject, close }))
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
    subject.time(&progress, started);
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
