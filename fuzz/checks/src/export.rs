//! Exports: no single byte can be changed unseen, and whatever else is passed off as one is refused.

use std::sync::LazyLock;

use outgate::evidence::{Evidence, Report};
use outgate::export::verify_lines;

/// The worked example of the format's documentation, signed with a key that everybody has.
static EXAMPLE: LazyLock<String> = LazyLock::new(|| {
    let page = include_str!("../../../docs/audit-format.md");
    let lines = page.lines().skip_while(|line| !line.starts_with("{\"export\":1,\"follows\":{"));
    lines.take_while(|line| line.starts_with('{')).map(|line| format!("{line}\n")).collect()
});

static EVIDENCE: LazyLock<Evidence> = LazyLock::new(|| {
    let key = EXAMPLE.split("\"key\":\"").nth(1).and_then(|rest| rest.get(..64)).expect("a key");
    Evidence { keys: vec![key.into()], ..Evidence::default() }
});

/// Takes a byte that picks: an export as it is, or a change of the example's.
pub fn check(input: &[u8]) {
    match input {
        [0, export @ ..] => anything(export),
        [how, high, low, byte, ..] => {
            let export = EXAMPLE.as_bytes();
            assert!(verify(export, &EVIDENCE).intact, "the example is not intact");
            let at = (usize::from(*high) << 8 | usize::from(*low)) % export.len();
            let changed = change(export, *how, at, *byte);
            if changed != export && !is_unsigned(at) && !only_ends_sooner(&changed) {
                let text = || String::from_utf8_lossy(&changed).into_owned();
                assert!(!verify(&changed, &EVIDENCE).intact, "byte {at} was changed unseen:\n{}", text());
                assert!(
                    !verify(&changed, &Evidence::default()).intact,
                    "byte {at} was changed unseen:\n{}",
                    text()
                );
            }
        }
        _ => {}
    }
}

fn verify(export: &[u8], evidence: &Evidence) -> Report {
    verify_lines(export, evidence, |_| {}).expect("memory can be read")
}

fn change(export: &[u8], how: u8, at: usize, byte: u8) -> Vec<u8> {
    let mut changed = export.to_vec();
    match how % 4 {
        0 => drop(changed.remove(at)),
        1 => changed.insert(at, byte),
        2 => changed[at] ^= byte,
        _ => changed[at] = byte,
    }
    changed
}

/// Whether the place is in the first line's version, which says who wrote the export and is not part of the evidence.
fn is_unsigned(at: usize) -> bool {
    let key = "\"version\":\"";
    let start = EXAMPLE.find(key).expect("it is there") + key.len();
    let end = start + EXAMPLE[start..].find('"').expect("it ends");
    (start..=end).contains(&at)
}

/// A last line without its line feed is as complete.
fn only_ends_sooner(changed: &[u8]) -> bool {
    EXAMPLE.as_bytes().strip_suffix(b"\n") == Some(changed)
}

/// What was not signed by the key is not intact, unless it is the example itself.
fn anything(export: &[u8]) {
    let report = verify(export, &EVIDENCE);
    assert_eq!(report.intact, report.first_bad.is_none());
    let lines = EXAMPLE.lines().filter(|line| line.contains("\"record\":")).count() as u64;
    assert!(!report.intact || report.records == lines, "another export than the one signed is intact");
}
