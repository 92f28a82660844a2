//! What the fence asks of the policy: whether a name is answered, and whether a service of the host is reached.

use std::net::SocketAddr;
use std::sync::Arc;

use policy::Policy;
use policy::catalogue::Catalogue;
use policy::decide::{Grants, LookUp};
use policy::document::Source;
use policy::identity::AgentName;
use policy::request::{Kind, Request};
use policy::target::{Host, Scheme, Target};
use policy::usage::Usage;
use policy::verdict::Judgement;

fn policy(text: &str) -> Policy {
    let source = Source { name: "policy.toml", text };
    Policy::parse(&[source], Catalogue::builtin()).unwrap_or_else(|mistakes| panic!("{}", mistakes[0]))
}

fn words(judgement: &Judgement) -> String {
    let rule = judgement.rule.as_deref().map(|rule| format!(" by {rule}")).unwrap_or_default();
    let would = judgement.would.map(|(action, why)| format!(" would {action} {why}")).unwrap_or_default();
    format!("{} {}{rule}{would}", judgement.action, judgement.reason)
}

#[test]
fn a_name_is_answered_where_some_request_to_it_could_pass() {
    let policy = policy(
        r#"
        allow = ["a.test", "b.test:8443", "c.test:80", "*.wild.test"]
        ask = ["asked.test"]
        deny = ["no.wild.test", "half.test:443"]

        [[rule]]
        name = "reads"
        action = "allow"
        to = ["reads.test", "half.test"]
        methods = ["GET"]

        [[rule]]
        name = "trial"
        action = "deny"
        to = ["trial.test"]
        observe = true
        "#,
    );
    let claude: AgentName = "claude".parse().unwrap();
    for (host, observes, expected, allow_with) in [
        ("a.test", false, "allow allowed_by_rule by allow \"a.test\"", None),
        ("b.test", false, "deny port_refused", Some("b.test")),
        ("c.test", false, "allow allowed_by_rule by allow \"c.test:80\"", None),
        ("x.wild.test", false, "allow allowed_by_rule by allow \"*.wild.test\"", None),
        ("no.wild.test", false, "deny denied_by_rule by deny \"no.wild.test\"", None),
        ("asked.test", false, "allow allowed_by_rule by ask \"asked.test\"", None),
        ("reads.test", false, "allow allowed_by_rule by reads", None),
        ("half.test", false, "allow allowed_by_rule by reads", None),
        ("trial.test", false, "allow allowed_by_observe by trial", None),
        ("evil.test", false, "deny unknown_destination", Some("evil.test")),
        ("evil.test", true, "allow allowed_by_observe would deny unknown_destination", None),
        ("api.openai.com", false, "deny denied_by_default", Some("api.openai.com")),
    ] {
        let host = Host::parse(host.as_bytes()).unwrap();
        let (judgement, with) = match policy.look_up(&claude, &host, observes) {
            LookUp::Answered(judgement) => (judgement, None),
            LookUp::Refused(denial) => (denial.judgement, denial.allow_with),
        };
        assert_eq!((words(&judgement).as_str(), with.as_deref()), (expected, allow_with), "{host}");
    }
}

#[test]
fn a_service_of_the_host_is_reached_where_the_operator_forwards_it_and_no_rule_stops_that() {
    let forwards: Arc<[SocketAddr]> =
        ["127.0.0.1:5432".parse().unwrap(), "[::1]:5432".parse().unwrap()].into();
    for (text, kind, address, expected) in [
        ("", Kind::Tcp, "127.0.0.1:5432", "allow allowed_by_rule by forward \"127.0.0.1:5432\""),
        ("", Kind::Tcp, "[::1]:5432", "allow allowed_by_rule by forward \"[::1]:5432\""),
        ("", Kind::Tcp, "127.0.0.1:5433", "deny unknown_destination"),
        ("", Kind::Tcp, "127.0.0.2:5432", "deny unknown_destination"),
        ("", Kind::Connect, "127.0.0.1:5432", "deny unknown_destination"),
        ("deny = [\"127.0.0.1\"]", Kind::Tcp, "127.0.0.1:5432", "deny denied_by_rule by deny \"127.0.0.1\""),
        (
            "ask = [\"127.0.0.1:5432\"]",
            Kind::Tcp,
            "127.0.0.1:5432",
            "ask approval_unattended by ask \"127.0.0.1:5432\"",
        ),
        (
            "allow = [\"127.0.0.0/8:5432\"]",
            Kind::Tcp,
            "127.0.0.1:5432",
            "allow allowed_by_rule by allow \"127.0.0.0/8:5432\"",
        ),
        (
            "[[rule]]\nname = \"t\"\naction = \"deny\"\nto = [\"127.0.0.1\"]\nobserve = true",
            Kind::Tcp,
            "127.0.0.1:5432",
            "allow allowed_by_observe by t would deny denied_by_rule",
        ),
    ] {
        let address: SocketAddr = address.parse().unwrap();
        let target =
            Target { scheme: Scheme::Tcp, host: Host::from_address(address.ip()), port: address.port() };
        let agent = "claude".parse().unwrap();
        let request = Request {
            agent: &agent,
            kind,
            target: &target,
            method: "",
            path: None,
            upload: 0,
            observe: false,
        };
        let grants = Grants::none().forwarding(Arc::clone(&forwards));
        let verdict = policy(text).decide(&request, &Usage::default(), &grants, 0);
        assert_eq!(words(verdict.judgement()), expected, "{text} {address}");
    }
}
