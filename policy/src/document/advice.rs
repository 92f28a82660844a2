//! What messages say besides what is wrong: the right spelling, the nearest word, the user's own text.

use super::keys::{self, Shape, Table};

/// Longest piece of a file that a message quotes, in characters.
const QUOTE_LIMIT: usize = 60;

/// How a key of this shape is written.
pub(super) fn example(name: &str, shape: &Shape) -> String {
    match shape {
        Shape::Version => "`version = 1`".to_owned(),
        Shape::Text => format!("`{name} = \"…\"`"),
        Shape::Flag => format!("`{name} = true` or `{name} = false`"),
        Shape::Size => format!("`{name} = \"1 MiB\"`"),
        Shape::Window => format!("`{name} = \"10m\"`"),
        Shape::Word(_, words) => {
            alternatives(&words.iter().map(|word| format!("{name} = \"{word}\"")).collect::<Vec<_>>())
        }
        Shape::Texts(entry) => format!("`{name} = [\"{entry}\"]`"),
        Shape::Ports => format!("`{name} = [8080]`"),
        Shape::Time => format!("`{name} = 2026-11-21T06:00:00Z`"),
        Shape::Domains => format!("`{name} = {{ com = [\"example\"] }}`"),
        Shape::Known => format!("`{name} = [\"dotenv:.env\"]`"),
        Shape::Table(table) | Shape::Tables(table) if table.name.starts_with("`[") => table.name.to_owned(),
        Shape::Table(_) | Shape::Tables(_) => format!("`{name} = {{ … }}`"),
    }
}

/// What people write who know other programs, and what it is called here.
const SYNONYMS: [(&str, &str); 8] = [
    ("host", "to"),
    ("hosts", "to"),
    ("destinations", "to"),
    ("domains", "to"),
    ("comment", "why"),
    ("reason", "why"),
    ("block", "deny"),
    ("permit", "allow"),
];

pub(super) fn synonym(name: &str, mut known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let (_, meant) = SYNONYMS.into_iter().find(|(written, _)| *written == name)?;
    known.find(|key| *key == meant)
}

/// The tables that know a key which this one does not.
pub(super) fn elsewhere(here: &Table, name: &str) -> Option<String> {
    let mut found = Vec::new();
    collect_tables(&keys::POLICY, &mut found);
    found.retain(|table| table.name != here.name && table.keys.iter().any(|key| key.name == name));
    let names: Vec<&str> = found.iter().map(|table| table.name).collect();
    match names[..] {
        [] => None,
        [one] => Some(one.to_owned()),
        [ref most @ .., last] => Some(format!("{} or {last}", most.join(", "))),
    }
}

fn collect_tables(table: &'static Table, found: &mut Vec<&'static Table>) {
    if found.iter().any(|known| known.name == table.name) {
        return;
    }
    found.push(table);
    for key in table.keys {
        if let Shape::Table(inner) | Shape::Tables(inner) = key.shape {
            collect_tables(inner, found);
        }
    }
}

/// `` `a`, `b` or `c` ``.
pub(super) fn alternatives<S: AsRef<str>>(words: &[S]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{}`", word.as_ref())).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// `` `a`, `b`, `c` ``.
pub(super) fn listed(words: impl Iterator<Item = &'static str>) -> String {
    words.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// The candidate with the fewest edits to `name`, if one is near: at most one for every three characters.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_ascii_lowercase();
    let limit = (name.len() / 3).clamp(1, 3);
    candidates
        .map(|candidate| (edit_distance(&name, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Inserted, deleted, changed and exchanged characters between two words.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = match (i, j) {
                (0, j) => j,
                (i, 0) => i,
                _ => {
                    let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                    let one_more = rows[i - 1][j].min(rows[i][j - 1]) + 1;
                    let exchanged = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                    let exchanged = if exchanged { rows[i - 2][j - 2] + 1 } else { usize::MAX };
                    changed.min(one_more).min(exchanged)
                }
            };
        }
    }
    rows[a.len()][b.len()]
}

/// Text of the user's as a message shows it: one line, not too long, with what cannot be seen spelled out.
pub(super) fn quote(text: &str) -> String {
    let line = text.lines().next().unwrap_or("");
    let cut = line.chars().count() > QUOTE_LIMIT || line.len() < text.trim_end().len();
    let mut shown: String = line.chars().take(QUOTE_LIMIT).map(visible).collect();
    if cut {
        shown.push('…');
    }
    shown
}

/// Control and zero-width characters, by number.
fn visible(letter: char) -> String {
    let hidden = letter.is_control()
        || matches!(letter, '\u{ad}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0000}'..='\u{e01ef}');
    if hidden { format!("\\u{{{:x}}}", u32::from(letter)) } else { letter.to_string() }
}

/// A TOML basic string.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            letter if letter.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(letter))),
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}
