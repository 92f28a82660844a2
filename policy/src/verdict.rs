//! What a decision says: [`Verdict`], with the reason, the rule and the limits that go with it.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::decide::{Grant, Point};
use crate::target::Target;

/// What is done with a request. Ordered by strictness: of two actions the greater wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It passes.
    Allow,
    /// It is held until a person answers.
    Ask,
    /// It is refused.
    Deny,
}

impl Action {
    /// All actions, for closed label sets.
    pub const ALL: [Action; 3] = [Action::Allow, Action::Ask, Action::Deny];

    /// The word used in policies, records and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Allow => "allow",
            Action::Ask => "ask",
            Action::Deny => "deny",
        }
    }
}

/// Whether what the policy would stop is stopped, or only recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Stopped.
    Enforce,
    /// Recorded as `would`, and let through.
    Observe,
}

impl Mode {
    /// The word used in policies and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Enforce => "enforce",
            Mode::Observe => "observe",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// Why a request got the action it got: one code for replies, records and labels (contract, section 4).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Reason {
            $($(#[$doc])* #[serde(rename = $word)] $name,)*
        }

        impl Reason {
            /// All reasons, for closed label sets.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// The code.
            pub fn as_str(self) -> &'static str {
                match self { $(Reason::$name => $word,)* }
            }
        }
    };
}

reasons! {
    /// A rule allows it.
    AllowedByRule = "allowed_by_rule",
    /// No rule matches and the class's default allows it.
    AllowedByDefault = "allowed_by_default",
    /// A person's answer, given before or now, allows what a rule asks about.
    AllowedByApproval = "allowed_by_approval",
    /// It would have been stopped, but the policy or the rule only observes.
    AllowedByObserve = "allowed_by_observe",
    /// A rule denies it.
    DeniedByRule = "denied_by_rule",
    /// No rule names this unknown destination.
    UnknownDestination = "unknown_destination",
    /// No rule names this model or tool and the class's default denies it.
    DeniedByDefault = "denied_by_default",
    /// A person said no.
    ApprovalDenied = "approval_denied",
    /// Nobody answered in time.
    ApprovalTimeout = "approval_timeout",
    /// There is nobody to ask.
    ApprovalUnattended = "approval_unattended",
    /// The request alone is larger than its limit.
    UploadTooLarge = "upload_too_large",
    /// What was sent lately, together with this, is more than the window allows.
    UploadWindowExceeded = "upload_window_exceeded",
    /// The request holds a secret that does not belong there.
    SecretFound = "secret_found",
    /// The name resolved to an address that may not be dialled.
    AddressForbidden = "address_forbidden",
    /// CONNECT host, SNI, `Host` or `:authority` differ.
    AuthorityMismatch = "authority_mismatch",
    /// The host is allowed, but not on this port.
    PortRefused = "port_refused",
    /// A tunnel carries neither TLS nor HTTP.
    ProtocolRefused = "protocol_refused",
    /// The client did not accept the certificate or broke off the handshake.
    ClientTlsFailed = "client_tls_failed",
    /// Credentials are required and there were none.
    IdentityRequired = "identity_required",
    /// The credentials are not known.
    IdentityUnknown = "identity_unknown",
    /// The credentials have expired or were revoked.
    IdentityExpired = "identity_expired",
    /// The request could not be parsed, or could be read in two ways.
    MalformedRequest = "malformed_request",
    /// The decision cannot be recorded.
    AuditUnavailable = "audit_unavailable",
    /// A limit on connections or requests is reached.
    Overloaded = "overloaded",
    /// The destination did not accept a connection or broke it off.
    UpstreamUnreachable = "upstream_unreachable",
    /// The destination's certificate or handshake is no good.
    UpstreamTlsFailed = "upstream_tls_failed",
    /// The destination did not answer in time.
    UpstreamTimeout = "upstream_timeout",
    /// The name does not resolve.
    NameNotFound = "name_not_found",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What kind of destination it is, by host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// An endpoint that serves a language or other AI model.
    Model,
    /// A service of the catalogue that agents are known to use.
    Tool,
    /// Everything else.
    Unknown,
}

impl Class {
    /// All classes, for closed label sets.
    pub const ALL: [Class; 3] = [Class::Model, Class::Tool, Class::Unknown];

    /// The word used in policies, records and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Model => "model",
            Class::Tool => "tool",
            Class::Unknown => "unknown",
        }
    }
}

macro_rules! display_as_word {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    )*};
}

display_as_word!(Action, Mode, Class, SecretAction);

/// How much may leave, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct UploadLimits {
    /// One request above this is a finding.
    pub request_alert: u64,
    /// One request may not be larger than this.
    pub request_block: u64,
    /// What one agent sent to one registrable domain within the window: above this it is a finding.
    pub window_alert: u64,
    /// What one agent may send to one registrable domain within the window.
    pub window_block: u64,
    /// What one agent may send to all destinations within the window.
    pub window_block_agent: u64,
    /// Length of the window, in seconds.
    pub window_seconds: u32,
}

/// What is done with a secret found where it does not belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretAction {
    /// It passes and is recorded.
    Alert,
    /// It is replaced by as many harmless bytes.
    Mask,
    /// The request is refused or broken off.
    Block,
}

impl SecretAction {
    /// The word used in policies.
    pub fn as_str(self) -> &'static str {
        match self {
            SecretAction::Alert => "alert",
            SecretAction::Mask => "mask",
            SecretAction::Block => "block",
        }
    }
}

/// A decision with its explanation, the same for reply, record, metric and `explain`.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// What is done.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// Class of the destination.
    pub class: Class,
    /// Service of the catalogue or the policy that the destination belongs to.
    pub service: Option<Arc<str>>,
    /// The rule that decided: its name, or the list entry as written (`allow "@github"`).
    pub rule: Option<Arc<str>>,
    /// Mode of the policy, or observe where the deciding rule only observes.
    pub mode: Mode,
    /// What enforcing would have done, where it differs.
    pub would: Option<(Action, Reason)>,
    /// What the destination itself gives away: a look-alike, data encoded in its name.
    pub findings: Vec<crate::record::Finding>,
}

/// The answer to one request.
#[derive(Debug)]
pub enum Verdict {
    /// It may be sent.
    Allow(Permit),
    /// A person has to answer first.
    Ask(Question),
    /// It may not be sent.
    Deny(Denial),
}

impl Verdict {
    /// What is done and why.
    pub fn judgement(&self) -> &Judgement {
        match self {
            Verdict::Allow(permit) => permit.judgement(),
            Verdict::Ask(question) => &question.judgement,
            Verdict::Deny(denial) => &denial.judgement,
        }
    }
}

/// Permission to send one request to one destination. Only [`Policy::decide`](crate::decide) makes one.
#[derive(Debug)]
pub struct Permit {
    judgement: Judgement,
    target: Target,
    limits: UploadLimits,
    secrets: SecretAction,
    given: Arc<[Grant]>,
}

impl Permit {
    pub(crate) fn new(
        judgement: Judgement,
        target: Target,
        limits: UploadLimits,
        secrets: SecretAction,
        given: Arc<[Grant]>,
    ) -> Permit {
        Permit { judgement, target, limits, secrets, given }
    }

    /// Why it may be sent.
    pub fn judgement(&self) -> &Judgement {
        &self.judgement
    }

    /// The only destination it may be sent to.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// How much of it may be sent.
    pub fn limits(&self) -> &UploadLimits {
        &self.limits
    }

    /// What to do with secrets in it.
    pub fn secrets(&self) -> SecretAction {
        self.secrets
    }

    /// The answers given to this one request: what goes on under this permit is judged with them again.
    pub fn given(&self) -> &Arc<[Grant]> {
        &self.given
    }

    /// Whether content limits stop the request, or are only recorded as what would have stopped it.
    pub fn enforces(&self) -> bool {
        self.judgement.mode == Mode::Enforce
    }
}

/// What a person is asked; see [`approval`](crate::approval).
#[derive(Debug)]
pub struct Question {
    /// Why it is asked: action `ask`, and the rule or default that asks.
    pub judgement: Judgement,
    /// The destination asked about.
    pub target: Target,
}

impl Question {
    /// What an answer has to answer.
    pub fn point(&self) -> Point {
        self.judgement.rule.clone().map_or(Point::Default, Point::Rule)
    }
}

/// A refusal.
#[derive(Debug)]
pub struct Denial {
    /// Why it is refused.
    pub judgement: Judgement,
    /// What would allow it, as arguments of `outgate policy allow`, where that helps.
    pub allow_with: Option<String>,
}
