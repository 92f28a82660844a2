//! Every detector against its own examples, alone and in every guise and cut a secret may leave in.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use policy::record::Finding;
use policy::scan::{DigestKey, Found, Place, Scanner, SecretAction, scan_field};
use policy::secret::{Detector, Exempt, KnownId, KnownValue, Secrets};
use proptest::prelude::*;

fn scanner(action: SecretAction) -> Scanner {
    Scanner::new(Secrets::detectors(), DigestKey::new([7; 32]), action, Exempt::none(), Place::Body)
}

/// What became of a text.
#[derive(Debug, PartialEq)]
struct Seen {
    left: Vec<u8>,
    findings: Vec<Finding>,
    found: Option<Found>,
}

fn scan(action: SecretAction, pieces: &[&[u8]]) -> Seen {
    scan_with(scanner(action), pieces)
}

fn scan_with(mut scanner: Scanner, pieces: &[&[u8]]) -> Seen {
    let mut out = Vec::new();
    let mut found = None;
    for piece in pieces {
        found = scanner.push(Bytes::copy_from_slice(piece), &mut out).err();
        if found.is_some() {
            break;
        }
    }
    if found.is_none() {
        found = scanner.finish(&mut out).err();
    }
    Seen { left: out.concat(), findings: scanner.findings().to_vec(), found }
}

fn names(findings: &[Finding]) -> Vec<&str> {
    findings
        .iter()
        .map(|finding| match finding {
            Finding::Secret { detector, .. } | Finding::CredentialUsed { detector, .. } => &**detector,
            other => panic!("no other finding comes from here: {other:?}"),
        })
        .collect()
}

/// The detectors that can stop a request.
fn blocking() -> impl Iterator<Item = Detector> {
    Detector::all().filter(|detector| !detector.records_only())
}

fn percent(text: &str, every: usize, upper: bool) -> String {
    let encode = |(index, byte): (usize, u8)| match (index % every == 0, upper) {
        (false, _) if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) => char::from(byte).to_string(),
        (_, true) => format!("%{byte:02X}"),
        (_, false) => format!("%{byte:02x}"),
    };
    text.bytes().enumerate().map(encode).collect()
}

fn json_units(text: &str, every: usize) -> String {
    let encode = |(index, char): (usize, char)| match char {
        '"' | '\\' => format!("\\{char}"),
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '/' => "\\/".to_owned(),
        char if index % every == 0 && char.is_ascii() => format!("\\u{:04x}", char as u32),
        char => char.to_string(),
    };
    text.chars().enumerate().map(encode).collect()
}

#[test]
fn there_are_at_least_ninety_detectors_with_names_of_their_own() {
    let mut names: Vec<_> = Detector::all().map(Detector::name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Detector::all().len(), "names are unique");
    assert!(blocking().count() >= 90);
    for name in names {
        assert!(
            name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'),
            "{name}"
        );
        assert_eq!(Detector::named(name).map(Detector::name), Some(name));
    }
}

#[test]
fn every_detector_finds_its_examples_and_passes_its_counterexamples() {
    let mut wrong = Vec::new();
    for detector in blocking() {
        for example in detector.examples() {
            let findings = scan(SecretAction::Alert, &[example.as_bytes()]).findings;
            if !names(&findings).contains(&detector.name()) {
                wrong.push(format!("{detector}: not found in {example:?}, found {:?}", names(&findings)));
            }
        }
        for example in detector.counterexamples() {
            let findings = scan(SecretAction::Alert, &[example.as_bytes()]).findings;
            if names(&findings).contains(&detector.name()) {
                wrong.push(format!("{detector}: found in {example:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_example_is_found_through_one_level_of_every_encoding() {
    let mut wrong = Vec::new();
    for detector in blocking() {
        for example in detector.examples() {
            let mut guises = vec![
                ("percent, all", percent(&example, 1, true)),
                ("percent, all, lower case", percent(&example, 1, false)),
                ("percent, every third", percent(&example, 3, true)),
                ("percent, as a form does", percent(&example, usize::MAX, true)),
                ("json units, all", format!("{{\"a\":\"{}\"}}", json_units(&example, 1))),
                ("json units, every second", format!("{{\"a\":\"{}\"}}", json_units(&example, 2))),
                ("json", serde_json::json!({ "a": format!("x\n{example}\t") }).to_string()),
            ];
            for before in 0..3 {
                let plain = format!("{}{example} ", " ".repeat(before));
                guises.push(("base64", format!("{{\"data\":\"{}\"}}", STANDARD.encode(&plain))));
                guises.push(("base64url", format!("data={}&x=1", URL_SAFE_NO_PAD.encode(&plain))));
            }
            for (guise, text) in guises {
                let findings = scan(SecretAction::Alert, &[text.as_bytes()]).findings;
                if !names(&findings).contains(&detector.name()) {
                    wrong.push(format!("{detector} as {guise}: found {:?} in {text}", names(&findings)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong[..wrong.len().min(30)].join("\n"));
}

#[test]
fn a_distinctive_prefix_is_known_in_any_letter_case() {
    for (prefix, name) in [
        ("sK-aNt-API03-", "anthropic-api-key"),
        ("SK-PROJ-", "openai-api-key"),
        ("GLPAT-", "gitlab-token"),
        ("GitHub_Pat_11AAAAAAA0abcdefghijkl_", "github-fine-grained-token"),
    ] {
        let text = format!("{prefix}{}", "aB3dE5gH7jK9mN1pQ3sT5vW7".repeat(4));
        assert_eq!(names(&scan(SecretAction::Alert, &[text.as_bytes()]).findings), [name], "{text}");
    }
}

#[test]
fn nothing_of_a_secret_leaves_wherever_the_stream_is_cut() {
    for detector in blocking() {
        for example in detector.examples() {
            let text = format!("{{\"value\": \"{example}\"}} ");
            let whole = scan(SecretAction::Block, &[text.as_bytes()]);
            assert!(whole.found.is_some(), "{text}");
            for cut in 0..=text.len() {
                let (head, tail) = text.as_bytes().split_at(cut);
                let seen = scan(SecretAction::Block, &[head, tail]);
                assert_eq!(seen.found, whole.found, "{detector} cut at {cut} of {text}");
                assert_eq!(seen.findings, whole.findings, "{detector} cut at {cut} of {text}");
                let more = seen.left.strip_prefix(&whole.left[..]).expect("what leaves is what came");
                let port = more.len() <= 5 && more.iter().all(u8::is_ascii_digit);
                let harmless = more.len() < 4 || more.iter().all(u8::is_ascii_alphabetic) || port;
                assert!(
                    harmless && text.as_bytes().starts_with(&seen.left),
                    "{detector} cut at {cut} of {text}: {more:?} left"
                );
            }
        }
    }
}

#[test]
fn bytes_that_arrive_one_by_one_are_judged_as_if_together() {
    for detector in blocking() {
        let [example, _] = detector.examples();
        for text in [format!("a {example} b"), format!("a \"{}\" b", STANDARD.encode(format!("{example} ")))]
        {
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            for action in [SecretAction::Block, SecretAction::Mask, SecretAction::Alert] {
                let (whole, single) = (scan(action, &[text.as_bytes()]), scan(action, &bytes));
                assert_eq!(single.findings, whole.findings, "{detector} {action:?} {text}");
                assert_eq!(single.found, whole.found, "{detector} {action:?} {text}");
            }
        }
    }
}

#[test]
fn masking_keeps_length_json_and_everything_around() {
    for detector in blocking() {
        for example in detector.examples() {
            let document =
                serde_json::json!({ "before": "x", "value": example, "after": [1, 2] }).to_string();
            for text in
                [document.clone(), document.replace(&example, &STANDARD.encode(format!("{example} ")))]
            {
                let seen = scan(SecretAction::Mask, &[text.as_bytes()]);
                assert!(seen.found.is_none() && !seen.findings.is_empty(), "{text}");
                assert_eq!(seen.left.len(), text.len(), "{text}");
                let masked: serde_json::Value =
                    serde_json::from_slice(&seen.left).unwrap_or_else(|error| panic!("{error} {text}"));
                assert_eq!(masked["before"], "x");
                assert_eq!(masked["after"], serde_json::json!([1, 2]));
                assert_ne!(seen.left, text.as_bytes());
                let again = scan(SecretAction::Alert, &[&seen.left]);
                assert!(
                    again.findings.is_empty(),
                    "{detector} is still in {}",
                    String::from_utf8_lossy(&seen.left)
                );
            }
        }
    }
}

#[test]
fn a_credential_that_belongs_passes_and_is_noted() {
    let detector = Detector::named("github-token").expect("a detector");
    let [example, _] = detector.examples();
    let exempt = Exempt { detectors: vec![detector], known: Vec::new() };
    let place = Place::header("Authorization");
    let secrets = Secrets::detectors();
    let key = DigestKey::new([1; 32]);
    let value = format!("Bearer {example}");
    let seen = scan_field(&secrets, &key, SecretAction::Block, &exempt, &place, value.as_bytes())
        .expect("it belongs");
    assert_eq!(seen.masked, None);
    let [Finding::CredentialUsed { detector, place, key: digest }] = &seen.findings[..] else {
        panic!("{seen:?}")
    };
    assert_eq!((&**detector, &**place), ("github-token", "header:authorization"));
    let found =
        scan_field(&secrets, &key, SecretAction::Block, &Exempt::none(), &Place::Query, value.as_bytes());
    let found = found.expect_err("it does not belong there");
    assert_eq!((&found.key, &*found.detector), (digest, "github-token"));
    assert_eq!(found.to_string(), "a secret (`github-token`) was found in the query");
}

/// A value with characters that every encoding treats differently.
const VALUE: &str = "p\"A/ss\\w+o rd&9é=";

fn known() -> std::sync::Arc<Secrets> {
    let values =
        [("env:PASSWORD", VALUE), ("env:OTHER", "another-Value-1"), ("env:LONGER", "another-Value-123")];
    let values =
        values.map(|(name, value)| KnownValue::new(name, value.as_bytes()).expect("worth looking for"));
    std::sync::Arc::new(Secrets::new(values.to_vec()))
}

#[test]
fn known_values_are_found_in_every_encoding_wherever_cut() {
    let hex: String = VALUE.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut guises = vec![
        VALUE.to_owned(),
        hex.to_uppercase(),
        hex,
        percent(VALUE, 1, true),
        percent(VALUE, 2, false),
        percent(VALUE, usize::MAX, true),
        percent(VALUE, usize::MAX, true).replace("%20", "+"),
        json_units(VALUE, usize::MAX),
        json_units(VALUE, 1),
        serde_json::to_string(VALUE).expect("a string"),
        VALUE.replace('\\', "\\\\").replace('"', "\\\"").replace('é', "\\u00e9"),
    ];
    for before in 0..3 {
        guises.push(STANDARD.encode(format!("{}{VALUE}", "x".repeat(before))));
        guises.push(URL_SAFE_NO_PAD.encode(format!("{}{VALUE}!", "?".repeat(before))));
    }
    for guise in guises {
        let text = format!("a={guise};");
        for cut in 0..=text.len() {
            let (head, tail) = text.as_bytes().split_at(cut);
            let scanner = Scanner::new(
                known(),
                DigestKey::new([7; 32]),
                SecretAction::Block,
                Exempt::none(),
                Place::Body,
            );
            let seen = scan_with(scanner, &[head, tail]);
            assert_eq!(names(&seen.findings), ["known:env:PASSWORD"], "{text} cut at {cut}");
            assert!(
                seen.left.len() < 2 + 18 + 4,
                "{text} cut at {cut}: {}",
                String::from_utf8_lossy(&seen.left)
            );
        }
    }
}

#[test]
fn of_known_values_that_begin_alike_the_longest_is_meant() {
    for (text, name) in [("another-Value-123", "known:env:LONGER"), ("another-Value-12", "known:env:OTHER")] {
        let scanner =
            Scanner::new(known(), DigestKey::new([7; 32]), SecretAction::Alert, Exempt::none(), Place::Body);
        assert_eq!(names(&scan_with(scanner, &[text.as_bytes()]).findings), [name]);
    }
}

#[test]
fn a_known_value_may_belong_somewhere() {
    let exempt = Exempt { detectors: Vec::new(), known: vec![KnownId(1)] };
    let scanner = Scanner::new(known(), DigestKey::new([7; 32]), SecretAction::Block, exempt, Place::Body);
    let seen = scan_with(scanner, &[b"another-Value-1, another-Value-123"]);
    assert_eq!(names(&seen.findings), ["known:env:OTHER", "known:env:LONGER"]);
    assert_eq!(seen.found.map(|found| found.detector), Some("known:env:LONGER".into()));
    assert_eq!(seen.left, b"another-Value-1, ");
}

#[test]
fn conversations_are_not_held_up() {
    for message in [
        "search github",
        "hello class",
        "see https://example.com:8080",
        "postgres",
        "---",
        "ask",
        "a\\",
        "100%",
    ] {
        let mut out = Vec::new();
        let mut scanner = scanner(SecretAction::Block);
        scanner.push(Bytes::from_static(message.as_bytes()), &mut out).expect("no secret");
        assert_eq!(out.concat(), message.as_bytes());
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "this is about time; the crate itself has no clock")]
fn the_worst_input_takes_linear_time_and_bounded_memory() {
    let mebibyte = 1 << 20;
    let cases: [(&str, String); 12] = [
        ("one letter", "a".repeat(mebibyte)),
        ("a prefix again and again", "sk-ant-".repeat(100_000)),
        ("prefixes with a separator", "ghp_ ".repeat(200_000)),
        ("nesting", "[".repeat(mebibyte)),
        ("dashes", "-".repeat(mebibyte)),
        ("BEGIN", "-----BEGIN ".repeat(100_000)),
        ("token starts", "-eyJhbGciOi".repeat(100_000)),
        ("urls", "http://a:b".repeat(100_000)),
        ("escapes", "%41".repeat(350_000)),
        ("units", "\\u0041".repeat(170_000)),
        ("backslashes", "\\".repeat(mebibyte)),
        ("base64 of a prefix", "c2stYW50LWFwaTAz".repeat(65_000)),
    ];
    for (name, text) in &cases {
        let start = std::time::Instant::now();
        let mut scanner = scanner(SecretAction::Alert);
        let mut most = 0;
        for piece in text.as_bytes().chunks(16 << 10) {
            scanner.push(Bytes::copy_from_slice(piece), &mut Vec::new()).expect("alert lets pass");
            most = most.max(scanner.held());
        }
        scanner.finish(&mut Vec::new()).expect("alert lets pass");
        let took = start.elapsed();
        assert!(most <= 32 << 10, "{name} held {most} bytes");
        // A tenth of a second is usual; quadratic time would be minutes.
        assert!(took.as_secs() < 5, "{name} took {took:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn cuts_change_neither_findings_nor_what_leaves(
        picks in proptest::collection::vec((0_usize..1000, 0_usize..8, "[ -~]{0,12}"), 1..6),
        cuts in proptest::collection::vec(0_usize..2000, 0..12),
    ) {
        let detectors: Vec<Detector> = blocking().collect();
        let text: String = picks
            .iter()
            .map(|(pick, guise, around)| {
                let [example, other] = detectors[pick % detectors.len()].examples();
                let example = if pick % 2 == 0 { example } else { other };
                let dressed = match guise {
                    0 => STANDARD.encode(&example),
                    1 => percent(&example, 2, true),
                    2 => json_units(&example, 3),
                    3 => example[..example.len() / 2].to_owned(),
                    4 => detectors[pick % detectors.len()].counterexamples()[0].clone(),
                    _ => example,
                };
                format!("{around}{dressed} ")
            })
            .collect();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (text.len() + 1)).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]).collect();
        for action in [SecretAction::Alert, SecretAction::Mask, SecretAction::Block] {
            let (whole, cut) = (scan(action, &[text.as_bytes()]), scan(action, &pieces));
            prop_assert_eq!(&cut.findings, &whole.findings, "{:?} {}", action, text);
            prop_assert_eq!(&cut.found, &whole.found);
            match action {
                SecretAction::Alert => prop_assert_eq!(&cut.left, text.as_bytes()),
                SecretAction::Mask => prop_assert_eq!(cut.left.len(), text.len()),
                SecretAction::Block => prop_assert!(cut.found.is_some() || cut.left == text.as_bytes()),
            }
        }
    }
}

#[test]
fn an_open_question_does_not_let_a_later_secret_out() {
    for detector in blocking() {
        let [example, _] = detector.examples();
        // Each could be the beginning of a URL with a password for as long as no other byte comes.
        for before in ["http://", "postgres://user", "machine ", "aws_secret_access_key = "] {
            let text = format!("{before}{example}");
            let whole = scan(SecretAction::Block, &[text.as_bytes(), b" "]);
            for cut in before.len()..text.len() {
                let (head, tail) = text.as_bytes().split_at(cut);
                let seen = scan(SecretAction::Block, &[head, tail, b" "]);
                assert_eq!(seen.found, whole.found, "{text} cut at {cut}");
                let more = seen.left.len().saturating_sub(whole.left.len());
                let word = example.bytes().take_while(u8::is_ascii_alphabetic).count();
                assert!(
                    more <= 5.max(word),
                    "{detector}: {text} cut at {cut}: {}",
                    String::from_utf8_lossy(&seen.left)
                );
            }
        }
    }
}
