//! SSH remotes of known forges as HTTPS, for git inside a fence: SSH does not come out of it.

use policy::catalogue::{Catalogue, Kind, Service};

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

/// Where a service's repositories may be: the hosts it is known by, or its domains and the `git.` names below them.
fn hosts_of(service: &Service) -> Vec<String> {
    if !service.domains.is_empty() {
        let names = |domain: &String| [domain.clone(), format!("git.{domain}")];
        return service.domains.iter().flat_map(names).collect();
    }
    let exact = service.hosts.iter().map(ToString::to_string);
    // A host for SSH alone has no HTTPS behind it.
    exact.filter(|host| !host.contains('*') && !host.starts_with("ssh.")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::process::Command;

    use super::*;

    fn with(before: &[(&str, &str)]) -> Vec<(String, String)> {
        let before: HashMap<String, String> =
            before.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        variables(Catalogue::builtin(), |name| before.get(name).cloned())
    }

    #[test]
    fn forges_are_asked_over_https() {
        let variables = with(&[]);
        let value = |key: &str| {
            let found = variables.iter().filter(|(_, value)| value == key);
            let name = |(name, _): &(String, String)| name.replace("KEY", "VALUE");
            let values = found.map(name).map(|name| {
                variables.iter().find(|(other, _)| *other == name).map(|(_, value)| value.clone()).unwrap()
            });
            values.collect::<Vec<_>>()
        };
        for host in
            ["github.com", "gitlab.com", "codeberg.org", "bitbucket.org", "git.sr.ht", "gitlab.gnome.org"]
        {
            let expected = [format!("git@{host}:"), format!("ssh://git@{host}/")];
            assert_eq!(value(&format!("url.https://{host}/.insteadOf")), expected, "{host}");
        }
        assert!(variables.iter().all(|(_, value)| !value.contains('*') && !value.contains("/ssh.")));
        let count = variables.iter().find(|(name, _)| name == COUNT).unwrap();
        assert_eq!(count.1, ((variables.len() - 1) / 2).to_string());
    }

    #[test]
    fn settings_that_are_there_already_stay() {
        let variables = with(&[(COUNT, "2"), ("GIT_CONFIG_KEY_0", "a.b"), ("GIT_CONFIG_VALUE_0", "c")]);
        let names: Vec<&str> = variables.iter().map(|(name, _)| name.as_str()).collect();
        assert!(names.contains(&"GIT_CONFIG_KEY_2") && !names.contains(&"GIT_CONFIG_KEY_1"));
        let count = &variables.iter().find(|(name, _)| name == COUNT).unwrap().1;
        assert_eq!(count.parse::<usize>().unwrap(), (variables.len() - 1) / 2 + 2);
        assert!(with(&[(COUNT, "many")]).is_empty(), "git will say what is wrong with it");
    }

    #[test]
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    fn git_reads_them_as_meant() {
        let git =
            |url: &str| Command::new("git").args(["ls-remote", "--get-url", url]).envs(with(&[])).output();
        for (url, expected) in [
            ("git@github.com:example/repo.git", "https://github.com/example/repo.git"),
            ("ssh://git@gitlab.com/example/repo", "https://gitlab.com/example/repo"),
            ("git@host.example:repo.git", "git@host.example:repo.git"),
        ] {
            let Ok(output) = git(url) else { return eprintln!("SKIPPED: there is no git on this machine") };
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), expected);
        }
    }
}
