//! The console: its files, and how a person signs in and out. Everything else it shows it asks of the API.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, RETRY_AFTER, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use super::Admin;
use super::answer::{Body, Failure, no_such_route, time};
use super::guard::Arrived;
use super::signin::{Given, cookie_name};
use crate::clock;

/// Nothing from anywhere else, nothing written into the page, and no text ever taken for markup.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! file {
    ($name:literal, $kind:expr) => {
        ($name, $kind, include_str!(concat!("../../../dashboards/console/", $name)))
    };
}

/// What the page consists of: name, media type, text.
pub(super) const FILES: &[(&str, &str, &str)] = &[
    file!("agents.js", SCRIPT),
    file!("alerts.js", SCRIPT),
    file!("answers.js", SCRIPT),
    file!("api.js", SCRIPT),
    file!("app.js", SCRIPT),
    file!("approvals.js", SCRIPT),
    file!("audit.js", SCRIPT),
    file!("charts.js", SCRIPT),
    file!("decisions.js", SCRIPT),
    file!("destinations.js", SCRIPT),
    file!("detail.js", SCRIPT),
    file!("dom.js", SCRIPT),
    file!("filter.js", SCRIPT),
    file!("format.js", SCRIPT),
    file!("grid.js", SCRIPT),
    file!("icon.svg", "image/svg+xml"),
    file!("login.js", SCRIPT),
    file!("overview.js", SCRIPT),
    file!("policy.js", SCRIPT),
    file!("sessions.js", SCRIPT),
    file!("style.css", "text/css; charset=utf-8"),
    file!("uploads.js", SCRIPT),
];
/// What the sign-in page needs, before anybody is signed in.
const OPEN: [&str; 3] = ["icon.svg", "login.js", "style.css"];

/// Whether a path is part of signing in.
pub(super) fn is_sign_in(path: &str) -> bool {
    path == "/login" || path.strip_prefix("/console/").is_some_and(|name| OPEN.contains(&name))
}

/// The console's page.
pub(super) async fn page() -> Response {
    html(include_str!("../../../dashboards/console/index.html"))
}

/// The page by which a person signs in.
pub(super) async fn sign_in_page() -> Response {
    sign_in()
}

/// The page by which a person signs in, as the answer to who asked for another.
pub(super) fn sign_in() -> Response {
    html(include_str!("../../../dashboards/console/login.html"))
}

fn html(text: &'static str) -> Response {
    let headers: [(HeaderName, HeaderValue); 3] = [
        (CONTENT_TYPE, HeaderValue::from_static(HTML)),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY)),
        (HeaderName::from_static("cross-origin-embedder-policy"), HeaderValue::from_static("require-corp")),
    ];
    (headers, text).into_response()
}

/// One of the page's files.
pub(super) async fn file(Path(name): Path<String>) -> Response {
    match FILES.iter().find(|(known, ..)| *known == name) {
        Some((_, kind, text)) => ([(CONTENT_TYPE, *kind)], *text).into_response(),
        None => no_such_route().await.into_response(),
    }
}

/// What is said to be signed in: one of the two.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Credentials {
    /// The admin token.
    token: Option<String>,
    /// What a link carried that was printed at the start.
    code: Option<String>,
}

/// A sign-in. The cookie goes with it as a header.
#[derive(Serialize)]
pub(super) struct Opened {
    csrf: String,
    expires: String,
}

/// Signs somebody in who knows the admin token or has a link.
pub(super) async fn login(
    State(admin): State<Arc<Admin>>,
    Extension(arrived): Extension<Arrived>,
    Body(said): Body<Credentials>,
) -> Result<Response, Failure> {
    let (now, from): (Instant, Option<IpAddr>) = (Instant::now(), arrived.peer.map(|peer| peer.ip()));
    // First: everybody on this machine comes from one address, and must not be able to keep the operator out by being
    // wrong. What is random and this long is not guessed by trying often.
    let is_known = match &said {
        Credentials { token: Some(token), code: None } => admin.token.is(token.trim().as_bytes()),
        Credentials { token: None, code: Some(code) } => admin.sign_ins.redeem(code, now),
        _ => return Err(Failure::bad("say `token` or `code`")),
    };
    if !is_known {
        if let Some(wait) = admin.sign_ins.must_wait(from, now) {
            let message = "too many wrong tokens; wait a minute";
            let failure = Failure::new(StatusCode::TOO_MANY_REQUESTS, "too_many_failures", message);
            return Ok(([(RETRY_AFTER, (wait.as_secs() + 1).to_string())], failure).into_response());
        }
        admin.sign_ins.failed(from, now);
        tracing::warn!(from = ?from, "somebody tried to sign in at the console with a wrong token");
        let message = match said.code {
            Some(_) => "this link was used or is too old",
            None => "this is not the token in `admin.token`",
        };
        return Err(Failure::new(StatusCode::UNAUTHORIZED, "unauthorized", message));
    }
    let Given { cookie, page, lasts } = admin.sign_ins.open(now)?;
    let expires = time(clock::now().saturating_add(i64::try_from(lasts.as_micros()).unwrap_or(i64::MAX)));
    let cookie = set_cookie(&arrived, &cookie, lasts.as_secs());
    Ok(([(SET_COOKIE, cookie)], Json(Opened { csrf: page, expires })).into_response())
}

/// Signs out whoever's cookie this is.
pub(super) async fn logout(
    State(admin): State<Arc<Admin>>,
    Extension(arrived): Extension<Arrived>,
    headers: HeaderMap,
) -> impl IntoResponse {
    if let Some(signed_in) = admin.sign_ins.named(&headers, arrived.port(), Instant::now()) {
        admin.sign_ins.close(signed_in);
    }
    (StatusCode::NO_CONTENT, [(SET_COOKIE, set_cookie(&arrived, "", 0))])
}

/// Without `Secure`: the listener speaks HTTP, to loopback.
fn set_cookie(arrived: &Arrived, value: &str, seconds: u64) -> String {
    let name = cookie_name(arrived.port());
    format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict")
}
