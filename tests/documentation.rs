//! The pages agree with the program and with each other: links lead somewhere, every setting is explained.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The root of the repository: the manifest is that of `proxy`.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

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
        let whole_section =
            ["approvals", "fence", "otlp", "alerts"].contains(&section) && page.contains(section);
        assert!(explained || whole_section, "docs/configuration.md does not explain `{key}`");
    }
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
