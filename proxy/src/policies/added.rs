//! What is added to the policy by a command or by an answer, in files of its own under `policy.d`.
//!
//! A file is changed as a person would change it: comments and order stay. It is written only when all files together
//! are a valid policy in which what was added really holds; else nothing changes. Until then it can be looked at.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use policy::approval::About;
use policy::catalogue::Classified;
use policy::decide::{Explanation, Grants, Policy};
use policy::identity::AgentName;
use policy::path::RequestPath;
use policy::request::{Kind, Request};
use policy::rule::{Destination, Hosts};
use policy::target::{Host, Scheme, Target};
use policy::usage::Usage;
use policy::verdict::Action;
use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, Value};

use super::files::{self, PolicyFile};
use crate::clock;
use crate::config::Config;
use crate::folder;
use crate::reading;
use crate::shown::Shown;

/// What a new file of allowed hosts begins with.
const ALLOWED_HEAD: &str = "\
# Hosts added by `outgate policy allow`. Edit it as you like: comments and order are kept.
version = 1
";
/// What a new file of standing answers begins with.
const APPROVED_HEAD: &str = "\
# Answers of scope `always` to what rules ask. Edit it as you like: comments and order are kept.
version = 1
";

/// A change of a policy file that would hold, not yet made.
#[derive(Debug)]
pub struct Addition {
    /// The file.
    pub file: PathBuf,
    /// What is added, as it would stand in a file by itself.
    pub entry: String,
    /// The policy with it.
    pub after: Policy,
    text: String,
}

impl Addition {
    /// Makes the change: whole or not at all, 0600.
    ///
    /// # Errors
    /// A folder or file that cannot be written, in words.
    pub fn write(&self) -> Result<(), String> {
        let folder: PathBuf = self.file.parent().map(Path::to_owned).unwrap_or_default();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|error| format!("`{}`: {error}", folder.display()))?;
        folder::write_private(&self.file, self.text.as_bytes()).map_err(|error| error.to_string())
    }
}

/// One more host, `host:port`, wildcard or service in `policy.d/allowed.toml`; `None` where it is allowed already.
///
/// # Errors
/// Files that are no policy, and rules that would still ask or deny, in words.
pub fn allow(config: &Config, text: &str, destination: &Destination) -> Result<Option<Addition>, String> {
    let (before, files) = files::in_force(config)?;
    let probes = probes(&before, destination);
    if !probes.is_empty() && probes.iter().all(|probe| is_allowed(&explain(&before, probe))) {
        return Ok(None);
    }
    let entry = format!("allow = [{}]\n", Value::from(text));
    let addition = add(config, files, "allowed.toml", ALLOWED_HEAD, entry, |old| with_allowed(old, text))?;
    for probe in &probes {
        refuse_what_stays_stopped(&explain(&addition.after, probe), probe)?;
    }
    Ok(Some(addition))
}

/// A standing answer to what a rule asks, in `policy.d/approved.toml`.
///
/// # Errors
/// Files that are no policy, in words.
pub fn approve(config: &Config, about: &About, rule: &str, by: &str) -> Result<Addition, String> {
    let (_, files) = files::in_force(config)?;
    let at = policy::view::rfc3339(clock::now() / 1_000_000 * 1_000_000);
    let mut table = Table::new();
    for (key, value) in [
        ("host", &*about.target.authority_to_allow()),
        ("agent", about.agent.as_str()),
        ("rule", rule),
        ("by", by),
    ] {
        table.insert(key, Item::Value(Value::from(value)));
    }
    let at = at.parse::<toml_edit::Datetime>().map_or_else(|_| Value::from(at), Value::from);
    table.insert("at", Item::Value(at));
    let entry = format!("[[approved]]\n{table}");
    add(config, files, "approved.toml", APPROVED_HEAD, entry, |old| with_approved(old, table))
}

fn add(
    config: &Config,
    mut files: Vec<PolicyFile>,
    name: &str,
    head: &str,
    entry: String,
    change: impl FnOnce(&str) -> Result<String, String>,
) -> Result<Addition, String> {
    let file = config.data_dir.join("policy.d").join(name);
    let old = match reading::text(&file) {
        Ok(old) => old,
        Err(error) if error.kind() == io::ErrorKind::NotFound => head.to_owned(),
        Err(error) => return Err(format!("cannot read `{}`: {error}", file.display())),
    };
    let text = change(&old).map_err(|why| format!("`{}` {why}", file.display()))?;
    replace(&mut files, &file, &text);
    let after = files::parse(&files)
        .map_err(|mistakes| format!("nothing was changed:\n{}", files::lines(&mistakes)))?;
    Ok(Addition { file, entry, after, text })
}

fn parse(old: &str) -> Result<DocumentMut, String> {
    old.parse().map_err(|error: toml_edit::TomlError| format!("is not TOML: {}", error.message()))
}

/// The text of a policy file with one more standing answer.
fn with_approved(old: &str, table: Table) -> Result<String, String> {
    let mut document = parse(old)?;
    let approved = document.entry("approved").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
    approved.as_array_of_tables_mut().ok_or("has an `approved` that is no list of tables")?.push(table);
    Ok(document.to_string())
}

/// The text of a policy file with one more entry in `allow`.
fn with_allowed(old: &str, entry: &str) -> Result<String, String> {
    let mut document = parse(old)?;
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
pub fn probes(policy: &Policy, destination: &Destination) -> Vec<Target> {
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
    policy.explain(&request, &Usage::default(), &Grants::none(), clock::now())
}

/// Whether it is allowed also when the policy is enforced.
fn is_allowed(explanation: &Explanation) -> bool {
    explanation.would.unwrap_or(explanation.action) == Action::Allow
}

fn refuse_what_stays_stopped(explanation: &Explanation, probe: &Target) -> Result<(), String> {
    if is_allowed(explanation) {
        return Ok(());
    }
    let wins = explanation.matches.iter().find(|found| found.action != Action::Allow);
    Err(match wins {
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
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
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

    fn added(config: &Config, text: &str) -> Result<bool, String> {
        let addition = allow(config, text, &Destination::parse(text).unwrap())?;
        addition.as_ref().map(Addition::write).transpose()?;
        Ok(addition.is_some())
    }

    #[test]
    fn an_entry_is_added_and_then_allowed() {
        for text in ["evil.example", "evil.example:8443", "*.evil.example", "192.0.2.0/24", "@github"] {
            let (_folder, config, file) = data_folder("version = 1\n", None);
            assert_eq!(added(&config, text), Ok(true), "{text}");
            assert_eq!(added(&config, text), Ok(false), "{text}, again");
            let expected = format!("{ALLOWED_HEAD}allow = [\n    \"{text}\",\n]\n");
            assert_eq!(fs::read_to_string(&file).unwrap(), expected);
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn comments_and_order_of_the_file_are_kept() {
        let old = "# ours\nversion = 1\n\nallow = [\n    # because\n    \"b.example\",   # of this\n    \"a.example\",\n]\n\n# the end\n";
        let (_folder, config, file) = data_folder("version = 1\n", Some(old));
        assert_eq!(added(&config, "evil.example"), Ok(true));
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
            let refused = added(&config, entry).unwrap_err();
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
            assert!(added(&config, entry).is_err(), "{policy} {allowed:?} {entry}");
            assert_eq!(fs::read_to_string(&file).ok().as_deref(), allowed, "nothing may change");
        }
    }

    #[test]
    fn a_standing_answer_is_an_entry_of_its_own_and_answers_what_it_is_about() {
        let (_folder, config, file) = data_folder("version = 1\nask = [\"asked.example\"]\n", None);
        let about = About {
            agent: "claude".parse().unwrap(),
            target: Target::from_connect(b"asked.example:443").unwrap(),
            methods: policy::decide::Methods::Reading,
            point: policy::decide::Point::Default,
        };
        let addition = approve(&config, &about, "ask \"asked.example\"", "ana").unwrap();
        let file = file.with_file_name("approved.toml");
        assert!(!file.exists(), "a look changes nothing");
        addition.write().unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let expected = "[[approved]]\nhost = \"asked.example\"\nagent = \"claude\"\n\
            rule = 'ask \"asked.example\"'\nby = \"ana\"\nat = ";
        assert!(addition.entry.starts_with(expected), "{}", addition.entry);
        assert_eq!(text, format!("{APPROVED_HEAD}\n{}", addition.entry));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let agent: AgentName = "claude".parse().unwrap();
        let request = Request {
            agent: &agent,
            kind: Kind::Http,
            target: &about.target,
            method: "POST",
            path: None,
            upload: 0,
            observe: false,
        };
        let explained = addition.after.explain(&request, &Usage::default(), &Grants::none(), 0);
        assert_eq!(explained.reason.as_str(), "allowed_by_approval");
        assert_eq!(addition.after.warnings(), []);
        approve(&config, &about, "ask \"asked.example\"", "ben").unwrap().write().unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap().matches("[[approved]]").count(), 2);
    }
}
