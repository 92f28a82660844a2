//! `outgate session`: the runs of agents.

use std::time::Duration;

use jiff::Timestamp;
use policy::event::SessionEnd;
use policy::identity::SessionId;
use policy::redact::Redacted;
use policy::view::rfc3339;
use serde_json::{Value, json};

use super::moment::{self, lasted};
use super::output::{Shown, bold};
use super::records::Records;
use super::summary::Summary;
use super::table::{Column, Table};
use super::{Context, Exit, Failure, output};
use crate::store::query::Filter;
use crate::store::sessions::Session;

/// Look at sessions, the runs of agents
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    List(List),
    Show(Show),
}

/// List sessions, the latest first
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outgate session list
  outgate session list --limit 0 --json")]
struct List {
    /// At most so many; 0 for all
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    limit: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Show one session: who, what, where to, how much
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outgate session show 01K5C3ZJ8V7B5Q2M4N6P8R0T1W")]
struct Show {
    /// Its id, as `session list` prints it; the end of it will do
    id: SessionEnding,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, Failure> {
    let records = Records::open(&context.config()?)?;
    match &arguments.command {
        Command::List(arguments) => list(arguments, records.as_ref())?,
        Command::Show(arguments) => show(arguments, records.as_ref())?,
    }
    Ok(Exit::Done)
}

fn list(arguments: &List, records: Option<&Records>) -> Result<(), Failure> {
    let limit = Some(arguments.limit).filter(|limit| *limit > 0);
    let sessions = records.map(|records| records.sessions(limit)).transpose()?.unwrap_or_default();
    if arguments.json {
        return output::json(&sessions.iter().map(shape).collect::<Vec<_>>());
    }
    if sessions.is_empty() {
        output::note("no sessions yet; `outgate run -- CMD` makes one");
        return Ok(());
    }
    let now = Timestamp::now();
    let mut table = Table::new([
        Column::new("SESSION"),
        Column::new("BEGAN"),
        Column::new("LASTED"),
        Column::new("AGENT"),
        Column::new("LABEL"),
        Column::new("TOOL"),
        Column::gives_way("REPO"),
        Column::new("BRANCH"),
    ]);
    for session in &sessions {
        table.row([
            session.id.to_string().into(),
            moment::shown(session.started, now).into(),
            length(session).into(),
            session.agent.as_str().into(),
            text(session.label.as_ref()).into(),
            text(session.tool.as_ref()).into(),
            text(session.repo.as_ref()).into(),
            text(session.branch.as_ref()).into(),
        ]);
    }
    table.print()
}

fn show(arguments: &Show, records: Option<&Records>) -> Result<(), Failure> {
    let id = arguments.id.resolve(records)?;
    let session = records.map(|records| records.session(id)).transpose()?.flatten();
    let (Some(records), Some(session)) = (records, session) else {
        return Err(unknown(&id.to_string()));
    };
    if arguments.json {
        return output::json(&shape(&session));
    }
    output::line(format_args!("{} {id}", bold("session")))?;
    for (name, value) in [
        ("agent", session.agent.as_str()),
        ("label", text(session.label.as_ref())),
        ("command", text(session.command.as_ref())),
        ("repo", text(session.repo.as_ref())),
        ("branch", text(session.branch.as_ref())),
        ("commit", text(session.commit.as_ref())),
        ("provider", text(session.provider.as_ref())),
        ("model", text(session.model.as_ref())),
        ("mode", if session.observe { "observe" } else { "" }),
        ("began", &moment::shown(session.started, Timestamp::now())),
        ("lasted", &length(&session)),
        ("ended", session.why.filter(|why| *why != SessionEnd::Exited).map_or("", SessionEnd::as_str)),
        ("exit code", &session.exit_code.map(|code| code.to_string()).unwrap_or_default()),
    ] {
        if !value.is_empty() {
            output::line(format_args!("  {name:<10}{}", Shown(value)))?;
        }
    }
    let mut summary = Summary::default();
    let decisions = records.decisions(&Filter { session: Some(id), ..Filter::default() })?;
    decisions.iter().for_each(|view| summary.add(view));
    output::line("")?;
    output::text(&summary.text())?;
    output::line(format_args!("\n  outgate log --session {id}"))
}

fn unknown(name: &str) -> Failure {
    Failure::Failed(format!("`{}` is not a session; `outgate session list` lists them", Shown(name)))
}

/// A session as people name it: by its id or an end of it, since ids of one time begin alike.
#[derive(Clone, Debug)]
pub(crate) struct SessionEnding(String);

impl From<String> for SessionEnding {
    fn from(text: String) -> SessionEnding {
        SessionEnding(text)
    }
}

impl SessionEnding {
    /// The session that is meant.
    ///
    /// # Errors
    /// None, or several.
    pub(crate) fn resolve(&self, records: Option<&Records>) -> Result<SessionId, Failure> {
        let end = self.0.to_ascii_uppercase();
        let whole = end.parse().ok().map(SessionId);
        let found: Vec<SessionId> = match (records, whole) {
            (None, _) => Vec::new(),
            (Some(records), Some(id)) => records.session(id)?.map(|session| session.id).into_iter().collect(),
            (Some(records), None) => {
                let sessions = records.sessions(None)?.into_iter().map(|session| session.id);
                sessions.filter(|id| !end.is_empty() && id.to_string().ends_with(&end)).collect()
            }
        };
        match &*found {
            [one] => Ok(*one),
            [] => Err(unknown(&self.0)),
            _ => Err(Failure::Failed(format!("`{}` is the end of several sessions", Shown(&self.0)))),
        }
    }
}

fn text(text: Option<&Redacted>) -> &str {
    text.map_or("", Redacted::as_str)
}

fn length(session: &Session) -> String {
    let Some(ended) = session.ended else { return "goes on".to_owned() };
    lasted(Duration::from_micros(u64::try_from(ended - session.started).unwrap_or(0)))
}

fn shape(session: &Session) -> Value {
    json!({
        "session": session.id,
        "agent": session.agent,
        "label": session.label,
        "tool": session.tool,
        "command": session.command,
        "repo": session.repo,
        "branch": session.branch,
        "commit": session.commit,
        "provider": session.provider,
        "model": session.model,
        "observe": session.observe,
        "started": rfc3339(session.started),
        "ended": session.ended.map(rfc3339),
        "exit_code": session.exit_code,
        "why": session.why.map(|why| why.as_str()),
    })
}
