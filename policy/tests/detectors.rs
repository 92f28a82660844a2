//! Every detector against its own examples, alone and in every guise and cut a secret may leave in.

use std::sync::Arc;

use bytes::Bytes;
use policy::record::Finding;
use policy::scan::{DigestKey, Found, Place, Scanner, SecretAction, scan_field};
use policy::secret::{Detector, Exempt, Secrets};

fn scanner(action: SecretAction) -> Scanner {
    Scanner::new(Secrets::detectors(), DigestKey::new([7; 32]), action, Exempt::none(), Place::Body)
}

/// What leaves when the text arrives in these pieces, and what was found.
fn scan(action: SecretAction, pieces: &[&[u8]]) -> (Vec<u8>, Vec<Finding>, Option<Found>) {
    let mut scanner = scanner(action);
    let mut out = Vec::new();
    let mut found = None;
    for piece in pieces {
        if let Err(error) = scanner.push(Bytes::copy_from_slice(piece), &mut out) {
            found = Some(error);
            break;
        }
    }
    if found.is_none() {
        found = scanner.finish(&mut out).err();
    }
    (out.concat(), scanner.findings().to_vec(), found)
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

#[test]
fn there_are_at_least_ninety_detectors_with_names_of_their_own() {
    let mut names: Vec<_> = Detector::all().map(Detector::name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Detector::all().len(), "names are unique");
    assert!(Detector::all().filter(|detector| !detector.records_only()).count() >= 90);
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
    for detector in Detector::all().filter(|detector| !detector.records_only()) {
        for example in detector.examples() {
            let (_, findings, _) = scan(SecretAction::Alert, &[example.as_bytes()]);
            if !names(&findings).contains(&detector.name()) {
                wrong.push(format!("{detector}: not found in {example:?}, found {:?}", names(&findings)));
            }
        }
        for example in detector.counterexamples() {
            let (_, findings, _) = scan(SecretAction::Alert, &[example.as_bytes()]);
            if names(&findings).contains(&detector.name()) {
                wrong.push(format!("{detector}: found in {example:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
