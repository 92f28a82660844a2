//! `outgate agent`: who may use the gateway.

use std::time::Duration;

use jiff::Timestamp;
use policy::identity::AgentName;
use policy::redact::Redacted;
use policy::view::rfc3339;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::changes::{change, operator, redacted};
use super::context::running;
use super::gate::Gate;
use super::moment::{self, Span};
use super::output::bold;
use super::records::Records;
use super::table::{Column, Table};
use super::{Context, Exit, Failure, output};
use crate::agents::{self, NewAgent, Token};
use crate::clock;
use crate::config::{Config, ListenAddress};
use crate::store::agents::Agent;

/// Register agents and give them tokens
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Add(Add),
    List(List),
    Rotate(Rotate),
    Revoke(Revoke),
}

/// Register an agent and print its token, once
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outgate agent add claude --owner ana@example.com --expires 30d
  outgate agent add ci --owner platform --purpose \"nightly builds\" --json")]
struct Add {
    /// Its name: 1 to 64 of `a-z`, `0-9`, `-`, `_` and `.`
    name: AgentName,
    /// Who answers for it
    #[arg(long)]
    owner: String,
    /// What it is for
    #[arg(long)]
    purpose: Option<String>,
    /// When its token stops working: a length of time (`30d`) [default: never]
    #[arg(long, value_name = "SPAN")]
    expires: Option<Span>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// List the agents
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outgate agent list
  outgate agent list --json")]
struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Give an agent a new token, and print it, once
#[derive(Debug, clap::Args)]
#[command(
    long_about = "\
Give an agent a new token, and print it, once.

The one before it works for ten minutes more, so that what runs can be given the new one; `--grace 0s` ends it at once.",
    after_help = "\
Examples:
  outgate agent rotate claude
  outgate agent rotate claude --expires 30d --grace 0s"
)]
struct Rotate {
    /// Its name
    name: AgentName,
    /// When the new token stops working: a length of time (`30d`) [default: as before]
    #[arg(long, value_name = "SPAN")]
    expires: Option<Span>,
    /// How long the token before it still works
    #[arg(long, value_name = "SPAN", default_value = "10m")]
    grace: Span,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Take an agent's token away, at once and for good
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outgate agent revoke claude")]
struct Revoke {
    /// Its name
    name: AgentName,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, Failure> {
    match &arguments.command {
        Command::Add(arguments) => {
            context.refuse_inside_a_session("agent add")?;
            add(arguments, &context.config()?)?;
        }
        Command::List(arguments) => list(arguments, &context.config()?)?,
        Command::Rotate(arguments) => {
            context.refuse_inside_a_session("agent rotate")?;
            rotate(arguments, &context.config()?)?;
        }
        Command::Revoke(Revoke { name }) => {
            context.refuse_inside_a_session("agent revoke")?;
            let config = context.config()?;
            match Gate::find(&config)? {
                // A gateway that runs is told, so that what is printed below is true when it is printed.
                Some(gate) => {
                    gate.post::<IgnoredAny>(
                        &format!("/api/agents/{name}/revoke"),
                        &json!({ "by": operator() }),
                    )?;
                }
                None => {
                    change(&config, async |store, recorder| {
                        agents::revoke(store, recorder, name, operator()).await
                    })?;
                }
            }
            output::line(format_args!("revoked `{name}`; its tokens are taken no longer"))?;
        }
    }
    Ok(Exit::Done)
}

fn add(arguments: &Add, config: &Config) -> Result<(), Failure> {
    let Add { name, owner, purpose, expires, json } = arguments;
    let new = NewAgent {
        name: name.clone(),
        owner: redacted(owner),
        purpose: purpose.as_deref().map(redacted),
        expires: expires.map(from_now),
    };
    let ends = new.expires;
    let token = change(config, async |store, recorder| agents::add(store, recorder, new, operator()).await)?;
    show_token(name, &token, ends, *json, config)
}

fn rotate(arguments: &Rotate, config: &Config) -> Result<(), Failure> {
    let Rotate { name, expires, grace, json } = arguments;
    let (expires, grace): (_, Duration) = (expires.map(from_now), grace.0);
    let (token, agent) = change(config, async |store, recorder| {
        let token = agents::rotate(store, recorder, name, expires, grace, operator()).await?;
        Ok((token, store.agent(name).await?))
    })?;
    show_token(name, &token, agent.and_then(|agent| agent.expires), *json, config)
}

fn from_now(span: Span) -> i64 {
    clock::now().saturating_add(i64::try_from(span.0.as_micros()).unwrap_or(i64::MAX))
}

/// The one moment in which a token is seen.
fn show_token(
    name: &AgentName,
    token: &Token,
    expires: Option<i64>,
    json: bool,
    config: &Config,
) -> Result<(), Failure> {
    let url = proxy(config)?.map(|proxy| format!("http://{name}:{}@{proxy}", token.reveal()));
    if json {
        let expires = expires.map(rfc3339);
        return output::json(
            &json!({ "agent": name, "token": token.reveal(), "expires": expires, "proxy_url": url }),
        );
    }
    output::line(format_args!("the token of `{name}`, shown this once:\n\n  {}\n", bold(token.reveal())))?;
    match url {
        Some(url) => output::line(format_args!("as a proxy: HTTPS_PROXY={url}")),
        None => Ok(()),
    }
}

/// Where the gateway is, or will be by its settings.
fn proxy(config: &Config) -> Result<Option<String>, Failure> {
    if let Some(running) = running(config)? {
        return Ok(Some(running.proxy.to_string()));
    }
    Ok(config.listen.iter().find_map(|address| match address {
        ListenAddress::Tcp(address) if address.port() != 0 => Some(address.to_string()),
        _ => None,
    }))
}

fn list(arguments: &List, config: &Config) -> Result<(), Failure> {
    let agents = match Records::open(config)? {
        Some(records) => records.agents()?,
        None => Vec::new(),
    };
    let now = Timestamp::now();
    if arguments.json {
        return output::json(&agents.iter().map(|agent| shape(agent, now)).collect::<Vec<_>>());
    }
    if agents.is_empty() {
        output::note(
            "no agents yet; requests without credentials belong to `anonymous`. Add one: outgate agent add",
        );
        return Ok(());
    }
    let mut table = Table::new([
        Column::new("NAME"),
        Column::new("STATUS"),
        Column::new("OWNER"),
        Column::new("EXPIRES"),
        Column::gives_way("PURPOSE"),
    ]);
    for agent in &agents {
        table.row([
            agent.name.as_str().into(),
            agent.status(now.as_microsecond()).as_str().into(),
            agent.owner.as_str().into(),
            agent.expires.map_or_else(|| "never".to_owned(), |at| moment::shown(at, now)).into(),
            agent.purpose.as_ref().map_or("", Redacted::as_str).into(),
        ]);
    }
    table.print()
}

fn shape(agent: &Agent, now: Timestamp) -> Value {
    json!({
        "agent": agent.name,
        "status": agent.status(now.as_microsecond()).as_str(),
        "owner": agent.owner,
        "purpose": agent.purpose,
        "created": rfc3339(agent.created),
        "expires": agent.expires.map(rfc3339),
        "revoked": agent.revoked.map(rfc3339),
    })
}
