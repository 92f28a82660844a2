//! How values are shown to people, on terminals and in reports: text from outside, bytes, numbers of things.

use std::fmt::{self, Display, Write as _};

/// Text from outside, safe to show: what would move the cursor, change colours, reverse the line or be invisible
/// is written as an escape, so that a path or a label cannot forge a line of a table.
pub(crate) struct Shown<'a>(pub(crate) &'a str);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match steers(character) {
                true => write!(f, "{}", character.escape_unicode())?,
                false => f.write_char(character)?,
            }
        }
        Ok(())
    }
}

/// Control characters (C0, DEL, C1), line and paragraph separators, zero-width characters, tags, and the marks of
/// Unicode's bidirectional algorithm (UAX #9).
fn steers(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// A number of bytes for people: `0 B`, `812 B`, `1.5 KiB`, `32.0 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would be printed as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// How much was sent of how much may be. What was stopped at its limit has not said how much it would have been.
pub(crate) fn over_limit(count: u64, limit: u64) -> String {
    let (sent, limit) = (bytes(count), bytes(limit));
    if sent == limit {
        format!("more than the limit of {limit}")
    } else {
        format!("{sent} over the limit of {limit}")
    }
}

/// One thing or several: `1 request`, `2 requests`.
pub(crate) fn count(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_cannot_steer_the_terminal() {
        for (given, shown) in [
            ("plain/päth?x=1", "plain/päth?x=1"),
            ("\u{1b}[2Jgone", "\\u{1b}[2Jgone"),
            ("one\r\ntwo", "one\\u{d}\\u{a}two"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("\u{7f}", "\\u{7f}"),
            ("gpj.\u{202e}exe", "gpj.\\u{202e}exe"),
            ("a\u{200b}b", "a\\u{200b}b"),
            ("\u{2066}x\u{2069}", "\\u{2066}x\\u{2069}"),
            ("\u{feff}", "\\u{feff}"),
            ("a\u{ad}b\u{e0041}", "a\\u{ad}b\\u{e0041}"),
        ] {
            assert_eq!(Shown(given).to_string(), shown);
        }
    }

    #[test]
    fn what_was_stopped_at_its_limit_is_not_said_to_be_as_large() {
        assert_eq!(over_limit(3 << 20, 1 << 20), "3.0 MiB over the limit of 1.0 MiB");
        assert_eq!(over_limit((1 << 20) + 7, 1 << 20), "more than the limit of 1.0 MiB");
    }

    #[test]
    fn bytes_are_given_in_the_unit_that_fits() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1_048_575, "1.0 MiB"),
            (32 << 20, "32.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }
}
