//! A parent proxy: where it is and what it is told of us.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use policy::target::{Host, Target};

/// A proxy that everything goes out by.
#[derive(Clone, PartialEq, Eq)]
pub struct ParentProxy {
    /// Its host.
    pub host: Host,
    /// Its port.
    pub port: u16,
    /// The `proxy-authorization` it wants, ready to send.
    pub authorization: Option<Arc<str>>,
}

impl ParentProxy {
    /// Reads `http://[user:password@]host:port`.
    ///
    /// # Errors
    /// What is wrong, without a word of the user information.
    pub(super) fn parse(text: &str) -> Result<ParentProxy, String> {
        let (scheme, rest) = text.split_once("://").ok_or("has no `http://`")?;
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(format!("cannot be spoken to by `{}`, only by `http`", scheme.escape_default()));
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        // The last `@` parts them: passwords hold stray ones, hosts never do.
        let (credentials, authority) = match rest.rsplit_once('@') {
            Some((credentials, authority)) => (Some(credentials), authority),
            None => (None, rest),
        };
        let target = Target::from_connect(authority.as_bytes())
            .map_err(|_| format!("has no host and port in `{}`", authority.escape_default()))?;
        let authorization = credentials.map(basic).transpose()?;
        Ok(ParentProxy { host: target.host, port: target.port, authorization })
    }
}

/// RFC 7617, from the percent-encoded user information of a URL.
fn basic(credentials: &str) -> Result<Arc<str>, String> {
    let decoded =
        percent_decoded(credentials).ok_or("has a `%` in its user information that encodes nothing")?;
    Ok(format!("Basic {}", STANDARD.encode(decoded)).into())
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                (high * 16 + low) as u8
            }
            other => other,
        });
    }
    Some(decoded)
}

impl fmt::Debug for ParentProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = if self.authorization.is_some() { "…@" } else { "" };
        write!(f, "http://{known}{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_proxy_is_read_with_its_credentials_and_prints_none_of_them() {
        let proxy = ParentProxy::parse("http://ana:p%40ss@Proxy.Example:3128/").unwrap();
        assert_eq!(proxy.host.as_str(), "proxy.example");
        assert_eq!(proxy.port, 3128);
        assert_eq!(proxy.authorization.as_deref(), Some("Basic YW5hOnBAc3M="));
        assert_eq!(format!("{proxy:?}"), "http://…@proxy.example:3128");
    }
}
