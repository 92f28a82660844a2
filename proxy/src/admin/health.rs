//! Whether the gateway lives and works, what it counts, and what its API offers.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::json;

use super::{Admin, Status};

const OPENAPI: &str = include_str!("openapi.json");

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
