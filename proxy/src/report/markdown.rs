//! A report as GitHub-flavoured Markdown that fits into a comment of a pull request.
//!
//! Text from records stands in code spans alone, fenced by more backticks than it holds, with `|` escaped and no line
//! breaks left in it: it can be no HTML, mention, link, image or cell.

mod sections;

use std::fmt::Write as _;

use policy::report::{Listed, Report};

use super::words;
use crate::shown::{Shown, count};

/// GitHub takes 65,536 characters; what surrounds a report in a comment needs a few of them.
const MOST: usize = 64_000;
/// Rows of a table; the first number with which the report fits.
const ROWS: [usize; 5] = [25, 12, 6, 3, 1];
/// Characters of one text.
const LONGEST: usize = 120;

/// The text.
pub(crate) fn text(report: &Report) -> String {
    let texts = ROWS.iter().map(|rows| Page::written(report, *rows));
    let mut last = String::new();
    for text in texts {
        if text.len() <= MOST {
            return text;
        }
        last = text;
    }
    // Cannot be: one row of each table is a few thousand characters. A text that is too long is no answer, though.
    last.truncate((0..=MOST).rev().find(|end| last.is_char_boundary(*end)).unwrap_or(0));
    last
}

/// A text that grows by sections.
struct Page {
    text: String,
    rows: usize,
}

impl Page {
    /// The whole report with at most so many rows in each table.
    fn written(report: &Report, rows: usize) -> String {
        let mut page = Page { text: String::new(), rows };
        page.head(report);
        if report.totals.requests > 0 {
            page.totals(report);
            page.reached(report);
        }
        page.denied(report);
        page.secrets(report);
        page.uploads(report);
        page.new_domains(report);
        page.approvals(report);
        page.more(report);
        page.chain(report);
        page.text
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// A section with a heading, or folded; a line where there is nothing, or nothing at all where that needs no line.
    fn section<T>(
        &mut self,
        title: &str,
        nothing: &str,
        listed: &Listed<T>,
        folded: bool,
        content: impl FnOnce(&mut Page, &Listed<T>),
    ) {
        if listed.is_empty() {
            if !nothing.is_empty() {
                self.line(&format!("### {title}\n\n{nothing}\n"));
            }
            return;
        }
        match folded {
            true => self.line(&format!("<details><summary>{title} ({})</summary>\n", listed.rows.len())),
            false => self.line(&format!("### {title}\n")),
        }
        content(self, listed);
        if folded {
            self.line("</details>\n");
        }
    }

    /// Columns whose name begins with `#` hold numbers.
    fn table<T>(&mut self, columns: &[&str], listed: &Listed<T>, row: impl Fn(&T) -> Vec<String>) {
        let names: Vec<&str> = columns.iter().map(|column| column.trim_start_matches('#')).collect();
        self.line(&format!("| {} |", names.join(" | ")));
        let rule = columns.iter().map(|column| if column.starts_with('#') { "--:|" } else { "---|" });
        self.line(&format!("|{}", rule.collect::<String>()));
        for entry in listed.rows.iter().take(self.rows) {
            self.line(&format!("| {} |", row(entry).join(" | ")));
        }
        let hidden = listed.rows.len().saturating_sub(self.rows);
        self.line("");
        if hidden > 0 {
            self.line(&format!("{} left out here.\n", count(hidden as u64, "row")));
        }
        if listed.omitted > 0 {
            let _ = writeln!(self.text, "{} more are counted, but have no row.\n", listed.omitted);
        }
    }
}

fn optional(text: Option<&str>) -> String {
    text.map(cell).unwrap_or_default()
}

/// Text from a record, in a cell of a table.
fn cell(text: &str) -> String {
    // Tables are cut into cells before code spans are seen. A backslash before the escape would undo it.
    code(text).replace("\\|", "\\\\u{7c}").replace('|', "\\|")
}

/// Text from a record: a code span, which nothing in it can end (CommonMark, section 6.1).
fn code(text: &str) -> String {
    let text = words::cut(&Shown(text).to_string(), LONGEST);
    let longest_run = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest_run + 1);
    let touches = text.starts_with(['`', ' ']) || text.ends_with(['`', ' ']);
    match text.as_str() {
        "" => String::new(),
        _ if touches => format!("{fence} {text} {fence}"),
        _ => format!("{fence}{text}{fence}"),
    }
}
