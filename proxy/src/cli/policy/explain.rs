//! `outgate policy explain`: one decision, rule by rule.

use std::time::Duration;

use owo_colors::OwoColorize;
use policy::catalogue::Catalogue;
use policy::decide::{Explanation, Grants, Near};
use policy::identity::AgentName;
use policy::request::{Kind, Request};
use policy::suggest;
use policy::target::Host;
use policy::usage::Usage;
use policy::verdict::Action;

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
    let method = method(&arguments.method)?;
    let (target, path) = asked::read_url(&arguments.url).map_err(Failure::Usage)?;
    let policy = files::in_force(&context.config()?)?.0;
    let agent = arguments.agent.clone().unwrap_or_else(AgentName::anonymous);
    let request = Request {
        agent: &agent,
        kind: Kind::Http,
        target: &target,
        method,
        path: Some(&path),
        upload: arguments.bytes,
        observe: false,
    };
    let now = jiff::Timestamp::now().as_microsecond();
    let mut explanation = policy.explain(&request, &Usage::default(), &Grants::none(), now);
    let address = explanation.judge_address(&target, policy.addresses());
    if arguments.json {
        output::json(&explanation)?;
        return Ok(Exit::Done);
    }
    print(&explanation)?;
    if let Some(class) = address {
        let words = format!("{class}: dialled only if `allow` under [addresses] names it, too");
        output::line(format_args!("  {:<10}{words}", "address"))?;
    }
    advise(&explanation, policy.catalogue(), &target.host)?;
    Ok(Exit::Done)
}

/// Methods are told apart by case (RFC 9110, section 9.1): a rule about `GET` says nothing of `get`.
fn method(text: &str) -> Result<&str, Failure> {
    let right = text.to_ascii_uppercase();
    if text != right {
        return Err(Failure::Usage(format!("`--method {}`: write `{}`", Shown(text), Shown(&right))));
    }
    Ok(text)
}

/// Rules that come near, what to mind, and the line that would allow it.
fn advise(explanation: &Explanation, catalogue: &Catalogue, host: &Host) -> Result<(), Failure> {
    let line = |name: &str, value: &str| output::line(format_args!("  {name:<10}{}", Shown(value)));
    for Near { rule, action, file, line: at, but } in &explanation.near {
        let does = match action {
            Action::Allow => "allows",
            Action::Ask => "asks about",
            Action::Deny => "denies",
        };
        line("near", &format!("`{rule}` ({file}:{at}) {does} {but}"))?;
    }
    if let Some(why) = suggest::warning(catalogue, host) {
        output::line(format_args!("  {:<10}{}", "mind", why.words().yellow()))?;
    }
    let Some(allow) = &explanation.allow_with else { return Ok(()) };
    match explanation.near.iter().find(|near| near.action == Action::Allow) {
        // Whoever wrote that rule wanted less than everything.
        Some(near) => {
            line(
                "to allow",
                &format!("add it to `{}`, or all methods and paths, for every agent:", near.rule),
            )?;
            line("", &format!("outgate policy allow {allow}"))
        }
        None => line("to allow", &format!("outgate policy allow {allow}")),
    }
}

fn print(explanation: &Explanation) -> Result<(), Failure> {
    let Explanation { action, reason, class, service, rule, would, would_reason, limits, matches, .. } =
        explanation;
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
    Ok(())
}
