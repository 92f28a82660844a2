//! Destinations in their one canonical spelling: `Host`, `Scheme`, `Target`.
//!
//! Rules, name resolution, dialling, SNI, certificates, records and metrics all take these types, never a
//! string. The grammar is stricter than any library's: two parsers that read one authority differently are how
//! allowlists are bypassed, so whatever could be read in two ways is refused here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest name that fits a DNS message (RFC 1035, section 2.3.4), without the root dot.
const NAME_LIMIT: usize = 253;
/// Longest label (RFC 1035, section 2.3.4).
const LABEL_LIMIT: usize = 63;

/// A host in canonical form: a lower-case ASCII name without trailing dot, or an IP address.
///
/// Cheap to clone. Equality is equality of the canonical form.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(Repr);

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Repr {
    Name(Arc<str>),
    /// The address and its text as it stands in an authority (`[::1]` in brackets).
    Address(IpAddr, Arc<str>),
}

/// Why some bytes are not a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostError {
    /// Nothing there.
    Empty,
    /// Longer than 253 characters.
    TooLong,
    /// A label longer than 63 characters.
    LabelTooLong,
    /// Two dots in a row, a leading dot, or more than one trailing dot.
    EmptyLabel,
    /// A byte outside letters, digits, `-`, `_` and `.`.
    Character(u8),
    /// Looks like a number to some resolvers (`2130706433`, `0x7f.1`, `127.1`) without being a dotted quad.
    AmbiguousNumber,
    /// Brackets around something that is not an IPv6 address, or a zone id.
    Brackets,
}

impl Host {
    /// Reads a host as it may stand on the wire: a name, a canonical dotted quad, or a bracketed IPv6 address.
    ///
    /// Folds ASCII case and drops one trailing dot.
    ///
    /// # Errors
    /// Every other spelling, with the reason.
    pub fn parse(bytes: &[u8]) -> Result<Host, HostError> {
        if bytes.is_empty() {
            return Err(HostError::Empty);
        }
        if bytes[0] == b'[' {
            return parse_bracketed(bytes);
        }
        if let Some(&bad) =
            bytes.iter().find(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')))
        {
            return Err(HostError::Character(bad));
        }
        let bytes = bytes.strip_suffix(b".").unwrap_or(bytes);
        if bytes.is_empty() {
            return Err(HostError::EmptyLabel);
        }
        if bytes.len() > NAME_LIMIT {
            return Err(HostError::TooLong);
        }
        check_labels(bytes)?;
        let name: String = bytes.iter().map(|b| char::from(b.to_ascii_lowercase())).collect();
        if last_label_is_number(&name) {
            return parse_quad(&name);
        }
        Ok(Host(Repr::Name(name.into())))
    }

    /// The canonical host of an address, however it was come by. IPv4-mapped IPv6 stays IPv6.
    pub fn from_address(address: IpAddr) -> Host {
        let text = match address {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        };
        Host(Repr::Address(address, text.into()))
    }

    /// The canonical text, as it stands in an authority: IPv6 addresses are in brackets.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Repr::Name(name) => name,
            Repr::Address(_, text) => text,
        }
    }

    /// The address, where the host is an address literal.
    pub fn ip(&self) -> Option<IpAddr> {
        match self.0 {
            Repr::Name(_) => None,
            Repr::Address(address, _) => Some(address),
        }
    }

    /// The name, where the host is a name.
    pub fn name(&self) -> Option<&str> {
        match &self.0 {
            Repr::Name(name) => Some(name),
            Repr::Address(..) => None,
        }
    }
}

fn parse_bracketed(bytes: &[u8]) -> Result<Host, HostError> {
    let inner =
        bytes.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]")).ok_or(HostError::Brackets)?;
    let text = std::str::from_utf8(inner).map_err(|_| HostError::Brackets)?;
    // `Ipv6Addr::from_str` takes no zone id, so `[fe80::1%eth0]` ends here too.
    let address: Ipv6Addr = text.parse().map_err(|_| HostError::Brackets)?;
    Ok(Host::from_address(IpAddr::V6(address)))
}

fn check_labels(name: &[u8]) -> Result<(), HostError> {
    for label in name.split(|b| *b == b'.') {
        if label.is_empty() {
            return Err(HostError::EmptyLabel);
        }
        if label.len() > LABEL_LIMIT {
            return Err(HostError::LabelTooLong);
        }
    }
    Ok(())
}

/// A host whose last label is a number is an IPv4 address or nothing (WHATWG URL, "ends in a number").
fn last_label_is_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let digits = !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit());
    let hex = last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
    digits || hex
}

fn parse_quad(name: &str) -> Result<Host, HostError> {
    // The standard parser takes four decimal parts without leading zeros, and nothing else.
    let address: Ipv4Addr = name.parse().map_err(|_| HostError::AmbiguousNumber)?;
    Ok(Host::from_address(IpAddr::V4(address)))
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Host({})", self.as_str())
    }
}

impl FromStr for Host {
    type Err = HostError;
    fn from_str(text: &str) -> Result<Host, HostError> {
        Host::parse(text.as_bytes())
    }
}

impl Serialize for Host {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Host {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Host, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostError::Empty => f.write_str("the host is empty"),
            HostError::TooLong => f.write_str("the host is longer than 253 characters"),
            HostError::LabelTooLong => f.write_str("a label of the host is longer than 63 characters"),
            HostError::EmptyLabel => f.write_str("the host has an empty label"),
            HostError::Character(b) if b.is_ascii_graphic() => {
                write!(f, "the host has the character `{}`", char::from(*b))
            }
            HostError::Character(b) => write!(f, "the host has the byte 0x{b:02x}"),
            HostError::AmbiguousNumber => {
                f.write_str("the host is a number that is not a dotted quad such as 192.0.2.1")
            }
            HostError::Brackets => f.write_str("brackets may hold an IPv6 address only, without zone id"),
        }
    }
}

impl std::error::Error for HostError {}

/// How a destination is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Clear text.
    Http,
    /// TLS.
    Https,
    /// Neither: a port reached through the fence.
    Tcp,
}

impl Scheme {
    /// The port that a URL of this scheme means when it names none; 0 for `tcp`, which has none.
    pub fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
            Scheme::Tcp => 0,
        }
    }

    /// The word used in records and URLs.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::Tcp => "tcp",
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A destination: scheme, canonical host and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Target {
    /// Scheme.
    pub scheme: Scheme,
    /// Host.
    pub host: Host,
    /// Port, never 0.
    pub port: u16,
}

/// Why some bytes are not an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorityError {
    /// User information before an `@`. Never quoted: it may be a password.
    UserInfo,
    /// The host part.
    Host(HostError),
    /// The port: missing where it must stand, not 1 to 65535, or with a sign or leading zero.
    Port,
}

impl Target {
    /// Reads `host[:port]` (RFC 9110, section 4.2) with the scheme's default port.
    ///
    /// # Errors
    /// Anything with user information, a host outside the grammar, or a port that is not plain decimal.
    pub fn from_authority(scheme: Scheme, authority: &[u8]) -> Result<Target, AuthorityError> {
        let (host, port) = split_authority(authority)?;
        let port = match port {
            Some(port) => parse_port(port)?,
            None => scheme.default_port(),
        };
        Ok(Target { scheme, host: Host::parse(host).map_err(AuthorityError::Host)?, port })
    }

    /// Reads the target of a CONNECT: `host:port`, the port being required (RFC 9110, section 9.3.6).
    ///
    /// # Errors
    /// As [`Target::from_authority`], and where no port is given.
    pub fn from_connect(authority: &[u8]) -> Result<Target, AuthorityError> {
        let (host, port) = split_authority(authority)?;
        let port = parse_port(port.ok_or(AuthorityError::Port)?)?;
        Ok(Target { scheme: Scheme::Https, host: Host::parse(host).map_err(AuthorityError::Host)?, port })
    }

    /// `host` or `host:port`, as it stands in a `Host` header: the scheme's default port is left out.
    pub fn authority(&self) -> String {
        if self.port == self.scheme.default_port() {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme, self.host, self.port)
    }
}

fn split_authority(authority: &[u8]) -> Result<(&[u8], Option<&[u8]>), AuthorityError> {
    if authority.contains(&b'@') {
        return Err(AuthorityError::UserInfo);
    }
    let host_end = match authority.first() {
        Some(b'[') => authority
            .iter()
            .position(|b| *b == b']')
            .map(|end| end + 1)
            .ok_or(AuthorityError::Host(HostError::Brackets))?,
        _ => authority.iter().position(|b| *b == b':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(host_end);
    match rest {
        [] => Ok((host, None)),
        [b':', port @ ..] => Ok((host, Some(port))),
        [other, ..] => Err(AuthorityError::Host(HostError::Character(*other))),
    }
}

fn parse_port(digits: &[u8]) -> Result<u16, AuthorityError> {
    let plain =
        !digits.is_empty() && digits.len() <= 5 && digits[0] != b'0' && digits.iter().all(u8::is_ascii_digit);
    if !plain {
        return Err(AuthorityError::Port);
    }
    let value = digits.iter().fold(0u32, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    u16::try_from(value).map_err(|_| AuthorityError::Port)
}

impl fmt::Display for AuthorityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AuthorityError::UserInfo => f.write_str("user information is not allowed before the host"),
            AuthorityError::Host(error) => error.fmt(f),
            AuthorityError::Port => f.write_str("the port must be a plain number from 1 to 65535"),
        }
    }
}

impl std::error::Error for AuthorityError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_one_spelling() {
        for (given, canonical) in [
            ("allowed.test", "allowed.test"),
            ("ALLOWED.Test", "allowed.test"),
            ("allowed.test.", "allowed.test"),
            ("_dmarc.a-b.test", "_dmarc.a-b.test"),
            ("xn--80a.test", "xn--80a.test"),
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1.", "192.0.2.1"),
            ("[::1]", "[::1]"),
            ("[2001:DB8::0:1]", "[2001:db8::1]"),
            ("[::ffff:127.0.0.1]", "[::ffff:127.0.0.1]"),
            ("1password.test", "1password.test"),
            ("0x.com", "0x.com"),
        ] {
            let host = Host::parse(given.as_bytes()).unwrap_or_else(|e| panic!("`{given}`: {e}"));
            assert_eq!(host.as_str(), canonical, "`{given}`");
            assert_eq!(Host::parse(host.as_str().as_bytes()).unwrap(), host, "idempotent");
        }
    }

    #[test]
    fn every_other_spelling_is_refused_with_its_reason() {
        let long = "a".repeat(64);
        let labels = vec!["a"; 130].join(".");
        let name = format!("{}.test", vec!["a".repeat(60); 5].join("."));
        for (given, reason) in [
            ("", HostError::Empty),
            (".", HostError::EmptyLabel),
            ("allowed.test..", HostError::EmptyLabel),
            (".allowed.test", HostError::EmptyLabel),
            ("a..wild.test", HostError::EmptyLabel),
            ("[allowed.test]", HostError::Brackets),
            ("[::1%25.wild.test]", HostError::Brackets),
            ("[fe80::1%eth0]", HostError::Brackets),
            ("[::1].wild.test", HostError::Brackets),
            ("evil.test\0.wild.test", HostError::Character(0)),
            ("\u{212a}.test", HostError::Character(0xe2)),
            ("$(id).wild.test", HostError::Character(b'$')),
            ("a,b.wild.test", HostError::Character(b',')),
            ("a;b.wild.test", HostError::Character(b';')),
            ("a%2eb.test", HostError::Character(b'%')),
            ("2130706433", HostError::AmbiguousNumber),
            ("0x7f000001", HostError::AmbiguousNumber),
            ("0x7f.1", HostError::AmbiguousNumber),
            ("0177.0.0.1", HostError::AmbiguousNumber),
            ("127.1", HostError::AmbiguousNumber),
            ("1.2.3.4.5", HostError::AmbiguousNumber),
            ("256.0.0.1", HostError::AmbiguousNumber),
            (&long, HostError::LabelTooLong),
            (&labels, HostError::TooLong),
            (&name, HostError::TooLong),
        ] {
            assert_eq!(Host::parse(given.as_bytes()), Err(reason), "`{given}`");
        }
    }

    #[test]
    fn authorities_need_plain_ports_and_no_user() {
        for (given, port) in
            [("a.test:443", 443), ("[::1]:8443", 8443), ("a.test:1", 1), ("a.test:65535", 65535)]
        {
            assert_eq!(Target::from_connect(given.as_bytes()).unwrap().port, port, "{given}");
        }
        for given in
            ["a.test", "a.test:", "a.test:0", "a.test:+443", "a.test:0443", "a.test:65537", "a.test:65979"]
        {
            assert_eq!(Target::from_connect(given.as_bytes()), Err(AuthorityError::Port), "{given}");
        }
        assert_eq!(Target::from_connect(b"u:p@a.test:443"), Err(AuthorityError::UserInfo));
        assert_eq!(Target::from_connect(b":443"), Err(AuthorityError::Host(HostError::Empty)));
        assert_eq!(
            Target::from_connect(b"[::1]x:443"),
            Err(AuthorityError::Host(HostError::Character(b'x')))
        );
    }

    proptest::proptest! {
        #[test]
        fn canonicalisation_is_idempotent(bytes in proptest::collection::vec(0u8..=255, 0..80)) {
            if let Ok(host) = Host::parse(&bytes) {
                assert_eq!(Host::parse(host.as_str().as_bytes()), Ok(host));
            }
        }
    }
}
