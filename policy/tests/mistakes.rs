//! Bad policies, each with every message in full: `mistakes.toml` is the table.

use policy::Policy;
use policy::catalogue::Catalogue;
use policy::document::Source;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    says: String,
    policy: String,
    /// A second file, `more.toml`.
    more: Option<String>,
    mistakes: Vec<String>,
}

#[test]
fn every_mistake_is_told_with_its_line_and_the_right_spelling() {
    let table: Table = toml::from_str(include_str!("mistakes.toml")).unwrap();
    let mut failures = Vec::new();
    for case in &table.case {
        let texts = [("policy.toml", Some(&case.policy)), ("more.toml", case.more.as_ref())];
        let sources: Vec<Source<'_>> =
            texts.into_iter().filter_map(|(name, text)| Some(Source { name, text: text? })).collect();
        let found: Vec<String> = match Policy::parse(&sources, Catalogue::builtin()) {
            Ok(_) => Vec::new(),
            Err(mistakes) => mistakes.iter().map(ToString::to_string).collect(),
        };
        if found != case.mistakes {
            failures.push(format!(
                "{}:\n{}\nexpected {:#?}\nfound {found:#?}",
                case.says, case.policy, case.mistakes
            ));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    assert!(table.case.len() >= 45, "only {} cases", table.case.len());
}
