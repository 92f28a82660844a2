//! What is known of a destination before any request: whether something could pass, what is not decrypted, where
//! known values belong.

use policy::Policy;
use policy::catalogue::Catalogue;
use policy::decide::Reach;
use policy::document::Source;
use policy::identity::AgentName;
use policy::target::Target;

const POLICY: &str = r#"
allow = ["a.test", "*.wild.test", "b.test:8443"]
ask = ["asked.test"]
deny = ["no.wild.test"]

[[rule]]
name = "no posts"
action = "deny"
to = ["a.test"]
methods = ["POST"]

[[rule]]
name = "only posts"
action = "deny"
to = ["half.test"]
methods = ["POST"]

[[rule]]
name = "reads"
action = "allow"
to = ["reads.test"]
methods = ["GET"]
agents = ["claude"]

[[rule]]
name = "trial"
action = "deny"
to = ["trial.test"]
observe = true

[tls]
passthrough = ["*.pinned.test", "pinned.test:8443", "@github"]

[secrets]
known = ["dotenv:.env", { from = "env:TOKEN", to = ["@github", "*.wild.test"] }]
"#;

fn policy(text: &str) -> Policy {
    let source = Source { name: "policy.toml", text };
    Policy::parse(&[source], Catalogue::builtin()).unwrap_or_else(|mistakes| panic!("{}", mistakes[0]))
}

fn target(authority: &str) -> Target {
    Target::from_connect(authority.as_bytes()).unwrap_or_else(|e| panic!("{authority}: {e}"))
}

#[test]
fn a_destination_is_out_of_reach_where_no_rule_could_let_anything_pass() {
    let (policy, claude): (Policy, AgentName) = (policy(POLICY), "claude".parse().unwrap());
    for (authority, expected) in [
        ("a.test:443", None),
        ("a.test:80", None),
        ("a.test:8443", Some(("port_refused", None, Some("a.test:8443")))),
        ("x.wild.test:443", None),
        ("no.wild.test:443", Some(("denied_by_rule", Some("deny \"no.wild.test\""), None))),
        ("b.test:8443", None),
        ("b.test:443", Some(("port_refused", None, Some("b.test")))),
        ("asked.test:443", None),
        ("reads.test:443", None),
        ("trial.test:443", None),
        ("half.test:443", Some(("unknown_destination", None, Some("half.test")))),
        ("evil.test:443", Some(("unknown_destination", None, Some("evil.test")))),
        ("api.openai.com:443", Some(("denied_by_default", None, Some("api.openai.com")))),
    ] {
        let found = match policy.reach(&claude, &target(authority)) {
            Reach::Possible => None,
            Reach::Never(denial) => {
                Some((denial.judgement.reason.as_str(), denial.judgement.rule.clone(), denial.allow_with))
            }
        };
        let found = found.as_ref().map(|(reason, rule, with)| (*reason, rule.as_deref(), with.as_deref()));
        assert_eq!(found, expected, "{authority}");
    }
    let other: AgentName = "codex".parse().unwrap();
    assert!(matches!(policy.reach(&other, &target("reads.test:443")), Reach::Never(_)), "another agent");
}

#[test]
fn everything_is_in_reach_where_the_policy_only_observes() {
    let observing = policy(&format!("mode = \"observe\"\n{POLICY}"));
    let claude = "claude".parse().unwrap();
    for authority in ["evil.test:443", "no.wild.test:443", "a.test:8443"] {
        assert!(matches!(observing.reach(&claude, &target(authority)), Reach::Possible), "{authority}");
    }
}

#[test]
fn passthrough_is_by_host_and_port() {
    let policy = policy(POLICY);
    for (authority, passed) in [
        ("a.pinned.test:443", true),
        ("pinned.test:443", false),
        ("pinned.test:8443", true),
        ("a.pinned.test:8443", false),
        ("github.com:443", true),
        ("a.test:443", false),
    ] {
        assert_eq!(policy.passthrough(&target(authority)), passed, "{authority}");
    }
}

#[test]
fn known_values_belong_where_they_are_said_to() {
    let policy = policy(POLICY);
    for (source, authority, belongs) in [
        (0, "github.com:443", false),
        (1, "github.com:443", true),
        (1, "x.wild.test:443", true),
        (1, "wild.test:443", false),
        (1, "gitlab.com:443", false),
        (2, "github.com:443", false),
    ] {
        assert_eq!(policy.known_belongs(source, &target(authority)), belongs, "{source} {authority}");
    }
}
