//! Who may ask the admin listener: the right host, no foreign page, and the token or the console's cookie.
//!
//! A browser on this machine is the way in for a web page that means harm: it can be made to send requests to
//! loopback, under a name of the page's own (DNS rebinding) or across sites. The exact `Host` stops the one,
//! `Origin` and `Sec-Fetch-Site` the other, and the token, which no page can know, both. A browser adds the cookie by
//! itself, so with the cookie a request must come from our own page: it says so by a word of its own, and by `Origin`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, ORIGIN, REFERRER_POLICY, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};

use super::answer::Failure;
use super::{Admin, console};
use crate::accept::Place;
use crate::config::MetricsAccess;

/// How long a handler may take, its reading of the body included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a connection came from and arrived. `None`: a Unix socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrived {
    pub(super) peer: Option<SocketAddr>,
    pub(super) local: Option<SocketAddr>,
}

impl Arrived {
    /// The listener's port.
    pub(super) fn port(&self) -> Option<u16> {
        self.local.map(|local| local.port())
    }
}

/// Lets a request through to its handler, or says why not; either way with the headers of a page that trusts nobody.
pub(super) async fn check(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    let mut response = match judge(&admin, &request) {
        Ok(()) => match tokio::time::timeout(ANSWER_TIMEOUT, next.run(request)).await {
            Ok(response) => response,
            Err(_) => {
                Failure::new(StatusCode::GATEWAY_TIMEOUT, "timeout", "this took too long").into_response()
            }
        },
        Err(Refusal::Forbidden(why)) => Failure::new(StatusCode::FORBIDDEN, "forbidden", why).into_response(),
        Err(Refusal::Unauthorized) => unauthorized(request.uri().path()),
    };
    harden(response.headers_mut());
    response
}

/// Why a request goes no further.
enum Refusal {
    /// 403, whatever token it carries.
    Forbidden(&'static str),
    /// 401.
    Unauthorized,
}

fn judge(admin: &Admin, request: &Request) -> Result<(), Refusal> {
    // Set by our own connection loop; without it nothing is known, so nothing is allowed.
    let Some(arrived) = request.extensions().get::<Arrived>() else {
        return Err(Refusal::Forbidden("it is not known where this came from"));
    };
    let Some(host) = served_host(request.headers(), request.uri(), arrived) else {
        return Err(Refusal::Forbidden("the `Host` of this request is not an address of the admin listener"));
    };
    if is_foreign(request.method(), request.headers(), host) {
        return Err(Refusal::Forbidden("this request comes from another site's page"));
    }
    if admin.token.is_in(request.headers()) {
        stays(request);
        return Ok(());
    }
    if is_open(admin, request.method(), request.uri().path(), arrived) {
        return Ok(());
    }
    judge_cookie(admin, request, arrived).inspect(|()| stays(request))
}

/// The connection is one of somebody who may be here: it need not make room for others.
fn stays(request: &Request) {
    if let Some(place) = request.extensions().get::<Place>() {
        place.is_known();
    }
}

/// Browsers send the cookie to every port of this host, so whatever listens there may have it: by itself it opens the
/// page's files alone. Our own page also says its word, and where it is from when it changes something.
fn judge_cookie(admin: &Admin, request: &Request, arrived: &Arrived) -> Result<(), Refusal> {
    let headers = request.headers();
    let Some(signed_in) = admin.sign_ins.named(headers, arrived.port(), Instant::now()) else {
        return Err(Refusal::Unauthorized);
    };
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if reads && !request.uri().path().starts_with("/api/") && request.uri().path() != "/metrics" {
        return Ok(());
    }
    // That it is ours was seen before.
    if !reads && !headers.contains_key(ORIGIN) {
        return Err(Refusal::Forbidden("a change by cookie says its `Origin`"));
    }
    if !admin.sign_ins.is_page(signed_in, headers) {
        return Err(Refusal::Forbidden(NO_PAGE_WORD));
    }
    Ok(())
}

/// The `Host`, if it is one of the names this listener has: the address the connection arrived at, or loopback.
fn served_host<'a>(headers: &'a HeaderMap, uri: &Uri, arrived: &Arrived) -> Option<&'a str> {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return None };
    let host = host.to_str().ok()?;
    let served = match arrived.local {
        None => host.eq_ignore_ascii_case("localhost"),
        Some(local) => {
            let (address, port) = (local.ip().to_canonical(), local.port());
            let names = [
                SocketAddr::new(address, port).to_string(),
                format!("localhost:{port}"),
                format!("127.0.0.1:{port}"),
                format!("[::1]:{port}"),
            ];
            names.iter().any(|name| name.eq_ignore_ascii_case(host))
        }
    };
    // A target in absolute form names a host, too; it must be the same (RFC 9112, section 3.2.2).
    let same = uri.authority().is_none_or(|authority| authority.as_str().eq_ignore_ascii_case(host));
    (served && same).then_some(host)
}

/// Whether a browser says that another site's page sent this. Following a link to the page is no harm.
fn is_foreign(method: &Method, headers: &HeaderMap, host: &str) -> bool {
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("unreadable"));
    let other_origin = text(&ORIGIN).is_some_and(|origin| {
        let same = origin.split_once("://").is_some_and(|(scheme, rest)| {
            scheme.eq_ignore_ascii_case("http") && rest.eq_ignore_ascii_case(host)
        });
        !same || headers.get_all(ORIGIN).iter().count() > 1
    });
    let fetched_across = matches!(text(&SEC_FETCH_SITE), Some("cross-site" | "same-site"));
    let follows_link = method == Method::GET && text(&SEC_FETCH_MODE) == Some("navigate");
    other_origin || (fetched_across && !follows_link)
}

/// What needs no token. The peer is the socket's; headers that claim another count for nothing.
fn is_open(admin: &Admin, method: &Method, path: &str, arrived: &Arrived) -> bool {
    match path {
        "/healthz" | "/readyz" => true,
        path if console::is_sign_in(path) => true,
        "/metrics" => {
            let near = arrived.peer.is_none_or(|peer| peer.ip().to_canonical().is_loopback());
            near && admin.metrics_access == MetricsAccess::Open
        }
        // Carries a signature of its own, for one answer to one question.
        path => {
            let reply = path.strip_prefix("/api/approvals/").and_then(|rest| rest.strip_suffix("/reply"));
            method == Method::POST && reply.is_some_and(|id| !id.contains('/'))
        }
    }
}

fn unauthorized(path: &str) -> Response {
    // A person who opens the address in a browser is asked to sign in.
    let mut response = match path {
        "/" => (StatusCode::UNAUTHORIZED, console::sign_in()).into_response(),
        _ => {
            let message =
                "this wants `Authorization: Bearer TOKEN`; the token is in `admin.token` in the data folder";
            Failure::new(StatusCode::UNAUTHORIZED, "unauthorized", message).into_response()
        }
    };
    response
        .headers_mut()
        .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"outgate admin\""));
    response
}

/// Why a request by cookie is refused that does not come with what the sign-in was answered with.
const NO_PAGE_WORD: &str = "a request by cookie says in `x-outgate-csrf` what the sign-in was answered with";

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

fn harden(headers: &mut HeaderMap) {
    for (name, value) in [
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(
        "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ));
}
