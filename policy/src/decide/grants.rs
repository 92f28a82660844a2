//! What people said besides the policy: answers given while the gateway runs, and services of the host that the
//! operator opened to fences. Both are inputs to the decision, never permits by themselves.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::identity::{AgentName, SessionId};
use crate::request::{Kind, Request};
use crate::target::{Host, Target};

/// What of the policy an answer is an answer to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Point {
    /// A rule that asks, by name.
    Rule(Arc<str>),
    /// A default that asks.
    Default,
    /// That no rule is about the request and the default denies it.
    Refused,
}

/// What a request may do, as far as its method tells. Ordered: who may do more may do less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Methods {
    /// GET, HEAD, OPTIONS and TRACE, which only read (RFC 9110, section 9.2.1).
    Reading,
    /// Every other method, and a WebSocket.
    Writing,
    /// A connection that is not read.
    Unread,
}

impl Methods {
    /// The class of a request.
    pub fn of(kind: Kind, method: &str) -> Methods {
        match (kind, method) {
            (Kind::Connect | Kind::Tcp, _) => Methods::Unread,
            (Kind::Http | Kind::Dns, "GET" | "HEAD" | "OPTIONS" | "TRACE") => Methods::Reading,
            _ => Methods::Writing,
        }
    }
}

/// Whose requests an answer reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Holder {
    /// All of the agent.
    Agent,
    /// Those of one of its sessions; `None` for those outside any session.
    Session(Option<SessionId>),
}

/// One answer: this agent may reach this destination, as far as this point of the policy is in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The agent that asked.
    pub agent: AgentName,
    /// Which of its requests.
    pub holder: Holder,
    /// The destination that was asked about.
    pub target: Target,
    /// What it may do there.
    pub methods: Methods,
    /// What was in the way.
    pub point: Point,
    /// When it ends, in microseconds since the Unix epoch; `None` for as long as the caller keeps it.
    pub until: Option<i64>,
}

impl Grant {
    fn reaches(&self, request: &Request<'_>, session: Option<SessionId>, now: i64) -> bool {
        let held = match self.holder {
            Holder::Agent => true,
            Holder::Session(of) => of == session,
        };
        held && self.agent == *request.agent
            && self.target == *request.target
            && self.methods >= Methods::of(request.kind, request.method)
            && self.until.is_none_or(|until| now < until)
    }
}

/// The answers that reach a request: those given to its agent, to its session, and to itself.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    answers: Arc<HashMap<AgentName, Vec<Grant>>>,
    session: Option<SessionId>,
    own: Arc<[Grant]>,
    forwards: Arc<[SocketAddr]>,
}

impl Grants {
    /// No answers.
    pub fn none() -> Grants {
        Grants::default()
    }

    /// With the services of the host that `[fence] forward` names.
    #[must_use]
    pub fn forwarding(self, forwards: Arc<[SocketAddr]>) -> Grants {
        Grants { forwards, ..self }
    }

    /// As they reach a request of a session.
    #[must_use]
    pub fn in_session(self, session: Option<SessionId>) -> Grants {
        Grants { session, ..self }
    }

    /// With answers that reach this one request alone.
    #[must_use]
    pub fn with_own(self, own: Arc<[Grant]>) -> Grants {
        Grants { own, ..self }
    }

    /// The answers that reach this one request alone.
    pub fn own(&self) -> &Arc<[Grant]> {
        &self.own
    }

    /// Whether the operator opened this address of the host to fences. That allows what no rule is about.
    pub fn forward(&self, target: &Target) -> bool {
        let address = target.host.ip().map(|ip| SocketAddr::new(ip, target.port));
        address.is_some_and(|address| self.forwards.contains(&address))
    }

    /// Whether an answer covers a point that is in a request's way at `now`.
    pub fn cover(&self, request: &Request<'_>, point: &Point, now: i64) -> bool {
        let given = self.answers.get(request.agent).into_iter().flatten();
        given
            .chain(&*self.own)
            .any(|grant| grant.point == *point && grant.reaches(request, self.session, now))
    }

    /// Whether some request of an agent to a host may pass that the policy alone would refuse.
    pub fn open(&self, agent: &AgentName, host: &Host, now: i64) -> bool {
        self.answers.get(agent).into_iter().flatten().any(|grant| {
            grant.point == Point::Refused
                && grant.target.host == *host
                && grant.until.is_none_or(|until| now < until)
        })
    }
}

impl FromIterator<Grant> for Grants {
    fn from_iter<I: IntoIterator<Item = Grant>>(grants: I) -> Grants {
        let mut answers: HashMap<AgentName, Vec<Grant>> = HashMap::new();
        for grant in grants {
            answers.entry(grant.agent.clone()).or_default().push(grant);
        }
        Grants { answers: Arc::new(answers), ..Grants::none() }
    }
}
