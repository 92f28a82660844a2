//! `outgate policy explain`: one decision, rule by rule.

use std::time::Duration;

use owo_colors::OwoColorize;
use policy::decide::{Explanation, Grants};
use policy::identity::AgentName;
use policy::request::{Kind, Request};
use policy::usage::Usage;

use super::files;
use crate::asked;
use crate::cli::context::Context;
use crate::cli::moment::lasted;
use crate::cli::output::{self, Shown, bytes, style_of};
use crate::cli::table::{Cell, Column, Table};
use crate::cli::{Exit, Failure};

/// Explain what would be decided about a request, rule by rule
#[derive(Debug, clap::Args)]
#[command(
    long_about = "\
Explain what would be decided about a request, rule by rule.

Asks the same function as the gateway does, with the policy in force and nothing sent before. Nothing is resolved or \
sent.",
    after_help = "\
Examples:
  outgate policy explain https://api.github.com/repos/example/app --method POST --agent claude
  outgate policy explain https://evil.example/upload --bytes 5242880 --json"
)]
pub(super) struct Explain {
    /// Where to
    url: String,
    /// How
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    method: String,
    /// By whom [default: anonymous]
    #[arg(long, value_name = "AGENT")]
    agent: Option<AgentName>,
    /// With how many bytes to upload
    #[arg(long, value_name = "N", default_value_t = 0)]
    bytes: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Explain, context: &Context) -> Result<Exit, Failure> {
    let (target, path) = asked::read_url(&arguments.url).map_err(Failure::Usage)?;
    let policy = files::in_force(&context.config()?)?.0;
    let agent = arguments.agent.clone().unwrap_or_else(AgentName::anonymous);
    let request = Request {
        agent: &agent,
        kind: Kind::Http,
        target: &target,
        method: &arguments.method,
        path: Some(&path),
        upload: arguments.bytes,
        observe: false,
    };
    let now = jiff::Timestamp::now().as_microsecond();
    let explanation = policy.explain(&request, &Usage::default(), &Grants::none(), now);
    match arguments.json {
        true => output::json(&explanation)?,
        false => print(&explanation)?,
    }
    Ok(Exit::Done)
}

fn print(explanation: &Explanation) -> Result<(), Failure> {
    let Explanation {
        action,
        reason,
        class,
        service,
        rule,
        would,
        would_reason,
        limits,
        matches,
        allow_with,
    } = explanation;
    output::line(format_args!("{}  {reason}", action.as_str().style(style_of(*action).bold())))?;
    let line = |name: &str, value: &str| output::line(format_args!("  {name:<10}{}", Shown(value)));
    if let (Some(would), Some(why)) = (would, would_reason) {
        line("enforced", &format!("would be {}: {why}", would.as_str()))?;
    }
    line("class", class.as_str())?;
    line("service", service.as_deref().unwrap_or("none of the catalogue"))?;
    line("rule", rule.as_deref().unwrap_or("none: the default of the class decides"))?;
    line(
        "request",
        &format!("noted over {}, refused over {}", bytes(limits.request_alert), bytes(limits.request_block)),
    )?;
    let window = lasted(Duration::from_secs(u64::from(limits.window_seconds)));
    line(
        "window",
        &format!(
            "within {window} to one domain noted over {}, refused over {}; to all refused over {}",
            bytes(limits.window_alert),
            bytes(limits.window_block),
            bytes(limits.window_block_agent),
        ),
    )?;
    if !matches.is_empty() {
        let mut table = Table::new([Column::new("  MATCHES"), Column::new("RULE"), Column::new("WHERE")]);
        for found in matches {
            let observed = if found.observe { " (observed)" } else { "" };
            table.row([
                Cell::styled(format!("  {}{observed}", found.action.as_str()), style_of(found.action)),
                (&*found.rule).into(),
                format!("{}:{}", found.file, found.line).into(),
            ]);
        }
        table.print()?;
    }
    match allow_with {
        Some(allow) => line("to allow", &format!("outgate policy allow {allow}")),
        None => Ok(()),
    }
}
