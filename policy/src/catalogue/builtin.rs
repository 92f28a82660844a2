//! The catalogue inside the program: its data files, read once.

use std::collections::HashMap;

use serde::Deserialize;

use super::look_alike::Neighbourhood;
use super::pattern::Index;
use super::risk::Risky;
use super::{Catalogue, ServiceProblem, ServiceSpec};

/// The data files, in the order in which their services are listed.
const FILES: [&str; 10] = [
    include_str!("../../catalogue/models.toml"),
    include_str!("../../catalogue/forges.toml"),
    include_str!("../../catalogue/registries.toml"),
    include_str!("../../catalogue/docs.toml"),
    include_str!("../../catalogue/search.toml"),
    include_str!("../../catalogue/work.toml"),
    include_str!("../../catalogue/ci.toml"),
    include_str!("../../catalogue/clouds.toml"),
    include_str!("../../catalogue/telemetry.toml"),
    include_str!("../../catalogue/mcp.toml"),
];
const RISKY: &str = include_str!("../../catalogue/risky.toml");
const LOOK_ALIKES: &str = include_str!("../../catalogue/look-alikes.toml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    service: Vec<ServiceSpec>,
}

/// Builds the catalogue.
///
/// # Panics
/// Where the program's own data is wrong, which the tests of this file rule out.
pub(super) fn load() -> Catalogue {
    let (catalogue, problems) = read();
    assert!(problems.is_empty(), "the catalogue inside the program is wrong: {}", problems[0]);
    catalogue
}

fn read() -> (Catalogue, Vec<ServiceProblem>) {
    let mut catalogue = Catalogue {
        services: Vec::new(),
        index: Index::default(),
        loopback: HashMap::new(),
        names: HashMap::new(),
        neighbours: Neighbourhood::read(LOOK_ALIKES),
        risky: Risky::read(RISKY),
    };
    let mut problems = Vec::new();
    for text in FILES {
        let file: File = toml::from_str(text).expect("the program's own data, read by the tests");
        file.service.iter().for_each(|spec| catalogue.add(spec, &mut problems));
    }
    protect_hosts(&mut catalogue);
    catalogue.neighbours.protect_own();
    (catalogue, problems)
}

/// The vendors' labels are protected from imitation also where an entry names single hosts instead of domains.
fn protect_hosts(catalogue: &mut Catalogue) {
    for service in &catalogue.services {
        for pattern in &service.hosts {
            if let Some(domain) = psl::domain(pattern.anchor_name().as_bytes())
                && domain.suffix().typ() == Some(psl::Type::Icann)
                && let Ok(domain) = std::str::from_utf8(domain.as_bytes())
            {
                catalogue.neighbours.protect(domain);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::catalogue::Class;
    use crate::secret::Detector;
    use crate::target::Host;

    #[test]
    fn the_data_has_no_mistakes() {
        let (_, problems) = read();
        assert!(problems.is_empty(), "{}", problems.iter().map(|p| format!("{p}\n")).collect::<String>());
    }

    #[test]
    fn there_are_enough_models_and_tools() {
        let count = |class| Catalogue::builtin().services().iter().filter(|s| s.class == class).count();
        assert!(count(Class::Model) >= 50, "{} models", count(Class::Model));
        assert!(count(Class::Tool) >= 100, "{} tools", count(Class::Tool));
    }

    #[test]
    fn every_service_is_described_by_its_vendor() {
        for service in Catalogue::builtin().services() {
            let rest = service.docs.strip_prefix("https://").unwrap_or_else(|| panic!("{}", service.name));
            let host = rest.split('/').next().unwrap();
            assert!(Host::parse(host.as_bytes()).is_ok(), "{}: {}", service.name, service.docs);
            assert!(!service.title.is_empty(), "{}", service.name);
        }
    }

    #[test]
    fn every_credential_is_one_that_a_detector_finds() {
        for service in Catalogue::builtin().services() {
            for credential in &service.credentials {
                let known = Detector::named(&credential.detector).is_some();
                assert!(known, "{}: no detector `{}`", service.name, credential.detector);
            }
        }
    }

    #[test]
    fn no_pattern_and_no_name_is_claimed_twice() {
        let (mut patterns, mut names) = (HashSet::new(), HashSet::new());
        for service in Catalogue::builtin().services() {
            let own = service.hosts.iter().map(|host| host.as_str().to_owned());
            let domains = service.domains.iter().flat_map(|domain| [domain.clone(), format!("*.{domain}")]);
            let ports = service.ports.iter().map(|port| format!("loopback:{port}"));
            for pattern in own.chain(domains).chain(ports) {
                assert!(patterns.insert(pattern.clone()), "{}: `{pattern}` is claimed already", service.name);
            }
            for name in service.aliases.iter().chain([&service.name]) {
                assert!(names.insert(name.clone()), "`{name}` is two services'");
            }
        }
    }

    #[test]
    fn every_pattern_leads_to_its_own_service() {
        for service in Catalogue::builtin().services() {
            let hosts = service.hosts.iter().map(|host| host.as_str().replace('*', "x0"));
            for host in hosts.chain(service.domains.iter().cloned()) {
                let found = Catalogue::builtin().classify(&Host::parse(host.as_bytes()).unwrap(), 443);
                assert_eq!(found.service.map(|s| s.name.as_str()), Some(service.name.as_str()), "`{host}`");
                assert_eq!(found.class, service.class, "`{host}`");
            }
        }
    }
}
