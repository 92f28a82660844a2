//! Who is asking: agent names, sessions, and tokens of which only a digest is kept.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// Longest agent name and session label, in characters.
const NAME_LIMIT: usize = 64;

/// The name of an agent: 1 to 64 of `a-z`, `0-9`, `-`, `_`, `.`, beginning with a letter or digit.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct AgentName(Arc<str>);

/// Why some text is not an agent name or a session label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameError;

impl AgentName {
    /// The agent that requests without credentials belong to.
    pub fn anonymous() -> AgentName {
        AgentName("anonymous".into())
    }

    /// Whether this is the agent of requests without credentials.
    pub fn is_anonymous(&self) -> bool {
        &*self.0 == "anonymous"
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AgentName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<AgentName, NameError> {
        if is_name(text) { Ok(AgentName(text.into())) } else { Err(NameError) }
    }
}

fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
    (1..=NAME_LIMIT).contains(&text.len())
        && text.bytes().all(allowed)
        && text.as_bytes()[0].is_ascii_alphanumeric()
}

impl fmt::Display for AgentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name is 1 to 64 of `a-z`, `0-9`, `-`, `_` and `.`, beginning with a letter or digit")
    }
}

impl std::error::Error for NameError {}

impl Serialize for AgentName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for AgentName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<AgentName, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One run of an agent. A ULID: sorts by the time it began.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub ulid::Ulid);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The SHA-256 of an agent's token: what the store keeps and what a presented token is compared with.
///
/// Tokens carry 256 random bits, so a plain digest is enough; there is nothing to guess.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenDigest(pub [u8; 32]);

impl TokenDigest {
    /// The digest of a token as presented.
    pub fn of(token: &[u8]) -> TokenDigest {
        TokenDigest(Sha256::digest(token).into())
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        let long = "a".repeat(65);
        for (text, good) in [
            ("claude", true),
            ("claude-code_2.1", true),
            ("9lives", true),
            ("", false),
            ("Claude", false),
            ("-x", false),
            ("a b", false),
            ("a+b", false),
            ("a:b", false),
            (&long, false),
        ] {
            assert_eq!(text.parse::<AgentName>().is_ok(), good, "`{text}`");
        }
    }

    #[test]
    fn a_digest_does_not_print_itself() {
        assert_eq!(format!("{:?}", TokenDigest::of(b"token")), "TokenDigest(…)");
    }
}
