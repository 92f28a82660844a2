//! `outgate doctor`: proves that it works here, or says what does not and what mends it.

use std::time::SystemTime;

use jiff::Timestamp;
use owo_colors::{OwoColorize, Style};
use policy::identity::AgentName;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Serialize;

use super::changes::{change, operator, redacted};
use super::context::{folder_of, running, runtime, variable};
use super::output::Shown;
use super::policy::files::in_force;
use super::probe::{Answer, Client, Errand};
use super::records::Records;
use super::start::{self, Background};
use super::trust::Trust;
use super::{Context, Exit, Failure, output};
use crate::agents::{self, SessionStart};
use crate::config::Config;
use crate::fence::outside::Fence;
use crate::fence::plan::Plan;
use crate::folder;
use crate::policies::{self, known::Known};
use crate::resolve::Resolver;
use crate::running::Running;
use crate::store::query::Filter;
use crate::tls::Certificate;

/// Prove that it works here, or say what would mend it
#[derive(Debug, clap::Args)]
#[command(
    long_about = "\
Prove that it works here, or say what would mend it.

Looks at settings, folder, keys, clock, name resolution and records, sends a request through the gateway that must \
be refused, looks for variables that lead past it, and tries whether a command can be fenced in. Exit code 3 where something is not as it should be.",
    after_help = "\
Examples:
  outgate doctor
  outgate doctor --json"
)]
pub(crate) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What one check found.
#[derive(Clone, Debug, Serialize)]
struct Check {
    check: &'static str,
    ok: bool,
    detail: String,
    mend: Option<String>,
}

impl Check {
    fn fine(check: &'static str, detail: impl Into<String>) -> Check {
        Check { check, ok: true, detail: detail.into(), mend: None }
    }

    fn wrong(check: &'static str, detail: impl Into<String>, mend: impl Into<String>) -> Check {
        Check { check, ok: false, detail: detail.into(), mend: Some(mend.into()) }
    }

    /// What an attempt came to.
    fn of(check: &'static str, attempt: Result<String, Failure>, mend: &str) -> Check {
        match attempt {
            Ok(detail) => Check::fine(check, detail),
            Err(failure) => Check::wrong(check, failure.words(), mend),
        }
    }
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, Failure> {
    let checks = checks(context);
    match arguments.json {
        true => output::json(&checks)?,
        false => print(&checks)?,
    }
    Ok(if checks.iter().all(|check| check.ok) { Exit::Done } else { Exit::Found })
}

fn print(checks: &[Check]) -> Result<(), Failure> {
    for Check { check, ok, detail, mend } in checks {
        let (mark, style) =
            if *ok { ("ok   ", Style::new().green()) } else { ("WRONG", Style::new().red().bold()) };
        let detail = detail.replace('\n', "\n                     ");
        output::line(format_args!("{}  {check:<14}{detail}", mark.style(style)))?;
        if let Some(mend) = mend {
            output::line(format_args!("                     {} {mend}", "to mend it:".bold()))?;
        }
    }
    Ok(())
}

/// Every check; those that need what an earlier one found wrong are left out.
fn checks(context: &Context) -> Vec<Check> {
    let config = match context.config() {
        Ok(config) => config,
        Err(failure) => {
            return vec![Check::wrong(
                "settings",
                failure.words(),
                "correct them; docs/configuration.md lists all",
            )];
        }
    };
    let mut checks = vec![Check::fine("settings", settings(&config))];
    checks.push(Check::of(
        "folder",
        folder(&config),
        "see what it says; the folder must be its owner's alone",
    ));
    checks.push(Check::of(
        "policy",
        the_policy(&config),
        "see what it says; outgate policy check names every mistake",
    ));
    checks.extend(other_names(&config));
    checks.push(Check::of("certificates", certificates(&config), "outgate ca rotate makes new ones"));
    checks.push(clock(&config));
    checks.push(Check::of("names", names(&config), "set `servers` under [dns] in outgate.toml"));
    checks.push(Check::of("records", records(&config), "outgate audit verify tells more"));
    checks.extend(the_gateway(context, &config));
    checks.push(variables(&config));
    checks.push(fence(&config));
    checks
}

/// Puts up a fence with nobody in it but a direct connection, which must find no way.
fn fence(config: &Config) -> Check {
    let tried = runtime().map(|runtime| {
        runtime.block_on(Fence::trial(Plan::new(config, running(config).ok().flatten().as_ref())))
    });
    match tried {
        Ok(Ok(())) => Check::fine("fence", "a direct connection from inside found no way out"),
        Ok(Err(unfenced)) => Check::wrong("fence", unfenced.to_string(), unfenced.mend()),
        Err(failure) => Check::wrong("fence", failure.words(), "see what it says"),
    }
}

fn settings(config: &Config) -> String {
    match config.config.exists() {
        true => format!("`{}`", config.config.display()),
        false => "defaults: there is no configuration file".to_owned(),
    }
}

fn folder(config: &Config) -> Result<String, Failure> {
    let folder = folder_of(config)?;
    for secret in ["admin.token", "ca.key"] {
        folder::read_secret(&folder.join(secret)).map_err(Failure::failed)?;
    }
    Ok(format!("`{}` is its owner's alone", folder.display()))
}

fn the_policy(config: &Config) -> Result<String, Failure> {
    folder_of(config)?;
    policies::make_starter(config).map_err(Failure::failed)?;
    // As `serve` reads it: also whose the files are, and who else may write them.
    policies::load(config, &Known::default(), &variable).map_err(Failure::failed)?;
    let (policy, files) = in_force(config)?;
    let rules = output::count(policy.document().rules.len() as u64, "rule");
    Ok(format!("{rules} in {}, mode {}", output::count(files.len() as u64, "file"), policy.mode().as_str()))
}

/// A policy that can be written by another of its names; nothing to say where there is none.
fn other_names(config: &Config) -> Option<Check> {
    let linked = policies::hard_linked(&policies::guarded(config))?;
    let (what, mend) = policies::other_name(&linked);
    Some(Check::wrong("other names", what, mend))
}

fn certificates(config: &Config) -> Result<String, Failure> {
    let trust = Trust::prepare(config)?;
    let ours =
        Certificate::open(config.ca.key, &config.data_dir, SystemTime::now()).map_err(Failure::failed)?;
    let bundle = std::fs::read(&trust.bundle).map_err(Failure::failed)?;
    let roots = CertificateDer::pem_slice_iter(&bundle).flatten().count();
    if roots < 2 {
        return Err(Failure::failed("the system has no root certificates; install its `ca-certificates`"));
    }
    Ok(format!("the authority is good until {}; {roots} roots in the bundle", ours.summary().not_after))
}

/// A clock that is behind makes certificates not yet valid, and records that seem to come from the future.
fn clock(config: &Config) -> Check {
    let now = Timestamp::now();
    let latest = Records::open(config).ok().flatten().and_then(|records| {
        let latest = records.decisions(&Filter { limit: Some(1), ..Filter::default() }).ok()?;
        latest.first()?.time.parse::<Timestamp>().ok()
    });
    match latest {
        Some(latest) if latest > now => Check::wrong(
            "clock",
            format!("it is {now:.0}, but the last decision was recorded at {latest:.0}"),
            "set the clock, best by NTP",
        ),
        _ => Check::fine("clock", format!("{now:.0}")),
    }
}

/// A name that exists for no other purpose (RFC 2606).
const KNOWN_NAME: &str = "example.com";

fn names(config: &Config) -> Result<String, Failure> {
    if config.upstream.proxy.is_some() {
        return Ok("left to the parent proxy".to_owned());
    }
    let hosts =
        config.dns.hosts.iter().map(|(host, addresses)| (host.to_string(), addresses.clone())).collect();
    let addresses = runtime()?.block_on(async {
        let resolver =
            Resolver::new(&config.dns.servers, hosts, config.dns.timeout).map_err(Failure::failed)?;
        resolver
            .resolve(KNOWN_NAME)
            .await
            .map_err(|error| Failure::Failed(format!("`{KNOWN_NAME}`: {error}")))
    })?;
    Ok(format!("`{KNOWN_NAME}` resolves to {}", output::count(addresses.len() as u64, "address")))
}

fn records(config: &Config) -> Result<String, Failure> {
    match Records::open(config)? {
        None => Ok("none yet".to_owned()),
        Some(records) => Ok(output::count(records.last_seq()?, "record")),
    }
}

/// The gateway, and what becomes of a request that it must refuse. One is started for this where none runs.
fn the_gateway(context: &Context, config: &Config) -> Vec<Check> {
    let started = match running(config) {
        Ok(Some(running)) => Ok((running, None)),
        Ok(None) => {
            start_one(context, config).map(|background| (background.running.clone(), Some(background)))
        }
        Err(failure) => Err(failure),
    };
    let (running, background) = match started {
        Ok(started) => started,
        Err(failure) => {
            return vec![Check::wrong(
                "gateway",
                failure.words(),
                "outgate serve says what keeps it from starting",
            )];
        }
    };
    let whose = if background.is_some() { "started for this check" } else { "running" };
    let mut checks = vec![Check::fine("gateway", format!("{whose}, proxy {}", running.proxy_url()))];
    checks.push(match probe(config, &running) {
        Ok(detail) => Check::fine("refusal", detail),
        Err(failure) => Check::wrong("refusal", failure.words(), "outgate log shows what became of it"),
    });
    if let Some(background) = background {
        background.stop();
    }
    checks
}

fn start_one(context: &Context, config: &Config) -> Result<Background, Failure> {
    let fixed = ["serve", "--until-idle", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let serve = start::command(context.arguments().into_iter().chain(fixed.map(Into::into)))?;
    start::start(serve, config)
}

const REFUSED_HOST: &str = policy::view::PROBED_HOST;

/// Sends what must be refused, in a session of its own, over TLS and trusting nothing but our authority.
fn probe(config: &Config, running: &Running) -> Result<String, Failure> {
    let trust = Trust::prepare(config)?;
    let session = SessionStart {
        agent: AgentName::anonymous(),
        label: None,
        tool: Some(redacted("outgate doctor")),
        command: None,
        repo: None,
        branch: None,
        commit: None,
        observe: false,
    };
    let (session, token) = change(config, async |store, recorder| {
        agents::open_session(store, recorder, session, operator()).await
    })?;
    let certificates = std::fs::read(&trust.certificate).map_err(Failure::failed)?;
    let answer = runtime()?.block_on(async {
        let client = Client::new(running.proxy, Some(format!("Bearer {}", token.reveal())), &certificates)?;
        client.run(Errand::get(REFUSED_HOST, "/")).await
    });
    change(config, async |_, recorder| agents::end_session(recorder, session, Some(0)).await)?;
    let answer = answer
        .map_err(|error| Failure::Failed(format!("`https://{REFUSED_HOST}/` got no answer: {error}")))?;
    judge(config, &answer)
}

fn judge(config: &Config, answer: &Answer) -> Result<String, Failure> {
    let (Some(id), Some(reason)) = (&answer.decision, &answer.reason) else {
        return Err(Failure::Failed(format!(
            "`https://{REFUSED_HOST}/` was answered {} by somebody else",
            answer.status
        )));
    };
    let records = Records::open(config)?.ok_or_else(|| Failure::failed("the refusal was not recorded"))?;
    if records.decision(id)?.is_none() {
        return Err(Failure::Failed(format!("the decision {id} was told but not recorded")));
    }
    // Where the policy only observes, the name is looked up and not found.
    if answer.status.is_success() {
        return Err(Failure::Failed(format!("`https://{REFUSED_HOST}/` was answered {}", answer.status)));
    }
    Ok(format!("an unknown host over TLS: {}, {reason}, recorded", answer.status))
}

/// Variables of this shell that lead programs elsewhere, or past the gateway.
fn variables(config: &Config) -> Check {
    let proxy = PROXIES.iter().find_map(|name| Some((name, variable(name)?)));
    let ours = running(config).ok().flatten().map(|running| running.proxy.to_string());
    let aside = NO_PROXIES.iter().find_map(|name| beyond_loopback(&variable(name)?).map(|host| (name, host)));
    if let Some((name, host)) = aside {
        let detail = format!("{name} of this shell leads past the gateway, to `{}`", Shown(&host));
        return Check::wrong("variables", detail, format!("unset {name}; `outgate run` sets its own"));
    }
    match (proxy, ours) {
        (None, _) => {
            Check::fine("variables", "none set in this shell; `outgate run` sets them for its command")
        }
        (Some((_, value)), Some(ours)) if value.ends_with(&ours) || value.ends_with(&format!("{ours}/")) => {
            Check::fine("variables", "this shell's programs use the gateway")
        }
        (Some((name, _)), _) => Check::fine(
            "variables",
            format!("{name} of this shell names another proxy; `outgate run` sets its own for its command"),
        ),
    }
}

const PROXIES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"];
const NO_PROXIES: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// The first entry that is not this machine.
fn beyond_loopback(list: &str) -> Option<String> {
    let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let local = |entry: &&str| {
        matches!(*entry, "localhost" | "::1" | "[::1]" | ".localhost" | "127.0.0.0/8")
            || entry.starts_with("127.")
    };
    entries.filter(|entry| !local(entry)).map(str::to_owned).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_past_the_gateway_is_found() {
        for (list, found) in [
            ("localhost,127.0.0.1,::1", None),
            (" localhost , 127.0.0.0/8 ", None),
            ("", None),
            ("localhost,.corp.example", Some(".corp.example")),
            ("*", Some("*")),
        ] {
            assert_eq!(beyond_loopback(list).as_deref(), found, "`{list}`");
        }
    }
}
