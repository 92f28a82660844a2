//! International names, as people write them in a policy, into the A-labels that stand on the wire.

/// The A-label form of a name, in lower case.
///
/// Letters that mapping would change or drop (a Kelvin sign, a zero-width space, full-width letters, a decomposed
/// accent) are refused: a reviewer cannot see them. Case may be folded where folding can be undone.
///
/// # Errors
/// What is wrong, to be read after the name, with the right spelling.
pub(crate) fn to_ascii(name: &str) -> Result<String, String> {
    if name.is_ascii() {
        return Ok(name.to_ascii_lowercase());
    }
    let folded: String = name.chars().map(fold).collect();
    let (mapped, well_formed) = idna::domain_to_unicode(&folded);
    let ascii = idna::domain_to_ascii_cow(folded.as_bytes(), idna::AsciiDenyList::EMPTY);
    let (Ok(()), Ok(ascii)) = (well_formed, ascii) else {
        return Err("has letters that no international name may have".to_owned());
    };
    if mapped == folded {
        return Ok(ascii.into_owned());
    }
    let odd: Vec<String> = folded
        .chars()
        .filter(|letter| !letter.is_ascii() && !mapped.contains(*letter))
        .map(|letter| format!("U+{:04X}", u32::from(letter)))
        .collect();
    let spelling = if mapped.is_ascii() { format!("`{mapped}`") } else { format!("`{mapped}` (`{ascii}`)") };
    let odd = if odd.is_empty() { "a sequence".to_owned() } else { odd.join(", ") };
    Err(format!("has {odd}, which names do not keep: write {spelling}"))
}

/// Lower case, where upper case leads back.
fn fold(letter: char) -> char {
    let single = |mut letters: std::char::ToLowercase| match (letters.next(), letters.next()) {
        (Some(lower), None) => Some(lower),
        _ => None,
    };
    match single(letter.to_lowercase()) {
        Some(lower) if lower.to_uppercase().eq([letter]) => lower,
        _ => letter,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_a_labels() {
        for (given, ascii) in [
            ("Docs.RS", "docs.rs"),
            ("m\u{fc}nchen.example", "xn--mnchen-3ya.example"),
            ("M\u{dc}NCHEN.example", "xn--mnchen-3ya.example"),
            ("\u{430}.test", "xn--80a.test"),
            ("stra\u{df}e.example", "xn--strae-oqa.example"),
            ("\u{4f8b}\u{3048}.test", "xn--r8jz45g.test"),
            ("xn--80a.test", "xn--80a.test"),
        ] {
            assert_eq!(to_ascii(given).as_deref(), Ok(ascii), "{given}");
        }
    }

    #[test]
    fn letters_that_mapping_changes_are_refused_with_the_right_spelling() {
        for (given, message) in [
            ("\u{212a}.test", "has U+212A, which names do not keep: write `k.test`"),
            ("git\u{200b}hub.com", "has U+200B, which names do not keep: write `github.com`"),
            ("\u{ff47}ithub.com", "has U+FF47, which names do not keep: write `github.com`"),
            ("github\u{3002}com", "has U+3002, which names do not keep: write `github.com`"),
            ("git\u{ad}hub.com", "has U+00AD, which names do not keep: write `github.com`"),
            ("\u{212b}.test", "has U+212B, which names do not keep: write `\u{e5}.test` (`xn--5ca.test`)"),
            (
                "mu\u{308}nchen.example",
                "has U+0308, which names do not keep: write `m\u{fc}nchen.example` (`xn--mnchen-3ya.example`)",
            ),
            ("a\u{2028}.test", "has letters that no international name may have"),
        ] {
            assert_eq!(to_ascii(given), Err(message.to_owned()), "{given}");
        }
    }
}
