//! Sites that data is often smuggled out through: pastes, tunnels, request inspectors, file drops.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::target::Host;

use super::pattern::{HostPattern, Index};

/// Why a host is a likely way out for data, whatever its class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Risk {
    /// Text that anyone posts and anyone reads.
    Paste,
    /// Leads to a machine of the caller's choice, or shows the caller what was sent.
    Tunnel,
    /// Files that anyone drops, mostly without an account.
    FileDrop,
    /// Pages and functions that strangers put under a shared name.
    UserContent,
}

impl Risk {
    /// The word used in records and suggestions.
    pub fn as_str(self) -> &'static str {
        match self {
            Risk::Paste => "paste",
            Risk::Tunnel => "tunnel",
            Risk::FileDrop => "file-drop",
            Risk::UserContent => "user-content",
        }
    }
}

impl fmt::Display for Risk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Risks by host.
#[derive(Clone, Debug)]
pub(super) struct Risky(Index<Risk>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sites {
    #[serde(default)]
    hosts: Vec<String>,
    #[serde(default)]
    domains: BTreeMap<String, Vec<String>>,
}

impl Risky {
    /// Reads the program's own list.
    pub(super) fn read(text: &str) -> Risky {
        let file: BTreeMap<Risk, Sites> =
            toml::from_str(text).expect("the program's own data, read by the tests");
        let mut index = Index::default();
        for (risk, sites) in file {
            for host in &sites.hosts {
                // Shared hosting is by its nature a public suffix, so wildcards on one are wanted here.
                let pattern =
                    HostPattern::parse_wide(host).expect("the program's own data, read by the tests");
                index.insert(&pattern, risk);
            }
            for (suffix, labels) in &sites.domains {
                for label in labels {
                    index.insert_domain(&format!("{label}.{suffix}"), risk);
                }
            }
        }
        Risky(index)
    }

    pub(super) fn risk(&self, host: &Host) -> Option<Risk> {
        self.0.find(host.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{Catalogue, Kind};

    /// Starter policies allow whole kinds, and a vendor's domain must not bring its paste service along.
    #[test]
    fn no_way_out_is_a_registry_or_documentation_and_one_is_a_forge() {
        let file: BTreeMap<Risk, Sites> = toml::from_str(include_str!("../../catalogue/risky.toml")).unwrap();
        let ways_out = file.iter().filter(|(risk, _)| **risk != Risk::UserContent);
        let hosts: Vec<&str> = ways_out.flat_map(|(_, sites)| &sites.hosts).map(String::as_str).collect();
        assert!(hosts.len() > 50);
        let mut forges = Vec::new();
        for pattern in hosts {
            let host = Host::parse(pattern.replace('*', "x").as_bytes()).unwrap();
            match Catalogue::builtin().classify(&host, 443).service.map(|service| service.kind) {
                Some(Kind::Forge) => forges.push(pattern),
                Some(Kind::Registry | Kind::Docs) => panic!("`{pattern}` would be allowed"),
                _ => {}
            }
        }
        // A gist is GitHub's own, and the policy's page shows how to deny it.
        assert_eq!(forges, ["gist.github.com", "gist.githubusercontent.com"]);
    }

    #[test]
    fn known_ways_out_are_marked_and_others_are_not() {
        for (host, risk) in [
            ("pastebin.com", Some(Risk::Paste)),
            ("gist.github.com", Some(Risk::Paste)),
            ("github.com", None),
            ("a1b2.ngrok-free.app", Some(Risk::Tunnel)),
            ("webhook.site", Some(Risk::Tunnel)),
            ("x.oast.fun", Some(Risk::Tunnel)),
            ("0x0.st", Some(Risk::FileDrop)),
            ("transfer.sh", Some(Risk::FileDrop)),
            ("someone.github.io", Some(Risk::UserContent)),
            ("github.io", None),
            ("example.com", None),
            ("192.0.2.1", None),
        ] {
            let found = Catalogue::builtin().risk(&Host::parse(host.as_bytes()).unwrap());
            assert_eq!(found, risk, "`{host}`");
        }
    }
}
