//! Where a rule applies: hosts, wildcards, blocks of addresses and names of the catalogue, each with a port or not.

use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;

use super::name::to_ascii;
use crate::address::{parse_block, parse_port};
use crate::target::Host;

/// An entry of `to`, `allow`, `ask` or `deny`.
///
/// Without a port it means https on 443 and http on 80; with one, that port and whatever is spoken there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destination {
    /// Which hosts.
    pub hosts: Hosts,
    /// The port, where one is written.
    pub port: Option<u16>,
}

/// A set of hosts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hosts {
    /// This host.
    One(Host),
    /// Every name under this one, and not the name itself: `*.example.com`.
    Under(Arc<str>),
    /// Every name: `*`.
    AnyName,
    /// Address literals in a block.
    Block(IpNet),
    /// A service, alias, group, kind or class of the catalogue, without its `@`.
    Named(Arc<str>),
}

impl Destination {
    /// Reads an entry.
    ///
    /// # Errors
    /// What is wrong, with the right spelling where there is one.
    pub fn parse(text: &str) -> Result<Destination, String> {
        if let Some(mistake) = usual_mistake(text) {
            return Err(mistake);
        }
        let (hosts, port) = split_port(text)?;
        Ok(Destination { hosts: parse_hosts(hosts)?, port: port.map(parse_port).transpose()? })
    }

    /// The public suffix that a wildcard stands on, or nothing where it stands on more than that.
    ///
    /// Everyone can register names there, so such an entry must be marked `wide`.
    pub fn open_to_everyone(&self) -> Option<&str> {
        match &self.hosts {
            Hosts::AnyName => Some("*"),
            Hosts::Under(suffix) if psl::domain_str(suffix).is_none() => Some(suffix),
            _ => None,
        }
    }
}

/// What people write who come from browsers, other proxies or shells.
fn usual_mistake(text: &str) -> Option<String> {
    if text.is_empty() {
        return Some("is empty: leave it out".to_owned());
    }
    if text.trim() != text {
        return Some(format!("has spaces around it: write `{}`", text.trim()));
    }
    if let Some((_, rest)) = text.split_once("://") {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
        let authority = authority.rsplit('@').next().unwrap_or(authority);
        return Some(format!("is a URL: write the host alone, `{authority}`"));
    }
    if let Some((user, host)) = text.split_once('@')
        && !user.is_empty()
    {
        return Some(format!("has user information before the host: write `{host}`"));
    }
    if let Some(domain) = text.strip_prefix('.') {
        return Some(format!("begins with a dot: write `*.{domain}` for the names under it"));
    }
    let (head, tail) = text.split_once('/')?;
    let is_block = !tail.is_empty() && tail.bytes().all(|b| b.is_ascii_digit() || matches!(b, b':' | b']'));
    if is_block {
        return None;
    }
    if tail.is_empty() {
        return Some(format!("ends in `/`: write `{head}`"));
    }
    Some(format!("holds a path: write the host alone, `{head}`, and the path under `paths` of a `[[rule]]`"))
}

fn split_port(text: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, after) = rest.split_once(']').ok_or("needs a `]` after the address")?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((inside_brackets(inside)?, Some(port))),
            None if after.is_empty() => Ok((inside_brackets(inside)?, None)),
            None => Err(format!("has `{after}` after `]`: a port is written `:PORT`")),
        };
    }
    match text.split_once(':') {
        Some((hosts, port)) if !port.contains(':') => Ok((hosts, Some(port))),
        // More than one colon: an IPv6 address or block without brackets.
        _ => Ok((text, None)),
    }
}

fn inside_brackets(inside: &str) -> Result<&str, String> {
    if inside.contains(':') {
        Ok(inside)
    } else {
        Err("has brackets around what is not an IPv6 address".to_owned())
    }
}

fn parse_hosts(text: &str) -> Result<Hosts, String> {
    if let Some(name) = text.strip_prefix('@') {
        return if name.is_empty() {
            Err("names nothing: write a name of the catalogue after `@`".to_owned())
        } else {
            Ok(Hosts::Named(name.into()))
        };
    }
    if text.contains('/') {
        let block = parse_block(text).ok_or("is not a block such as `10.20.0.0/16`")??;
        return Ok(Hosts::Block(block));
    }
    if text == "*" {
        return Ok(Hosts::AnyName);
    }
    if let Some(suffix) = text.strip_prefix("*.") {
        return parse_suffix(suffix);
    }
    if text.contains('*') {
        return Err("has `*` inside a label: it stands for whole labels in front of a name, `*.example.com`"
            .to_owned());
    }
    if text.contains(':') {
        let address = text.parse().map_err(|_| "is not an IPv6 address")?;
        return Ok(Hosts::One(Host::from_address(address)));
    }
    parse_host(text).map(Hosts::One)
}

fn parse_suffix(suffix: &str) -> Result<Hosts, String> {
    if suffix.contains('*') {
        return Err("has two `*`: one stands for any number of labels".to_owned());
    }
    // `*.0.0.1` has a number for its last label, which is no name; nor is any address under a name.
    let number = suffix
        .rsplit('.')
        .next()
        .is_some_and(|last| !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()));
    if number {
        return Err("is a wildcard over numbers, and no wildcard matches an address: write a block such as `10.0.0.0/8`".to_owned());
    }
    let host = parse_host(suffix)?;
    Ok(Hosts::Under(host.as_str().into()))
}

fn parse_host(text: &str) -> Result<Host, String> {
    let ascii = to_ascii(text)?;
    Host::parse(ascii.as_bytes()).map_err(|error| format!("is not a host: {error}"))
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.hosts, self.port) {
            (Hosts::Block(IpNet::V6(block)), Some(_)) => write!(f, "[{block}]")?,
            (hosts, _) => hosts.fmt(f)?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

impl serde::Serialize for Destination {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hosts::One(host) => host.fmt(f),
            Hosts::Under(suffix) => write!(f, "*.{suffix}"),
            Hosts::AnyName => f.write_str("*"),
            Hosts::Block(block) => block.fmt(f),
            Hosts::Named(name) => write!(f, "@{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_and_printed_in_one_spelling() {
        for (given, printed) in [
            ("docs.rs", "docs.rs"),
            ("Docs.RS.", "docs.rs"),
            ("docs.rs:8443", "docs.rs:8443"),
            ("*.Example.com", "*.example.com"),
            ("*.internal.example.com:8443", "*.internal.example.com:8443"),
            ("*", "*"),
            ("*.com", "*.com"),
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1:8080", "192.0.2.1:8080"),
            ("[2001:DB8::1]", "[2001:db8::1]"),
            ("2001:db8::1", "[2001:db8::1]"),
            ("[::1]:8080", "[::1]:8080"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.0/8:8080", "10.0.0.0/8:8080"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("[2001:db8::/32]:443", "[2001:db8::/32]:443"),
            ("@github", "@github"),
            ("@ollama:8080", "@ollama:8080"),
            ("m\u{fc}nchen.example", "xn--mnchen-3ya.example"),
            ("*.m\u{fc}nchen.example", "*.xn--mnchen-3ya.example"),
            ("localhost", "localhost"),
            ("_service.example.com", "_service.example.com"),
        ] {
            let entry = Destination::parse(given).unwrap_or_else(|e| panic!("{given}: {e}"));
            assert_eq!(entry.to_string(), printed, "{given}");
            assert_eq!(Destination::parse(printed), Ok(entry), "{given}");
        }
    }

    #[test]
    fn bad_entries_say_how_to_write_them() {
        for (given, message) in [
            ("", "is empty: leave it out"),
            (" docs.rs", "has spaces around it: write `docs.rs`"),
            ("https://docs.rs/serde", "is a URL: write the host alone, `docs.rs`"),
            ("https://u:p@docs.rs:8443/", "is a URL: write the host alone, `docs.rs:8443`"),
            ("git@github.com", "has user information before the host: write `github.com`"),
            (".example.com", "begins with a dot: write `*.example.com` for the names under it"),
            (
                "github.com/example",
                "holds a path: write the host alone, `github.com`, and the path under `paths` of a `[[rule]]`",
            ),
            ("docs.rs/", "ends in `/`: write `docs.rs`"),
            ("10.0.0.1/8", "has bits outside its prefix: write `10.0.0.0/8`"),
            ("10.0.0.0/33", "is not a block such as `10.20.0.0/16`"),
            ("docs.rs:0", "has `0` for a port: ports are plain numbers from 1 to 65535"),
            ("docs.rs:https", "has `https` for a port: ports are plain numbers from 1 to 65535"),
            ("docs.rs:", "has nothing for a port: ports are plain numbers from 1 to 65535"),
            ("docs.rs:*", "has `*` for a port: ports are plain numbers from 1 to 65535"),
            ("[docs.rs]", "has brackets around what is not an IPv6 address"),
            ("[::1", "needs a `]` after the address"),
            ("fe80::1%eth0", "is not an IPv6 address"),
            (
                "*.0.0.1",
                "is a wildcard over numbers, and no wildcard matches an address: write a block such as `10.0.0.0/8`",
            ),
            (
                "api*.example.com",
                "has `*` inside a label: it stands for whole labels in front of a name, `*.example.com`",
            ),
            ("*.*.example.com", "has two `*`: one stands for any number of labels"),
            ("127.1", "is not a host: the host is a number that is not a dotted quad such as 192.0.2.1"),
            ("a b.test", "is not a host: the host has the byte 0x20"),
            ("\u{212a}.test", "has U+212A, which names do not keep: write `k.test`"),
            ("@", "names nothing: write a name of the catalogue after `@`"),
        ] {
            assert_eq!(Destination::parse(given).unwrap_err(), message, "{given}");
        }
    }

    #[test]
    fn wildcards_on_public_suffixes_are_open_to_everyone() {
        for (given, open) in [
            ("*", Some("*")),
            ("*.com", Some("com")),
            ("*.co.uk", Some("co.uk")),
            ("*.github.io", Some("github.io")),
            ("*.internal", Some("internal")),
            ("*.example.co.uk", None),
            ("*.wild.test", None),
            ("github.io", None),
        ] {
            assert_eq!(Destination::parse(given).unwrap().open_to_everyone(), open, "{given}");
        }
    }
}
