//! What [`decide`](crate::decide) is asked about: who, where to, how, and how much is declared.

use serde::{Deserialize, Serialize};

use crate::identity::AgentName;
use crate::path::RequestPath;
use crate::target::Target;

/// What kind of exchange a decision is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A tunnel that is not read: passthrough, a refused protocol, a failed handshake.
    Connect,
    /// A request.
    Http,
    /// A request that asks to become a WebSocket.
    WebSocket,
    /// A name looked up inside the fence.
    Dns,
    /// A connection from inside the fence that is neither.
    Tcp,
}

impl Kind {
    /// The word used in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Connect => "connect",
            Kind::Http => "http",
            Kind::WebSocket => "websocket",
            Kind::Dns => "dns",
            Kind::Tcp => "tcp",
        }
    }
}

/// One request as the decision sees it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Who asks.
    pub agent: &'a AgentName,
    /// What kind of exchange it is.
    pub kind: Kind,
    /// Where it would go.
    pub target: &'a Target,
    /// The method as sent; empty for [`Kind::Connect`], where rules on methods cannot match.
    pub method: &'a str,
    /// The path as it will be sent on; `None` where there is none to be seen, where rules on paths cannot match.
    pub path: Option<&'a RequestPath>,
    /// Bytes that are known to leave: the head, and the body where its length is declared.
    pub upload: u64,
    /// The session it belongs to only observes, whatever the policy's mode.
    pub observe: bool,
}
