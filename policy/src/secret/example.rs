//! Examples of secrets, made when asked for, so that none stands in the source.
//!
//! A template is text in which `{24a}` stands for 24 pseudo-random characters of the set `a` (see `Class::named`),
//! `{24=x}` for 24 times `x`, and `{uuid}`, `{github}`, `{jwt}`, `{service-role}` and `{pair}` for what they say.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::checks::{base62, crc32};
use super::class::Class;

/// Writes a template out. Equal templates give equal text.
pub(crate) fn expand(template: &str) -> String {
    let mut random = Random(crc32(template.as_bytes()).into());
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        let expanded =
            after.split_once('}').and_then(|(name, tail)| Some((placeholder(name, &mut random)?, tail)));
        rest = match expanded {
            Some((value, tail)) => {
                text.push_str(&value);
                tail
            }
            None => {
                text.push('{');
                after
            }
        };
    }
    text + rest
}

fn placeholder(name: &str, random: &mut Random) -> Option<String> {
    match name {
        "uuid" => Some([8, 4, 4, 4, 12].map(|length| random.text(length, b'h')).join("-")),
        "github" => {
            let entropy = random.text(30, b'a');
            let sum = base62(crc32(entropy.as_bytes()));
            Some(format!("ghp_{entropy}{}", String::from_utf8_lossy(&sum)))
        }
        "jwt" => Some(web_token("{\"sub\":\"1234567890\",\"name\":\"A\"}", random)),
        "service-role" => {
            Some(web_token("{\"iss\":\"supabase\",\"role\":\"service_role\",\"iat\":1}", random))
        }
        "pair" => Some(STANDARD.encode(format!("deploy:{}9Zq", random.text(20, b'a')))),
        _ => repeated(name).or_else(|| {
            let (count, set) = name.split_at(name.len().checked_sub(1)?);
            Some(random.text(count.parse().ok()?, set.as_bytes()[0]))
        }),
    }
}

fn repeated(name: &str) -> Option<String> {
    let (count, text) = name.split_once('=')?;
    Some(text.repeat(count.parse().ok()?))
}

fn web_token(payload: &str, random: &mut Random) -> String {
    let header = "{\"alg\":\"HS256\",\"typ\":\"JWT\"}";
    format!(
        "{}.{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(payload),
        random.text(43, b'k')
    )
}

/// SplitMix64: small, and good enough for text that should look random.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    fn text(&mut self, length: usize, set: u8) -> String {
        let alphabet: Vec<u8> =
            Class::named(set).into_iter().flat_map(|class| class.bytes().collect::<Vec<_>>()).collect();
        (0..length).map(|_| alphabet[self.next() as usize % alphabet.len()] as char).collect()
    }
}
