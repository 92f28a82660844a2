//! What must hold of a value besides its shape.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use super::Check;

impl Check {
    /// Judges the part of a secret that no literal of its pattern accounts for; `whole` is all of it.
    pub(crate) fn holds(self, whole: &[u8], random: &[u8]) -> bool {
        match self {
            Self::Varied => varied(random),
            Self::Mixed => varied(random) && mixed(random),
            Self::LettersAndDigits => varied(random) && letters_and_digits(random),
            Self::Crc32 => crc32_suffix(whole) || varied(random) && mixed(random),
            Self::ServiceRole => payload_holds(whole, b"\"role\":\"service_role\""),
            Self::WebToken => part_holds(whole, 0, b"\"alg\""),
            Self::Password => password(whole),
            Self::BasicPair => basic_pair(whole),
        }
    }

    /// Judges the first bytes of a long run; what fails here could not hold.
    pub(crate) fn may_hold(self, beginning: &[u8]) -> bool {
        match self {
            Self::Varied | Self::Mixed | Self::LettersAndDigits => varied(beginning),
            _ => true,
        }
    }
}

/// Random values of this length have more different characters than placeholders do. Of 32 hexadecimal digits, the
/// poorest alphabet in use, fewer than eight are different once in ten million values.
fn varied(random: &[u8]) -> bool {
    let enough = if random.len() < 16 { 5 } else { 8 };
    different(random) >= enough && (random.iter().any(u8::is_ascii_digit) || both_cases(random))
}

fn different(bytes: &[u8]) -> u32 {
    let mut seen = [0_u64; 4];
    for byte in bytes {
        seen[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }
    seen.iter().map(|part| part.count_ones()).sum()
}

fn both_cases(bytes: &[u8]) -> bool {
    bytes.iter().any(u8::is_ascii_lowercase) && bytes.iter().any(u8::is_ascii_uppercase)
}

fn mixed(bytes: &[u8]) -> bool {
    both_cases(bytes) && bytes.iter().any(u8::is_ascii_digit)
}

fn letters_and_digits(bytes: &[u8]) -> bool {
    bytes.iter().any(u8::is_ascii_alphabetic) && bytes.iter().any(u8::is_ascii_digit)
}

/// Whether the last six characters are the CRC-32 of those between the underscore and them, in base 62.
///
/// A right one proves a real token. A wrong one does not clear a value that looks random: issuers have changed what
/// they sum up before, and a token with one letter mistyped is still most of a token.
fn crc32_suffix(token: &[u8]) -> bool {
    let Some(underscore) = token.iter().position(|byte| *byte == b'_') else { return false };
    let Some((entropy, sum)) = token[underscore + 1..].split_last_chunk::<6>() else { return false };
    base62(crc32(entropy)) == *sum
}

/// CRC-32 as in zip and PNG (reflected, polynomial `0xEDB88320`).
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| sum >> 1 ^ if sum & 1 == 1 { 0xEDB8_8320 } else { 0 })
    })
}

/// Six characters of `0-9A-Za-z`, padded with zeros.
pub(crate) fn base62(mut number: u32) -> [u8; 6] {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut digits = [b'0'; 6];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[(number % 62) as usize];
        number /= 62;
    }
    digits
}

fn payload_holds(token: &[u8], needle: &[u8]) -> bool {
    part_holds(token, 1, needle)
}

/// Whether one part of a JSON Web Token (RFC 7519) decodes to text that holds `needle`, spaces aside.
fn part_holds(token: &[u8], part: usize, needle: &[u8]) -> bool {
    let Some(part) = token.split(|byte| *byte == b'.').nth(part) else { return false };
    let Ok(mut json) = URL_SAFE_NO_PAD.decode(part) else { return false };
    json.retain(|byte| *byte != b' ');
    memchr::memmem::find(&json, needle).is_some()
}

/// Passwords that stand in examples, not in use; digits may follow.
const PLACEHOLDERS: [&str; 20] = [
    "admin",
    "change-me",
    "change_me",
    "changeme",
    "example",
    "guest",
    "my-password",
    "mypassword",
    "mysecretpassword",
    "pass",
    "passw0rd",
    "passwd",
    "password",
    "postgres",
    "root",
    "secret",
    "test",
    "user",
    "your-password",
    "your_password",
];

/// Whether this is a password in use: not a placeholder, not a variable, not a plain word or number.
fn password(value: &[u8]) -> bool {
    let variable = value.starts_with(b"$") || value.starts_with(b"%(") || value.starts_with(b"%s");
    let kinds = [u8::is_ascii_lowercase, u8::is_ascii_uppercase, u8::is_ascii_digit, |byte: &u8| {
        byte.is_ascii_punctuation()
    }]
    .iter()
    .filter(|kind| value.iter().any(kind))
    .count();
    !variable
        && kinds >= 2
        && different(value) >= 4
        && !PLACEHOLDERS.iter().any(|word| word_of(value).eq_ignore_ascii_case(word.as_bytes()))
}

fn word_of(mut value: &[u8]) -> &[u8] {
    while let [rest @ .., b'0'..=b'9'] = value {
        value = rest;
    }
    value
}

/// Whether base64 stands for `user:password` in printable characters.
fn basic_pair(value: &[u8]) -> bool {
    let unpadded = value.strip_suffix(b"==").or_else(|| value.strip_suffix(b"=")).unwrap_or(value);
    let Ok(pair) = STANDARD_NO_PAD.decode(unpadded) else { return false };
    let Some(colon) = pair.iter().position(|byte| *byte == b':') else { return false };
    colon > 0
        && pair.len() - colon > 6
        && pair.iter().all(|byte| (b' '..=b'~').contains(byte))
        && password(&pair[colon + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_of_zip() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(&base62(0), b"000000");
        assert_eq!(&base62(u32::MAX), b"4gfFC3");
    }

    #[test]
    fn passwords_are_told_from_placeholders() {
        for (value, real) in [
            ("S3cr3t-of-2024", true),
            ("aB3xY9", true),
            ("password", false),
            ("Password123", false),
            ("changeme", false),
            ("$DB_PASSWORD", false),
            ("%s-1234", false),
            ("xxxxxx", false),
            ("123456", false),
            ("*****1", false),
        ] {
            assert_eq!(password(value.as_bytes()), real, "{value}");
        }
    }
}
