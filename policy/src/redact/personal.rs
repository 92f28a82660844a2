//! Card numbers, account numbers and mail addresses: no secrets of the operator's, but nothing for a record either.

use std::borrow::Cow;
use std::ops::Range;

/// The text with what is personal in it replaced by its kind.
pub(super) fn without_personal(text: &[u8]) -> Cow<'_, [u8]> {
    let mut kept = Vec::new();
    let mut copied = 0;
    let mut place = 0;
    while place < text.len() {
        let found = match text[place] {
            _ if place > 0 && is_word(text[place - 1]) && text[place] != b'@' => None,
            b'0'..=b'9' => card(text, place).map(|range| (range, "card-number")),
            b'A'..=b'Z' => iban(text, place).map(|range| (range, "account-number")),
            b'@' => address(text, place, copied).map(|range| (range, "email")),
            _ => None,
        };
        match found {
            Some((range, kind)) => {
                kept.extend_from_slice(&text[copied..range.start]);
                kept.extend_from_slice(format!("[redacted:{kind}]").as_bytes());
                copied = range.end;
                place = range.end;
            }
            None => place += 1,
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    kept.extend_from_slice(&text[copied..]);
    Cow::Owned(kept)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Thirteen to nineteen digits, in groups or not, of an issuer (ISO/IEC 7812) and with its check digit (Luhn).
fn card(text: &[u8], start: usize) -> Option<Range<usize>> {
    let mut digits = Vec::with_capacity(19);
    let mut end = start;
    for (offset, byte) in text[start..].iter().enumerate() {
        match byte {
            b'0'..=b'9' if digits.len() < 20 => {
                digits.push(byte - b'0');
                end = start + offset + 1;
            }
            b' ' | b'-' if end == start + offset => {}
            _ => break,
        }
    }
    let glued = text.get(end).is_some_and(|byte| is_word(*byte));
    (!glued && issued(&digits) && luhn(&digits)).then_some(start..end)
}

/// Whether an issuer of cards gives out numbers that begin so and have this length.
fn issued(digits: &[u8]) -> bool {
    let first =
        |count: usize| digits.iter().take(count).fold(0_u32, |number, digit| number * 10 + u32::from(*digit));
    let long = matches!(first(2), 50 | 56..=58 | 62 | 63 | 67);
    match digits.len() {
        13 | 19 if digits[0] == 4 => true,
        14 => matches!(first(2), 36 | 38 | 39) || matches!(first(3), 300..=305),
        15 => matches!(first(2), 34 | 37),
        16 => {
            digits[0] == 4
                || matches!(first(2), 51..=55 | 65)
                || matches!(first(4), 2221..=2720 | 3528..=3589 | 6011)
                || matches!(first(3), 644..=649)
                || long
        }
        17..=19 => long,
        _ => false,
    }
}

fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(index, digit)| match u32::from(*digit) * if index % 2 == 1 { 2 } else { 1 } {
            value @ 10.. => value - 9,
            value => value,
        })
        .sum();
    sum.is_multiple_of(10)
}

/// ISO 13616: country, two check digits, up to thirty letters and digits, in groups of four or not; modulo 97 is 1.
fn iban(text: &[u8], start: usize) -> Option<Range<usize>> {
    let head = text.get(start..start + 4)?;
    if !head[1].is_ascii_uppercase() || !head[2..].iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut characters = Vec::with_capacity(34);
    let mut ends = Vec::new();
    for (offset, byte) in text[start..].iter().enumerate() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' if characters.len() < 34 => {
                characters.push(*byte);
                ends.push(start + offset + 1);
            }
            b' ' if characters.len().is_multiple_of(4) => {}
            _ => break,
        }
    }
    // Words in capitals may follow: the longest beginning that checks is the number.
    (15..=characters.len())
        .rev()
        .find(|length| {
            let end = ends[length - 1];
            !text.get(end).is_some_and(|byte| is_word(*byte)) && modulo_97(&characters[..*length]) == 1
        })
        .map(|length| start..ends[length - 1])
}

fn modulo_97(characters: &[u8]) -> u32 {
    let (head, account) = characters.split_at(4);
    account.iter().chain(head).fold(0, |rest, character| match character {
        b'0'..=b'9' => (rest * 10 + u32::from(character - b'0')) % 97,
        letter => (rest * 100 + u32::from(letter - b'A') + 10) % 97,
    })
}

/// A mail address around an `@`.
fn address(text: &[u8], at: usize, floor: usize) -> Option<Range<usize>> {
    let local = text[floor..at]
        .iter()
        .rev()
        .take_while(|byte| byte.is_ascii_alphanumeric() || b"._%+-".contains(byte))
        .take(64);
    let start = at - local.count();
    let domain = text[at + 1..]
        .iter()
        .take_while(|byte| byte.is_ascii_alphanumeric() || b".-".contains(byte))
        .take(253)
        .count();
    let mut domain = &text[at + 1..at + 1 + domain];
    while let [rest @ .., b'.' | b'-'] = domain {
        domain = rest;
    }
    let top = domain.rsplit(|byte| *byte == b'.').next().unwrap_or_default();
    let named = domain.contains(&b'.') && top.len() >= 2 && top.iter().all(u8::is_ascii_alphabetic);
    (start < at && named).then_some(start..at + 1 + domain.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn personal_numbers_are_told_from_others_by_their_check_digits() {
        for (text, expected) in [
            ("pay 4111 1111 1111 1111 now", "pay [redacted:card-number] now"),
            ("4111111111111111", "[redacted:card-number]"),
            ("5500-0000-0000-0004.", "[redacted:card-number]."),
            ("378282246310005", "[redacted:card-number]"),
            ("4111111111111112", "4111111111111112"),
            ("id_4111111111111111", "id_4111111111111111"),
            ("1234567890123456", "1234567890123456"),
            ("to GB82 WEST 1234 5698 7654 32 please", "to [redacted:account-number] please"),
            ("DE89370400440532013000", "[redacted:account-number]"),
            ("DE88370400440532013000", "DE88370400440532013000"),
            ("mail ana@example.com.", "mail [redacted:email]."),
            ("git@host and a@b, @user", "git@host and a@b, @user"),
            ("a@example.com,b@example.org", "[redacted:email],[redacted:email]"),
        ] {
            assert_eq!(String::from_utf8_lossy(&without_personal(text.as_bytes())), expected, "{text}");
        }
    }
}
