//! `outgate policy explain`: one decision, rule by rule.

use std::time::Duration;

use owo_colors::OwoColorize;
use policy::decide::{Explanation, Grants};
use policy::identity::AgentName;
use policy::path::RequestPath;
use policy::request::{Kind, Request};
use policy::target::{Scheme, Target};
use policy::usage::Usage;

use super::files;
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
    let (target, path) = read_url(&arguments.url).map_err(Failure::Usage)?;
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

/// A URL as the gateway would read it: the same constructors, so that what is explained is what is decided.
pub(super) fn read_url(url: &str) -> Result<(Target, RequestPath), String> {
    let wrong = |why: &str| format!("`{url}` cannot be explained: {why}; write `https://host/path`");
    let (scheme, rest) = match url.split_once("://") {
        Some(("https", rest)) => (Scheme::Https, rest),
        Some(("http", rest)) => (Scheme::Http, rest),
        Some((other, _)) => return Err(wrong(&format!("`{other}` is neither `https` nor `http`"))),
        None => return Err(wrong("it has no scheme")),
    };
    let rest = rest.split('#').next().unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let target =
        Target::from_authority(scheme, authority.as_bytes()).map_err(|error| wrong(&error.to_string()))?;
    let path = RequestPath::parse(path.as_bytes()).map_err(|error| wrong(&error.to_string()))?;
    Ok((target, path))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_the_gateway_reads_them() {
        for (url, target, path) in [
            ("https://API.GitHub.com", "https://api.github.com:443", "/"),
            ("https://a.example:8443/x%41?q=1#part", "https://a.example:8443", "/xA"),
            ("http://[::1]:80?x", "http://[::1]:80", "/"),
        ] {
            let (read, at) = read_url(url).unwrap();
            assert_eq!((read.to_string().as_str(), at.as_str()), (target, path), "{url}");
        }
    }

    #[test]
    fn what_the_gateway_would_refuse_to_read_is_wrong_usage() {
        for (url, why) in [
            ("evil.example", "no scheme"),
            ("ftp://evil.example/", "`ftp` is neither"),
            ("https://user:pw@evil.example/", "user information"),
            ("https://2130706433/", "dotted quad"),
            ("https:///x", "empty"),
        ] {
            let error = read_url(url).unwrap_err();
            assert!(error.contains(why), "{url}: {error}");
        }
    }
}
