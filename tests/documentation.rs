//! The pages agree with the program and with each other: links lead somewhere, every setting is explained.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the repository: the manifest is that of `proxy`.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

const PROGRAM: &str = env!("CARGO_BIN_EXE_outgate");
const HAVE_SUBCOMMANDS: [&str; 5] = ["policy", "agent", "session", "audit", "ca"];

#[test]
fn every_link_to_a_file_or_heading_leads_somewhere() {
    let mut broken = Vec::new();
    let mut links = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for target in link_targets(&text).filter(|target| !target.contains("://")) {
            links += 1;
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { page.clone() } else { page.with_file_name("").join(file) };
            if !file.exists() || !(heading.is_empty() || headings(&file).contains(heading)) {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
    assert!(links > 40, "only {links} links were found");
}

#[test]
fn every_setting_is_explained() {
    let page = fs::read_to_string(Path::new(ROOT).join("docs/configuration.md")).unwrap();
    for key in outgate::config::keys() {
        let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
        let explained =
            page.contains(&format!("`{name}`")) || page.contains(&format!("`[{section}] {name}`"));
        let whole_section = ["otlp", "alerts"].contains(&section) && page.contains(section);
        assert!(explained || whole_section, "docs/configuration.md does not explain `{key}`");
    }
}

#[test]
fn every_promise_names_a_test_that_is_there() {
    let page = fs::read_to_string(Path::new(ROOT).join("docs/threat-model.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with('|') && line.contains("::"));
    let names: Vec<&str> = rows.flat_map(|row| row.split('`')).filter(|word| word.contains("::")).collect();
    assert!(names.len() > 15, "only {names:?}");
    for name in names {
        let (module, test) = name.split_once("::").unwrap();
        let tests = Path::new(ROOT).join("tests");
        let folder =
            fs::read_dir(tests.join(module)).into_iter().flatten().map(|entry| entry.unwrap().path());
        let files = folder.chain([tests.join(format!("{module}.rs"))]);
        let found = files.filter_map(|file| fs::read_to_string(file).ok()).any(|source| {
            source.contains(&format!("fn {test}(")) || source.contains(&format!(" {test} => "))
        });
        assert!(found, "docs/threat-model.md names `{name}`, and there is no such test");
    }
}

#[test]
fn every_command_shown_is_one_and_has_the_options_shown() {
    let mut commands = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for line in text.lines().filter_map(shown_command) {
            let words: Vec<&str> =
                line.split_whitespace().take_while(|word| !["--", "#", "|"].contains(word)).collect();
            let depth = if HAVE_SUBCOMMANDS.contains(&words[0]) { 2 } else { 1 };
            let help = Command::new(PROGRAM).args(&words[..depth]).arg("--help").output().unwrap();
            assert!(help.status.success(), "{}: `outgate {line}`", page.display());
            let help = String::from_utf8(help.stdout).unwrap();
            for option in words.iter().filter(|word| word.starts_with("--")) {
                assert!(help.contains(option), "{}: `outgate {line}` has no `{option}`", page.display());
            }
            commands += 1;
        }
    }
    assert!(commands > 20, "only {commands} commands were found");
}

/// What follows `outgate` in a line that shows a command.
fn shown_command(line: &str) -> Option<&str> {
    let line = line.trim_start().strip_prefix("$ ")?;
    ["outgate ", "cargo run --release -- "].iter().find_map(|program| line.strip_prefix(program))
}

fn pages() -> Vec<PathBuf> {
    let folders = ["", "docs"].map(|folder| Path::new(ROOT).join(folder));
    let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    let mut pages: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    pages.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    assert!(pages.len() >= 10, "{pages:?}");
    pages
}

/// What stands in `](…)`.
fn link_targets(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
}

/// The headings of a page as a link writes them: lower case, spaces to `-`, other signs gone.
fn headings(page: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(page).unwrap();
    let titles =
        text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    titles.map(anchor).collect()
}

fn anchor(title: &str) -> String {
    let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}
