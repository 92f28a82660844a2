//! From a destination to what was said about it, without asking every rule: a look-up for the host, one for each
//! name above it, one for its service and its class, and for an address one for each length of block in use.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::address::embedded;
use crate::catalogue::{Catalogue, Classified, NameMap, Selection, Service, ServiceId};
use crate::rule::{Destination, Hosts};
use crate::target::{Host, Scheme, Target};
use crate::verdict::Class;

/// Which ports an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ports {
    /// https on 443, http on 80; for a service on loopback, its own.
    Standard,
    /// This one, whatever is spoken there.
    One(u16),
    /// All: a denial that names none.
    All,
}

/// What an entry says: number `id` of whatever is indexed, for these ports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) id: u32,
    pub(super) ports: Ports,
}

/// How an entry was come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// The destination as it stands.
    Plain,
    /// The IPv4 address that it carries: for entries that stop, not for those that allow.
    Embedded,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    hosts: NameMap<Vec<Entry>>,
    suffixes: NameMap<Vec<Entry>>,
    any_name: Vec<Entry>,
    blocks: HashMap<IpNet, Vec<Entry>>,
    /// Lengths of the blocks in use, IPv4 and IPv6.
    lengths: [Vec<u8>; 2],
    services: HashMap<ServiceId, Vec<Entry>>,
    models: Vec<Entry>,
    tools: Vec<Entry>,
}

impl Index {
    /// Adds what number `id` says about a destination.
    pub(super) fn insert(&mut self, destination: &Destination, entry: Entry, catalogue: &Catalogue) {
        match &destination.hosts {
            Hosts::One(host) => self.hosts.entry(host.as_str().into()).or_default().push(entry),
            Hosts::Under(suffix) => self.suffixes.entry((**suffix).into()).or_default().push(entry),
            Hosts::AnyName => self.any_name.push(entry),
            Hosts::Block(block) => {
                let lengths = &mut self.lengths[usize::from(matches!(block, IpNet::V6(_)))];
                if !lengths.contains(&block.prefix_len()) {
                    lengths.push(block.prefix_len());
                }
                self.blocks.entry(*block).or_default().push(entry);
            }
            Hosts::Named(name) => match catalogue.select(name) {
                Ok(Selection::Class(Class::Model)) => self.models.push(entry),
                Ok(Selection::Class(_)) => self.tools.push(entry),
                Ok(Selection::Services(_)) => {
                    for service in catalogue.named(name).into_iter().flatten() {
                        self.services.entry(service.id).or_default().push(entry);
                    }
                }
                // The document was checked: there is no such name in it.
                Err(_) => {}
            },
        }
    }

    /// Calls `found` with everything said about a host, whatever the port.
    pub(super) fn each(&self, host: &Host, class: &Classified<'_>, mut found: impl FnMut(Entry, Reading)) {
        let mut plain = |entries: &[Entry]| entries.iter().for_each(|entry| found(*entry, Reading::Plain));
        if let Some(entries) = self.hosts.get(host.as_str()) {
            plain(entries);
        }
        if let Some(name) = host.name() {
            self.each_suffix(name, &mut plain);
        }
        if let Some(address) = host.ip() {
            self.each_block(address, &mut plain);
        }
        if let Some(entries) = class.service.and_then(|service| self.services.get(&service.id)) {
            plain(entries);
        }
        match class.class {
            Class::Model => plain(&self.models),
            Class::Tool => plain(&self.tools),
            Class::Unknown => {}
        }
        if let Some(IpAddr::V6(v6)) = host.ip()
            && let Some(inner) = embedded(v6)
        {
            let mut inside =
                |entries: &[Entry]| entries.iter().for_each(|entry| found(*entry, Reading::Embedded));
            if let Some(entries) = self.hosts.get(inner.to_string().as_str()) {
                inside(entries);
            }
            self.each_block(IpAddr::V4(inner), &mut inside);
        }
    }

    fn each_suffix(&self, name: &str, found: &mut impl FnMut(&[Entry])) {
        found(&self.any_name);
        if self.suffixes.is_empty() {
            return;
        }
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(entries) = self.suffixes.get(parent) {
                found(entries);
            }
            rest = parent;
        }
    }

    fn each_block(&self, address: IpAddr, found: &mut impl FnMut(&[Entry])) {
        for length in &self.lengths[usize::from(address.is_ipv6())] {
            let block = IpNet::new(address, *length).map(|block| block.trunc());
            if let Some(entries) = block.ok().and_then(|block| self.blocks.get(&block)) {
                found(entries);
            }
        }
    }
}

impl Ports {
    /// The ports of an entry that allows or asks.
    pub(super) fn written(port: Option<u16>) -> Ports {
        port.map_or(Ports::Standard, Ports::One)
    }

    /// Whether a destination's port is among them.
    pub(super) fn contain(self, target: &Target, service: Option<&Service>) -> bool {
        match self {
            Ports::Standard => {
                let usual = match target.scheme {
                    Scheme::Http => target.port == 80,
                    Scheme::Https => target.port == 443,
                    Scheme::Tcp => false,
                };
                usual || listens(&target.host, target.port, service)
            }
            Ports::One(port) => target.port == port,
            Ports::All => true,
        }
    }

    /// As [`Ports::contain`], before it is known whether TLS or HTTP will be spoken.
    pub(super) fn may_contain(self, target: &Target, service: Option<&Service>) -> bool {
        match self {
            Ports::Standard => matches!(target.port, 80 | 443) || listens(&target.host, target.port, service),
            Ports::One(_) | Ports::All => self.contain(target, service),
        }
    }
}

/// Whether a service of the machine itself is known by this port.
fn listens(host: &Host, port: u16, service: Option<&Service>) -> bool {
    let local = || {
        host.as_str() == "localhost" || host.ip().is_some_and(|address| address.to_canonical().is_loopback())
    };
    service.is_some_and(|service| service.ports.contains(&port)) && local()
}
