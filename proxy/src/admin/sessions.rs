//! Sessions: opened for a command, looked at, ended.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use http::StatusCode;
use policy::event::SessionEnd;
use policy::identity::{AgentName, SessionId, TokenDigest};
use policy::redact::Redacted;
use serde::{Deserialize, Serialize};

use super::answer::{Body, Failure, time};
use super::{Admin, agents};
use crate::store::agents::AgentStatus;
use crate::store::sessions::Session;
use crate::store::{Change, NewSession};
use crate::{clock, token};

/// Sessions of one answer, unless `limit` asks for another number.
const DEFAULT_LIMIT: u32 = 100;

/// A session as lists show it.
#[derive(Serialize)]
pub(super) struct SessionView {
    session: SessionId,
    agent: AgentName,
    label: Option<Redacted>,
    tool: Option<Redacted>,
    command: Option<Redacted>,
    repo: Option<Redacted>,
    branch: Option<Redacted>,
    commit: Option<Redacted>,
    provider: Option<Redacted>,
    model: Option<Redacted>,
    observe: bool,
    started: String,
    ended: Option<String>,
    exit_code: Option<i32>,
    why: Option<&'static str>,
}

/// A session's token, shown once.
#[derive(Serialize)]
pub(super) struct Opened {
    session: SessionId,
    token: String,
    proxy_url: Option<String>,
}

/// What is said of a session that begins.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Beginning {
    agent: Option<String>,
    label: Option<String>,
    tool: Option<String>,
    command: Option<String>,
    repo: Option<String>,
    branch: Option<String>,
    commit: Option<String>,
    observe: bool,
}

/// What is said of a session that ends.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Ending {
    exit_code: Option<i32>,
}

/// Which sessions are listed.
#[derive(Deserialize)]
pub(super) struct Listed {
    limit: Option<u32>,
}

impl SessionView {
    fn new(session: Session) -> SessionView {
        SessionView {
            session: session.id,
            agent: session.agent,
            label: session.label,
            tool: session.tool,
            command: session.command,
            repo: session.repo,
            branch: session.branch,
            commit: session.commit,
            provider: session.provider,
            model: session.model,
            observe: session.observe,
            started: time(session.started),
            ended: session.ended.map(time),
            exit_code: session.exit_code,
            why: session.why.map(SessionEnd::as_str),
        }
    }
}

/// Sessions, the latest first.
pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    Query(listed): Query<Listed>,
) -> Result<Json<Vec<SessionView>>, Failure> {
    let sessions = admin.store.sessions(Some(listed.limit.unwrap_or(DEFAULT_LIMIT))).await?;
    Ok(Json(sessions.into_iter().map(SessionView::new).collect()))
}

/// One session.
pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
) -> Result<Json<SessionView>, Failure> {
    known(&admin, &id).await.map(SessionView::new).map(Json)
}

/// Opens a session; the answer holds its token, which nobody can read again.
pub(super) async fn open(
    State(admin): State<Arc<Admin>>,
    Body(new): Body<Beginning>,
) -> Result<(StatusCode, Json<Opened>), Failure> {
    let agent = match new.agent.as_deref() {
        None | Some("anonymous") => AgentName::anonymous(),
        Some(name) => {
            let agent = agents::known(&admin, name).await?;
            match agent.status(clock::now()) {
                AgentStatus::Active => agent.name,
                over => return Err(Failure::conflict(format!("the agent `{name}` is {}", over.as_str()))),
            }
        }
    };
    let redactor = admin.control.redactor();
    let text = |text: Option<String>| text.filter(|text| !text.is_empty()).map(|text| redactor.text(text));
    let started = clock::now();
    let session = NewSession {
        id: SessionId(clock::ulid(started)),
        agent: agent.clone(),
        label: text(new.label),
        tool: text(new.tool),
        command: text(new.command),
        repo: new.repo.filter(|repo| !repo.is_empty()).map(|repo| redactor.url(repo)),
        branch: text(new.branch),
        commit: text(new.commit),
        observe: new.observe,
        implicit: false,
    };
    let (id, token) = (session.id, token::fresh()?);
    admin.change(Change::OpenSession { session, token: Some(TokenDigest::of(token.as_bytes())) }).await?;
    let proxy_url = admin.proxy_url(&agent, &token);
    Ok((StatusCode::CREATED, Json(Opened { session: id, token, proxy_url })))
}

/// Ends a session and its token. Ending one that has ended changes nothing.
pub(super) async fn end(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
    Body(ending): Body<Ending>,
) -> Result<Json<SessionView>, Failure> {
    let session = known(&admin, &id).await?;
    if session.ended.is_none() {
        let why = if ending.exit_code.is_some() { SessionEnd::Exited } else { SessionEnd::Closed };
        admin.change(Change::EndSession { session: session.id, exit_code: ending.exit_code, why }).await?;
    }
    known(&admin, &id).await.map(SessionView::new).map(Json)
}

async fn known(admin: &Admin, id: &str) -> Result<Session, Failure> {
    let missing = || Failure::missing(format!("there is no session `{}`", id.escape_debug()));
    let id = SessionId(id.parse().map_err(|_| missing())?);
    admin.store.session(id).await?.ok_or_else(missing)
}
