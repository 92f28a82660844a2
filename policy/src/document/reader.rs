//! Reads one file into TOML and checks its shape: unknown keys, wrong types, wrong words, all of them at once.
//!
//! What passes here holds only known keys with values of the right type, so the getters below can leave out
//! what is of another one: it has been reported.

use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, Key, Shape, Table};
use super::scalar::{parse_size, parse_window};
use super::{Mistake, Source};
use crate::rule::Origin;

/// Longest piece of a file that a message quotes, in characters.
const QUOTE_LIMIT: usize = 60;

pub(super) type Span = Range<usize>;
type Value<'s> = Spanned<DeValue<'s>>;

/// A file being read, with the mistakes found in it so far.
pub(super) struct Page<'s> {
    name: Arc<str>,
    text: &'s str,
    line_starts: Vec<usize>,
    pub(super) mistakes: Vec<Mistake>,
}

impl<'s> Page<'s> {
    /// Parses a file and checks its shape. Where it is not TOML there is nothing to go on with.
    pub(super) fn open(source: &'s Source<'_>) -> (Page<'s>, Option<DeTable<'s>>) {
        let line_starts =
            std::iter::once(0).chain(source.text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let mut page =
            Page { name: source.name.into(), text: source.text, line_starts, mistakes: Vec::new() };
        let (table, errors) = DeTable::parse_recoverable(source.text);
        for error in &errors {
            page.report_syntax(error);
        }
        if !errors.is_empty() {
            return (page, None);
        }
        page.check_table(&keys::POLICY, table.get_ref(), 0..0);
        (page, Some(table.into_inner()))
    }

    /// Adds a mistake about the text at `span`: `` `text` `` and what is to be read after it.
    pub(super) fn mistake(&mut self, span: &Span, text: &str, message: &str) {
        let quoted = quote(text);
        self.report(span, format!("`{quoted}` {message}"));
    }

    /// Adds a mistake in words of its own.
    pub(super) fn report(&mut self, span: &Span, message: String) {
        let Origin { file, line } = self.origin(span);
        self.mistakes.push(Mistake { file, line, message });
    }

    /// File and line of a span.
    pub(super) fn origin(&self, span: &Span) -> Origin {
        let line = self.line_starts.partition_point(|start| *start <= span.start);
        Origin { file: self.name.clone(), line: u32::try_from(line).unwrap_or(u32::MAX) }
    }

    fn report_syntax(&mut self, error: &toml::de::Error) {
        let span = error.span().unwrap_or(0..0);
        let line = self.line_starts.partition_point(|start| *start <= span.start).saturating_sub(1);
        let whole = self.text[self.line_starts[line]..].lines().next().unwrap_or("").trim();
        let message = format!("`{}` is not TOML: {}", quote(whole), error.message());
        self.report(&span, message);
    }

    fn check_table(&mut self, shape: &Table, table: &DeTable<'_>, span: Span) {
        for (name, value) in table {
            match shape.keys.iter().find(|key| key.name == name.get_ref().as_ref()) {
                Some(key) => self.check_value(key, value),
                None => self.report_unknown_key(shape, name.get_ref(), &name.span()),
            }
        }
        for key in shape.keys.iter().filter(|key| key.required) {
            if table.get(key.name).is_none() {
                self.report(&span, format!("{} needs `{}`", shape.name, key.name));
            }
        }
    }

    fn report_unknown_key(&mut self, shape: &Table, name: &str, span: &Span) {
        let known = shape.keys.iter().map(|key| key.name);
        let advice = match (nearest(name, known.clone()), elsewhere(shape, name)) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, Some(table)) => format!("it belongs in {table}"),
            (None, None) => format!("its keys are {}", listed(known)),
        };
        self.mistake(span, name, &format!("is not a key of {}; {advice}", shape.name));
    }

    fn check_value(&mut self, key: &Key, value: &Value<'_>) {
        let span = value.span();
        match (&key.shape, value.get_ref()) {
            (Shape::Version, DeValue::Integer(number)) if number.as_str() == "1" && number.radix() == 10 => {}
            (Shape::Version, _) => self.wrong(value, "is not a version: write `version = 1`"),
            (Shape::Text, DeValue::String(text)) => {
                if text.trim().is_empty() {
                    self.report(&span, format!("`{}` is empty: say it or leave it out", key.name));
                }
            }
            (Shape::Flag, DeValue::Boolean(_)) => {}
            (Shape::Size, DeValue::Integer(_) | DeValue::String(_)) => {
                self.check_scalar(value, |text| parse_size(text).map(drop));
            }
            (Shape::Window, DeValue::String(_)) => {
                self.check_scalar(value, |text| parse_window(text).map(drop))
            }
            (Shape::Word(what, words), DeValue::String(word)) => self.check_word(what, words, word, &span),
            (Shape::Texts(_), DeValue::Array(entries)) => self.check_texts(key, entries),
            (Shape::Ports, DeValue::Array(entries)) => self.check_ports(entries),
            (Shape::Time, DeValue::String(_) | DeValue::Datetime(_)) => self.check_scalar(value, check_time),
            (Shape::Domains, DeValue::Table(suffixes)) => {
                for labels in suffixes.values() {
                    match labels.get_ref() {
                        DeValue::Array(entries) => self.check_texts(key, entries),
                        _ => self.wrong(labels, "must be a list: write `com = [\"example\"]`"),
                    }
                }
            }
            (Shape::Known, DeValue::Array(entries)) => self.check_known(key, entries),
            (Shape::Table(shape), DeValue::Table(table)) => self.check_table(shape, table, span),
            (Shape::Tables(shape), DeValue::Array(tables)) => {
                for table in tables {
                    match table.get_ref() {
                        DeValue::Table(inner) => self.check_table(shape, inner, table.span()),
                        _ => self.wrong_type(key, table),
                    }
                }
            }
            _ => self.wrong_type(key, value),
        }
    }

    fn check_scalar(&mut self, value: &Value<'_>, check: impl Fn(&str) -> Result<(), String>) {
        if let Err(message) = check(&plain(value.get_ref())) {
            self.wrong(value, &message);
        }
    }

    fn check_word(&mut self, what: &str, words: &[&'static str], word: &str, span: &Span) {
        if words.contains(&word) {
            return;
        }
        let advice = match nearest(word, words.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("write {}", alternatives(words)),
        };
        self.mistake(span, word, &format!("is not {what}; {advice}"));
    }

    fn check_texts(&mut self, key: &Key, entries: &[Value<'_>]) {
        for entry in entries.iter().filter(|entry| !entry.get_ref().is_str()) {
            self.wrong(entry, &format!("is not a string, as entries of `{}` are", key.name));
        }
    }

    fn check_ports(&mut self, entries: &[Value<'_>]) {
        for entry in entries {
            let port = entry.get_ref().as_integer().and_then(|number| number.as_str().parse::<u16>().ok());
            if port.is_none_or(|port| port == 0) {
                self.wrong(entry, "is not a port: ports are plain numbers from 1 to 65535");
            }
        }
    }

    fn check_known(&mut self, key: &Key, entries: &[Value<'_>]) {
        for entry in entries {
            match entry.get_ref() {
                DeValue::String(_) => {}
                DeValue::Table(table) => self.check_table(&keys::KNOWN, table, entry.span()),
                _ => {
                    self.wrong(entry, &format!("is not a string or table, as entries of `{}` are", key.name))
                }
            }
        }
    }

    fn wrong(&mut self, value: &Value<'_>, message: &str) {
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            _ => self.text.get(value.span()).unwrap_or("").to_owned(),
        };
        self.mistake(&value.span(), &text, message);
    }

    fn wrong_type(&mut self, key: &Key, value: &Value<'_>) {
        let written = match value.get_ref() {
            DeValue::String(text) => quoted(text),
            _ => quote(self.text.get(value.span()).unwrap_or("")),
        };
        let advice = match &key.shape {
            Shape::Texts(_) | Shape::Known if value.get_ref().is_str() => {
                format!("`{} = [{written}]`", key.name)
            }
            shape => example(key.name, shape),
        };
        let found = value.get_ref().type_str();
        let article = if matches!(found, "array" | "integer") { "an" } else { "a" };
        let message = format!("`{} = {written}` has {article} {found} for a value: write {advice}", key.name);
        self.report(&value.span(), message);
    }
}

/// A table of the file, for taking values out of.
pub(super) trait Take {
    /// The string under a key.
    fn text(&self, key: &str) -> Option<(&str, Span)>;
    /// The strings of the list under a key.
    fn texts(&self, key: &str) -> Vec<(&str, Span)>;
    /// The table under a key.
    fn table(&self, key: &str) -> Option<&DeTable<'_>>;
    /// The tables of the list under a key.
    fn tables(&self, key: &str) -> Vec<(&DeTable<'_>, Span)>;
    /// The size under a key.
    fn size(&self, key: &str) -> Option<u64>;
    /// Whether a flag is set.
    fn flag(&self, key: &str) -> bool;
}

impl Take for DeTable<'_> {
    fn text(&self, key: &str) -> Option<(&str, Span)> {
        let value = self.get(key)?;
        value.get_ref().as_str().map(|text| (text, value.span()))
    }

    fn texts(&self, key: &str) -> Vec<(&str, Span)> {
        let entries = self.get(key).and_then(|value| value.get_ref().as_array());
        let text = |entry| -> Option<(&str, Span)> {
            let entry: &Value<'_> = entry;
            entry.get_ref().as_str().map(|text| (text, entry.span()))
        };
        entries.into_iter().flatten().filter_map(text).collect()
    }

    fn table(&self, key: &str) -> Option<&DeTable<'_>> {
        self.get(key)?.get_ref().as_table()
    }

    fn tables(&self, key: &str) -> Vec<(&DeTable<'_>, Span)> {
        let entries = self.get(key).and_then(|value| value.get_ref().as_array());
        let entries = entries.into_iter().flatten();
        entries.filter_map(|entry| entry.get_ref().as_table().map(|table| (table, entry.span()))).collect()
    }

    fn size(&self, key: &str) -> Option<u64> {
        parse_size(&plain(self.get(key)?.get_ref())).ok()
    }

    fn flag(&self, key: &str) -> bool {
        self.get(key).and_then(|value| value.get_ref().as_bool()).unwrap_or(false)
    }
}

/// The text of a string, number or time.
pub(super) fn plain(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        _ => String::new(),
    }
}

fn check_time(text: &str) -> Result<(), String> {
    match text.parse::<jiff::Timestamp>() {
        Ok(_) => Ok(()),
        Err(_) => Err("is not a point in time: write it as `2026-11-21T06:00:00Z`".to_owned()),
    }
}

fn example(name: &str, shape: &Shape) -> String {
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

/// The table that knows a key which this one does not, where exactly one other does.
fn elsewhere(here: &Table, name: &str) -> Option<&'static str> {
    let mut found = Vec::new();
    collect_tables(&keys::POLICY, &mut found);
    found.retain(|table| table.name != here.name && table.keys.iter().any(|key| key.name == name));
    match found[..] {
        [table] => Some(table.name),
        _ => None,
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
fn alternatives<S: AsRef<str>>(words: &[S]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{}`", word.as_ref())).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

fn listed(words: impl Iterator<Item = &'static str>) -> String {
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
fn quote(text: &str) -> String {
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
        || matches!(letter, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    if hidden { format!("\\u{{{:x}}}", u32::from(letter)) } else { letter.to_string() }
}

/// A TOML basic string.
pub(super) fn quoted(text: &str) -> String {
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
