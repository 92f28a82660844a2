//! What the documentation shows is so: every policy parses, every key is explained, the record has its fields.

use policy::catalogue::Catalogue;
use policy::decide::Policy;
use policy::document::{Source, schema};
use policy::record::Finding;
use policy::view::DecisionView;

const PAGES: &[(&str, &str)] = &[
    ("docs/policy.md", include_str!("../../docs/policy.md")),
    ("README.md", include_str!("../../README.md")),
    ("docs/catalogue.md", include_str!("../../docs/catalogue.md")),
];
const RECORDS: &str = include_str!("../../docs/records.md");
const EXAMPLE: &str = include_str!("../../deploy/policy.example.toml");

#[test]
fn every_example_of_a_policy_is_one() {
    let mut examples = 0;
    for (page, text) in PAGES {
        for (line, example) in blocks(text, "toml").filter(|(_, example)| example.contains("version = 1")) {
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
fn the_record_shown_has_the_fields_of_a_record_in_their_order() {
    let (_, shown) = blocks(RECORDS, "json").next().unwrap();
    let record: DecisionView = serde_json::from_str(&shown).unwrap();
    let written = serde_json::to_string_pretty(&record).unwrap();
    assert_eq!(fields(&shown), fields(&written));
    for field in fields(&shown) {
        assert!(RECORDS.contains(&format!("`{field}`")), "docs/records.md does not explain `{field}`");
    }
}

#[test]
fn every_kind_of_finding_is_explained() {
    for kind in Finding::KINDS {
        assert!(RECORDS.contains(&format!("`{kind}`")), "docs/records.md does not explain `{kind}`");
    }
}

/// Keys of the outer object: those indented by two.
fn fields(json: &str) -> Vec<&str> {
    json.lines()
        .filter_map(|line| line.strip_prefix("  \""))
        .filter_map(|line| Some(line.split_once('"')?.0))
        .collect()
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

/// The text of each block of a language, with the line it begins on.
fn blocks(page: &str, language: &str) -> impl Iterator<Item = (usize, String)> {
    let fence = format!("```{language}");
    let lines: Vec<&str> = page.lines().collect();
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in lines.iter().enumerate() {
        match (&mut open, *line) {
            (None, line) if line.trim_start() == fence => open = Some((number + 2, String::new())),
            (Some(_), line) if line.trim_start() == "```" => blocks.extend(open.take()),
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
