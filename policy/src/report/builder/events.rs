//! Where events belong: approvals, policies, and what happened to the gateway, its settings and its agents.

use super::Builder;
use crate::event::{Event, Happening};
use crate::identity::AgentName;
use crate::report::{Approval, ChangeRow, Listed, Moment, PolicyChange, TRACKED};
use crate::view::rfc3339;

impl Builder {
    /// One event, with the number of its record. Those of other agents and sessions than asked about are left out.
    pub fn event(&mut self, seq: u64, event: &Event) {
        let time = Moment(event.time);
        let by = event.by.as_ref().map(|by| by.as_str().to_owned());
        match &event.what {
            Happening::ApprovalAnswered { approval, answer, scope, agent, destination, rule: _ } => {
                let (approval, answer, scope) = (approval.clone(), answer.clone(), scope.clone());
                let destination = destination.as_ref().map(|destination| destination.as_str().to_owned());
                let agent = agent.clone();
                let answered = Approval { time, by, approval, answer, scope, agent, destination, seq };
                push(&mut self.approvals, answered);
            }
            Happening::PolicyInForce { policy, mode, previous } => {
                let (policy, mode, previous) = (policy.clone(), *mode, previous.clone());
                push(&mut self.policy_changes, PolicyChange { time, by, policy, mode, previous, seq });
            }
            what => {
                let Some((event, agent, detail)) = told(what) else { return };
                let asked_about = self.scope.agent.as_ref().or_else(|| self.only_agent());
                if asked_about.is_none() || agent.is_none() || asked_about == agent {
                    let agent = agent.cloned();
                    push(&mut self.changes, ChangeRow { time, by, event, agent, detail, seq });
                }
            }
        }
    }

    /// The one agent that is meant where a session was asked about.
    fn only_agent(&self) -> Option<&AgentName> {
        self.scope.session.and_then(|_| self.sessions.rows.first()).map(|row| &row.agent)
    }
}

fn push<T>(list: &mut Listed<T>, row: T) {
    if list.rows.len() < TRACKED {
        list.rows.push(row);
    } else {
        list.omitted += 1;
    }
}

/// The word, the agent and the rest of what belongs into the list of changes.
fn told(what: &Happening) -> Option<(&'static str, Option<&AgentName>, Option<String>)> {
    Some(match what {
        Happening::Started { version, .. } => ("started", None, Some(format!("version {version}"))),
        Happening::Stopped => ("stopped", None, None),
        Happening::ClockJumped { milliseconds } => {
            ("clock_jumped", None, Some(format!("by {milliseconds} ms")))
        }
        Happening::ConfigurationChanged { keys, .. } => {
            ("configuration_changed", None, Some(keys.join(", ")))
        }
        Happening::AuthorityInForce { fingerprint, previous: Some(previous) } => {
            ("authority_in_force", None, Some(format!("{fingerprint}, in place of {previous}")))
        }
        Happening::AgentCreated { agent, owner, purpose, expires } => {
            let purpose = purpose.as_ref().map(|purpose| format!(", for {purpose}"));
            let expires = expires.map(|time| format!(", until {}", rfc3339(time)));
            let rest = format!("{}{}", purpose.unwrap_or_default(), expires.unwrap_or_default());
            ("agent_created", Some(agent), Some(format!("owner {owner}{rest}")))
        }
        Happening::AgentRotated { agent, grace_until, expires } => {
            let grace = format!("earlier tokens are taken until {}", rfc3339(*grace_until));
            let expires = expires.map(|time| format!(", the new one until {}", rfc3339(time)));
            ("agent_rotated", Some(agent), Some(grace + &expires.unwrap_or_default()))
        }
        Happening::AgentRevoked { agent } => ("agent_revoked", Some(agent), None),
        Happening::AgentExpired { agent } => ("agent_expired", Some(agent), None),
        Happening::Pruned { through, records, .. } => {
            ("pruned", None, Some(format!("{records} records, through {through}")))
        }
        // In sections of their own.
        Happening::SessionOpened { .. }
        | Happening::SessionEnded { .. }
        | Happening::ApprovalAnswered { .. }
        | Happening::PolicyInForce { .. }
        | Happening::Checkpoint { .. } => return None,
        // That of a start is no change.
        Happening::AuthorityInForce { previous: None, .. } => return None,
    })
}
