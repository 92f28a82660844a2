//! Whether one policy's rules already say what a rule of another says, in other words.
//!
//! It errs on one side: what cannot be shown to be covered is not.

use std::collections::BTreeSet;

use crate::catalogue::Catalogue;
use crate::document::Document;
use crate::rule::{Destination, Hosts, Rule};
use crate::verdict::{Action, Class};

/// Whether `document` does with everything that `rule` is about what `rule` does with it.
pub(super) fn covers(document: &Document, rule: &Rule, catalogue: &Catalogue) -> bool {
    !rule.observe
        && rule.uploads.is_empty()
        && parts(rule, catalogue).iter().all(|part| {
            by_default(document, rule.action, part)
                || document.rules.iter().any(|other| about(other, rule, part, document))
        })
}

/// The destinations of a rule, a name of the catalogue as the services that it means.
fn parts(rule: &Rule, catalogue: &Catalogue) -> Vec<Destination> {
    let each = |to: &Destination| match &to.hosts {
        Hosts::Named(name) => match catalogue.named(name) {
            Ok(services) => services
                .iter()
                .map(|service| Destination {
                    hosts: Hosts::Named(service.name.as_str().into()),
                    port: to.port,
                })
                .collect(),
            Err(_) => vec![to.clone()],
        },
        _ => vec![to.clone()],
    };
    rule.to.iter().flat_map(each).collect()
}

fn by_default(document: &Document, action: Action, part: &Destination) -> bool {
    // A default is about every port and every name of its class; of one that is not allowed nothing follows, for
    // what denies by name also stops what another rule allows.
    let allows = |class: Class| *document.defaults.of(class) == Action::Allow;
    action == Action::Allow
        && match &part.hosts {
            Hosts::One(host) => allows(document.catalogue.classify(host, part.port.unwrap_or(443)).class),
            Hosts::Named(name) => document
                .catalogue
                .named(name)
                .is_ok_and(|all| all.iter().all(|service| allows(service.class))),
            Hosts::Under(_) | Hosts::AnyName | Hosts::Block(_) => Class::ALL.into_iter().all(allows),
        }
}

fn about(other: &Rule, rule: &Rule, part: &Destination, document: &Document) -> bool {
    other.action == rule.action
        && !other.observe
        // Limits of its own may be tighter than those of the class.
        && other.uploads.is_empty()
        && holds(&other.methods, &rule.methods)
        && holds(&other.paths, &rule.paths)
        && holds(&other.agents, &rule.agents)
        && other.to.iter().any(|to| contains(to, part, rule.action, &document.catalogue))
}

/// Whether a list holds all of another; an empty one means everything.
fn holds<T: PartialEq>(list: &[T], other: &[T]) -> bool {
    list.is_empty() || (!other.is_empty() && other.iter().all(|item| list.contains(item)))
}

fn contains(to: &Destination, part: &Destination, action: Action, catalogue: &Catalogue) -> bool {
    // A denial without a port is about all of them.
    let ports = to.port == part.port || action == Action::Deny && to.port.is_none();
    ports
        && match (&to.hosts, &part.hosts) {
            (to, part) if to == part => true,
            (Hosts::Named(name), Hosts::Named(part)) => {
                let names = |name: &str| -> Option<BTreeSet<String>> {
                    let services = catalogue.named(name).ok()?;
                    Some(services.iter().map(|service| service.name.clone()).collect())
                };
                names(name)
                    .zip(names(part))
                    .is_some_and(|(all, part)| !part.is_empty() && part.is_subset(&all))
            }
            (Hosts::Named(name), Hosts::One(host)) => catalogue
                .select(name)
                .is_ok_and(|all| all.contains(&catalogue.classify(host, part.port.unwrap_or(443)))),
            (Hosts::Under(suffix), Hosts::One(host)) => {
                host.name().is_some_and(|name| is_under(name, suffix))
            }
            (Hosts::Under(suffix), Hosts::Under(part)) => is_under(part, suffix),
            (Hosts::AnyName, Hosts::One(host)) => host.name().is_some(),
            (Hosts::AnyName, Hosts::Under(_)) => true,
            (Hosts::Block(block), Hosts::One(host)) => host.ip().is_some_and(|ip| block.contains(&ip)),
            (Hosts::Block(block), Hosts::Block(part)) => block.contains(part),
            _ => false,
        }
}

fn is_under(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}
