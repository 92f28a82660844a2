//! How the API answers: JSON, and errors in one shape.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;

use crate::audit::ChangeError;
use crate::store::StoreError;

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
