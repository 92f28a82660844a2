//! What the documentation shows as a policy is one: every example parses, and every key is explained.

use policy::catalogue::Catalogue;
use policy::decide::Policy;
use policy::document::{Source, schema};

const PAGES: &[(&str, &str)] = &[
    ("docs/policy.md", include_str!("../../docs/policy.md")),
    ("docs/catalogue.md", include_str!("../../docs/catalogue.md")),
];
const EXAMPLE: &str = include_str!("../../deploy/policy.example.toml");

#[test]
fn every_example_of_a_policy_is_one() {
    let mut examples = 0;
    for (page, text) in PAGES {
        for (line, example) in toml_blocks(text).filter(|(_, example)| example.contains("version = 1")) {
            parse(&format!("{page}:{line}"), &example);
            examples += 1;
        }
    }
    assert!(examples >= 12, "only {examples} examples were found: are the fences still ```toml?");
}

#[test]
fn the_example_policy_is_one_and_has_nothing_without_effect() {
    parse("deploy/policy.example.toml", EXAMPLE);
}

#[test]
fn every_key_is_explained() {
    let (_, reference) = PAGES[0];
    let mut keys = Vec::new();
    gather_keys(&schema(), &mut keys);
    assert!(keys.len() > 30, "the schema's shape has changed: {keys:?}");
    for key in keys {
        let mentioned = [format!("`{key}`"), format!("[{key}]"), format!("{key} ="), format!(".{key}]")];
        assert!(
            mentioned.iter().any(|form| reference.contains(form)),
            "docs/policy.md does not explain `{key}`"
        );
    }
}

/// A mistake or a warning ends the test with its own words.
fn parse(name: &str, text: &str) {
    let policy = Policy::parse(&[Source { name, text }], Catalogue::builtin());
    let complaints = policy.map_or_else(|mistakes| mistakes, |policy| policy.warnings().to_vec());
    let complaints: Vec<String> = complaints.iter().map(ToString::to_string).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// The text of each TOML block, undented, with the line it begins on.
fn toml_blocks(page: &str) -> impl Iterator<Item = (usize, String)> {
    let lines: Vec<&str> = page.lines().collect();
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in lines.iter().enumerate() {
        match (&mut open, line.trim_start()) {
            (None, "```toml") => open = Some((number + 2, String::new())),
            (Some(_), "```") => blocks.extend(open.take()),
            (Some((_, text)), line) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, _) => {}
        }
    }
    blocks.into_iter()
}

fn gather_keys(schema: &serde_json::Value, keys: &mut Vec<String>) {
    match schema {
        serde_json::Value::Object(object) => {
            if let Some(serde_json::Value::Object(properties)) = object.get("properties") {
                keys.extend(properties.keys().cloned());
            }
            object.values().for_each(|value| gather_keys(value, keys));
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| gather_keys(value, keys)),
        _ => {}
    }
}
