//! What people were told lately, and what could not be told.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::Admin;
use crate::alert::Overview;

/// The latest alerts, the latest first.
pub(super) async fn list(State(admin): State<Arc<Admin>>) -> Json<Overview> {
    Json(admin.alerts.overview())
}
