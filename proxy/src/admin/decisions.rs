//! Decisions as `outgate log` shows them, newest first; one of them; and what would be decided, rule by rule.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use http::StatusCode;
use policy::identity::{AgentName, SessionId};
use policy::record::Finding;
use policy::verdict::{Action, Class, Reason};
use policy::view::DecisionView;
use serde::Deserialize;

use super::Admin;
use super::answer::Failure;
use crate::store::query::Filter;

/// Decisions of one answer, unless `limit` asks for another number.
const DEFAULT_LIMIT: u32 = 100;
/// The greatest `limit`.
const GREATEST_LIMIT: u32 = 10_000;

/// Decisions that pass a filter; `before` pages backwards.
pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Json<Vec<DecisionView>>, Failure> {
    let filter = filter(&parameters)
        .map_err(|mistakes| Failure::new(StatusCode::BAD_REQUEST, "bad_filter", mistakes.join("; ")))?;
    Ok(Json(admin.store.decisions(&filter).await?))
}

/// One decision.
pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
) -> Result<Json<DecisionView>, Failure> {
    let missing = || Failure::missing(format!("there is no decision `{}`", id.escape_debug()));
    let id = id.parse().map_err(|_| missing())?;
    admin.store.decision(id).await?.map(Json).ok_or_else(missing)
}

/// A request that nobody sent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Imagined {
    url: String,
    method: Option<String>,
    agent: Option<String>,
    #[serde(default)]
    bytes: u64,
}

/// What would be decided about a request, rule by rule, by the policy in force.
pub(super) async fn explain(
    State(admin): State<Arc<Admin>>,
    Query(imagined): Query<Imagined>,
) -> Result<Json<serde_json::Value>, Failure> {
    let agent = match imagined.agent.as_deref() {
        None => AgentName::anonymous(),
        Some(name) => name.parse().map_err(|_| {
            Failure::bad(format!("`agent` takes the name of an agent, not `{}`", name.escape_debug()))
        })?,
    };
    let method = imagined.method.as_deref().unwrap_or("GET");
    admin.control.explain(&imagined.url, method, &agent, imagined.bytes).map(Json).map_err(Failure::bad)
}

/// Reads the parameters, or every mistake in them.
fn filter(parameters: &[(String, String)]) -> Result<Filter, Vec<String>> {
    let mut filter = Filter { limit: Some(DEFAULT_LIMIT), ..Filter::default() };
    let mut mistakes = Vec::new();
    for (name, value) in parameters {
        if let Err(takes) = set(&mut filter, name, value) {
            let value = value.escape_debug();
            mistakes.push(match takes {
                Some(takes) => format!("`{name}` takes {takes}, not `{value}`"),
                None => format!("unknown parameter `{}`", name.escape_debug()),
            });
        }
    }
    if mistakes.is_empty() { Ok(filter) } else { Err(mistakes) }
}

/// Sets one condition; else says what the parameter takes, `None` for one that there is not.
fn set(filter: &mut Filter, name: &str, value: &str) -> Result<(), Option<&'static str>> {
    match name {
        "since" => {
            let time = value.parse::<jiff::Timestamp>();
            let time = time.map_err(|_| Some("a time such as `2026-11-21T06:00:00Z`"))?;
            filter.since = Some(time.as_microsecond());
        }
        "session" => {
            let id = value.parse().map(SessionId);
            filter.session = Some(id.map_err(|_| Some("the id of a session"))?);
        }
        "agent" => filter.agent = Some(value.parse().map_err(|_| Some("the name of an agent"))?),
        "class" => {
            let class = Class::ALL.into_iter().find(|class| class.as_str() == value);
            filter.class = Some(class.ok_or(Some("`model`, `tool` or `unknown`"))?);
        }
        "action" => {
            let action = Action::ALL.into_iter().find(|action| action.as_str() == value);
            filter.action = Some(action.ok_or(Some("`allow`, `ask` or `deny`"))?);
        }
        "reason" => {
            let reason = Reason::ALL.iter().find(|reason| reason.as_str() == value);
            filter.reason = Some(*reason.ok_or(Some("a reason code such as `unknown_destination`"))?);
        }
        "host" => filter.host = Some(value.to_owned()),
        "finding" => {
            let known = Finding::KINDS.contains(&value);
            filter.finding =
                Some(known.then(|| value.to_owned()).ok_or(Some("a finding such as `large_upload`"))?);
        }
        "limit" => {
            let limit = value.parse().ok().filter(|limit| (1..=GREATEST_LIMIT).contains(limit));
            filter.limit = Some(limit.ok_or(Some("a whole number from 1 to 10000"))?);
        }
        "before" => filter.before = Some(value.parse().map_err(|_| Some("the `seq` of a decision"))?),
        _ => return Err(None),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Filter, Vec<String>> {
        let pairs: Vec<_> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        filter(&pairs)
    }

    #[test]
    fn every_filter_of_the_log_is_there() {
        let filter = read(&[
            ("since", "2026-11-21T06:00:00.5Z"),
            ("session", "01K5C3ZJ8V7B5Q2M4N6P8R0T1W"),
            ("agent", "claude"),
            ("class", "tool"),
            ("action", "deny"),
            ("reason", "secret_found"),
            ("host", "*.example.com"),
            ("finding", "git_push"),
            ("limit", "5"),
            ("before", "77"),
        ])
        .unwrap();
        assert_eq!(filter.since, Some(1_795_240_800_500_000));
        assert_eq!(filter.session.unwrap().to_string(), "01K5C3ZJ8V7B5Q2M4N6P8R0T1W");
        assert_eq!(filter.agent.unwrap().as_str(), "claude");
        assert_eq!((filter.class, filter.action), (Some(Class::Tool), Some(Action::Deny)));
        assert_eq!(filter.reason, Some(Reason::SecretFound));
        assert_eq!(filter.host.as_deref(), Some("*.example.com"));
        assert_eq!(filter.finding.as_deref(), Some("git_push"));
        assert_eq!((filter.limit, filter.before), (Some(5), Some(77)));
        assert_eq!(read(&[]).unwrap().limit, Some(DEFAULT_LIMIT));
    }

    #[test]
    fn every_mistake_is_told() {
        let mistakes = read(&[
            ("since", "yesterday"),
            ("session", "x"),
            ("agent", "A B"),
            ("class", "tools"),
            ("action", "block"),
            ("reason", "because"),
            ("finding", "x\n"),
            ("limit", "0"),
            ("limit", "10001"),
            ("before", "-1"),
            ("offset", "3"),
        ])
        .unwrap_err();
        assert_eq!(
            mistakes,
            [
                "`since` takes a time such as `2026-11-21T06:00:00Z`, not `yesterday`",
                "`session` takes the id of a session, not `x`",
                "`agent` takes the name of an agent, not `A B`",
                "`class` takes `model`, `tool` or `unknown`, not `tools`",
                "`action` takes `allow`, `ask` or `deny`, not `block`",
                "`reason` takes a reason code such as `unknown_destination`, not `because`",
                "`finding` takes a finding such as `large_upload`, not `x\\n`",
                "`limit` takes a whole number from 1 to 10000, not `0`",
                "`limit` takes a whole number from 1 to 10000, not `10001`",
                "`before` takes the `seq` of a decision, not `-1`",
                "unknown parameter `offset`",
            ]
        );
    }
}
