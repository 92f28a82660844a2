//! Sizes and durations as people write them: `1 MiB`, `10m`.

const UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const PERIODS: [(&str, u32); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

/// The longest upload window, in seconds: a week.
const WINDOW_LIMIT: u32 = 7 * 86_400;

/// Bytes of a size: `1 MiB`, `64 KiB`, `512 B`, `512`.
///
/// # Errors
/// What is wrong, to be read after the text.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let factor = match unit {
        "" => Some(1),
        unit => UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor),
    };
    let size = number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    // The store and the rings of the window count in signed 64 bits.
    if let Some(size) = size.filter(|size| i64::try_from(*size).is_ok()) {
        return Ok(size);
    }
    match (number.is_empty(), near_unit(unit)) {
        (false, Some(near)) if near != unit => Err(format!("is not a size: write `{number} {near}`")),
        _ => Err("is not a size: write `1 MiB`, `64 KiB` or a number of bytes".to_owned()),
    }
}

fn near_unit(unit: &str) -> Option<&'static str> {
    let first = unit.chars().next()?.to_ascii_lowercase();
    let near = UNITS.iter().find(|(name, _)| name.to_ascii_lowercase().starts_with(first))?;
    (unit.len() <= 4).then_some(near.0)
}

/// Seconds of an upload window: `30s`, `10m`, `2h`, `1d`.
///
/// # Errors
/// What is wrong, to be read after the text.
pub(super) fn parse_window(text: &str) -> Result<u32, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = PERIODS.iter().find(|(name, _)| *name == unit.trim_start()).map(|(_, factor)| *factor);
    let seconds =
        number.parse::<u32>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    match seconds {
        Some(0) => Err("is no time at all: write `1s` or more".to_owned()),
        Some(seconds) if seconds > WINDOW_LIMIT => Err("is too long: write `7d` or less".to_owned()),
        Some(seconds) => Ok(seconds),
        None => Err("is not a duration: write `30s`, `10m`, `2h` or `1d`".to_owned()),
    }
}

/// A size in the largest unit that leaves a whole number.
pub(super) fn print_size(bytes: u64) -> String {
    match UNITS.iter().find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{} {unit}", bytes / factor),
        None => format!("{bytes} B"),
    }
}

/// A duration in the largest unit that leaves a whole number.
pub(super) fn print_window(seconds: u32) -> String {
    match PERIODS.iter().find(|(_, factor)| seconds >= *factor && seconds.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", seconds / factor),
        None => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_printed() {
        for (text, bytes, printed) in [
            ("1 MiB", 1 << 20, "1 MiB"),
            ("1MiB", 1 << 20, "1 MiB"),
            ("1024 KiB", 1 << 20, "1 MiB"),
            ("64 KiB", 65_536, "64 KiB"),
            ("1500", 1500, "1500 B"),
            ("0", 0, "0 B"),
            ("2 GiB", 2 << 30, "2 GiB"),
            ("3 TiB", 3 << 40, "3 TiB"),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
            assert_eq!(print_size(bytes), printed);
            assert_eq!(parse_size(printed), Ok(bytes), "{printed}");
        }
        for (text, message) in [
            ("1 MB", "is not a size: write `1 MiB`"),
            ("1 mib", "is not a size: write `1 MiB`"),
            ("64k", "is not a size: write `64 KiB`"),
            ("MiB", "is not a size: write `1 MiB`, `64 KiB` or a number of bytes"),
            ("1.5 MiB", "is not a size: write `1 MiB`, `64 KiB` or a number of bytes"),
            ("-1", "is not a size: write `1 MiB`, `64 KiB` or a number of bytes"),
            ("99999999 TiB", "is not a size: write `1 MiB`, `64 KiB` or a number of bytes"),
            ("", "is not a size: write `1 MiB`, `64 KiB` or a number of bytes"),
        ] {
            assert_eq!(parse_size(text).unwrap_err(), message, "{text}");
        }
    }

    #[test]
    fn windows_are_read_and_printed() {
        for (text, seconds, printed) in [
            ("10m", 600, "10m"),
            ("600s", 600, "10m"),
            ("90s", 90, "90s"),
            ("2h", 7200, "2h"),
            ("1d", 86_400, "1d"),
        ] {
            assert_eq!(parse_window(text), Ok(seconds), "{text}");
            assert_eq!(print_window(seconds), printed);
        }
        for (text, message) in [
            ("0s", "is no time at all: write `1s` or more"),
            ("8d", "is too long: write `7d` or less"),
            ("10", "is not a duration: write `30s`, `10m`, `2h` or `1d`"),
            ("10 minutes", "is not a duration: write `30s`, `10m`, `2h` or `1d`"),
            ("m", "is not a duration: write `30s`, `10m`, `2h` or `1d`"),
            ("99999999999h", "is not a duration: write `30s`, `10m`, `2h` or `1d`"),
        ] {
            assert_eq!(parse_window(text).unwrap_err(), message, "{text}");
        }
    }
}
