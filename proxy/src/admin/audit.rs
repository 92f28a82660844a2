//! The record itself: old records dropped.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::Admin;
use super::answer::{Body, Failure, moment};
use crate::audit::ChangeError;
use crate::store::{Cut, PrunePlan};

/// What is to be dropped.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Prune {
    before: Option<String>,
    by: Option<String>,
}

/// What is going to be dropped.
#[derive(Serialize)]
pub(super) struct Planned {
    records: u64,
    through: Option<u64>,
}

/// Drops records from before a time. Answers once that is on record; they go in the gaps between requests.
pub(super) async fn prune(
    State(admin): State<Arc<Admin>>,
    Body(Prune { before, by }): Body<Prune>,
) -> Result<Json<Planned>, Failure> {
    let before =
        before.ok_or_else(|| Failure::bad("`before` is missing: a time such as `2026-11-21T06:00:00Z`"))?;
    let cut = Cut::Before(moment(&before)?);
    let planned = admin.recorder.prune(cut, Some(admin.named(by))).await.map_err(ChangeError::from)?;
    let (records, through) =
        planned.map_or((0, None), |PrunePlan { records, through, .. }| (records, Some(through)));
    Ok(Json(Planned { records, through }))
}
