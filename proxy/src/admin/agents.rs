//! Agents: listed, registered, given a new token, revoked.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use policy::identity::{AgentName, TokenDigest};
use policy::redact::Redacted;
use serde::{Deserialize, Serialize};

use super::Admin;
use super::answer::{Body, Failure, moment, time};
use crate::agents::GRACE;
use crate::store::Change;
use crate::store::agents::{Agent, AgentStatus};
use crate::{clock, token};

/// An agent as lists show it.
#[derive(Serialize)]
pub(super) struct AgentView {
    agent: AgentName,
    owner: Redacted,
    purpose: Option<Redacted>,
    created: String,
    expires: Option<String>,
    status: &'static str,
}

/// A token, shown once.
#[derive(Serialize)]
pub(super) struct Issued {
    agent: AgentName,
    token: String,
    expires: Option<String>,
    proxy_url: Option<String>,
}

/// What is asked of a new agent.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct NewAgent {
    name: String,
    owner: String,
    purpose: Option<String>,
    expires: Option<String>,
}

/// What is asked of a new token.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct NewToken {
    expires: Option<String>,
    grace_seconds: Option<u32>,
    by: Option<String>,
}

/// What is said of a revocation.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Revocation {
    by: Option<String>,
}

impl AgentView {
    fn new(agent: Agent) -> AgentView {
        AgentView {
            status: agent.status(clock::now()).as_str(),
            agent: agent.name,
            owner: agent.owner,
            purpose: agent.purpose,
            created: time(agent.created),
            expires: agent.expires.map(time),
        }
    }
}

/// All agents.
pub(super) async fn list(State(admin): State<Arc<Admin>>) -> Result<Json<Vec<AgentView>>, Failure> {
    Ok(Json(admin.store.agents().await?.into_iter().map(AgentView::new).collect()))
}

/// Registers an agent; the answer holds its token, which nobody can read again.
pub(super) async fn add(
    State(admin): State<Arc<Admin>>,
    Body(new): Body<NewAgent>,
) -> Result<(StatusCode, Json<Issued>), Failure> {
    let agent = named(&new.name)?;
    if agent.is_anonymous() {
        return Err(Failure::bad("the agent `anonymous` is that of requests without credentials"));
    }
    if new.owner.trim().is_empty() {
        return Err(Failure::bad("`owner` is missing: who answers for the agent"));
    }
    let expires = new.expires.as_deref().map(moment).transpose()?;
    let redactor = admin.control.redactor();
    let token = token::fresh()?;
    let change = Change::AddAgent {
        agent: agent.clone(),
        owner: redactor.text(new.owner.trim()),
        purpose: new.purpose.as_deref().map(|purpose| redactor.text(purpose)),
        expires,
        token: TokenDigest::of(token.as_bytes()),
    };
    if admin.store.agent(&agent).await?.is_some() {
        return Err(Failure::conflict(format!(
            "there is an agent `{agent}` already; `rotate` gives it a new token"
        )));
    }
    admin.change(change).await?;
    Ok((StatusCode::CREATED, Json(issued(&admin, agent, token, expires))))
}

/// Gives an agent a new token; the old one is taken for a while longer, so that what runs can be given the new one.
pub(super) async fn rotate(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    Body(new): Body<NewToken>,
) -> Result<Json<Issued>, Failure> {
    let agent = known(&admin, &name).await?;
    if agent.status(clock::now()) == AgentStatus::Revoked {
        return Err(Failure::conflict(format!(
            "the agent `{}` was revoked; register it under another name",
            agent.name
        )));
    }
    let expires = match new.expires.as_deref() {
        Some(text) => Some(moment(text)?),
        None => agent.expires,
    };
    let token = token::fresh()?;
    let grace = new.grace_seconds.map_or(GRACE, |seconds| Duration::from_secs(seconds.into()));
    let change = Change::RotateAgent {
        agent: agent.name.clone(),
        token: TokenDigest::of(token.as_bytes()),
        grace_until: clock::now().saturating_add(i64::try_from(grace.as_micros()).unwrap_or(i64::MAX)),
        expires,
    };
    admin.change_by(new.by, change).await?;
    Ok(Json(issued(&admin, agent.name, token, expires)))
}

/// Takes an agent's tokens away, those of its sessions too.
pub(super) async fn revoke(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    Body(Revocation { by }): Body<Revocation>,
) -> Result<Json<AgentView>, Failure> {
    let agent = known(&admin, &name).await?;
    if agent.status(clock::now()) != AgentStatus::Revoked {
        admin.change_by(by, Change::RevokeAgent { agent: agent.name }).await?;
    }
    known(&admin, &name).await.map(AgentView::new).map(Json)
}

fn issued(admin: &Admin, agent: AgentName, token: String, expires: Option<i64>) -> Issued {
    let proxy_url = admin.proxy_url(&agent, &token);
    Issued { agent, token, expires: expires.map(time), proxy_url }
}

fn named(name: &str) -> Result<AgentName, Failure> {
    name.parse().map_err(|error| Failure::bad(format!("`{}` is not a name: {error}", name.escape_debug())))
}

/// A registered agent, by the name in a path or body.
pub(super) async fn known(admin: &Admin, name: &str) -> Result<Agent, Failure> {
    let name = named(name)?;
    let agent = admin.store.agent(&name).await?;
    agent.ok_or_else(|| Failure::missing(format!("there is no agent `{name}`")))
}
