//! Decisions as tables: every `decisions/*.toml` holds policies, and requests with what becomes of them and why.
//!
//! Each case is decided by the policy as written, with all its lists turned round, cut in two files, cut and
//! swapped, and printed and read again: nothing may depend on order.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test reads its tables and stops at the first flaw"
)]

use std::path::Path;

use policy::Policy;
use policy::catalogue::Catalogue;
use policy::decide::{Grant, Grants, Holder, Methods, Point, Reach};
use policy::document::{STARTER, Source};
use policy::identity::{AgentName, SessionId};
use policy::path::RequestPath;
use policy::request::{Kind, Request};
use policy::target::{Scheme, Target};
use policy::usage::Usage;
use policy::verdict::Verdict;
use serde::Deserialize;

const NOW: i64 = 1_000_000_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    suite: Vec<Suite>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Suite {
    /// A policy file; `starter` for the one that ships.
    policy: String,
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    says: String,
    /// `GET https://host:port/path`, or `CONNECT host:port` for a tunnel that is not read.
    request: String,
    #[serde(default = "claude")]
    agent: String,
    #[serde(default)]
    upload: u64,
    #[serde(default)]
    used: Used,
    #[serde(default)]
    grant: Vec<Granted>,
    action: String,
    reason: String,
    rule: Option<String>,
    /// `deny denied_by_rule`.
    would: Option<String>,
    mode: Option<String>,
    class: Option<String>,
    service: Option<String>,
    findings: Option<Vec<String>>,
    /// What the refusal offers; empty where it offers nothing.
    allow_with: Option<String>,
    request_block: Option<u64>,
    window_block: Option<u64>,
    secrets: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Used {
    domain: u64,
    agent: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Granted {
    rule: Option<String>,
    to: String,
    #[serde(default = "claude")]
    agent: String,
    until: Option<i64>,
    /// For a session: the request's own, or none.
    session: Option<bool>,
    #[serde(default = "unread")]
    methods: String,
    /// Answers a refusal, not a question.
    #[serde(default)]
    refused: bool,
}

/// The session that every request is in.
const SESSION: SessionId = SessionId(ulid::Ulid(1));

fn unread() -> String {
    "unread".to_owned()
}

fn claude() -> String {
    "claude".to_owned()
}

#[test]
fn every_case_is_decided_as_written_whatever_the_order() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/decisions");
    let (mut failures, mut cases) = (Vec::new(), 0);
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let file: File = toml::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        for suite in &file.suite {
            for (variant, policy) in variants(&name, &suite.policy) {
                let problems = suite.case.iter().filter_map(|case| Some((case, check(&policy, case)?)));
                failures.extend(problems.map(|(case, problem)| {
                    format!("{name}, {variant}: {}\n    {}: {problem}", case.says, case.request)
                }));
            }
            cases += suite.case.len();
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(cases >= 120, "only {cases} cases");
}

/// The policy in every order it could have been written in.
fn variants(file: &str, text: &str) -> Vec<(&'static str, Policy)> {
    let text = if text == "starter" { STARTER } else { text };
    let whole: toml::Table = toml::from_str(text).unwrap_or_else(|e| panic!("{file}: {e}"));
    let mut turned = whole.clone();
    turn_round(&mut turned);
    let (first, second) = cut(&whole);
    let plain = load(file, &[text]);
    let variants = vec![
        ("printed", load(file, &[&plain.to_string()])),
        ("turned round", load(file, &[&turned.to_string()])),
        ("cut in two", load(file, &[&first, &second])),
        ("cut and swapped", load(file, &[&second, &first])),
        ("as written", plain),
    ];
    let digest = variants[4].1.digest();
    for (variant, policy) in &variants {
        assert_eq!(policy.digest(), digest, "{file}: {variant} is another policy:\n{text}\n---\n{policy}");
    }
    variants
}

fn load(file: &str, texts: &[&str]) -> Policy {
    let names = ["one.toml", "two.toml"];
    let sources: Vec<Source<'_>> =
        names.into_iter().zip(texts).map(|(name, text)| Source { name, text }).collect();
    Policy::parse(&sources, Catalogue::builtin()).unwrap_or_else(|mistakes| {
        let mistakes: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        panic!("{file}:\n{}\n{}", texts.join("\n---\n"), mistakes.join("\n"))
    })
}

fn turn_round(table: &mut toml::Table) {
    for value in table.iter_mut().map(|(_, value)| value) {
        match value {
            toml::Value::Array(entries) => entries.reverse(),
            toml::Value::Table(inner) => turn_round(inner),
            _ => {}
        }
    }
}

/// Every other entry of each list in one file, the rest in another; scalars in both.
fn cut(whole: &toml::Table) -> (String, String) {
    let half = |parity: usize| {
        let mut table = whole.clone();
        for value in table.iter_mut().map(|(_, value)| value) {
            if let toml::Value::Array(entries) = value {
                let kept = entries.drain(..).enumerate().filter(|(at, _)| at % 2 == parity);
                *entries = kept.map(|(_, entry)| entry).collect();
            }
        }
        table.to_string()
    };
    (half(0), half(1))
}

fn check(policy: &Policy, case: &Case) -> Option<String> {
    let agent: AgentName = case.agent.parse().unwrap();
    let (method, url) = case.request.split_once(' ').unwrap();
    let Some((target, path)) = parse_url(method, url) else {
        let found = ("deny".to_owned(), "malformed_request".to_owned());
        return differ("answer", &(case.action.clone(), case.reason.clone()), &found);
    };
    let tunnel = method == "CONNECT";
    let request = Request {
        agent: &agent,
        kind: if tunnel { Kind::Connect } else { Kind::Http },
        target: &target,
        method: if tunnel { "" } else { method },
        path: path.as_ref(),
        upload: case.upload,
        observe: false,
    };
    let usage = Usage { domain: case.used.domain, agent: case.used.agent };
    let verdict = policy.decide(&request, &usage, &grants(case), NOW);
    compare_verdict(&verdict, case)
        .or_else(|| compare_permit(&verdict, case))
        .or_else(|| compare_explanation(policy, &request, &usage, case))
        .or_else(|| compare_reach(policy, &agent, &target, &verdict, case))
}

fn parse_url(method: &str, url: &str) -> Option<(Target, Option<RequestPath>)> {
    if method == "CONNECT" {
        return Some((Target::from_connect(url.as_bytes()).ok()?, None));
    }
    let (scheme, rest) = url.split_once("://").unwrap();
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        "tcp" => Scheme::Tcp,
        other => panic!("{other}"),
    };
    let at = rest.find(['/', '?', '\\']).unwrap_or(rest.len());
    let target = Target::from_authority(scheme, &rest.as_bytes()[..at]).ok()?;
    Some((target, Some(RequestPath::parse(&rest.as_bytes()[at..]).ok()?)))
}

fn grants(case: &Case) -> Grants {
    let grant = |granted: &Granted| Grant {
        agent: granted.agent.parse().unwrap(),
        holder: granted.session.map_or(Holder::Agent, |own| Holder::Session(own.then_some(SESSION))),
        target: parse_url("GET", &granted.to).unwrap().0,
        methods: match &*granted.methods {
            "reading" => Methods::Reading,
            "writing" => Methods::Writing,
            "unread" => Methods::Unread,
            other => panic!("{other}"),
        },
        point: match (&granted.rule, granted.refused) {
            (Some(rule), _) => Point::Rule(rule.as_str().into()),
            (None, true) => Point::Refused,
            (None, false) => Point::Default,
        },
        until: granted.until,
    };
    case.grant.iter().map(grant).collect::<Grants>().in_session(Some(SESSION))
}

fn compare_verdict(verdict: &Verdict, case: &Case) -> Option<String> {
    let judgement = verdict.judgement();
    let would = judgement.would.map(|(action, reason)| format!("{action} {reason}"));
    let found = (judgement.action.to_string(), judgement.reason.to_string());
    let findings: Vec<String> = judgement.findings.iter().map(|found| found.kind().to_owned()).collect();
    let allow_with = match verdict {
        Verdict::Deny(denial) => denial.allow_with.clone().unwrap_or_default(),
        _ => String::new(),
    };
    differ("answer", &(case.action.clone(), case.reason.clone()), &found)
        .or_else(|| differ("rule", &case.rule, &judgement.rule.as_deref().map(str::to_owned)))
        .or_else(|| differ("would", &case.would, &would))
        .or_else(|| given("mode", case.mode.as_deref(), judgement.mode.as_str()))
        .or_else(|| given("class", case.class.as_deref(), judgement.class.as_str()))
        .or_else(|| given("service", case.service.as_deref(), judgement.service.as_deref().unwrap_or("")))
        .or_else(|| given("allow_with", case.allow_with.as_deref(), &allow_with))
        .or_else(|| given("findings", case.findings.as_ref(), &findings))
}

fn compare_permit(verdict: &Verdict, case: &Case) -> Option<String> {
    let Verdict::Allow(permit) = verdict else { return None };
    let limits = permit.limits();
    given("secrets", case.secrets.as_deref(), permit.secrets().as_str())
        .or_else(|| given("request_block", case.request_block.as_ref(), &limits.request_block))
        .or_else(|| given("window_block", case.window_block.as_ref(), &limits.window_block))
}

/// What is explained is what is decided, and the rule that decided is among those that match.
fn compare_explanation(policy: &Policy, request: &Request<'_>, usage: &Usage, case: &Case) -> Option<String> {
    let explained = policy.explain(request, usage, &grants(case), NOW);
    let found = (explained.action.to_string(), explained.reason.to_string());
    let listed = |rule| explained.matches.iter().any(|found| found.rule == rule);
    differ("explanation", &(case.action.clone(), case.reason.clone()), &found).or_else(|| {
        match &explained.rule {
            Some(rule) if !listed(rule.clone()) => {
                Some(format!("{rule} is not among {:?}", explained.matches))
            }
            _ => None,
        }
    })
}

/// Where nothing can be reached nothing passes or is asked.
fn compare_reach(
    policy: &Policy,
    agent: &AgentName,
    target: &Target,
    verdict: &Verdict,
    case: &Case,
) -> Option<String> {
    let never = matches!(policy.reach(agent, target), Reach::Never(_));
    let passes = !matches!(verdict, Verdict::Deny(_));
    // Answers to refusals are no part of the policy.
    let opened = case.grant.iter().any(|granted| granted.refused);
    (never && passes && !opened).then(|| "passes what cannot be reached".to_owned())
}

fn given<T: PartialEq + std::fmt::Debug + ?Sized>(
    what: &str,
    expected: Option<&T>,
    found: &T,
) -> Option<String> {
    expected.and_then(|expected| differ(what, expected, found))
}

fn differ<T: PartialEq + std::fmt::Debug + ?Sized>(what: &str, expected: &T, found: &T) -> Option<String> {
    (expected != found).then(|| format!("{what}: expected {expected:?}, found {found:?}"))
}
