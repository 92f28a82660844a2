//! SSH remotes of known forges as HTTPS, for git inside a fence: SSH does not come out of it.

use policy::catalogue::{Catalogue, Kind};

/// Settings that come by the environment are counted here (git-config, `GIT_CONFIG_COUNT`).
const COUNT: &str = "GIT_CONFIG_COUNT";

/// The variables that have git ask forges over HTTPS where a remote says SSH. `variable` reads the environment the
/// command will have: what is set there already stays, and these come after it.
pub fn variables(catalogue: &Catalogue, variable: impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    // What is not a number git refuses: that is not ours to mend.
    let Ok(before) = variable(COUNT).map_or(Ok(0), |count| count.trim().parse::<usize>()) else {
        return Vec::new();
    };
    let mut variables = Vec::new();
    let mut count = before;
    for (key, value) in settings(catalogue) {
        variables.push((format!("GIT_CONFIG_KEY_{count}"), key));
        variables.push((format!("GIT_CONFIG_VALUE_{count}"), value));
        count += 1;
    }
    variables.push((COUNT.to_owned(), count.to_string()));
    variables
}

fn settings(catalogue: &Catalogue) -> Vec<(String, String)> {
    let forges = catalogue.services().iter().filter(|service| service.kind == Kind::Forge);
    let mut hosts: Vec<String> = forges.flat_map(hosts_of).collect();
    hosts.sort_unstable();
    hosts.dedup();
    let settings = hosts.into_iter().flat_map(|host| {
        let key = format!("url.https://{host}/.insteadOf");
        [format!("git@{host}:"), format!("ssh://git@{host}/")].map(|value| (key.clone(), value))
    });
    settings.collect()
}
