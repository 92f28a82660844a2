//! Settings that are one word out of a few.

/// A closed set of words.
pub trait Word: Copy + Sized + 'static {
    /// All of them, in the order in which they are offered.
    const ALL: &'static [Self];

    /// The word as written.
    fn word(self) -> &'static str;
}

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl Word for $name {
            const ALL: &'static [$name] = &[$($name::$variant,)*];

            fn word(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<$name, String> {
                super::value::word(text)
            }
        }
    )*};
}

words! {
    /// Whether requests without credentials are answered.
    IdentityMode {
        /// They belong to the agent `anonymous`.
        Optional = "optional",
        /// They are refused.
        Required = "required",
    }

    /// Where a refused destination is told so.
    RefuseMode {
        /// Inside the tunnel, where the client shows it.
        Inside = "inside",
        /// As the answer to the CONNECT, where no rule could allow any request to that destination.
        Connect = "connect",
    }

    /// Who may read `/metrics`.
    MetricsAccess {
        /// Everybody on loopback.
        Open = "open",
        /// Who holds the token.
        Token = "token",
    }

    /// Where the key of the certificate authority is.
    CaKey {
        /// In the data folder.
        File = "file",
        /// Nowhere but in the gateway's memory; made anew at each start.
        Memory = "memory",
    }

    /// What a committed record survives.
    Durability {
        /// The death of the process.
        Commit = "commit",
        /// The death of the machine, too.
        Power = "power",
    }

    /// How the program's own log is written.
    LogFormat {
        /// Lines for people.
        Text = "text",
        /// One object a line.
        Json = "json",
    }

    /// Whether questions are shown on the desktop of whoever runs the gateway.
    DesktopAlerts {
        /// They are not.
        Off = "off",
        /// By `notify-send`, where there is one.
        On = "on",
    }

    /// The shape of an alert.
    AlertFormat {
        /// Our own.
        Json = "json",
        /// A message with blocks.
        Slack = "slack",
    }

    /// What an alert is about.
    AlertKind {
        /// An upload beyond an alert or block limit.
        Upload = "upload",
        /// A secret where it does not belong.
        Secret = "secret",
        /// A refusal.
        Denied = "denied",
        /// A domain that looks like a known one.
        Lookalike = "lookalike",
        /// Records cannot be written.
        AuditFailure = "audit_failure",
        /// A question waits.
        Approval = "approval",
        /// A domain that nobody asked for before.
        FirstSeen = "first_seen",
        /// An agent's time is nearly up.
        Expiring = "expiring",
    }
}

impl AlertKind {
    /// What a webhook is told that names no kinds.
    pub const USUAL: [AlertKind; 6] = [
        AlertKind::Upload,
        AlertKind::Secret,
        AlertKind::Denied,
        AlertKind::Lookalike,
        AlertKind::AuditFailure,
        AlertKind::Approval,
    ];
}
