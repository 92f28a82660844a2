//! `outgate policy allow`: one more host, in a file of its own.
//!
//! The file is changed as a person would change it: comments and order stay. It is written only when all files
//! together are a valid policy in which the host really is allowed; else nothing changes.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use policy::catalogue::{Catalogue, Classified, Risk};
use policy::decide::{Explanation, Grants, Policy};
use policy::identity::AgentName;
use policy::path::RequestPath;
use policy::request::{Kind, Request};
use policy::rule::{Destination, Hosts};
use policy::target::{Host, Scheme, Target};
use policy::usage::Usage;
use policy::verdict::Action;
use serde::de::IgnoredAny;
use serde_json::json;
use toml_edit::{Array, DocumentMut, Item, Value};

use super::files::{self, PolicyFile};
use crate::cli::context::{Context, running};
use crate::cli::gate::Gate;
use crate::cli::output::{self, Shown};
use crate::cli::{Exit, Failure};
use crate::config::Config;
use crate::folder;

/// What a new file begins with.
const HEAD: &str = "\
# Hosts added by `outgate policy allow`. Edit it as you like: comments and order are kept.
version = 1
";

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
    let file = config.data_dir.join("policy.d").join("allowed.toml");
    let changed = add(&config, &file, text, &destination)?;
    match (arguments.json, changed) {
        (true, _) => output::json(&json!({ "allowed": text, "file": file, "changed": changed }))?,
        (false, true) => output::line(format_args!("allowed {text} in {}", file.display()))?,
        (false, false) => output::line(format_args!("{text} is allowed already"))?,
    }
    if changed {
        put_in_force(&config);
    }
    warn_of_risk(text);
    Ok(Exit::Done)
}

/// Some hosts are known ways out for data, whoever allows them.
fn warn_of_risk(text: &str) {
    let host = text.rsplit_once(':').map_or(text, |(host, _)| host).trim_start_matches("*.");
    let risk = host.parse::<Host>().ok().and_then(|host| Catalogue::builtin().risk(&host));
    let danger = match risk {
        None => return,
        Some(Risk::Paste) => "shows what anyone posts to anyone",
        Some(Risk::Tunnel) => "leads to a machine of the caller's choice",
        Some(Risk::FileDrop) => "takes files from anyone",
        Some(Risk::UserContent) => "carries pages and functions of strangers",
    };
    output::note(format_args!("mind that {} {danger}: data can leave that way", Shown(host)));
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

/// Adds the entry, if the policy then allows what it says. `false` where nothing had to change.
fn add(config: &Config, file: &Path, text: &str, destination: &Destination) -> Result<bool, Failure> {
    let (before, mut files) = files::in_force(config)?;
    let probes = probes(&before, destination);
    if !probes.is_empty() && probes.iter().all(|probe| is_allowed(&explain(&before, probe))) {
        return Ok(false);
    }
    let old = match fs::read_to_string(file) {
        Ok(old) => old,
        Err(error) if error.kind() == io::ErrorKind::NotFound => HEAD.to_owned(),
        Err(error) => return Err(Failure::Failed(format!("cannot read `{}`: {error}", file.display()))),
    };
    let new = with_entry(&old, text).map_err(|why| Failure::Failed(format!("`{}` {why}", file.display())))?;
    replace(&mut files, file, &new);
    let after = files::parse(&files)
        .map_err(|mistakes| Failure::Failed(format!("nothing was changed:\n{}", files::lines(&mistakes))))?;
    for probe in &probes {
        refuse_what_stays_stopped(&explain(&after, probe), probe)?;
        note_forbidden_address(&after, probe);
    }
    write(file, &new)?;
    Ok(true)
}

/// The text of a policy file with one more entry in `allow`.
fn with_entry(old: &str, entry: &str) -> Result<String, String> {
    let mut document: DocumentMut =
        old.parse().map_err(|error: toml_edit::TomlError| format!("is not TOML: {}", error.message()))?;
    let allow = document.entry("allow").or_insert(Item::Value(Value::Array(Array::new())));
    let allow = allow.as_array_mut().ok_or("has an `allow` that is no list")?;
    let mut value = Value::from(entry);
    value.decor_mut().set_prefix("\n    ");
    allow.push_formatted(value);
    allow.set_trailing_comma(true);
    allow.set_trailing("\n");
    Ok(document.to_string())
}

fn replace(files: &mut Vec<PolicyFile>, path: &Path, text: &str) {
    match files.iter_mut().find(|file| file.path == path) {
        Some(file) => file.text = text.to_owned(),
        None => files.push(PolicyFile { path: path.to_owned(), text: text.to_owned() }),
    }
}

/// Destinations that stand for what an entry names: the host itself, a name under a wildcard, the first address of a
/// block, the hosts of a service. None where it names a whole class.
fn probes(policy: &Policy, destination: &Destination) -> Vec<Target> {
    let hosts: Vec<Host> = match &destination.hosts {
        Hosts::One(host) => vec![host.clone()],
        Hosts::Under(suffix) => format!("any.{suffix}").parse().into_iter().collect(),
        Hosts::Block(block) => vec![Host::from_address(block.network())],
        Hosts::AnyName => vec![],
        Hosts::Named(name) => service_hosts(policy, name),
    };
    let port = destination.port.unwrap_or(443);
    hosts.into_iter().map(|host| Target { scheme: Scheme::Https, host, port }).collect()
}

fn service_hosts(policy: &Policy, name: &str) -> Vec<Host> {
    let services = policy.catalogue().named(name).unwrap_or_default();
    let hosts = services.iter().flat_map(|service| {
        let exact = service.hosts.iter().filter(|host| host.is_exact()).map(|host| host.as_str().to_owned());
        exact.chain(service.domains.iter().cloned())
    });
    // An entry of the catalogue may lose a host to a more specific one.
    hosts.filter_map(|host| host.parse().ok()).filter(|host| is_named(policy, name, host)).collect()
}

fn is_named(policy: &Policy, name: &str, host: &Host) -> bool {
    let place: Classified<'_> = policy.catalogue().classify(host, 443);
    policy.catalogue().select(name).is_ok_and(|selection| selection.contains(&place))
}

fn explain(policy: &Policy, target: &Target) -> Explanation {
    let agent = AgentName::anonymous();
    let path = RequestPath::parse(b"/").ok();
    let request = Request {
        agent: &agent,
        kind: Kind::Http,
        target,
        method: "GET",
        path: path.as_ref(),
        upload: 0,
        observe: false,
    };
    policy.explain(&request, &Usage::default(), &Grants::none(), jiff::Timestamp::now().as_microsecond())
}

/// Whether it is allowed also when the policy is enforced.
fn is_allowed(explanation: &Explanation) -> bool {
    explanation.would.unwrap_or(explanation.action) == Action::Allow
}

fn refuse_what_stays_stopped(explanation: &Explanation, probe: &Target) -> Result<(), Failure> {
    if is_allowed(explanation) {
        return Ok(());
    }
    let wins = explanation.matches.iter().find(|found| found.action != Action::Allow);
    Err(Failure::Failed(match wins {
        Some(rule) => format!(
            "nothing was changed: `{}` ({}:{}) would still {} {}; change that rule",
            Shown(&rule.rule),
            rule.file,
            rule.line,
            rule.action.as_str(),
            probe.host,
        ),
        None => {
            format!("nothing was changed: {} would still be stopped ({})", probe.host, explanation.reason)
        }
    }))
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

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    let folder: PathBuf = file.parent().map(Path::to_owned).unwrap_or_default();
    DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(Failure::failed)?;
    folder::write_private(file, text.as_bytes()).map_err(Failure::failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn data_folder(policy: &str, allowed: Option<&str>) -> (tempfile::TempDir, Config, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("policy.toml"), policy).unwrap();
        let file = folder.path().join("policy.d/allowed.toml");
        if let Some(allowed) = allowed {
            fs::create_dir(folder.path().join("policy.d")).unwrap();
            fs::write(&file, allowed).unwrap();
        }
        let config = Config { data_dir: folder.path().to_owned(), ..Config::default() };
        (folder, config, file)
    }

    fn allow(config: &Config, file: &Path, text: &str) -> Result<bool, String> {
        add(config, file, text, &Destination::parse(text).unwrap()).map_err(|failure| match failure {
            Failure::Failed(message) | Failure::Usage(message) => message,
            Failure::Closed => String::new(),
        })
    }

    #[test]
    fn an_entry_is_added_and_then_allowed() {
        for text in ["evil.example", "evil.example:8443", "*.evil.example", "192.0.2.0/24", "@github"] {
            let (_folder, config, file) = data_folder("version = 1\n", None);
            assert_eq!(allow(&config, &file, text), Ok(true), "{text}");
            assert_eq!(allow(&config, &file, text), Ok(false), "{text}, again");
            let expected = format!("{HEAD}allow = [\n    \"{text}\",\n]\n");
            assert_eq!(fs::read_to_string(&file).unwrap(), expected);
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn comments_and_order_of_the_file_are_kept() {
        let old = "# ours\nversion = 1\n\nallow = [\n    # because\n    \"b.example\",   # of this\n    \"a.example\",\n]\n\n# the end\n";
        let (_folder, config, file) = data_folder("version = 1\n", Some(old));
        assert_eq!(allow(&config, &file, "evil.example"), Ok(true));
        let new = fs::read_to_string(&file).unwrap();
        assert_eq!(new, old.replace("\"a.example\",\n", "\"a.example\",\n    \"evil.example\",\n"));
    }

    #[test]
    fn what_would_still_be_stopped_is_refused_with_the_rule() {
        for (policy, entry, rule) in [
            ("version = 1\ndeny = [\"evil.example\"]\n", "evil.example", "`deny \"evil.example\"`"),
            ("version = 1\nask = [\"@github\"]\n", "api.github.com", "`ask \"@github\"`"),
            ("version = 1\ndeny = [\"*.evil.example\"]\n", "*.evil.example", "`deny \"*.evil.example\"`"),
            (
                "version = 1\nmode = \"observe\"\ndeny = [\"evil.example\"]\n",
                "evil.example",
                "`deny \"evil.example\"`",
            ),
        ] {
            let (_folder, config, file) = data_folder(policy, None);
            let refused = allow(&config, &file, entry).unwrap_err();
            assert!(refused.contains(rule) && refused.contains("policy.toml:"), "{entry}: {refused}");
            assert!(!file.exists(), "{entry}: nothing may change");
        }
    }

    #[test]
    fn a_policy_that_would_not_load_changes_nothing() {
        for (policy, allowed, entry) in [
            ("version = 1\n", None, "*.co.uk"),
            ("version = 1\n", None, "@gitbuh"),
            ("version = 1\nalow = []\n", None, "evil.example"),
            ("version = 1\n", Some("version = 1\nallow = \"x\"\n"), "evil.example"),
            ("version = 1\n", Some("version = 1\nallow = [\n"), "evil.example"),
        ] {
            let (_folder, config, file) = data_folder(policy, allowed);
            assert!(allow(&config, &file, entry).is_err(), "{policy} {allowed:?} {entry}");
            assert_eq!(fs::read_to_string(&file).ok().as_deref(), allowed, "nothing may change");
        }
    }
}
