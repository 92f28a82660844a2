//! Tokens that we make: for agents, for sessions, for the admin listener.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// What every token begins with, so that people and secret scanners know one when they see it.
const PREFIX: &str = "outgate_";
/// Random bytes of a token; there is nothing to guess in them, so a plain digest of it may be kept.
const RANDOM: usize = 32;

/// The system gave no random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system has no random numbers to offer")]
pub struct NoRandom;

/// A new token, of characters that need no escape in a URL's user information.
///
/// # Errors
/// Where there are no random numbers.
pub fn fresh() -> Result<String, NoRandom> {
    let mut random = [0; RANDOM];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| NoRandom)?;
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_long_plain_and_never_the_same() {
        let (one, other) = (fresh().unwrap(), fresh().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), PREFIX.len() + 43);
        assert!(one.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')));
    }
}
