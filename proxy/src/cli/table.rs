//! Tables for people: aligned columns, a quiet header, one column that gives way on a narrow terminal.

use owo_colors::{OwoColorize, Style};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::Failure;
use super::output::{self, Shown};

/// Between two columns.
const GAP: &str = "  ";
/// What a column that gives way keeps at least.
const NARROWEST: usize = 12;

/// A table that is printed in one go, or in batches as rows come in: columns only ever grow, and on a terminal stay as
/// the first batch made them, so that later rows stand under the header and fit.
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
    header_due: bool,
    frozen: Option<Vec<usize>>,
}

/// One column.
pub(crate) struct Column {
    title: &'static str,
    right: bool,
    gives_way: bool,
    /// What it keeps at least where it gives way.
    floor: usize,
    /// How its cells are cut to a width.
    cut: fn(&str, usize) -> String,
    width: usize,
}

/// One cell: text made safe to show, and how it is coloured.
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Column {
    /// A column of text.
    pub(crate) fn new(title: &'static str) -> Column {
        let (right, gives_way) = (false, false);
        Column { title, right, gives_way, floor: NARROWEST, cut: shortened, width: title.width() }
    }

    /// A column of numbers.
    pub(crate) fn right(title: &'static str) -> Column {
        Column { right: true, ..Column::new(title) }
    }

    /// A column that is shortened where the terminal is too narrow for all.
    pub(crate) fn gives_way(title: &'static str) -> Column {
        Column { gives_way: true, ..Column::new(title) }
    }

    /// Gives way only so far.
    pub(crate) fn floor(self, floor: usize) -> Column {
        Column { floor, ..self }
    }

    /// Is cut otherwise than at the end.
    pub(crate) fn cut_by(self, cut: fn(&str, usize) -> String) -> Column {
        Column { cut, ..self }
    }

    /// Holds this many characters from the first row on, for rows that are yet to come.
    pub(crate) fn at_least(self, width: usize) -> Column {
        Column { width: self.width.max(width), ..self }
    }
}

impl Cell {
    /// Text in a colour.
    pub(crate) fn styled(text: impl AsRef<str>, style: Style) -> Cell {
        Cell { text: Shown(text.as_ref()).to_string(), style }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Cell {
        Cell::styled(text, Style::new())
    }
}

impl Table {
    /// An empty table.
    pub(crate) fn new(columns: impl Into<Vec<Column>>) -> Table {
        Table { columns: columns.into(), rows: Vec::new(), header_due: true, frozen: None }
    }

    /// Adds a row: a cell for each column.
    pub(crate) fn row(&mut self, cells: impl Into<Vec<Cell>>) {
        let cells = cells.into();
        debug_assert_eq!(cells.len(), self.columns.len());
        for (column, cell) in self.columns.iter_mut().zip(&cells) {
            column.width = column.width.max(cell.text.width());
        }
        self.rows.push(cells);
    }

    /// Prints the rows added since it was last printed, under a header the first time.
    ///
    /// # Errors
    /// As [`output::line`].
    pub(crate) fn print(&mut self) -> Result<(), Failure> {
        let text = self.take(output::terminal_width());
        output::text(&text)
    }

    /// As [`Table::print`] would print it.
    pub(crate) fn text(&mut self) -> String {
        self.take(output::terminal_width())
    }

    /// The rows added since it was last taken, as they fit a terminal of so many columns; the header before the first.
    pub(crate) fn take(&mut self, terminal: Option<usize>) -> String {
        let widths = self.frozen.clone().unwrap_or_else(|| self.widths(terminal));
        self.frozen = terminal.map(|_| widths.clone());
        let mut lines = String::new();
        if std::mem::take(&mut self.header_due) {
            let titles = self.columns.iter().map(|column| Cell::styled(column.title, Style::new().dimmed()));
            lines += &self.format(&titles.collect::<Vec<_>>(), &widths);
        }
        for row in std::mem::take(&mut self.rows) {
            lines += &self.format(&row, &widths);
        }
        lines
    }

    /// The widths of the columns, after those that give way gave what the terminal lacks.
    fn widths(&self, terminal: Option<usize>) -> Vec<usize> {
        let mut widths: Vec<usize> = self.columns.iter().map(|column| column.width).collect();
        let Some(terminal) = terminal else { return widths };
        let total = widths.iter().sum::<usize>() + GAP.len() * widths.len().saturating_sub(1);
        let mut lacking = total.saturating_sub(terminal);
        for (column, width) in self.columns.iter().zip(&mut widths).rev() {
            if column.gives_way {
                let given = lacking.min(width.saturating_sub(column.floor));
                *width -= given;
                lacking -= given;
            }
        }
        widths
    }

    fn format(&self, cells: &[Cell], widths: &[usize]) -> String {
        let mut line = String::new();
        let mut owed = 0;
        for ((column, cell), &width) in self.columns.iter().zip(cells).zip(widths) {
            let text =
                if cell.text.width() <= width { cell.text.clone() } else { (column.cut)(&cell.text, width) };
            let padding = width.saturating_sub(text.width());
            let (before, after) = if column.right { (padding, 0) } else { (0, padding) };
            // Padding is owed until something follows it, so that no line ends in spaces.
            if !text.is_empty() {
                line += &" ".repeat(owed + before);
                line += &text.style(cell.style).to_string();
                owed = after;
            } else {
                owed += width;
            }
            owed += GAP.len();
        }
        line.push('\n');
        line
    }
}

/// Text cut to a width, with a mark where something was cut.
pub(super) fn shortened(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut used = 1;
    for character in text.chars() {
        used += character.width().unwrap_or(0);
        if used > width {
            break;
        }
        kept.push(character);
    }
    kept + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(table: &mut Table, terminal: Option<usize>) -> String {
        anstream::adapter::strip_str(&table.take(terminal)).to_string()
    }

    #[test]
    fn columns_are_aligned_and_lines_do_not_end_in_spaces() {
        let mut table = Table::new([Column::new("WHERE"), Column::right("BYTES"), Column::new("WHY")]);
        table.row(["api.example".into(), "5".into(), "".into()]);
        table.row(["ä.example".into(), "1024".into(), "rule".into()]);
        let expected = "\
WHERE        BYTES  WHY
api.example      5
ä.example     1024  rule
";
        assert_eq!(plain(&mut table, None), expected);
    }

    #[test]
    fn a_narrow_terminal_shortens_only_the_column_that_gives_way() {
        let mut table = Table::new([Column::gives_way("PATH"), Column::new("REASON")]);
        table.row(["/a/very/long/path/to/something".into(), "allowed_by_rule".into()]);
        let expected = "\
PATH             REASON
/a/very/long/p…  allowed_by_rule
";
        assert_eq!(plain(&mut table, Some(32)), expected);
    }

    #[test]
    fn later_batches_keep_the_columns_and_have_no_header() {
        let mut table = Table::new([Column::new("A").at_least(4), Column::new("B")]);
        table.row(["1".into(), "2".into()]);
        assert_eq!(plain(&mut table, None), "A     B\n1     2\n");
        table.row(["123456".into(), "3".into()]);
        assert_eq!(plain(&mut table, None), "123456  3\n");
        table.row(["1".into(), "4".into()]);
        assert_eq!(plain(&mut table, None), "1       4\n");
    }

    #[test]
    fn on_a_terminal_later_batches_are_cut_to_the_columns_of_the_first() {
        let mut table = Table::new([Column::new("A").at_least(4), Column::new("B")]);
        table.row(["1".into(), "2".into()]);
        assert_eq!(plain(&mut table, Some(40)), "A     B\n1     2\n");
        table.row(["123456".into(), "3".into()]);
        assert_eq!(plain(&mut table, Some(40)), "123…  3\n");
    }

    #[test]
    fn a_cell_cannot_forge_a_row() {
        let mut table = Table::new([Column::new("PATH")]);
        table.row(["/x\nallow".into()]);
        assert_eq!(plain(&mut table, None).lines().count(), 2);
    }
}
