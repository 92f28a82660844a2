//! `outgate approvals`: what is held, and the answers to it.

use jiff::Timestamp;
use policy::redact::Redacted;
use serde::Deserialize;
use serde_json::json;

use super::changes::operator;
use super::gate::Gate;
use super::moment;
use super::output::Shown;
use super::table::{Column, Table};
use super::{Context, Exit, Failure, output};
use crate::admin::Approval;

/// Answer what is held
#[derive(Debug, clap::Args)]
#[command(long_about = "\
Answer what is held.

What the policy asks about waits for a person. Equal requests are one question, and a question can be answered for a \
while after its requests gave up: a retry finds the answer.")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    List(List),
    Approve(Approve),
    Deny(Deny),
}

/// List what waits for an answer, the oldest first
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outgate approvals list
  outgate approvals list --json")]
struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Answer a question with yes
#[derive(Debug, clap::Args)]
#[command(
    long_about = "\
Answer a question with yes.

`once` lets pass what waits, or else one retry; `session` holds for as long as the session lasts, `1h` for an hour. \
`always` is written into policy.d of the data folder, and printed before. The policy still holds: what it denies, and \
its limits on content and addresses.",
    after_help = "\
Examples:
  outgate approvals approve 01K5C3ZJ8V7B5Q2M4N6P8R0T1W
  outgate approvals approve 8R0T1W --for 1h
  outgate approvals approve 8R0T1W --for always"
)]
struct Approve {
    /// The question, as `approvals list` prints it; the end of it will do
    id: String,
    /// How far the answer reaches
    #[arg(long, value_name = "SCOPE", default_value = "once", value_parser = ["once", "session", "1h", "always"])]
    r#for: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Answer a question with no, for what waits and for its retries
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outgate approvals deny 01K5C3ZJ8V7B5Q2M4N6P8R0T1W")]
struct Deny {
    /// The question, as `approvals list` prints it; the end of it will do
    id: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Listed {
    approvals: Vec<Approval>,
}

#[derive(Deserialize)]
struct Preview {
    file: String,
    entry: String,
}

#[derive(Deserialize)]
struct Done {
    requests: u64,
}

/// Lists or answers.
///
/// # Errors
/// No such question, or an answer that cannot be given.
pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, Failure> {
    match &arguments.command {
        Command::List(List { json }) => list(*json, Gate::find(&context.config()?)?.as_ref())?,
        Command::Approve(Approve { id, r#for, json }) => {
            context.refuse_inside_a_session("approvals approve")?;
            answer(&gate(context)?, id, Some(r#for), *json)?;
        }
        Command::Deny(Deny { id, json }) => {
            context.refuse_inside_a_session("approvals deny")?;
            answer(&gate(context)?, id, None, *json)?;
        }
    }
    Ok(Exit::Done)
}

fn gate(context: &Context) -> Result<Gate, Failure> {
    let nothing = || Failure::Failed("no gateway runs on this data folder, so nothing is held".to_owned());
    Gate::find(&context.config()?)?.ok_or_else(nothing)
}

fn pending(gate: &Gate) -> Result<Vec<Approval>, Failure> {
    let Listed { approvals } = gate.get("/api/approvals")?;
    Ok(approvals.into_iter().filter(|question| question.state == "pending").collect())
}

fn list(json: bool, gate: Option<&Gate>) -> Result<(), Failure> {
    let questions = gate.map(pending).transpose()?.unwrap_or_default();
    if json {
        let shape = |question: &Approval| {
            json!({
                "id": question.id,
                "agent": question.agent,
                "session": question.session,
                "destination": question.destination,
                "method": question.method,
                "path": question.path,
                "others": question.others,
                "unlisted": question.unlisted,
                "rule": question.rule,
                "asked": question.asked,
                "expires": question.expires,
                "requests": question.requests,
            })
        };
        return output::json(&questions.iter().map(shape).collect::<Vec<_>>());
    }
    if questions.is_empty() {
        output::note("nothing waits for an answer");
        return Ok(());
    }
    let now = Timestamp::now();
    let mut table = Table::new([
        Column::new("QUESTION"),
        Column::new("ASKED"),
        Column::new("AGENT"),
        Column::new("TIMES"),
        Column::new("METHOD"),
        Column::new("DESTINATION"),
        Column::gives_way("PATH"),
        Column::new("RULE"),
    ]);
    for question in &questions {
        let asked: Option<Timestamp> = question.asked.parse().ok();
        table.row([
            question.id.to_string().into(),
            asked.map_or_else(String::new, |asked| moment::shown(asked.as_microsecond(), now)).into(),
            question.agent.as_str().into(),
            question.requests.to_string().into(),
            text(question.method.as_ref()).into(),
            question.destination.as_str().into(),
            path(question).into(),
            text(question.rule.as_ref()).into(),
        ]);
    }
    table.print()?;
    output::note(
        "\nanswer with: outgate approvals approve QUESTION --for once|session|1h|always, or deny QUESTION",
    );
    Ok(())
}

/// Answers the question that an end of its name means; `None` is no.
fn answer(gate: &Gate, id: &str, scope: Option<&str>, json: bool) -> Result<(), Failure> {
    let id = resolve(gate, id)?;
    if scope == Some("always") && !json {
        let by = operator().map(|by| encoded(by.as_str())).unwrap_or_default();
        let Preview { file, entry } = gate.get(&format!("/api/approvals/{id}/preview?by={by}"))?;
        output::line(format_args!("adding to {}:\n", Shown(&file)))?;
        entry.lines().try_for_each(|line| output::line(format_args!("    {}", Shown(line))))?;
        output::line("")?;
    }
    let (word, scope) = (if scope.is_some() { "approve" } else { "deny" }, scope.unwrap_or("once"));
    let body = json!({ "answer": word, "for": scope, "by": operator() });
    let done: serde_json::Value = gate.post(&format!("/api/approvals/{id}"), &body)?;
    if json {
        return output::json(&done);
    }
    let Done { requests } = serde_json::from_value(done).map_err(Failure::failed)?;
    let waited = match requests {
        0 => "nothing waits for it now; a retry finds the answer".to_owned(),
        waited => format!("{} waited for it", output::count(waited, "request")),
    };
    match word {
        "approve" => output::line(format_args!("approved for {scope}: {waited}")),
        _ => output::line(format_args!("denied: {waited}")),
    }
}

/// The name of a question by an end of it: names of one time begin alike. One that is none is left to the gateway, which
/// knows whether it was answered.
fn resolve(gate: &Gate, id: &str) -> Result<String, Failure> {
    if id.parse::<ulid::Ulid>().is_ok() {
        return Ok(id.to_owned());
    }
    let end = id.to_ascii_uppercase();
    let named = pending(gate)?.into_iter().map(|question| question.id.to_string());
    let named: Vec<String> = named.filter(|name| !end.is_empty() && name.ends_with(&end)).collect();
    match &*named {
        [one] => Ok(one.clone()),
        [] => Err(Failure::Failed(format!(
            "there is no question `{}`; `outgate approvals list` lists them",
            Shown(id)
        ))),
        _ => Err(Failure::Failed(format!("`{}` is the end of several questions", Shown(id)))),
    }
}

/// A value of a query (RFC 3986, section 2.1).
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    let encode = |byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(encode).collect()
}

fn path(question: &Approval) -> String {
    let first = text(question.path.as_ref());
    question.and_others().map_or_else(|| first.to_owned(), |others| format!("{first} {others}"))
}

fn text(text: Option<&Redacted>) -> &str {
    text.map_or("", Redacted::as_str)
}
