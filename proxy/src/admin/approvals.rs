//! Questions to a person, and refusals that a person may answer: listed, looked at, answered.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use http::StatusCode;
use policy::approval::Answer;
use policy::redact::Redacted;
use policy::view::DecisionView;
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::answer::{Body, Failure};
use super::{Admin, Approval};
use crate::answering::{AnswerError, Given, Preview};
use crate::hold::BadReply;

/// Every question.
#[derive(Serialize)]
pub(super) struct Approvals {
    approvals: Vec<Approval>,
}

/// An answer to a question.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct NewAnswer {
    answer: String,
    r#for: Option<String>,
    shown: Option<usize>,
    by: Option<String>,
}

/// An answer to a refusal.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct NewOffer {
    r#for: String,
    by: Option<String>,
}

/// Who looks at what an answer would write.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Look {
    by: Option<String>,
}

/// An answer that is signed for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reply {
    answer: String,
    r#for: String,
    expires: i64,
    token: String,
}

/// What an answer did.
#[derive(Serialize)]
pub(super) struct Done {
    id: Ulid,
    answer: &'static str,
    r#for: &'static str,
    by: Redacted,
    /// How many requests waited for it.
    requests: usize,
    /// Where it was written, and what.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<String>,
}

/// What an answer of scope `always` would write.
#[derive(Serialize)]
pub(super) struct Shown {
    file: String,
    entry: String,
}

/// All questions, the oldest first.
pub(super) async fn list(State(admin): State<Arc<Admin>>) -> Json<Approvals> {
    Json(Approvals { approvals: admin.control.approvals() })
}

/// Answers a question.
pub(super) async fn answer(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
    Body(new): Body<NewAnswer>,
) -> Result<Json<Done>, Failure> {
    let id = question(&id)?;
    let answer = read(&new.answer, new.r#for.as_deref())?;
    let by = admin.named(new.by);
    let given = admin.control.answer(id, answer, new.shown, by.clone()).await?;
    Ok(Json(Done::of(id, given, by)))
}

/// Answers a question by a reply that was signed for exactly that.
pub(super) async fn reply(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
    reply: Result<Query<Reply>, QueryRejection>,
) -> Result<Json<Done>, Failure> {
    // Whoever cannot show a signature learns nothing, neither what there is nor what was wrong.
    let refused = |bad: BadReply| Failure::new(StatusCode::FORBIDDEN, "bad_reply", bad.to_string());
    let forged = || refused(BadReply::Forged);
    let Query(reply) = reply.map_err(|_| forged())?;
    let id = question(&id).map_err(|_| forged())?;
    let answer = read(&reply.answer, Some(&reply.r#for)).map_err(|_| forged())?;
    admin.control.check_reply(id, answer, reply.expires, &reply.token).map_err(refused)?;
    let by = Redacted::literal("signed reply");
    // It was signed when the question was new: no more than the first of what is wanted was told.
    let given = admin.control.answer(id, answer, Some(1), by.clone()).await?;
    Ok(Json(Done::of(id, given, by)))
}

/// What an answer of scope `always` to a question would write.
pub(super) async fn preview(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
    Query(look): Query<Look>,
) -> Result<Json<Shown>, Failure> {
    let preview = admin.control.preview(question(&id)?, &admin.named(look.by))?;
    Ok(Json(preview.into()))
}

/// What an answer of scope `always` to a refusal would write.
pub(super) async fn preview_refusal(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
    Query(look): Query<Look>,
) -> Result<Json<Shown>, Failure> {
    let refusal = refusal(&admin, &id).await?;
    Ok(Json(admin.control.preview_refusal(&refusal, &admin.named(look.by))?.into()))
}

/// Answers a refusal of what the policy names nowhere.
pub(super) async fn answer_refusal(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
    Body(new): Body<NewOffer>,
) -> Result<Json<Done>, Failure> {
    let refusal = refusal(&admin, &id).await?;
    let answer = match &*new.r#for {
        "deny" => Answer::Deny,
        scope => read("approve", Some(scope))?,
    };
    let by = admin.named(new.by);
    let given = admin.control.answer_refusal(&refusal, answer, by.clone()).await?;
    Ok(Json(Done::of(refusal.id, given, by)))
}

fn question(id: &str) -> Result<Ulid, Failure> {
    id.parse().map_err(|_| Failure::missing("there is no such question"))
}

async fn refusal(admin: &Admin, id: &str) -> Result<DecisionView, Failure> {
    let missing = || Failure::missing("there is no such decision");
    let id: Ulid = id.parse().map_err(|_| missing())?;
    admin.store.decision(id).await?.ok_or_else(missing)
}

/// An answer by its words; a yes without a scope is for once.
fn read(answer: &str, scope: Option<&str>) -> Result<Answer, Failure> {
    match answer {
        "deny" => Ok(Answer::Deny),
        "approve" => Answer::approve(scope.unwrap_or("once"))
            .ok_or_else(|| Failure::bad("`for` takes `once`, `session`, `1h` or `always`")),
        _ => Err(Failure::bad("`answer` takes `approve` or `deny`")),
    }
}

impl Done {
    fn of(id: Ulid, given: Given, by: Redacted) -> Done {
        let (file, entry) =
            given.written.map(|Preview { file, entry }| (file.display().to_string(), entry)).unzip();
        let (answer, r#for) = (given.answer.word(), given.answer.scope());
        Done { id, answer, r#for, by, requests: given.waited, file, entry }
    }
}

impl From<Preview> for Shown {
    fn from(preview: Preview) -> Shown {
        Shown { file: preview.file.display().to_string(), entry: preview.entry }
    }
}

impl From<AnswerError> for Failure {
    fn from(error: AnswerError) -> Failure {
        let message = error.to_string();
        match error {
            AnswerError::Unknown(_) => Failure::missing(message),
            AnswerError::Answered => Failure::conflict(message),
            AnswerError::Impossible(_) => {
                Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "impossible", message)
            }
            AnswerError::Unrecorded => {
                Failure::new(StatusCode::SERVICE_UNAVAILABLE, "audit_unavailable", message)
            }
        }
    }
}
