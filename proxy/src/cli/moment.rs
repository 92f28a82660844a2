//! Times as people write and read them: `2h`, `2026-11-21T06:00:00Z`, `14:03:59`.

use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// A length of time as an argument: `90s`, `30m`, `2h`, `7d`, `1w`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

/// A moment as an argument: a length of time before now, a date, or a time in RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    /// That long ago.
    Ago(Duration),
    /// At that moment.
    At(Timestamp),
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let wrong = || format!("`{text}` is not a length of time; write `90s`, `30m`, `2h`, `7d` or `1w`");
        let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, unit) = text.split_at(split);
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 60 * 60,
            "d" => 24 * 60 * 60,
            "w" => 7 * 24 * 60 * 60,
            _ => return Err(wrong()),
        };
        let number: u32 = number.parse().map_err(|_| wrong())?;
        Ok(Span(Duration::from_secs(u64::from(number) * seconds)))
    }
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Since, String> {
        if let Ok(Span(ago)) = text.parse() {
            return Ok(Since::Ago(ago));
        }
        if let Ok(at) = text.parse::<Timestamp>() {
            return Ok(Since::At(at));
        }
        let midnight = text.parse::<Date>().and_then(|date| date.to_zoned(TimeZone::system()));
        // A date with a time but no offset also reads as a date; its time must not be dropped without a word.
        match midnight {
            Ok(midnight) if text.len() == "2026-11-21".len() => Ok(Since::At(midnight.timestamp())),
            _ => Err(format!("`{text}` is not a time; write `2h`, `2026-11-21` or `2026-11-21T06:00:00Z`")),
        }
    }
}

impl Since {
    /// The moment, in microseconds since the Unix epoch.
    pub(crate) fn microseconds(self, now: Timestamp) -> i64 {
        match self {
            Since::Ago(ago) => {
                now.as_microsecond().saturating_sub(i64::try_from(ago.as_micros()).unwrap_or(i64::MAX))
            }
            Since::At(at) => at.as_microsecond(),
        }
    }
}

/// A record's time for people, in their own time zone: the time of day, with the date where it is not today's.
pub(crate) fn shown(microseconds: i64, now: Timestamp) -> String {
    let Ok(time) = Timestamp::from_microsecond(microseconds) else { return microseconds.to_string() };
    let zone = TimeZone::system();
    let (time, now) = (time.to_zoned(zone.clone()), now.to_zoned(zone));
    let today = time.date() == now.date();
    time.strftime(if today { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" }).to_string()
}

/// A length of time for people: `0.4 s`, `12 s`, `3 min`, `2 h 5 min`, `3 d`.
pub(crate) fn lasted(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..=9 => format!("{:.1} s", duration.as_secs_f64()),
        10..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_people_write_them() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        for (text, moment) in [
            ("90s", "2026-11-21T11:58:30Z"),
            ("30m", "2026-11-21T11:30:00Z"),
            ("2h", "2026-11-21T10:00:00Z"),
            ("7d", "2026-11-14T12:00:00Z"),
            ("1w", "2026-11-14T12:00:00Z"),
            ("2026-11-21T06:00:00Z", "2026-11-21T06:00:00Z"),
            ("2026-11-21T06:00:00.123456+01:00", "2026-11-21T05:00:00.123456Z"),
        ] {
            let moment: Timestamp = moment.parse().unwrap();
            assert_eq!(text.parse::<Since>().unwrap().microseconds(now), moment.as_microsecond(), "`{text}`");
        }
        assert!(matches!("2026-11-21".parse::<Since>(), Ok(Since::At(_))));
    }

    #[test]
    fn what_is_no_moment_is_answered_with_the_right_spelling() {
        for text in ["", "2", "h", "-2h", "2 hours", "1.5h", "yesterday", "99999999999d", "2026-11-21T06:00"]
        {
            let error = text.parse::<Since>().unwrap_err();
            assert!(
                error.contains(&format!("`{text}`")) && error.contains("2026-11-21T06:00:00Z"),
                "{error}"
            );
        }
    }

    #[test]
    fn lengths_of_time_have_the_unit_that_fits() {
        for (seconds, text) in
            [(0.42, "0.4 s"), (75.0, "75 s"), (185.0, "3 min"), (7500.0, "2 h 5 min"), (260_000.0, "3 d")]
        {
            assert_eq!(lasted(Duration::from_secs_f64(seconds)), text);
        }
    }
}
