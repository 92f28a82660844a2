//! Whether the gateway lives and works, what it counts, and the pages about it.

use std::sync::{Arc, LazyLock};

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{Admin, Status};

const PAGE: &str = include_str!("../../../dashboards/console/index.html");
const OPENAPI: &str = include_str!("openapi.json");

/// The page's policy: its own style, by digest, and nothing else from anywhere.
static PAGE_POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let style =
        PAGE.split("<style>").nth(1).and_then(|rest| rest.split("</style>").next()).unwrap_or_default();
    let digest = STANDARD.encode(Sha256::digest(style));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{digest}'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    );
    HeaderValue::from_str(&policy).expect("base64 and our own words are visible ASCII")
});

/// The process lives.
pub(super) async fn alive() -> Json<serde_json::Value> {
    Json(json!({ "alive": true }))
}

/// The gateway can serve, or why it cannot.
pub(super) async fn ready(State(admin): State<Arc<Admin>>) -> (StatusCode, Json<serde_json::Value>) {
    let reasons = admin.control.unready().await;
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": reasons.is_empty(), "reasons": reasons })))
}

/// All series, as Prometheus reads them.
pub(super) async fn metrics(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    admin.metrics.audited(admin.recorder.counters());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], admin.metrics.render())
}

/// How the gateway is.
pub(super) async fn status(State(admin): State<Arc<Admin>>) -> Json<Status> {
    Json(admin.control.status())
}

/// What this API has to offer.
pub(super) async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], OPENAPI)
}

/// The console's page.
pub(super) async fn page() -> Response {
    page_response()
}

pub(super) fn page_response() -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (CONTENT_SECURITY_POLICY, PAGE_POLICY.clone()),
    ];
    (headers, PAGE).into_response()
}
