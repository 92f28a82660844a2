//! Entries for what was wanted: services before hosts, hosts before wildcards, narrow where the traffic was.

use std::collections::BTreeMap;

use super::traffic::Traffic;
use super::{Line, Place, Suggester, Suggestion, print};
use crate::catalogue::{Kind, Risk, Service, registrable_domain};
use crate::decide::{Grants, Policy};
use crate::document::Source;
use crate::identity::AgentName;
use crate::request::{Kind as Exchange, Request};
use crate::rule::{Destination, Hosts};
use crate::target::{Host, Scheme, Target};
use crate::usage::Usage;
use crate::verdict::{Class, Verdict};

/// Hosts of one domain from which on a wildcard says it better.
const SEVERAL: usize = 3;
/// Requests from which on what they have in common is no accident.
const ENOUGH: u64 = 3;
/// Methods of one rule.
const FEW_METHODS: usize = 3;
/// Hosts that are named as examples.
const EXAMPLES: usize = 10;

/// What one entry is to cover.
struct Cover<'a> {
    to: Destination,
    service: Option<&'a Service>,
    wildcard: bool,
    hosts: Vec<Host>,
    traffic: Traffic,
}

/// The entries, services first, then hosts in the order of their domains.
pub(super) fn lines(of: &Suggester<'_>) -> Vec<Line> {
    let (services, hosts) = by_service(of);
    let mut covers: Vec<Cover<'_>> = services.into_values().collect();
    for ((domain, port), places) in by_domain(&hosts) {
        if is_worth_a_wildcard(of, domain, &places) {
            covers.extend(under(domain, port, &places));
        } else {
            covers.extend(places.into_iter().map(|(place, traffic)| Cover::one(of, place, traffic)));
        }
    }
    covers.into_iter().map(|cover| line(of, cover)).collect()
}

type Places<'a> = Vec<(&'a Place, &'a Traffic)>;
type Services<'a> = BTreeMap<(&'a str, Option<u16>), Cover<'a>>;

/// What belongs to a service is covered by it, unless the service is everybody's: then its hosts are named.
fn by_service<'a>(of: &'a Suggester<'_>) -> (Services<'a>, Places<'a>) {
    let (mut services, mut hosts) = (Services::new(), Vec::new());
    for (place, traffic) in &of.wanted {
        let found = of.policy.catalogue().classify(&place.host, place.port.unwrap_or(443)).service;
        match found.filter(|service| !matches!(service.kind, Kind::Cloud | Kind::Storage)) {
            None => hosts.push((place, traffic)),
            Some(service) => match services.get_mut(&(service.name.as_str(), place.port)) {
                Some(cover) => cover.add(place, traffic),
                None => {
                    let to =
                        Destination { hosts: Hosts::Named(service.name.as_str().into()), port: place.port };
                    let mut cover = Cover::new(to, place, traffic);
                    cover.service = Some(service);
                    services.insert((service.name.as_str(), place.port), cover);
                }
            },
        }
    }
    (services, hosts)
}

fn by_domain<'a>(hosts: &Places<'a>) -> BTreeMap<(&'a str, Option<u16>), Places<'a>> {
    let mut domains: BTreeMap<_, Places<'a>> = BTreeMap::new();
    for (place, traffic) in hosts {
        domains.entry((registrable_domain(&place.host), place.port)).or_default().push((*place, *traffic));
    }
    domains
}

/// A wildcard stands only where somebody registered the domain for themselves, and nothing under it was left out.
fn is_worth_a_wildcard(of: &Suggester<'_>, domain: &str, places: &Places<'_>) -> bool {
    let below = places.iter().filter(|(place, _)| place.host.as_str() != domain).count();
    let is_domain = psl::domain_str(domain).is_some() && !psl::is_shared(domain);
    let plain = |(place, traffic): &(&Place, &Traffic)| {
        traffic.class == Class::Unknown && of.policy.catalogue().risk(&place.host).is_none()
    };
    let wrong = || {
        of.left_out.iter().any(|((_, why), omission)| {
            why.is_about_the_destination()
                && omission.place.as_ref().is_some_and(|place| registrable_domain(&place.host) == domain)
        })
    };
    below >= SEVERAL && is_domain && places.iter().all(plain) && !wrong()
}

/// A wildcard for the names under a domain, and the domain itself where it was asked, too.
fn under<'a>(domain: &str, port: Option<u16>, places: &Places<'a>) -> Vec<Cover<'a>> {
    let mut covers: Vec<Cover<'a>> = Vec::new();
    let (apex, below): (Places<'a>, Places<'a>) =
        places.iter().partition(|(place, _)| place.host.as_str() == domain);
    covers.extend(apex.into_iter().map(|(place, traffic)| Cover::new(place.entry(), place, traffic)));
    let mut below = below.into_iter();
    if let Some((place, traffic)) = below.next() {
        let to = Destination { hosts: Hosts::Under(domain.into()), port };
        let mut cover = Cover { wildcard: true, ..Cover::new(to, place, traffic) };
        below.for_each(|(place, traffic)| cover.add(place, traffic));
        covers.push(cover);
    }
    covers
}

impl<'a> Cover<'a> {
    fn new(to: Destination, place: &Place, traffic: &Traffic) -> Cover<'a> {
        let hosts = vec![place.host.clone()];
        Cover { to, service: None, wildcard: false, hosts, traffic: traffic.clone() }
    }

    fn one(of: &'a Suggester<'_>, place: &Place, traffic: &Traffic) -> Cover<'a> {
        let service = of.policy.catalogue().classify(&place.host, place.port.unwrap_or(443)).service;
        Cover { service, ..Cover::new(place.entry(), place, traffic) }
    }

    fn add(&mut self, place: &Place, traffic: &Traffic) {
        self.hosts.push(place.host.clone());
        self.traffic.join(traffic);
    }

    fn is_one_host(&self) -> bool {
        matches!(self.to.hosts, Hosts::One(_))
    }
}

fn line(of: &Suggester<'_>, cover: Cover<'_>) -> Line {
    let (methods, paths) = narrowed(&cover);
    let risks = risks(of, &cover);
    let Cover { to, mut hosts, traffic, .. } = cover;
    hosts.truncate(EXAMPLES);
    Line { to, methods, paths, hosts, class: traffic.class, evidence: traffic.tally.evidence(), risks }
}

/// Methods and paths, where the traffic was narrow. Models take everything anyway, and their clients change.
fn narrowed(cover: &Cover<'_>) -> (Vec<String>, Vec<String>) {
    let traffic = &cover.traffic;
    let mut methods = Vec::new();
    if traffic.class == Class::Model || !traffic.read {
        return (methods, Vec::new());
    }
    let enough = traffic.tally.requests >= ENOUGH;
    let unknown = traffic.class == Class::Unknown;
    if traffic.only_reads() {
        methods.extend(["GET", "HEAD"].map(str::to_owned));
        methods.extend(traffic.methods.contains("OPTIONS").then(|| "OPTIONS".to_owned()));
    } else if unknown && enough && traffic.methods.len() <= FEW_METHODS {
        methods.extend(traffic.methods.iter().cloned());
    }
    let path = (unknown && enough && cover.is_one_host()).then(|| traffic.path_pattern()).flatten();
    (methods, path.into_iter().collect())
}

fn risks(of: &Suggester<'_>, cover: &Cover<'_>) -> Vec<String> {
    let traffic = &cover.traffic;
    let mut risks: Vec<String> = Vec::new();
    let mut say = |when: bool, words: &str| risks.extend(when.then(|| words.to_owned()));
    match cover.service {
        Some(service) => say(kind_risk(service.kind).is_some(), kind_risk(service.kind).unwrap_or_default()),
        None => say(true, "not in the catalogue"),
    }
    let risk = cover.hosts.iter().find_map(|host| of.policy.catalogue().risk(host));
    let shared = cover.hosts.iter().filter_map(|host| host.name()).any(psl::is_shared);
    say(
        cover.service.is_none() && (shared || risk == Some(Risk::UserContent)),
        "shared hosting: the names beside it are strangers'",
    );
    say(cover.wildcard, "covers names that were not seen");
    say(!traffic.encrypted, "in clear text");
    say(traffic.websocket, "a WebSocket: data goes both ways");
    say(!traffic.read, "not all of it could be read: methods and paths are not narrowed");
    say(traffic.mcp, "speaks like an MCP server");
    say(traffic.tally.requests == 1, "seen once");
    if let Some(api) = &traffic.model {
        risks.push(format!("speaks like a model ({api}): a [[service]] of class model would say so"));
    }
    if traffic.large > 0 {
        risks.push(format!("{} large uploads", traffic.large));
    }
    let sieved: u64 = of
        .left_out
        .iter()
        .filter(|((what, _), _)| cover.hosts.iter().any(|host| host.as_str() == what))
        .map(|(_, omission)| omission.tally.requests)
        .sum();
    if sieved > 0 {
        risks.push(match sieved {
            1 => "1 more request to it is left out, see below".to_owned(),
            _ => format!("{sieved} more requests to it are left out, see below"),
        });
    }
    risks
}

/// What may leave by a service of a kind.
fn kind_risk(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Forge => Some("what is pushed or posted there, others may read"),
        Kind::Cloud | Kind::Storage => Some("anyone can own a name there, so only the hosts seen are named"),
        Kind::Telemetry => Some("takes whatever it is sent"),
        Kind::Chat | Kind::Issues => Some("what is posted there, others read"),
        Kind::Search => Some("what is asked leaves with the question"),
        Kind::Inference => Some("reads whatever the agent shows it"),
        Kind::Mcp => Some("acts on what the agent tells it"),
        Kind::Registry | Kind::Docs | Kind::Ci | Kind::Other => None,
    }
}

/// What the suggestion would let through although it was left out: a service has more hosts than were wanted.
pub(super) fn denied(of: &Suggester<'_>, suggestion: &Suggestion) -> Vec<Destination> {
    let text = print::text(of.policy.document(), suggestion);
    let source = Source { name: "suggestion", text: &text };
    let Ok(policy) = Policy::parse(&[source], crate::catalogue::Catalogue::builtin()) else {
        // It is tested that what is printed parses; were it not so, `policy check` would say where.
        return Vec::new();
    };
    let places = of.left_out.iter().filter(|((_, why), _)| why.is_about_the_destination());
    let places = places.filter_map(|(_, omission)| omission.place.as_ref());
    let mut denied: Vec<Destination> =
        places.filter(|place| lets_through(&policy, place)).map(|place| place.entry().plain()).collect();
    denied.sort();
    denied.dedup();
    denied
}

impl Destination {
    /// Without its port: a denial is one on all ports.
    fn plain(self) -> Destination {
        Destination { port: None, ..self }
    }
}

fn lets_through(policy: &Policy, place: &Place) -> bool {
    let agent = AgentName::anonymous();
    let schemes = [(Scheme::Https, 443), (Scheme::Http, 80)];
    schemes.into_iter().any(|(scheme, usual)| {
        let target = Target { scheme, host: place.host.clone(), port: place.port.unwrap_or(usual) };
        let request = Request {
            agent: &agent,
            kind: Exchange::Http,
            target: &target,
            method: "GET",
            path: None,
            upload: 0,
            observe: false,
        };
        matches!(policy.decide(&request, &Usage::default(), &Grants::none(), 0), Verdict::Allow(_))
    })
}
