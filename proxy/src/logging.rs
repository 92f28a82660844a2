//! The program's own log: lines or objects on standard error, without anything a request could have put there.
//!
//! What libraries say below a warning is never written, at any verbosity: it holds header fields, names and bytes
//! that no redactor has seen. Our own events carry redacted text only. Control characters are escaped whoever
//! wrote them, so that no text can forge a line or move a terminal's cursor.

use std::io::{self, Write};

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::LogFormat;

/// Begins to log to standard error. Later calls change nothing.
pub fn start(format: LogFormat, verbosity: u8) {
    // An error only says that a log was begun before.
    let _ = tracing::subscriber::set_global_default(subscriber(format, verbosity, io::stderr));
}

fn subscriber<W>(format: LogFormat, verbosity: u8, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(verbosity))
        .with_ansi(false)
        .with_writer(Escaping(writer));
    match format {
        LogFormat::Text => Box::new(builder.with_target(verbosity > 1).finish()),
        LogFormat::Json => Box::new(builder.json().flatten_event(true).with_current_span(false).finish()),
    }
}

fn filter(verbosity: u8) -> EnvFilter {
    let level = match verbosity {
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    // Made of words of ours alone; `RUST_LOG` could switch the libraries' traces on, so it is not read.
    EnvFilter::builder().parse_lossy(format!("warn,outgate={level},policy={level}"))
}

/// Makes writers that escape what is not text. One event arrives in one write.
struct Escaping<W>(W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Escaping<W> {
    type Writer = EscapingWriter<W::Writer>;
    fn make_writer(&'a self) -> Self::Writer {
        EscapingWriter(self.0.make_writer())
    }
}

struct EscapingWriter<W>(W);

impl<W: Write> Write for EscapingWriter<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let line = event.strip_suffix(b"\n").unwrap_or(event);
        let mut text = escaped(&String::from_utf8_lossy(line));
        text.push('\n');
        self.0.write_all(text.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Text with control and direction-changing characters written out, in a spelling that JSON strings share.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            c if c.is_control()
                || matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                safe.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, verbosity: u8, events: impl FnOnce()) -> String {
        let memory = Memory::default();
        let writer = memory.clone();
        let subscriber = subscriber(format, verbosity, move || writer.clone());
        tracing::subscriber::with_default(subscriber, events);
        let bytes = memory.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn verbosity_opens_our_own_log_and_never_a_librarys() {
        for (verbosity, ours) in [(0, 1), (1, 2), (2, 3), (9, 3)] {
            let text = logged(LogFormat::Text, verbosity, || {
                tracing::info!(target: "outgate::gateway", "ours");
                tracing::debug!(target: "outgate::gateway", "ours");
                tracing::trace!(target: "policy", "ours");
                tracing::info!(target: "h2::codec", "authorization: library");
                tracing::debug!(target: "hyper::proto", "library");
                tracing::warn!(target: "rustls", "warning");
            });
            assert_eq!(text.matches("ours").count(), ours, "-v {verbosity}");
            assert!(!text.contains("library"), "-v {verbosity}");
            assert_eq!(text.matches("warning").count(), 1, "-v {verbosity}");
        }
    }

    #[test]
    fn no_text_forges_a_line_or_reaches_the_terminal() {
        let evil = "a\n2026-01-01 INFO forged\r\t\u{1b}[31m\u{7f}\u{9b}2J\u{202e}\u{2028}b é";
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = logged(format, 0, || tracing::info!(target: "outgate", host = %evil, "said {evil}"));
            assert_eq!(text.lines().count(), 1, "{text}");
            let line = text.trim_end_matches('\n');
            assert!(
                !line.contains(|c: char| c.is_control() || ('\u{2028}'..='\u{202e}').contains(&c)),
                "{line:?}"
            );
            assert!(line.contains("b é"), "{line}");
        }
    }

    #[test]
    fn json_lines_are_objects_with_level_message_and_fields() {
        let evil = "x\u{7f}\"\\\n";
        let text = logged(LogFormat::Json, 0, || tracing::warn!(target: "outgate", path = %evil, "noted"));
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(object["level"], "WARN");
        assert_eq!(object["message"], "noted");
        assert_eq!(object["path"], evil);
        assert!(object["timestamp"].is_string());
    }
}
