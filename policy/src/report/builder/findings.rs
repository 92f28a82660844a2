//! What findings come to: secrets, credentials, uploads, look-alikes, and what became of them.

use super::{Builder, Seen};
use crate::record::{Finding, OutcomeKind};
use crate::report::{Amount, Fate};
use crate::verdict::{Action, Reason};
use crate::view::DecisionView;

impl Builder {
    /// `new` is 1 where the request is to be counted, 0 where it was for a finding like this one.
    pub(super) fn finding(&mut self, view: &DecisionView, seen: &Seen, finding: &Finding, new: u64) {
        let destination = || seen.destination.clone();
        match finding {
            Finding::Secret { detector, count, place, .. } => {
                let fate = fate_of_secret(view);
                let count = u64::from(*count);
                self.totals.secrets += count;
                self.totals.secrets_stopped += if fate == Fate::Stopped { count } else { 0 };
                let key = (detector.clone(), place.clone(), destination(), fate);
                if let Some((all, requests)) = self.secrets.entry(key, || (0, 0)) {
                    *all += count;
                    *requests += new;
                }
            }
            Finding::CredentialUsed { detector, place, .. } => {
                let elsewhere = if view.service.is_some() { None } else { Some(destination()) };
                let key = (view.service.clone(), elsewhere, detector.clone(), place.clone());
                if let Some(requests) = self.credentials.entry(key, || 0) {
                    *requests += new;
                }
            }
            Finding::LargeUpload { bytes, limit, of } => {
                let key = (destination(), of.clone(), *limit, fate_of_upload(view));
                if let Some((most, requests)) = self.uploads.entry(key, || (0, 0)) {
                    *most = (*most).max(*bytes);
                    *requests += new;
                }
            }
            Finding::LookalikeDomain { of } if new == 1 => {
                if let Some(amount) = self.lookalikes.entry((destination(), of.clone()), Amount::default) {
                    amount.add(seen.amount);
                }
            }
            _ => {}
        }
    }

    /// Counts the request once for each kind of finding in it.
    pub(super) fn kinds(&mut self, view: &DecisionView) {
        for kind in Finding::KINDS {
            if view.findings.iter().any(|finding| finding.kind() == *kind) {
                *self.findings.entry(kind).or_default() += 1;
                self.totals.uploads_over_limits += u64::from(*kind == "large_upload");
            }
        }
    }
}

/// Whether two findings go into the same row.
pub(super) fn alike(one: &Finding, other: &Finding) -> bool {
    match (one, other) {
        (
            Finding::Secret { detector, place, .. },
            Finding::Secret { detector: other_detector, place: other_place, .. },
        )
        | (
            Finding::CredentialUsed { detector, place, .. },
            Finding::CredentialUsed { detector: other_detector, place: other_place, .. },
        ) => (detector, place) == (other_detector, other_place),
        (
            Finding::LargeUpload { limit, of, .. },
            Finding::LargeUpload { limit: other_limit, of: other_of, .. },
        ) => (limit, of) == (other_limit, other_of),
        _ => one == other,
    }
}

pub(super) fn secrets(view: &DecisionView) -> u64 {
    let count = |finding: &Finding| match finding {
        Finding::Secret { count, .. } => u64::from(*count),
        _ => 0,
    };
    view.findings.iter().map(count).sum()
}

/// A request refused for a secret has not sent it; one refused for something else may have, as far as it came.
fn fate_of_secret(view: &DecisionView) -> Fate {
    match (view.action, view.request_bytes) {
        (Action::Deny, Some(0)) => Fate::Stopped,
        (Action::Deny, _) if view.reason == Reason::SecretFound => Fate::Stopped,
        _ => fate(view),
    }
}

/// What a limit stops is not sent whole, though its beginning may have been.
fn fate_of_upload(view: &DecisionView) -> Fate {
    if view.action == Action::Deny { Fate::Stopped } else { fate(view) }
}

fn fate(view: &DecisionView) -> Fate {
    match view.outcome {
        None | Some(OutcomeKind::Interrupted) => Fate::Open,
        Some(_) => Fate::Passed,
    }
}
