//! Hosts and authorities: one spelling, and nobody reads another host or port than we do.

use std::net::IpAddr;

use http::uri::Authority;
use policy::target::{Host, Scheme, Target};
use url::Url;

/// Takes an authority as it stands on the wire.
pub fn check(input: &[u8]) {
    if let Ok(host) = Host::parse(input) {
        is_canonical(&host);
        let same = input.strip_suffix(b".").unwrap_or(input).eq_ignore_ascii_case(host.as_str().as_bytes());
        assert!(same || host.ip().is_some(), "{host:?} is no spelling of {input:?}");
    }
    let connect = Target::from_connect(input);
    for scheme in [Scheme::Http, Scheme::Https] {
        let Ok(target) = Target::from_authority(scheme, input) else {
            assert!(connect.is_err(), "CONNECT takes what a request does not: {input:?}");
            continue;
        };
        is_canonical(&target.host);
        assert_ne!(target.port, 0);
        let text = std::str::from_utf8(input).expect("only ASCII is accepted");
        for spelling in [text, &target.authority(), &format!("{}:{}", target.host, target.port)] {
            assert_eq!(Target::from_authority(scheme, spelling.as_bytes()).as_ref(), Ok(&target));
            others_agree(spelling, &target);
        }
        if let Ok(connect) = &connect {
            assert_eq!((&connect.host, connect.port), (&target.host, target.port));
        }
    }
}

/// Reading what was written gives the same, and it is made of nothing but what the grammar has.
fn is_canonical(host: &Host) {
    let text = host.as_str();
    assert_eq!(Host::parse(text.as_bytes()).as_ref(), Ok(host));
    match host.ip() {
        Some(IpAddr::V4(address)) => assert_eq!(text, address.to_string()),
        Some(IpAddr::V6(address)) => assert_eq!(text, format!("[{address}]")),
        None => {
            let plain =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
            assert!(text.bytes().all(plain) && text.len() <= 253, "{text:?}");
            assert!(text.split('.').all(|label| (1..=63).contains(&label.len())), "{text:?}");
            assert!(text.parse::<IpAddr>().is_err(), "{text:?} is an address");
        }
    }
}

/// What hyper and `url` make of a spelling that we take as `target`.
fn others_agree(spelling: &str, target: &Target) {
    let hyper: Authority = spelling.parse().unwrap_or_else(|error| panic!("hyper: {spelling:?}: {error}"));
    let port = hyper.port_u16().unwrap_or(target.scheme.default_port());
    assert_eq!(Host::parse(hyper.host().as_bytes()).as_ref(), Ok(&target.host), "hyper");
    assert_eq!(port, target.port, "hyper: {spelling:?}");
    // A refusal there, as of labels that are no Punycode, takes nothing to another host.
    let Ok(url) = Url::parse(&format!("{}://{spelling}/", target.scheme)) else { return };
    let host = match url.host() {
        Some(url::Host::Domain(name)) => Host::parse(name.as_bytes()).ok(),
        Some(url::Host::Ipv4(address)) => Some(Host::from_address(address.into())),
        Some(url::Host::Ipv6(address)) => Some(Host::from_address(address.into())),
        None => None,
    };
    assert_eq!(host.as_ref(), Some(&target.host), "url: {spelling:?}");
    assert_eq!(url.port_or_known_default(), Some(target.port), "url: {spelling:?}");
}
