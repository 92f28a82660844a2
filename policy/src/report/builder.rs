//! Adds up decisions, events, sessions and agents into a [`Report`].

mod events;
mod findings;

use std::collections::HashMap;
use std::sync::Arc;

use self::findings::{alike, secrets};
use super::tally::Tally;
use super::{
    AgentRow, Amount, Approval, ChainStatus, ChangeRow, ClassRow, CredentialRow, DeniedRow, DestinationRow,
    DomainRow, Fate, FindingRow, Listed, LookalikeRow, Moment, Period, PlaceRow, PolicyChange, PolicyRow,
    Report, SHAPE, Scope, SecretRow, SessionRow, TRACKED, Timeline, Totals, UploadRow,
};
use crate::identity::{AgentName, SessionId};
use crate::record::OutcomeKind;
use crate::request::Kind;
use crate::verdict::{Action, Class, Mode, Reason};
use crate::view::DecisionView;

/// A report that is being added up.
#[derive(Debug)]
pub struct Builder {
    scope: Scope,
    period: Option<Period>,
    totals: Totals,
    timeline: Timeline,
    sessions: Listed<SessionRow>,
    session_rows: HashMap<SessionId, usize>,
    agents: Tally<AgentName, AgentRow>,
    classes: HashMap<Class, Amount>,
    places: Tally<Place, Amount>,
    destinations: Tally<String, DestinationRow>,
    denied: Tally<Refused, DeniedRow>,
    would: Tally<Refused, DeniedRow>,
    approvals: Listed<Approval>,
    secrets: Tally<SecretKind, (u64, u64)>,
    credentials: Tally<CredentialKind, u64>,
    uploads: Tally<UploadKind, (u64, u64)>,
    findings: HashMap<&'static str, u64>,
    lookalikes: Tally<(String, Arc<str>), Amount>,
    domains: Tally<String, DomainRow>,
    unknown_hosts: Tally<(String, String), ()>,
    policies: Tally<Arc<str>, PolicyRow>,
    policy_changes: Listed<PolicyChange>,
    changes: Listed<ChangeRow>,
}

/// What makes two refusals equal: destination, reason and rule.
type Refused = (String, Reason, Option<String>);
/// What makes two places one: class, and service or domain.
type Place = (Class, Option<Arc<str>>, Option<String>);
/// What makes two secrets equal: detector, where in the request, destination, and what became of it.
type SecretKind = (Arc<str>, Arc<str>, String, Fate);
/// What makes two credentials equal: service or destination, detector, and where in the request.
type CredentialKind = (Option<Arc<str>>, Option<String>, Arc<str>, Arc<str>);
/// What makes two uploads equal: destination, which limit, how much that is, and what became of it.
type UploadKind = (String, Arc<str>, u64, Fate);

impl Builder {
    /// A report of what fits a scope, told before from when to when it reaches; `None` where nothing fits.
    pub fn new(scope: Scope, span: Option<(Moment, Moment)>) -> Builder {
        Builder::tracking(TRACKED, scope, span)
    }

    /// With another limit on what is told apart.
    pub(super) fn tracking(limit: usize, scope: Scope, span: Option<(Moment, Moment)>) -> Builder {
        Builder {
            scope,
            period: None,
            totals: Totals::default(),
            timeline: Timeline::new(span.map(|(first, last)| (first.0, last.0))),
            sessions: Listed::empty(),
            session_rows: HashMap::new(),
            agents: Tally::new(limit),
            classes: HashMap::new(),
            places: Tally::new(limit),
            destinations: Tally::new(limit),
            denied: Tally::new(limit),
            would: Tally::new(limit),
            approvals: Listed::empty(),
            secrets: Tally::new(limit),
            credentials: Tally::new(limit),
            uploads: Tally::new(limit),
            findings: HashMap::new(),
            lookalikes: Tally::new(limit),
            domains: Tally::new(limit),
            unknown_hosts: Tally::new(limit),
            policies: Tally::new(limit),
            policy_changes: Listed::empty(),
            changes: Listed::empty(),
        }
    }

    /// A session of the period. Told before the decisions, which are added to it.
    pub fn session(&mut self, row: SessionRow) {
        self.session_rows.insert(row.session, self.sessions.rows.len());
        self.sessions.rows.push(row);
    }

    /// So many sessions more are in the period than could be told.
    pub fn more_sessions(&mut self, number: u64) {
        self.sessions.omitted += number;
    }

    /// What is registered of an agent. Shown only where it asked for something, or was asked about.
    pub fn agent(&mut self, row: AgentRow) {
        let name = row.agent.clone();
        self.agents.entry(name, || row);
    }

    /// One decision.
    pub fn add(&mut self, view: &DecisionView) {
        if view.is_probe() {
            return;
        }
        let seen = Seen::of(view);
        self.reach(view, seen.time);
        self.total(view, seen.amount);
        self.timeline.add(seen.time, view.action, seen.amount);
        self.caller(view, seen.amount);
        self.place(view, &seen);
        self.refusal(view, &seen);
        self.policy(view, seen.time);
        for (number, finding) in view.findings.iter().enumerate() {
            // Two secrets of a kind in one place are one request all the same.
            let again = view.findings[..number].iter().any(|earlier| alike(earlier, finding));
            self.finding(view, &seen, finding, u64::from(!again));
        }
        self.kinds(view);
    }

    /// Unknown destinations, as domain and host: of which of them there was a record before the period is for the
    /// caller to find out, and to tell by [`Builder::met_before`].
    pub fn unknown_hosts(&self) -> Vec<(String, String)> {
        let mut hosts: Vec<_> = self.unknown_hosts.iter().map(|(key, ())| key.clone()).collect();
        hosts.sort();
        hosts
    }

    /// There was a record of that domain before the period.
    pub fn met_before(&mut self, domain: &str) {
        self.domains.retain(|key, _| key != domain);
    }

    /// From where to where the records reach that were added.
    pub fn period(&self) -> Option<Period> {
        self.period
    }

    /// The report, written by that version of the program at that time.
    pub fn finish(mut self, version: &str, generated: Moment, chain: Option<ChainStatus>) -> Report {
        self.totals.destinations = self.destinations.len() as u64;
        let asked_about = self.scope.agent.clone();
        self.agents.retain(|name, row| row.amount.requests > 0 || Some(name) == asked_about.as_ref());
        let reached = reached(&self.classes, self.places);
        let mut findings: Vec<FindingRow> =
            self.findings.into_iter().map(|(kind, requests)| FindingRow { kind, requests }).collect();
        findings.sort_by(|a, b| b.requests.cmp(&a.requests).then(a.kind.cmp(b.kind)));
        let mut report = Report {
            report: SHAPE,
            version: version.to_owned(),
            generated,
            scope: self.scope,
            period: self.period,
            verdict: String::new(),
            totals: self.totals,
            sessions: self.sessions,
            agents: self.agents.rows(|row| row.amount.requests, |_, row| row),
            timeline: self.timeline,
            reached,
            destinations: self
                .destinations
                .rows(|row| (row.amount.bytes_up, row.amount.requests), |_, row| row),
            denied: self.denied.rows(|row| row.requests, |_, row| row),
            would_be_denied: self.would.rows(|row| row.requests, |_, row| row),
            approvals: self.approvals,
            secrets: self.secrets.rows(
                |(count, _)| *count,
                |(detector, place, destination, fate), (count, requests)| SecretRow {
                    detector,
                    place,
                    destination,
                    fate,
                    count,
                    requests,
                },
            ),
            credentials: self.credentials.rows(
                |requests| *requests,
                |(service, destination, detector, place), requests| CredentialRow {
                    service,
                    destination,
                    detector,
                    place,
                    requests,
                },
            ),
            uploads: self.uploads.rows(
                |(bytes, _)| *bytes,
                |(destination, of, limit, fate), (bytes, requests)| UploadRow {
                    destination,
                    of,
                    limit,
                    bytes,
                    fate,
                    requests,
                },
            ),
            findings,
            lookalikes: self.lookalikes.rows(
                |amount| amount.requests,
                |(destination, looks_like), amount| LookalikeRow { destination, looks_like, amount },
            ),
            new_domains: self.domains.rows(|row| std::cmp::Reverse(row.first), |_, row| row),
            policies: self.policies.rows(|row| std::cmp::Reverse(row.first), |_, row| row),
            policy_changes: self.policy_changes,
            changes: self.changes,
            chain,
        };
        report.verdict = report.told();
        report
    }

    fn reach(&mut self, view: &DecisionView, time: Moment) {
        let last_seq = view.outcome_seq.unwrap_or(0).max(view.seq);
        let period =
            self.period.get_or_insert(Period { first: time, last: time, first_seq: view.seq, last_seq });
        period.first = period.first.min(time);
        period.last = period.last.max(time);
        period.first_seq = period.first_seq.min(view.seq);
        period.last_seq = period.last_seq.max(last_seq);
    }

    fn total(&mut self, view: &DecisionView, amount: Amount) {
        let totals = &mut self.totals;
        totals.requests += 1;
        totals.bytes_up = totals.bytes_up.saturating_add(amount.bytes_up);
        totals.bytes_down = totals.bytes_down.saturating_add(amount.bytes_down);
        totals.asked += u64::from(was_asked(view));
        let would = view.would.is_some_and(|would| would != Action::Allow);
        match view.action {
            Action::Allow => {
                totals.allowed += 1;
                totals.would_be_denied += u64::from(would);
            }
            Action::Deny => totals.denied += 1,
            Action::Ask => totals.held += 1,
        }
        match view.outcome {
            None => totals.in_flight += 1,
            Some(OutcomeKind::Interrupted) => totals.interrupted += 1,
            Some(OutcomeKind::Cut) => totals.cut += 1,
            Some(OutcomeKind::Failed) => totals.failed += 1,
            Some(OutcomeKind::Abandoned) => totals.abandoned += 1,
            Some(OutcomeKind::Completed | OutcomeKind::Denied) => {}
        }
    }

    fn caller(&mut self, view: &DecisionView, amount: Amount) {
        let secrets = secrets(view);
        let new = || AgentRow {
            agent: view.agent.clone(),
            owner: None,
            purpose: None,
            status: None,
            expires: None,
            amount: Amount::default(),
            secrets: 0,
        };
        if let Some(row) = self.agents.entry(view.agent.clone(), new) {
            // Of an agent that is registered no more, its records still say who answered for it.
            let owner = || view.owner.as_ref().map(|owner| owner.as_str().to_owned());
            row.owner = row.owner.take().or_else(owner);
            row.amount.add(amount);
            row.secrets += secrets;
        }
        if let Some(row) = view.session.and_then(|session| self.session_rows.get(&session)) {
            self.sessions.rows[*row].amount.add(amount);
        }
    }

    fn place(&mut self, view: &DecisionView, seen: &Seen) {
        let Seen { time, amount, destination } = seen;
        let row = self.destinations.entry(destination.clone(), || DestinationRow {
            destination: destination.clone(),
            class: view.class,
            service: view.service.clone(),
            amount: Amount::default(),
            first: *time,
            last: *time,
        });
        if let Some(row) = row {
            row.amount.add(*amount);
            row.first = row.first.min(*time);
            row.last = row.last.max(*time);
        }
        let domain = view.domain.as_ref().map(|domain| domain.as_str().to_owned());
        // A name that was looked up was not reached.
        if view.action == Action::Allow && view.kind != Kind::Dns {
            self.classes.entry(view.class).or_default().add(*amount);
            let domain = if view.service.is_some() { None } else { domain.clone() };
            let key = (view.class, view.service.clone(), domain);
            if let Some(place) = self.places.entry(key, Amount::default) {
                place.add(*amount);
            }
        }
        if let (Class::Unknown, Some(domain), Some(host)) = (view.class, domain, &view.host) {
            self.unknown_hosts.entry((domain.clone(), host.as_str().to_owned()), || ());
            self.domain(view, &domain, seen);
        }
    }

    fn domain(&mut self, view: &DecisionView, domain: &str, seen: &Seen) {
        let new = || DomainRow {
            domain: domain.to_owned(),
            first: seen.time,
            agent: view.agent.clone(),
            action: view.action,
            amount: Amount::default(),
        };
        let Some(row) = self.domains.entry(domain.to_owned(), new) else { return };
        row.amount.add(seen.amount);
        if seen.time < row.first {
            (row.first, row.agent, row.action) = (seen.time, view.agent.clone(), view.action);
        }
    }

    fn refusal(&mut self, view: &DecisionView, seen: &Seen) {
        if view.action == Action::Deny {
            refuse(&mut self.denied, view, view.reason, view.allow_line(), seen);
        } else if let (Action::Allow, Some(Action::Ask | Action::Deny), Some(reason)) =
            (view.action, view.would, view.would_reason)
        {
            refuse(&mut self.would, view, reason, None, seen);
        }
    }

    fn policy(&mut self, view: &DecisionView, time: Moment) {
        let new =
            || PolicyRow { policy: view.policy.clone(), requests: 0, observed: 0, first: time, last: time };
        if let Some(row) = self.policies.entry(view.policy.clone(), new) {
            row.requests += 1;
            row.observed += u64::from(view.mode == Mode::Observe);
            row.first = row.first.min(time);
            row.last = row.last.max(time);
        }
    }
}

/// What is worked out once of a decision.
struct Seen {
    time: Moment,
    amount: Amount,
    destination: String,
}

impl Seen {
    fn of(view: &DecisionView) -> Seen {
        let amount = Amount {
            requests: 1,
            denied: u64::from(view.action == Action::Deny),
            bytes_up: view.request_bytes.unwrap_or(0),
            bytes_down: view.response_bytes.unwrap_or(0),
        };
        Seen { time: Moment::of(&view.time), amount, destination: view.destination() }
    }
}

fn refuse(
    tally: &mut Tally<Refused, DeniedRow>,
    view: &DecisionView,
    reason: Reason,
    allow: Option<String>,
    seen: &Seen,
) {
    let rule = view.rule.as_ref().map(|rule| rule.as_str().to_owned());
    let row = tally.entry((seen.destination.clone(), reason, rule.clone()), || DeniedRow {
        destination: seen.destination.clone(),
        class: view.class,
        reason,
        rule,
        requests: 0,
        first: seen.time,
        last: seen.time,
        agent: view.agent.clone(),
        allow: None,
    });
    if let Some(row) = row {
        row.requests += 1;
        row.allow = row.allow.take().or(allow);
        row.first = row.first.min(seen.time);
        if seen.time >= row.last {
            (row.last, row.agent) = (seen.time, view.agent.clone());
        }
    }
}

fn was_asked(view: &DecisionView) -> bool {
    let by_reason = matches!(
        view.reason,
        Reason::AllowedByApproval
            | Reason::ApprovalDenied
            | Reason::ApprovalTimeout
            | Reason::ApprovalUnattended
    );
    by_reason || view.action == Action::Ask || view.decided == Some(Action::Ask)
}

fn reached(classes: &HashMap<Class, Amount>, places: Tally<Place, Amount>) -> Vec<ClassRow> {
    let row = |(class, service, domain), amount| (class, PlaceRow { service, domain, amount });
    let places = places.rows(|amount| (amount.bytes_up, amount.requests), row);
    let class_row = |class: Class| {
        let amount = *classes.get(&class)?;
        let of_class = places.rows.iter().filter(|(of, _)| *of == class);
        let rows: Vec<PlaceRow> = of_class.map(|(_, place)| place.clone()).collect();
        let told: u64 = rows.iter().map(|place| place.amount.requests).sum();
        Some(ClassRow { class, amount, services: Listed { rows, omitted: amount.requests - told } })
    };
    Class::ALL.into_iter().filter_map(class_row).collect()
}
