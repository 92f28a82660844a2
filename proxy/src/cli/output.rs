//! How commands speak: lines on standard output, notes on standard error, nothing that could steer a terminal.
//!
//! Everything goes through `anstream`, which drops colours where the stream is no terminal or `NO_COLOR` is set.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use owo_colors::{OwoColorize, Style};
use policy::verdict::Action;
use serde::Serialize;

use super::Failure;
pub(crate) use crate::shown::{Shown, bytes, count, over_limit};

/// Writes one line to standard output.
///
/// # Errors
/// [`Failure::Closed`] where the reader has gone, as behind `| head`.
pub(crate) fn line(text: impl Display) -> Result<(), Failure> {
    writeln!(anstream::stdout().lock(), "{text}").map_err(Failure::from_output)
}

/// Writes text as it is to standard output.
///
/// # Errors
/// As [`line`].
pub(crate) fn text(text: &str) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::from_output)
}

/// Writes a value as indented JSON.
///
/// # Errors
/// As [`line`].
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    line(serde_json::to_string_pretty(value).map_err(Failure::failed)?)
}

/// Writes a value as JSON on a line of its own.
///
/// # Errors
/// As [`line`].
pub(crate) fn json_line(value: &impl Serialize) -> Result<(), Failure> {
    line(serde_json::to_string(value).map_err(Failure::failed)?)
}

/// Tells the person at the terminal something that is not the command's result.
pub(crate) fn note(text: impl Display) {
    // Nobody is left to be told where standard error is closed.
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// The one error a command ends with.
pub(crate) fn error(message: &str) {
    note(format_args!("{} {message}", "error:".red().bold()));
}

/// Columns of the terminal that standard output is, if it is one.
pub(crate) fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// How far something is that takes its time: on a terminal only, and only once it has taken a second.
pub(crate) struct Progress {
    what: &'static str,
    /// How many there are, where that is known.
    all: Option<u64>,
    began: Instant,
    shown: Option<Instant>,
    terminal: bool,
}

impl Progress {
    /// Something that begins now.
    pub(crate) fn new(what: &'static str) -> Progress {
        Progress { what, all: None, began: Instant::now(), shown: None, terminal: io::stderr().is_terminal() }
    }

    /// It will have come to its end at so many.
    pub(crate) fn of(&mut self, all: u64) {
        self.all = Some(all).filter(|all| *all > 0);
    }

    /// It has come so far.
    pub(crate) fn at(&mut self, count: u64) {
        let since = self.shown.unwrap_or(self.began).elapsed();
        let due = if self.shown.is_some() { Duration::from_millis(100) } else { Duration::from_secs(1) };
        if self.terminal && since >= due {
            self.shown = Some(Instant::now());
            // Carriage return and "erase to the end of the line".
            let _ = write!(io::stderr(), "\r{}{count} {}\x1b[K", self.bar(count), self.what);
        }
    }

    fn bar(&self, count: u64) -> String {
        const WIDTH: u64 = 30;
        let Some(all) = self.all else { return String::new() };
        let done = count.min(all);
        let filled = usize::try_from(done * WIDTH / all).unwrap_or(0);
        let left = usize::try_from(WIDTH).unwrap_or(0) - filled;
        let rate = count as f64 / self.began.elapsed().as_secs_f64().max(0.001);
        format!("{}{} {:>3} %, {rate:.0}/s, ", "█".repeat(filled), "░".repeat(left), done * 100 / all,)
    }

    /// It is over; nothing of it stays.
    pub(crate) fn end(&self) {
        if self.shown.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// The colour of an action, the same wherever one is shown.
pub(crate) fn style_of(action: Action) -> Style {
    match action {
        Action::Allow => Style::new().green(),
        Action::Ask => Style::new().yellow(),
        Action::Deny => Style::new().red(),
    }
}

/// Text that stands out.
pub(crate) fn bold(text: &str) -> String {
    text.bold().to_string()
}
