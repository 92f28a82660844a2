//! Whatever goes into a record: no eight bytes of a secret survive, on any way in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use policy::redact::Redactor;
use policy::scan::{DigestKey, Place, Scanner, SecretAction};
use policy::secret::{Detector, Exempt, KnownValue, Secrets};
use proptest::prelude::*;

const KNOWN: &str = "kn0wn \"Value\"/of%2Fthe+operator";

fn secrets() -> std::sync::Arc<Secrets> {
    let known = KnownValue::new("env:KNOWN", KNOWN.as_bytes()).expect("worth looking for");
    std::sync::Arc::new(Secrets::new(vec![known]))
}

/// The parts of a text that the scanner would write over.
fn secret_parts(text: &str) -> Vec<String> {
    let key = DigestKey::new([1; 32]);
    let mut scanner = Scanner::new(secrets(), key, SecretAction::Mask, Exempt::none(), Place::Body);
    let mut out = Vec::new();
    scanner.push(Bytes::copy_from_slice(text.as_bytes()), &mut out).expect("mask lets pass");
    scanner.finish(&mut out).expect("mask lets pass");
    let masked = out.concat();
    let mut parts = vec![String::new()];
    for (now, before) in masked.iter().zip(text.bytes()) {
        let last = parts.last_mut().expect("one is there from the start");
        match *now == before && before != b'*' {
            true if last.is_empty() => {}
            true => parts.push(String::new()),
            false => last.push(char::from(before)),
        }
    }
    parts
}

fn assert_clean(way: &str, text: &str, parts: &[String]) {
    // A detector's name may be part of its prefix.
    let text: String =
        text.split("[redacted:").map(|rest| rest.split_once(']').map_or(rest, |(_, rest)| rest)).collect();
    for part in parts {
        // Words are of the prefix, which is public.
        let is_word = |window: &&[u8]| {
            let all =
                |letter: fn(&u8) -> bool| window.iter().all(|byte| letter(byte) || b"_-".contains(byte));
            all(u8::is_ascii_lowercase) || all(u8::is_ascii_uppercase)
        };
        for window in part.as_bytes().windows(8).filter(|window| !is_word(window)) {
            let window = String::from_utf8_lossy(window);
            assert!(!text.contains(&*window), "{way}: {window:?} survives in {text}");
        }
    }
}

#[test]
fn no_eight_bytes_of_any_detectors_example_survive() {
    let redactor = Redactor::new(secrets());
    for detector in Detector::all() {
        for example in detector.examples() {
            let parts = secret_parts(&example);
            assert!(
                detector.records_only() || parts.iter().any(|part| part.len() >= 8),
                "{detector} {parts:?}"
            );
            for (way, text) in [
                ("text", redactor.text(format!("a {example} b"))),
                ("bytes", redactor.text([b"\xff\0", example.as_bytes(), b"\xfe"].concat())),
                ("path", redactor.path(format!("/v1/{example}?x"))),
                ("query", redactor.path(format!("/v1?k={example}"))),
                ("bare query", redactor.path(format!("/v1?{example}"))),
                ("url", redactor.url(format!("https://h.example/{example}?a={example}#{example}"))),
                (
                    "user info",
                    redactor.url(format!("https://me:{}@h.example/", example.replace(['/', '?', '#'], ""))),
                ),
                ("header", redactor.header_value("user-agent", format!("agent {example}"))),
                ("other header", redactor.header_value("x-api-key", &example)),
                ("referer", redactor.header_value("referer", format!("https://h.example/?t={example}"))),
                ("excerpt", redactor.excerpt(format!("{{\"a\":\"{example}\"}}").as_bytes(), 4096).0),
                ("excerpt cut short", redactor.excerpt(format!("....{example}").as_bytes(), 40).0),
            ] {
                assert_clean(&format!("{detector} in {way}"), text.as_str(), &parts);
            }
        }
    }
}

#[test]
fn a_value_with_a_question_mark_is_taken_out_of_a_path_whole() {
    let value = "sup3rSecre?t&Value=12#34/56@78";
    let known = KnownValue::new("env:KNOWN", value.as_bytes()).expect("worth looking for");
    let redactor = Redactor::new(std::sync::Arc::new(Secrets::new(vec![known])));
    for (path, expected) in [
        (format!("/a/{value}"), "/a/[redacted:known:env:KNOWN]"),
        (format!("/a/{value}?b=c"), "/a/[redacted:known:env:KNOWN]?b=[redacted:query]"),
        (format!("/a?b={value}"), "/a?b=[redacted:query]"),
    ] {
        assert_eq!(redactor.path(&path).as_str(), expected, "{path}");
        assert_eq!(
            redactor.url(format!("https://h.test{path}")).as_str(),
            format!("https://h.test{expected}")
        );
    }
}

#[test]
fn a_value_that_begins_in_what_carries_a_long_secret_on_is_taken_out_whole() {
    let value = "sup3rSecre?t&Value=12#34/56@78";
    let known = KnownValue::new("env:KNOWN", value.as_bytes()).expect("worth looking for");
    let redactor = Redactor::new(std::sync::Arc::new(Secrets::new(vec![known])));
    let key = ["-----BEGIN PGP PRIVATE", " KEY BLOCK-----\n\nlQOYBF0R4ndomB9ase64Text"].concat();
    for between in ["", "\n", " "] {
        let redacted = redactor.text(format!("{key}{between}{value} end"));
        assert!(redacted.as_str().ends_with("] end"), "{redacted}");
    }
}

#[test]
fn a_host_with_a_secret_over_several_labels_is_hidden_whole() {
    let redactor = Redactor::new(secrets());
    let [token, _] = Detector::named("jwt").expect("a detector").examples();
    let [key, _] = Detector::named("age-secret-key").expect("a detector").examples();
    // The other secret, in a label of its own, must not draw attention away from this one.
    for host in [format!("{token}.evil.test"), format!("{key}.{token}.evil.test")] {
        let redacted = redactor.host(&host);
        assert!(
            redacted.as_str().starts_with("[redacted:") && !redacted.as_str().contains('.'),
            "{redacted}"
        );
    }
    assert_eq!(redactor.host(format!("{key}.evil.test")).as_str(), "[redacted:age-secret-key].evil.test");
}

#[test]
fn records_know_web_tokens_that_requests_may_carry() {
    let redactor = Redactor::new(secrets());
    let [token, _] = Detector::named("jwt").expect("a detector").examples();
    assert_eq!(redactor.text(format!("x {token} y")).as_str(), "x [redacted:jwt] y");
}

#[test]
fn paths_of_webhooks_are_secret_without_their_host() {
    let redactor = Redactor::new(secrets());
    for (name, part) in [("slack-webhook", "/services/"), ("discord-webhook", "/api/webhooks/")] {
        let [url, _] = Detector::named(name).expect("a detector").examples();
        let path = &url[url.find(part).expect("a path")..];
        let redacted = redactor.path(path);
        assert!(redacted.as_str().ends_with(&format!("[redacted:{name}]")), "{redacted}");
    }
}

proptest! {
    #[test]
    fn planted_secrets_leave_nothing_behind(
        before in "[ -~é]{0,60}",
        pick in 0_usize..1000,
        after in "[ -~é]{0,60}",
        limit in 0_usize..300,
        encode in any::<bool>(),
    ) {
        let detectors: Vec<Detector> = Detector::all().filter(|detector| !detector.records_only()).collect();
        let [example, _] = detectors[pick % detectors.len()].examples();
        let secret = if pick % 5 == 0 { KNOWN.to_owned() } else { example };
        let planted = if encode { STANDARD.encode(format!(" {secret} ")) } else { secret };
        let text = format!("{before} {planted} {after}");
        let parts = secret_parts(&text);
        let redactor = Redactor::new(secrets());
        let (excerpt, _) = redactor.excerpt(text.as_bytes(), limit);
        assert_clean("excerpt", excerpt.as_str(), &parts);
        prop_assert!(excerpt.as_str().len() <= limit);
        assert_clean("text", redactor.text(&text).as_str(), &parts);
        assert_clean("url", redactor.url(&text).as_str(), &parts);
    }

    #[test]
    fn any_bytes_are_redacted_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), limit in 0_usize..64) {
        let redactor = Redactor::new(secrets());
        for text in [redactor.text(&bytes), redactor.path(&bytes), redactor.url(&bytes), redactor.host(&bytes)] {
            prop_assert!(!text.as_str().chars().any(char::is_control));
        }
        prop_assert!(redactor.excerpt(&bytes, limit).0.as_str().len() <= limit);
    }
}
