//! What a person asks about: a URL as it is written, read as the gateway would read it.

use policy::path::RequestPath;
use policy::target::{Scheme, Target};

/// A URL as the gateway would read it: the same constructors, so that what is explained is what is decided.
///
/// # Errors
/// What is wrong with it, in words.
pub fn read_url(url: &str) -> Result<(Target, RequestPath), String> {
    let wrong = |why: &str| format!("`{url}` cannot be explained: {why}; write `https://host/path`");
    let (scheme, rest) = match url.split_once("://") {
        Some(("https", rest)) => (Scheme::Https, rest),
        Some(("http", rest)) => (Scheme::Http, rest),
        Some((other, _)) => return Err(wrong(&format!("`{other}` is neither `https` nor `http`"))),
        None => return Err(wrong("it has no scheme")),
    };
    let rest = rest.split('#').next().unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let target =
        Target::from_authority(scheme, authority.as_bytes()).map_err(|error| wrong(&error.to_string()))?;
    let path = RequestPath::parse(path.as_bytes()).map_err(|error| wrong(&error.to_string()))?;
    Ok((target, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_the_gateway_reads_them() {
        for (url, target, path) in [
            ("https://API.GitHub.com", "https://api.github.com:443", "/"),
            ("https://a.example:8443/x%41?q=1#part", "https://a.example:8443", "/xA"),
            ("http://[::1]:80?x", "http://[::1]:80", "/"),
        ] {
            let (read, at) = read_url(url).unwrap();
            assert_eq!((read.to_string().as_str(), at.as_str()), (target, path), "{url}");
        }
    }

    #[test]
    fn what_the_gateway_would_refuse_to_read_is_wrong_usage() {
        for (url, why) in [
            ("evil.example", "no scheme"),
            ("ftp://evil.example/", "`ftp` is neither"),
            ("https://user:pw@evil.example/", "user information"),
            ("https://2130706433/", "dotted quad"),
            ("https:///x", "empty"),
        ] {
            let error = read_url(url).unwrap_err();
            assert!(error.contains(why), "{url}: {error}");
        }
    }
}
