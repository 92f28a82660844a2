//! Names looked up inside a fence: answered where some request to them could pass, refused where none could.

use super::{Policy, observe};
use crate::identity::AgentName;
use crate::target::{Host, Scheme, Target};
use crate::verdict::{Action, Denial, Judgement, Mode};

/// What is said to a question for a name.
#[derive(Debug)]
pub enum LookUp {
    /// It is answered.
    Answered(Judgement),
    /// There is no such name for whoever asks.
    Refused(Denial),
}

impl Policy {
    /// Decides whether a name is answered. What connects to it is decided again, request by request.
    ///
    /// A fence leads to names on two ports, so what counts is whether https on 443 or http on 80 could pass.
    /// `observes` says that the session records only.
    pub fn look_up(&self, agent: &AgentName, host: &Host, observes: bool) -> LookUp {
        let secure = Target { scheme: Scheme::Https, host: host.clone(), port: 443 };
        let clear = Target { scheme: Scheme::Http, host: host.clone(), port: 80 };
        let place = self.place(&secure);
        let mut ruling = self.widest(agent, &secure, &place);
        if ruling.action == Action::Deny {
            let other = self.widest(agent, &clear, &self.place(&clear));
            ruling = if other.action == Action::Deny { ruling } else { other };
        }
        let mut judgement = self.judgement(&ruling, &secure, &place);
        if observes || self.document.mode == Mode::Observe {
            judgement.mode = Mode::Observe;
            observe(&mut judgement);
        }
        match judgement.action {
            Action::Deny => LookUp::Refused(self.denial(&ruling, &secure, judgement)),
            Action::Allow | Action::Ask => LookUp::Answered(judgement),
        }
    }
}
