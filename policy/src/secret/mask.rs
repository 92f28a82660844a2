//! Writing over a secret without changing a length or breaking the encoding around it.

use super::cursor::{BASE64, View, sextet};

/// What a secret's bytes become. It needs no escape in a URL, a form, JSON or a shell's double quotes.
const STAR: u8 = b'*';

/// As many bytes as `raw`, in which the secret of `length` decoded bytes is stars. `bit` bits of the first character
/// of base64 are not the secret's; the bits around it stay as they are.
pub(crate) fn over(raw: &[u8], view: View, bit: u8, length: usize) -> Vec<u8> {
    match view {
        View::Text | View::Hex => raw.iter().map(|byte| fill(*byte, view)).collect(),
        View::Base64(_) => over_base64(raw, bit, length),
    }
}

/// What one raw byte within a secret becomes. Line ends stay: they hold no secret, and formats hang on them.
pub(crate) fn fill(byte: u8, view: View) -> u8 {
    match (byte, view) {
        (b'\r' | b'\n', _) => byte,
        (_, View::Text) => STAR,
        // Pairs of it decode to a letter.
        (_, View::Hex) => b'5',
        (b'\\' | b'=', View::Base64(_)) => byte,
        (_, View::Base64(_)) => b'A',
    }
}

fn over_base64(raw: &[u8], bit: u8, length: usize) -> Vec<u8> {
    let secret = u64::from(bit)..u64::from(bit) + 8 * length as u64;
    let mut position = 0;
    raw.iter()
        .map(|byte| {
            let Some(bits) = sextet(*byte) else { return *byte };
            let mut covered = 0;
            for index in 0..6 {
                let at = position + index;
                if secret.contains(&at) {
                    let star = STAR >> (7 - (at - secret.start) % 8) & 1;
                    covered |= 1 << (5 - index);
                    if star == 1 {
                        covered |= 1 << (13 - index);
                    }
                }
            }
            position += 6;
            let (cover, stars) = ((covered & 0x3f) as u8, (covered >> 8) as u8);
            let value = bits & !cover | stars;
            match BASE64[usize::from(value)] {
                b'+' if matches!(byte, b'-' | b'_') => b'-',
                b'/' if matches!(byte, b'-' | b'_') => b'_',
                other => other,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    #[test]
    fn base64_around_a_masked_secret_decodes_to_what_it_was() {
        for before in 0..4 {
            for after in 0..4 {
                let plain = format!("{}SECRET{}", "x".repeat(before), "y".repeat(after));
                let encoded = STANDARD.encode(&plain);
                let start = before * 8 / 6;
                let end = ((before + 6) * 8).div_ceil(6);
                let bit = (before * 8 % 6) as u8;
                let masked = over(&encoded.as_bytes()[start..end], View::Base64(bit), bit, 6);
                let whole =
                    format!("{}{}{}", &encoded[..start], String::from_utf8_lossy(&masked), &encoded[end..]);
                let expected = plain.replace("SECRET", "******");
                assert_eq!(STANDARD.decode(&whole).expect("still base64"), expected.as_bytes(), "{plain}");
            }
        }
    }

    #[test]
    fn line_ends_stay() {
        assert_eq!(over(b"ab\r\ncd", View::Text, 0, 6), b"**\r\n**");
    }
}
