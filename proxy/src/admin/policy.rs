//! The policy in force: shown, and read again.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;

use super::answer::Failure;
use super::{Admin, Status};

/// The policy in force.
pub(super) async fn show(State(admin): State<Arc<Admin>>) -> Json<serde_json::Value> {
    Json(admin.control.policy())
}

/// Reads the policy files again; the answer is the status with the new digest.
pub(super) async fn reload(State(admin): State<Arc<Admin>>) -> Result<Json<Status>, Failure> {
    match admin.control.reload().await {
        Ok(()) => Ok(Json(admin.control.status())),
        Err(mistakes) => {
            let message = format!("the policy in force stays: {}", mistakes.join("\n"));
            Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_policy", message))
        }
    }
}
