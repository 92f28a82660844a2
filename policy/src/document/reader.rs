//! Reads one file into TOML and checks its shape: unknown keys, wrong types, wrong words, all of them at once.
//!
//! What passes here holds only known keys with values of the right type, so the getters below can leave out
//! what is of another one: it has been reported.

use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::advice::{alternatives, elsewhere, example, listed, nearest, quote, quoted, synonym};
use super::keys::{self, Key, Shape, Table};
use super::scalar::{parse_size, parse_window};
use super::{Mistake, Source};
use crate::rule::Origin;

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
        // What follows the first in a line is mostly its echo.
        page.mistakes.dedup_by_key(|mistake| mistake.line);
        if !errors.is_empty() {
            return (page, None);
        }
        page.check_table(&keys::POLICY, table.get_ref(), 0..0);
        (page, Some(table.into_inner()))
    }

    /// Adds a mistake about the text at `span`: `` `text` `` and what is to be read after it.
    pub(super) fn mistake(&mut self, span: &Span, text: &str, message: &str) {
        let quoted = if text.is_empty() { "\"\"".to_owned() } else { quote(text) };
        self.report(span, format!("`{quoted}` {message}"));
    }

    /// Adds a mistake in words of its own.
    pub(super) fn report(&mut self, span: &Span, message: String) {
        let Origin { file, line } = self.origin(span);
        self.mistakes.push(Mistake::new(file, line, message));
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
        let near = nearest(name, known.clone()).or_else(|| synonym(name, known.clone()));
        let advice = match (near, elsewhere(shape, name)) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, Some(tables)) => format!("it belongs in {tables}"),
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
                self.check_scalar(value, |text| parse_window(text).map(drop));
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
                    self.wrong(entry, &format!("is not a string or table, as entries of `{}` are", key.name));
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
        let (name, span) = (key.name, value.span());
        let is_tables =
            value.get_ref().as_array().is_some_and(|entries| entries.iter().all(|e| e.get_ref().is_table()));
        let message = match (&key.shape, value.get_ref()) {
            (Shape::Tables(_), DeValue::Table(_)) => {
                format!("`[{name}]` must be written `[[{name}]]`: there may be several")
            }
            (Shape::Table(_), DeValue::Array(_)) if is_tables => {
                format!("`[[{name}]]` must be written `[{name}]`: there is only one")
            }
            (shape, found) => {
                let written = match found {
                    DeValue::String(text) => quoted(text),
                    _ => quote(self.text.get(span.clone()).unwrap_or("")),
                };
                let advice = match shape {
                    Shape::Texts(_) | Shape::Known if found.is_str() => format!("`{name} = [{written}]`"),
                    shape => example(name, shape),
                };
                format!("`{name} = {written}` has {} for a value: write {advice}", type_of(found))
            }
        };
        self.report(&span, message);
    }
}

fn type_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
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
