//! Where a service takes its own credentials: there they are no leak.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::target::Host;

use super::HostPattern;

/// A credential that a service takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Credential {
    /// The secret detector that recognises it.
    pub detector: String,
    /// Where in a request it belongs.
    #[serde(rename = "in")]
    pub places: Vec<Place>,
    /// The hosts of the service that take it; empty for all of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostPattern>,
}

impl Credential {
    /// Whether what `detector` found at `spot` of a request to `host` is where it belongs.
    pub(super) fn belongs(&self, detector: &str, host: &Host, spot: &Spot<'_>) -> bool {
        self.detector == detector
            && (self.hosts.is_empty() || self.hosts.iter().any(|pattern| pattern.matches(host)))
            && self.places.iter().any(|place| place.covers(spot))
    }
}

/// A place in a request, as catalogue and policy files write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `header:NAME`: the value of a header.
    Header(String),
    /// `basic`: either field of basic authentication in `Authorization`.
    Basic,
    /// `query:NAME`: a parameter of the query.
    Query(String),
    /// `form:NAME`: a field of a form, or a top-level string of a JSON object.
    Form(String),
    /// `body:PATH`: anywhere in the body of a request to a token endpoint's path. In the path `*` is one segment,
    /// and `**` at the end is whatever follows.
    Body(String),
    /// `path`: in the path itself, as webhooks and bots have it.
    Path,
}

/// Where in a request something was found. Header names are lower case, the path is the one that is sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spot<'a> {
    /// The value of a header, as it stands.
    Header(&'a str),
    /// Within the decoded `Authorization: Basic`.
    Basic,
    /// The value of a query parameter.
    Query(&'a str),
    /// The path.
    Path,
    /// The body of a request to `path`; `field` where it is known which.
    #[expect(missing_docs, reason = "explained above")]
    Body { path: &'a str, field: Option<&'a str> },
}

impl Place {
    /// Reads a place as files write it.
    ///
    /// # Errors
    /// Anything else, with what is allowed.
    pub fn parse(text: &str) -> Result<Place, PlaceError> {
        let (word, name) = match text.split_once(':') {
            Some((word, name)) => (word, name),
            None => (text, ""),
        };
        match (word, name) {
            ("basic", "") => Ok(Place::Basic),
            ("path", "") => Ok(Place::Path),
            ("header", name) if is_header_name(name) => Ok(Place::Header(name.to_ascii_lowercase())),
            ("query", name) if !name.is_empty() => Ok(Place::Query(name.to_owned())),
            ("form", name) if !name.is_empty() => Ok(Place::Form(name.to_owned())),
            ("body", path) if path.starts_with('/') => Ok(Place::Body(path.to_owned())),
            _ => Err(PlaceError(text.to_owned())),
        }
    }

    fn covers(&self, spot: &Spot<'_>) -> bool {
        match (self, spot) {
            (Place::Header(wanted), Spot::Header(name)) => wanted.eq_ignore_ascii_case(name),
            (Place::Basic, Spot::Basic) | (Place::Path, Spot::Path) => true,
            (Place::Query(wanted), Spot::Query(name)) => wanted == name,
            (Place::Form(wanted), Spot::Body { field, .. }) => *field == Some(wanted.as_str()),
            (Place::Body(pattern), Spot::Body { path, .. }) => path_matches(pattern, path),
            _ => false,
        }
    }
}

fn is_header_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn path_matches(pattern: &str, path: &str) -> bool {
    let mut given = path.split('?').next().unwrap_or(path).split('/');
    for wanted in pattern.split('/') {
        match (wanted, given.next()) {
            ("**", _) => return true,
            ("*", Some(segment)) if !segment.is_empty() => {}
            (wanted, Some(segment)) if wanted == segment => {}
            _ => return false,
        }
    }
    given.next().is_none()
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Header(name) => write!(f, "header:{name}"),
            Place::Basic => f.write_str("basic"),
            Place::Query(name) => write!(f, "query:{name}"),
            Place::Form(name) => write!(f, "form:{name}"),
            Place::Body(path) => write!(f, "body:{path}"),
            Place::Path => f.write_str("path"),
        }
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Text that names no place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceError(String);

impl fmt::Display for PlaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is no place in a request: write `header:NAME`, `basic`, `query:NAME`, `form:NAME`, \
             `body:/PATH` or `path`",
            self.0
        )
    }
}

impl std::error::Error for PlaceError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_belongs_where_its_place_says_and_nowhere_else() {
        let form = Spot::Body { path: "/api/post", field: Some("token") };
        let token_endpoint = Spot::Body { path: "/oauth/v2/token", field: None };
        for (place, spot, expected) in [
            ("header:X-Api-Key", Spot::Header("x-api-key"), true),
            ("header:x-api-key", Spot::Header("x-other"), false),
            ("header:authorization", Spot::Basic, false),
            ("basic", Spot::Basic, true),
            ("basic", Spot::Header("authorization"), false),
            ("query:key", Spot::Query("key"), true),
            ("query:key", Spot::Query("q"), false),
            ("form:token", form, true),
            ("form:text", form, false),
            ("form:token", token_endpoint, false),
            ("body:/oauth/*/token", token_endpoint, true),
            ("body:/oauth/**", token_endpoint, true),
            ("body:/oauth/*", token_endpoint, false),
            ("body:/oauth/v2/token/more", token_endpoint, false),
            ("path", Spot::Path, true),
            ("path", form, false),
        ] {
            let place = Place::parse(place).unwrap();
            assert_eq!(place.covers(&spot), expected, "`{place}` and {spot:?}");
        }
    }

    #[test]
    fn a_credential_limited_to_a_host_belongs_on_that_host_only() {
        let credential = Credential {
            detector: "example-token".into(),
            places: vec![Place::Basic],
            hosts: vec![HostPattern::parse("api.example.com").unwrap()],
        };
        for (detector, host, expected) in [
            ("example-token", "api.example.com", true),
            ("example-token", "www.example.com", false),
            ("other-token", "api.example.com", false),
        ] {
            let host = Host::parse(host.as_bytes()).unwrap();
            assert_eq!(credential.belongs(detector, &host, &Spot::Basic), expected, "{detector} at {host}");
        }
    }

    #[test]
    fn places_are_written_back_as_they_were_read_and_others_are_refused() {
        for text in ["header:x-api-key", "basic", "query:key", "form:token", "body:/oauth/token", "path"] {
            assert_eq!(Place::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "header:", "header:a b", "cookie:x", "basic:x", "body:token", "query:", "path:/x"] {
            assert!(
                Place::parse(text).unwrap_err().to_string().starts_with(&format!("`{text}` is no place"))
            );
        }
    }
}
