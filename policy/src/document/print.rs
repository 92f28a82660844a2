//! A policy as one file, in one spelling and order: what `policy show` prints and the digest is taken of.

use std::fmt::{Display, Formatter, Result};

use super::advice::quoted;
use super::scalar::{print_size, print_window};
use super::{Document, KnownSource};
use crate::catalogue::{CredentialSpec, ServiceSpec};
use crate::rule::{LimitChanges, Rule};
use crate::verdict::{Action, Class, UploadLimits};

pub(super) fn print(document: &Document, f: &mut Formatter<'_>) -> Result {
    writeln!(f, "version = 1\nmode = \"{}\"", document.mode.as_str())?;
    for action in Action::ALL {
        print_listed(document, action, f)?;
    }
    print_tables(document, f)
}

/// One of the lists at the top.
pub(crate) fn print_listed(document: &Document, action: Action, f: &mut Formatter<'_>) -> Result {
    let listed = document.rules.iter().filter(|rule| rule.listed && rule.action == action);
    print_list(f, action.as_str(), listed.flat_map(|rule| &rule.to))
}

/// Everything after the lists.
pub(crate) fn print_tables(document: &Document, f: &mut Formatter<'_>) -> Result {
    writeln!(f, "\n[defaults]")?;
    for class in Class::ALL {
        writeln!(f, "{class} = \"{}\"", document.defaults.of(class))?;
    }
    for rule in document.rules.iter().filter(|rule| !rule.listed) {
        print_rule(f, rule)?;
    }
    print_uploads(f, document)?;
    writeln!(f, "\n[secrets]")?;
    print_known(f, &document.known)?;
    for class in Class::ALL {
        writeln!(f, "{class} = {{ action = \"{}\" }}", document.secrets.of(class))?;
    }
    writeln!(f, "\n[tls]")?;
    print_list(f, "passthrough", &document.passthrough)?;
    writeln!(f, "\n[addresses]")?;
    print_list(f, "allow", document.addresses.entries())?;
    for service in &document.services {
        print_service(f, service)?;
    }
    for approval in &document.approved {
        let port = approval.port.map(|port| format!(":{port}")).unwrap_or_default();
        writeln!(f, "\n[[approved]]\nhost = {}", quoted(&format!("{}{port}", approval.host)))?;
        writeln!(f, "agent = {}\nrule = {}", quoted(approval.agent.as_str()), quoted(&approval.rule))?;
        for (key, value) in [("by", &approval.by), ("at", &approval.at)] {
            if let Some(value) = value {
                writeln!(f, "{key} = {}", quoted(value))?;
            }
        }
    }
    Ok(())
}

fn print_rule(f: &mut Formatter<'_>, rule: &Rule) -> Result {
    writeln!(f, "\n[[rule]]\nname = {}\naction = \"{}\"", quoted(&rule.name), rule.action)?;
    print_list(f, "to", &rule.to)?;
    for (key, flag) in [("observe", rule.observe), ("wide", rule.wide)] {
        if flag {
            writeln!(f, "{key} = true")?;
        }
    }
    if !rule.methods.is_empty() {
        print_list(f, "methods", &rule.methods)?;
    }
    if !rule.paths.is_empty() {
        print_list(f, "paths", &rule.paths)?;
    }
    if !rule.agents.is_empty() {
        print_list(f, "agents", rule.agents.iter().map(|agent| agent.as_str()))?;
    }
    if !rule.uploads.is_empty() {
        let limits = rule_limits(&rule.uploads).into_iter();
        let limits =
            limits.filter_map(|(key, size)| size.map(|size| format!("{key} = \"{}\"", print_size(size))));
        writeln!(f, "uploads = {{ {} }}", limits.collect::<Vec<_>>().join(", "))?;
    }
    match &rule.why {
        Some(why) => writeln!(f, "why = {}", quoted(why)),
        None => Ok(()),
    }
}

fn rule_limits(limits: &LimitChanges) -> [(&'static str, Option<u64>); 4] {
    [
        ("request_alert", limits.request_alert),
        ("request_block", limits.request_block),
        ("window_alert", limits.window_alert),
        ("window_block", limits.window_block),
    ]
}

fn print_uploads(f: &mut Formatter<'_>, document: &Document) -> Result {
    // Window and agent limit are the same in every class.
    let UploadLimits { window_seconds, window_block_agent, .. } = document.uploads.unknown;
    writeln!(f, "\n[uploads]\nwindow = \"{}\"", print_window(window_seconds))?;
    writeln!(f, "window_block_agent = \"{}\"", print_size(window_block_agent))?;
    for class in Class::ALL {
        let limits = document.uploads.of(class);
        writeln!(f, "\n[uploads.{class}]")?;
        for (key, size) in [
            ("request_alert", limits.request_alert),
            ("request_block", limits.request_block),
            ("window_alert", limits.window_alert),
            ("window_block", limits.window_block),
        ] {
            writeln!(f, "{key} = \"{}\"", print_size(size))?;
        }
    }
    Ok(())
}

fn print_known(f: &mut Formatter<'_>, known: &[KnownSource]) -> Result {
    writeln!(f, "known = [")?;
    for source in known {
        let from = quoted(&source.from.to_string());
        if source.to.is_empty() {
            writeln!(f, "  {from},")?;
        } else {
            let to: Vec<String> = source.to.iter().map(|to| quoted(&to.to_string())).collect();
            writeln!(f, "  {{ from = {from}, to = [{}] }},", to.join(", "))?;
        }
    }
    writeln!(f, "]")
}

fn print_service(f: &mut Formatter<'_>, service: &ServiceSpec) -> Result {
    writeln!(f, "\n[[service]]\nname = {}", quoted(&service.name))?;
    for (key, text) in [
        ("class", &service.class),
        ("kind", &service.kind),
        ("title", &service.title),
        ("docs", &service.docs),
    ] {
        if !text.is_empty() {
            writeln!(f, "{key} = {}", quoted(text))?;
        }
    }
    for (key, texts) in
        [("aliases", &service.aliases), ("groups", &service.groups), ("hosts", &service.hosts)]
    {
        if !texts.is_empty() {
            print_list(f, key, texts)?;
        }
    }
    if !service.ports.is_empty() {
        writeln!(f, "ports = {:?}", service.ports)?;
    }
    if service.wide {
        writeln!(f, "wide = true")?;
    }
    if !service.domains.is_empty() {
        writeln!(f, "[service.domains]")?;
        for (suffix, labels) in &service.domains {
            print_list(f, &quoted(suffix), labels)?;
        }
    }
    service.credentials.iter().try_for_each(|credential| print_credential(f, credential))
}

fn print_credential(f: &mut Formatter<'_>, credential: &CredentialSpec) -> Result {
    writeln!(f, "[[service.credentials]]\ndetector = {}", quoted(&credential.detector))?;
    print_list(f, "in", &credential.places)?;
    if credential.hosts.is_empty() { Ok(()) } else { print_list(f, "hosts", &credential.hosts) }
}

fn print_list<T: Display>(f: &mut Formatter<'_>, key: &str, items: impl IntoIterator<Item = T>) -> Result {
    let items: Vec<String> = items.into_iter().map(|item| quoted(&item.to_string())).collect();
    match items.len() {
        0..=3 => writeln!(f, "{key} = [{}]", items.join(", ")),
        _ => {
            writeln!(f, "{key} = [")?;
            items.iter().try_for_each(|item| writeln!(f, "  {item},"))?;
            writeln!(f, "]")
        }
    }
}
