//! How the API answers: JSON, and errors in one shape.

use axum::Json;
use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::audit::ChangeError;
use crate::store::StoreError;
use crate::token::NoRandom;

/// An error as the API gives it: `{"error":{"code":…,"message":…}}`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Failure {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Failure {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Failure {
        Failure { status, code, message: message.into() }
    }

    /// What was sent is not what this takes.
    pub(super) fn bad(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// What was asked about is not there.
    pub(super) fn missing(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// What was asked about is not in a state for it.
    pub(super) fn conflict(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::CONFLICT, "conflict", message)
    }
}

/// A JSON body; an empty one stands for an object without fields.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Body<T>, Failure> {
        let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
        // A page of another site can send text and forms without asking; JSON it cannot.
        let is_json =
            kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|error| Failure::new(error.status(), "bad_request", error.body_text().to_lowercase()))?;
        if bytes.is_empty() {
            return Ok(Body(T::default()));
        }
        if !is_json {
            let message = "a body is `content-type: application/json` here";
            return Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "bad_request", message));
        }
        serde_json::from_slice(&bytes).map(Body).map_err(|error| Failure::bad(error.to_string()))
    }
}

/// A time of the store, microseconds since the Unix epoch, as the API writes times: RFC 3339, UTC.
pub(super) fn time(microseconds: i64) -> String {
    jiff::Timestamp::from_microsecond(microseconds)
        .map_or_else(|_| microseconds.to_string(), |time| format!("{time:.6}"))
}

/// Reads a time of a request, in microseconds since the Unix epoch.
pub(super) fn moment(text: &str) -> Result<i64, Failure> {
    let time = text.parse::<jiff::Timestamp>().map(jiff::Timestamp::as_microsecond);
    time.map_err(|_| {
        Failure::bad(format!("`{}` is not a time such as `2026-11-21T06:00:00Z`", text.escape_debug()))
    })
}

impl From<NoRandom> for Failure {
    fn from(error: NoRandom) -> Failure {
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "no_random", error.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = json!({ "error": { "code": self.code, "message": self.message } });
        (self.status, Json(body)).into_response()
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        tracing::error!(%error, "the admin API cannot read the store");
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", error.to_string())
    }
}

impl From<ChangeError> for Failure {
    fn from(error: ChangeError) -> Failure {
        let (status, code) = match error {
            ChangeError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "audit_unavailable"),
            ChangeError::Stale => (StatusCode::CONFLICT, "conflict"),
        };
        Failure::new(status, code, error.to_string())
    }
}

pub(super) async fn no_such_route() -> Failure {
    Failure::new(
        StatusCode::NOT_FOUND,
        "not_found",
        "there is nothing here; `/api/openapi.json` lists what there is",
    )
}

pub(super) async fn no_such_method() -> Failure {
    let message = "this takes another method; `/api/openapi.json` says which";
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}
