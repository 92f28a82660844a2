//! The head of a request, read into one meaning or refused: every authority equal, every length single.
//!
//! hyper delivers much that two servers would read in two ways (two `Host` headers, an absolute form that
//! contradicts `Host`, `Transfer-Encoding: gzip, chunked`, names with underscores); all of it ends here.

use http::header::{
    ALT_SVC, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{Method, Version};
use policy::path::RequestPath;
use policy::request::Kind;
use policy::target::{Scheme, Target};
use policy::verdict::Reason;

use crate::config::Limits;
use crate::identify::Client;
use crate::reply::{Malformed, OWN_HEADER_PREFIX, Refusal};

/// Headers by which some frameworks take another method than the request line's.
pub static METHOD_OVERRIDES: [HeaderName; 3] = [
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
];
/// Spellings that servers which map `_` to `-` would take for framing.
static FRAMING_LOOKALIKES: [HeaderName; 2] =
    [HeaderName::from_static("content_length"), HeaderName::from_static("transfer_encoding")];
/// What belongs to a connection and not to what is said on it (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "proxy-connection",
    "keep-alive",
    "te",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "proxy-authorization",
    "proxy-authenticate",
    "proxy-authentication-info",
];

/// What a head says, once.
#[derive(Debug)]
pub struct Head {
    /// Request or WebSocket.
    pub kind: Kind,
    /// Where it goes.
    pub target: Target,
    /// The canonical path.
    pub path: RequestPath,
    /// Methods it asks for: its own first, then those that override headers ask for.
    pub methods: Vec<String>,
    /// Length of the body, where it is declared.
    pub declared: Option<u64>,
    /// Size of the head as sent by the client, in bytes.
    pub bytes: u64,
}

/// A head that cannot be taken, and the destination as far as it could be read.
#[derive(Debug)]
pub struct BadHead {
    /// What to answer.
    pub refusal: Refusal,
    /// Where it would have gone.
    pub target: Option<Target>,
}

impl Head {
    /// Reads a head. `tunnel` is the destination of the tunnel it came through, `None` on the proxy port itself.
    ///
    /// # Errors
    /// `malformed_request` where it could be read in two ways, `authority_mismatch` where its authorities differ.
    pub fn read(parts: &Parts, tunnel: Option<&Target>, limits: &Limits) -> Result<Head, Box<BadHead>> {
        let target = match tunnel {
            Some(tunnel) => tunnel.clone(),
            None => absolute_target(parts)?,
        };
        let at = |refusal: Refusal| Box::new(BadHead { refusal, target: Some(target.clone()) });
        check_sizes(parts, limits).map_err(at)?;
        check_authorities(parts, &target).map_err(at)?;
        let kind = check_framing(parts).map_err(at)?;
        let declared = declared_length(&parts.headers).map_err(at)?;
        let path = canonical_path(parts).map_err(at)?;
        let methods = methods(parts, &path);
        Ok(Head { kind, target, path, methods, declared, bytes: head_bytes(parts) })
    }
}

impl Head {
    /// The request as it is decided about, its size apart.
    pub fn request<'a>(&'a self, client: &'a Client) -> policy::request::Request<'a> {
        policy::request::Request {
            agent: &client.agent,
            kind: self.kind,
            target: &self.target,
            method: self.methods.first().map_or("", String::as_str),
            path: Some(&self.path),
            upload: 0,
            observe: client.observe,
        }
    }
}

fn malformed(what: impl Into<String>) -> Refusal {
    Refusal::plain(Reason::MalformedRequest, what)
}

/// The destination of an absolute-form request (RFC 9112, section 3.2.2).
fn absolute_target(parts: &Parts) -> Result<Target, Box<BadHead>> {
    let bad = |what: String| Box::new(BadHead { refusal: malformed(what), target: None });
    let Some(authority) = parts.uri.authority() else {
        return Err(bad(
            "this is a proxy: it takes `CONNECT host:port` or a request with an absolute `http://` URL"
                .into(),
        ));
    };
    match parts.uri.scheme_str() {
        Some("http") => {}
        Some("https") => {
            return Err(bad("an `https://` URL cannot be sent in the clear; use `CONNECT host:443`".into()));
        }
        _ => return Err(bad("only `http://` URLs and CONNECT are taken".into())),
    }
    Target::from_authority(Scheme::Http, authority.as_str().as_bytes())
        .map_err(|error| bad(error.to_string()))
}

fn check_sizes(parts: &Parts, limits: &Limits) -> Result<(), Refusal> {
    let url = parts.uri.path_and_query().map_or(0, |path| path.as_str().len());
    if url > limits.url_bytes {
        let what = format!("its URL is longer than {} bytes", limits.url_bytes);
        return Err(Refusal { malformed: Malformed::Url, ..malformed(what) });
    }
    let too_many = parts.headers.len() > limits.headers;
    if too_many || head_bytes(parts) > limits.header_bytes as u64 {
        let what =
            format!("its header section is over {} fields or {} bytes", limits.headers, limits.header_bytes);
        return Err(Refusal { malformed: Malformed::Header, ..malformed(what) });
    }
    Ok(())
}

/// Every authority a request names must be the one destination: URL, `:authority` and `Host`.
fn check_authorities(parts: &Parts, target: &Target) -> Result<(), Refusal> {
    if parts.method == Method::CONNECT {
        return Err(malformed("CONNECT is not taken here"));
    }
    let mut named = false;
    if let Some(authority) = parts.uri.authority() {
        if let Some(scheme) = parts.uri.scheme_str()
            && scheme != target.scheme.as_str()
        {
            return Err(mismatch(target));
        }
        same_authority(authority.as_str().as_bytes(), target)?;
        named = true;
    }
    let mut hosts = parts.headers.get_all(HOST).iter();
    if let Some(host) = hosts.next() {
        if hosts.next().is_some() {
            return Err(malformed("it has more than one `host` header"));
        }
        same_authority(host.as_bytes(), target)?;
        named = true;
    } else if parts.version == Version::HTTP_11 {
        return Err(malformed("it has no `host` header"));
    }
    if named { Ok(()) } else { Err(malformed("it names no host")) }
}

fn same_authority(authority: &[u8], target: &Target) -> Result<(), Refusal> {
    match Target::from_authority(target.scheme, authority) {
        Ok(named) if named == *target => Ok(()),
        Ok(_) => Err(mismatch(target)),
        Err(error) => Err(malformed(error.to_string())),
    }
}

fn mismatch(target: &Target) -> Refusal {
    let what = format!("it names another host than {target}, the destination of this connection");
    Refusal::plain(Reason::AuthorityMismatch, what)
}

fn check_framing(parts: &Parts) -> Result<Kind, Refusal> {
    let headers = &parts.headers;
    if parts.method == Method::TRACE {
        return Err(malformed("TRACE is not taken: it would echo credentials"));
    }
    if FRAMING_LOOKALIKES.iter().any(|name| headers.contains_key(name)) {
        return Err(malformed("it has a header that some servers read as a length"));
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        let chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
        if !chunked || parts.version != Version::HTTP_11 {
            return Err(malformed("its `transfer-encoding` is not `chunked` alone on HTTP/1.1"));
        }
    }
    if headers.get_all(EXPECT).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(malformed("its `expect` is not `100-continue`"));
    }
    if !asks_for_websocket(parts) {
        return Ok(Kind::Http);
    }
    let has_body = headers.contains_key(TRANSFER_ENCODING)
        || headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0");
    if has_body || parts.method != Method::GET {
        return Err(malformed("a WebSocket begins with a GET without body"));
    }
    Ok(Kind::WebSocket)
}

/// Whether the client asks for a WebSocket (RFC 6455, section 4.1). Other upgrades are not passed on.
pub fn asks_for_websocket(parts: &Parts) -> bool {
    parts.version == Version::HTTP_11
        && lists(&parts.headers, CONNECTION, b"upgrade")
        && parts.headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Whether a comma-separated header lists a token.
fn lists(headers: &HeaderMap, name: HeaderName, token: &[u8]) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
}

fn declared_length(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Ok(None) };
    let digits = length.as_bytes();
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) && lengths.next().is_none();
    let value = plain.then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten();
    value.map(Some).ok_or_else(|| malformed("its `content-length` is not one plain number"))
}

fn canonical_path(parts: &Parts) -> Result<RequestPath, Refusal> {
    let raw = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    RequestPath::parse(raw.as_bytes()).map_err(|error| malformed(error.to_string()))
}

/// The request's own method, and those that a framework behind the destination might take instead.
fn methods(parts: &Parts, path: &RequestPath) -> Vec<String> {
    let mut methods = vec![parts.method.as_str().to_owned()];
    let mut add = |bytes: &[u8]| {
        let method = String::from_utf8_lossy(bytes).trim().to_ascii_uppercase();
        if !method.is_empty() && !methods.contains(&method) {
            methods.push(method);
        }
    };
    for name in &METHOD_OVERRIDES {
        parts.headers.get_all(name).iter().for_each(|value| add(value.as_bytes()));
    }
    let query = path.query().unwrap_or_default();
    for value in query.split('&').filter_map(|pair| pair.strip_prefix("_method=")) {
        add(value.as_bytes());
    }
    if query.split('&').any(|pair| pair == "service=git-receive-pack") {
        // The advertisement that a push begins with: whoever may not push need not see it.
        add(b"POST");
    }
    methods
}

/// Size of the head as HTTP/1.1 would write it: what counts as leaving, whatever the version on the wire.
pub fn head_bytes(parts: &Parts) -> u64 {
    let line = parts.method.as_str().len() + parts.uri.path_and_query().map_or(1, |p| p.as_str().len()) + 12;
    let fields: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    (line + fields + 2) as u64
}

/// Takes out what belongs to the client's connection and not to the request, and what belongs to Outgate.
/// `te: trailers` stays: gRPC servers ask for it.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    let trailers = lists(headers, TE, b"trailers");
    for name in named {
        headers.remove(name);
    }
    remove_those(headers, |name| HOP_BY_HOP.contains(&name));
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Makes one `cookie` field of many: HTTP/2 clients send a field for each cookie, HTTP/1.1 servers read but one
/// (RFC 9113, section 8.2.3).
pub fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() < 2 {
        return;
    }
    // Values joined by what may stand in a value are a value.
    if let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

/// Takes out what an upstream may not say to the client: its connection's fields, ways around us, our own words.
pub fn clean_response(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    remove_those(headers, |name| name == ALT_SVC || name.starts_with(OWN_HEADER_PREFIX));
}

/// Takes out the fields of such names. Most heads have none of them: looking at those that are there takes less than
/// asking for each that might be.
fn remove_those(headers: &mut HeaderMap, unwanted: impl Fn(&str) -> bool) {
    let unwanted: Vec<HeaderName> = headers.keys().filter(|name| unwanted(name.as_str())).cloned().collect();
    for name in unwanted {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::config::Config;

    fn parts(method: &str, uri: &str, version: Version, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(uri).version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    fn read(parts: &Parts, tunnel: Option<&str>) -> Result<Head, Box<BadHead>> {
        let tunnel = tunnel.map(|authority| Target::from_connect(authority.as_bytes()).expect("a target"));
        Head::read(parts, tunnel.as_ref(), &Config::default().limits)
    }

    /// `Ok(destination)` or `Err(reason)` with what the client is told.
    type Expected = Result<&'static str, (Reason, &'static str)>;
    /// Method, URL, headers, and what is made of them.
    type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], Expected);

    #[test]
    fn on_the_proxy_port_the_url_is_the_destination() {
        let (malformed, mismatch) = (Reason::MalformedRequest, Reason::AuthorityMismatch);
        let table: &[Row<'_>] = &[
            ("GET", "http://a.test/x", &[("host", "a.test")], Ok("http://a.test:80")),
            ("GET", "http://A.test./x", &[("host", "a.test:80")], Ok("http://a.test:80")),
            ("GET", "http://evil.test/", &[("host", "a.test")], Err((mismatch, "another host"))),
            ("GET", "http://a.test/", &[("host", "evil.test")], Err((mismatch, "another host"))),
            ("GET", "http://a.test:81/", &[("host", "a.test")], Err((mismatch, "another host"))),
            (
                "GET",
                "http://a.test/",
                &[("host", "a.test"), ("host", "b.test")],
                Err((malformed, "more than one")),
            ),
            ("GET", "http://a.test/", &[], Err((malformed, "no `host`"))),
            (
                "GET",
                "http://a.test@evil.test/",
                &[("host", "evil.test")],
                Err((malformed, "user information")),
            ),
            ("GET", "ftp://a.test/", &[("host", "a.test")], Err((malformed, "only `http://`"))),
            ("GET", "https://a.test/", &[("host", "a.test")], Err((malformed, "use `CONNECT"))),
            ("GET", "/latest/meta-data", &[("host", "a.test")], Err((malformed, "this is a proxy"))),
            ("OPTIONS", "*", &[("host", "a.test")], Err((malformed, "this is a proxy"))),
            ("GET", "http://2130706433/", &[("host", "2130706433")], Err((malformed, "dotted quad"))),
            ("TRACE", "http://a.test/", &[("host", "a.test")], Err((malformed, "TRACE"))),
        ];
        check(table, None);
    }

    #[test]
    fn in_a_tunnel_the_tunnel_is_the_destination() {
        let (malformed, mismatch) = (Reason::MalformedRequest, Reason::AuthorityMismatch);
        let host = ("host", "a.test");
        let table: &[Row<'_>] = &[
            ("GET", "/x", &[host], Ok("https://a.test:443")),
            ("GET", "https://a.test/x", &[host], Ok("https://a.test:443")),
            ("GET", "http://a.test/x", &[host], Err((mismatch, "another host"))),
            ("GET", "/x", &[("host", "evil.test")], Err((mismatch, "another host"))),
            ("CONNECT", "evil.test:443", &[("host", "evil.test:443")], Err((malformed, "CONNECT"))),
            (
                "POST",
                "/",
                &[host, ("transfer-encoding", "gzip, chunked")],
                Err((malformed, "transfer-encoding")),
            ),
            ("POST", "/", &[host, ("content_length", "5")], Err((malformed, "read as a length"))),
            ("POST", "/", &[host, ("content-length", "+5")], Err((malformed, "content-length"))),
            (
                "POST",
                "/",
                &[host, ("content-length", "5"), ("content-length", "5")],
                Err((malformed, "content-length")),
            ),
            ("GET", "/", &[host, ("expect", "y 100-continue")], Err((malformed, "expect"))),
            (
                "GET",
                "/",
                &[host, ("connection", "Upgrade"), ("upgrade", "websocket"), ("content-length", "3")],
                Err((malformed, "WebSocket")),
            ),
        ];
        check(table, Some("a.test:443"));
    }

    fn check(table: &[Row<'_>], tunnel: Option<&str>) {
        for (method, uri, headers, expected) in table {
            let sentence = format!("{method} {uri} {headers:?}");
            match (read(&parts(method, uri, Version::HTTP_11, headers), tunnel), expected) {
                (Ok(head), Ok(target)) => assert_eq!(head.target.to_string(), *target, "{sentence}"),
                (Err(bad), Err((reason, part))) => {
                    assert_eq!(bad.refusal.reason, *reason, "{sentence}");
                    assert!(bad.refusal.what.contains(part), "{sentence}: {}", bad.refusal.what);
                }
                (got, _) => panic!("{sentence}: {got:?}"),
            }
        }
    }

    #[test]
    fn http2_needs_one_authority_and_no_host_header() {
        let good = parts("GET", "https://a.test/x", Version::HTTP_2, &[]);
        assert!(read(&good, Some("a.test:443")).is_ok());
        let other = parts("GET", "https://evil.test/x", Version::HTTP_2, &[]);
        let bad = read(&other, Some("a.test:443")).expect_err("another authority");
        assert_eq!(bad.refusal.reason, Reason::AuthorityMismatch);
        let contradicts = parts("GET", "https://a.test/x", Version::HTTP_2, &[("host", "evil.test")]);
        let bad = read(&contradicts, Some("a.test:443")).expect_err("two authorities");
        assert_eq!(bad.refusal.reason, Reason::AuthorityMismatch);
    }

    #[test]
    fn methods_that_a_framework_might_take_instead_are_judged_too() {
        let overriding = parts(
            "POST",
            "/x?_method=put",
            Version::HTTP_11,
            &[("host", "a.test"), ("x-http-method-override", "DELETE")],
        );
        let head = read(&overriding, Some("a.test:443")).expect("a head");
        assert_eq!(head.methods, ["POST", "DELETE", "PUT"]);
    }

    #[test]
    fn sizes_have_limits_with_their_own_status() {
        let long = format!("/{}", "a".repeat(9000));
        let url = read(&parts("GET", &long, Version::HTTP_11, &[("host", "a.test")]), Some("a.test:443"));
        assert_eq!(url.expect_err("too long").refusal.status().map(|s| s.as_u16()), Some(414));
        let value = "v".repeat(70 * 1024);
        let header = parts("GET", "/", Version::HTTP_11, &[("host", "a.test"), ("x-big", &value)]);
        let header = read(&header, Some("a.test:443"));
        assert_eq!(header.expect_err("too large").refusal.status().map(|s| s.as_u16()), Some(431));
    }

    #[test]
    fn hop_by_hop_fields_go_and_trailers_stay_announced() {
        let mut headers = parts(
            "GET",
            "/",
            Version::HTTP_11,
            &[
                ("connection", "close, x-policy, authorization"),
                ("x-policy", "1"),
                ("authorization", "Bearer x"),
                ("proxy-authorization", "Basic x"),
                ("proxy-connection", "keep-alive"),
                ("te", "trailers, gzip"),
                ("accept", "*/*"),
            ],
        )
        .headers;
        strip_hop_by_hop(&mut headers);
        let left: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap_or(""))).collect();
        assert_eq!(left, ["accept: */*", "te: trailers"]);
    }

    #[test]
    fn cookies_leave_in_one_field() {
        let fields = [("cookie", "a=1"), ("accept", "*/*"), ("cookie", "b=2; c=3"), ("cookie", "d")];
        let mut headers = parts("GET", "/", Version::HTTP_2, &fields).headers;
        join_cookies(&mut headers);
        let cookies: Vec<_> = headers.get_all("cookie").iter().collect();
        assert_eq!(cookies, ["a=1; b=2; c=3; d"]);
        assert_eq!(headers.len(), 2);
    }
}
