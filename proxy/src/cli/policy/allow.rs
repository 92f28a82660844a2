//! `outgate policy allow`: one more host, in a file of its own (see [`added`]).

use std::path::PathBuf;

use owo_colors::OwoColorize as _;
use policy::catalogue::Catalogue;
use policy::decide::Policy;
use policy::rule::Destination;
use policy::suggest;
use policy::target::{Host, Target};
use serde::de::IgnoredAny;
use serde_json::json;

use crate::cli::context::{Context, running};
use crate::cli::gate::Gate;
use crate::cli::output::{self, Shown};
use crate::cli::{Exit, Failure};
use crate::config::Config;
use crate::policies::added;

/// Allow a host, in policy.d/allowed.toml
#[derive(Debug, clap::Args)]
#[command(
    long_about = "\
Allow a host, in policy.d/allowed.toml of the data folder.

A running gateway takes it up within two seconds. Refused, naming the rule, where an `ask` or a `deny` would still \
win.",
    after_help = "\
Examples:
  outgate policy allow docs.example.com
  outgate policy allow api.example.com:8443
  outgate policy allow @github"
)]
pub(super) struct Allow {
    /// A host, `host:port`, a wildcard, a block of addresses or a `@service`
    #[arg(value_name = "HOST")]
    destination: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Allow, context: &Context) -> Result<Exit, Failure> {
    context.refuse_inside_a_session("policy allow")?;
    let config = context.config()?;
    refuse_other_files(&config)?;
    let text = &*arguments.destination;
    let destination =
        Destination::parse(text).map_err(|wrong| Failure::Usage(format!("`{}` {wrong}", Shown(text))))?;
    let changed = add(&config, text, &destination)?;
    match (arguments.json, &changed) {
        (true, _) => {
            let file = config.data_dir.join("policy.d").join("allowed.toml");
            output::json(&json!({ "allowed": text, "file": file, "changed": changed.is_some() }))?;
        }
        (false, Some(file)) => {
            output::line(format_args!("allowed {text} in {}", file.display()))?;
            output::note("to take it back, take its line out of that file");
        }
        (false, None) => output::line(format_args!("{text} is allowed already"))?,
    }
    if changed.is_some() {
        put_in_force(&config);
    }
    Ok(Exit::Done)
}

/// What a person should know of a host before it is allowed, whoever allows it.
fn warn_of(text: &str) {
    let host = text.rsplit_once(':').map_or(text, |(host, _)| host).trim_start_matches("*.");
    let Ok(host) = host.parse::<Host>() else { return };
    if let Some(why) = suggest::warning(Catalogue::builtin(), &host) {
        output::note(format_args!("{} {}: {}", "mind".yellow(), Shown(host.as_str()), why.words()));
    }
}

/// Tells a gateway that runs at once; it would find out by itself within two seconds.
fn put_in_force(config: &Config) {
    let Ok(Some(gate)) = Gate::find(config) else { return };
    output::note(match gate.post::<IgnoredAny>("/api/policy/reload", &json!({})) {
        Ok(_) => "the gateway that runs has it in force".to_owned(),
        Err(failure) => format!("the gateway that runs did not take it up: {}", failure.words()),
    });
}

/// A gateway with policy files of its own does not read the data folder's.
fn refuse_other_files(config: &Config) -> Result<(), Failure> {
    let named = match running(config)? {
        Some(running) => running.policies,
        None => config.policy.clone(),
    };
    let folder = std::path::absolute(&config.data_dir).map_err(Failure::failed)?;
    let elsewhere =
        named.iter().find(|file| std::path::absolute(file).is_ok_and(|file| !file.starts_with(&folder)));
    match elsewhere {
        None => Ok(()),
        Some(file) => Err(Failure::Failed(format!(
            "the policy in force is `{}`, not the data folder's; add the host there",
            file.display()
        ))),
    }
}

/// Adds the entry, if the policy then allows what it says; the file, where it had to change.
fn add(config: &Config, text: &str, destination: &Destination) -> Result<Option<PathBuf>, Failure> {
    let Some(addition) = added::allow(config, text, destination).map_err(Failure::Failed)? else {
        return Ok(None);
    };
    for probe in added::probes(&addition.after, destination) {
        note_forbidden_address(&addition.after, &probe);
    }
    warn_of(text);
    addition.write().map_err(Failure::Failed)?;
    Ok(Some(addition.file))
}

/// An entry of `allow` lets an address be asked for; whether it may be dialled is another question.
fn note_forbidden_address(policy: &Policy, probe: &Target) {
    let Some(address) = probe.host.ip() else { return };
    if let Err(class) = policy.addresses().judge(address, probe.port) {
        output::note(format_args!(
            "{address} is {class}: it is dialled only if `allow` under [addresses] names it, too"
        ));
    }
}
