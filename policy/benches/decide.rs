//! What a decision costs, with a hundred rules and with a hundred thousand: it must not depend on how many.

use divan::{Bencher, black_box};
use policy::Policy;
use policy::catalogue::Catalogue;
use policy::decide::Grants;
use policy::document::Source;
use policy::identity::AgentName;
use policy::path::RequestPath;
use policy::request::{Kind, Request};
use policy::target::{Scheme, Target};
use policy::usage::Usage;

const RULES: [usize; 3] = [100, 1_000, 100_000];

fn main() {
    divan::main();
}

/// A third hosts, a third wildcards, and rules with methods and paths.
fn policy(rules: usize) -> Policy {
    let entries = rules / 3;
    let hosts: Vec<String> =
        (0..entries).map(|n| format!("\"host-{n}.example.com\", \"*.wild-{n}.test\"")).collect();
    let mut text = format!("allow = [\"@github\", {}]\n", hosts.join(", "));
    for n in 0..entries {
        text += &format!(
            "[[rule]]\nname = \"rule {n}\"\naction = \"allow\"\nto = [\"api-{n}.example.org\"]\n\
             methods = [\"GET\", \"POST\"]\npaths = [\"/repos/*/{n}/**\"]\nagents = [\"claude-*\"]\n"
        );
    }
    let source = Source { name: "bench.toml", text: &text };
    Policy::parse(&[source], Catalogue::builtin()).unwrap_or_else(|mistakes| panic!("{}", mistakes[0]))
}

fn decide(bencher: Bencher<'_, '_>, rules: usize, host: &str, path: &str) {
    let policy = policy(rules);
    let agent: AgentName = "claude-1".parse().unwrap_or_else(|e| panic!("{e}"));
    let host = host.replace('N', &(rules / 6).to_string());
    let path = path.replace('N', &(rules / 6).to_string());
    let target = Target::from_authority(Scheme::Https, host.as_bytes()).unwrap_or_else(|e| panic!("{e}"));
    let path = RequestPath::parse(path.as_bytes()).unwrap_or_else(|e| panic!("{e}"));
    let request = Request {
        agent: &agent,
        kind: Kind::Http,
        target: &target,
        method: "POST",
        path: Some(&path),
        upload: 2_000,
        observe: false,
    };
    let (usage, grants) = (Usage::default(), Grants::none());
    bencher.bench_local(|| black_box(policy.decide(black_box(&request), &usage, &grants, 0)));
}

#[divan::bench(args = RULES)]
fn listed_host(bencher: Bencher<'_, '_>, rules: usize) {
    decide(bencher, rules, "host-N.example.com", "/v1/messages");
}

#[divan::bench(args = RULES)]
fn name_under_a_wildcard(bencher: Bencher<'_, '_>, rules: usize) {
    decide(bencher, rules, "a.b.wild-N.test", "/v1/messages");
}

#[divan::bench(args = RULES)]
fn rule_with_method_path_and_agent(bencher: Bencher<'_, '_>, rules: usize) {
    decide(bencher, rules, "api-N.example.org", "/repos/a/N/issues/17/comments");
}

#[divan::bench(args = RULES)]
fn service(bencher: Bencher<'_, '_>, rules: usize) {
    decide(bencher, rules, "api.github.com", "/repos/a/b/issues");
}

#[divan::bench(args = RULES)]
fn unknown_host(bencher: Bencher<'_, '_>, rules: usize) {
    decide(bencher, rules, "collector.somewhere-else.example", "/upload?token=x");
}

#[divan::bench]
fn parse_the_starter_policy() -> Policy {
    let source = Source { name: "starter.toml", text: policy::document::STARTER };
    Policy::parse(&[source], Catalogue::builtin()).unwrap_or_else(|mistakes| panic!("{}", mistakes[0]))
}
