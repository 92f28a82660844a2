//! The scanner: what is found and what is released do not depend on how the stream was cut.

use std::sync::Arc;

use bytes::Bytes;
use policy::record::Finding;
use policy::scan::{DigestKey, Found, Place, Scanner, SecretAction, scan_field};
use policy::secret::Exempt;

use crate::cuts::Cuts;
use crate::planted::{self, SECRETS};

/// What a stream came to.
struct Scan {
    released: Vec<u8>,
    findings: Vec<Finding>,
    found: Option<Found>,
}

/// Takes a seed and a stream in which secrets are planted.
pub fn check(input: &[u8]) {
    let Some((mut cuts, stream)) = Cuts::of(input) else { return };
    let stream = planted::expand(stream);
    for action in [SecretAction::Alert, SecretAction::Mask, SecretAction::Block] {
        let whole = scan(action, &[&stream]);
        let pieces = scan(action, &cuts.pieces(&stream));
        assert_eq!(pieces.findings, whole.findings, "{action:?}: findings depend on the cuts");
        assert_eq!(pieces.found, whole.found, "{action:?}: a refusal depends on the cuts");
        match action {
            SecretAction::Alert => assert!(whole.released == stream && pieces.released == stream),
            SecretAction::Mask => masked(&stream, &whole.released, &pieces.released),
            SecretAction::Block => blocked(&stream, &whole, &pieces),
        }
        field(action, &stream, &whole);
    }
}

fn scanner(action: SecretAction) -> Scanner {
    Scanner::new(Arc::clone(&SECRETS), DigestKey::new([7; 32]), action, Exempt::none(), Place::Body)
}

fn scan(action: SecretAction, pieces: &[&[u8]]) -> Scan {
    let (mut scanner, mut out, mut pushed) = (scanner(action), Vec::new(), 0);
    let mut found = None;
    for piece in pieces {
        pushed += piece.len();
        found = scanner.push(Bytes::copy_from_slice(piece), &mut out).err();
        if found.is_some() {
            break;
        }
        let released: usize = out.iter().map(Bytes::len).sum();
        assert_eq!(released + scanner.held(), pushed, "bytes are lost or made up");
        assert!(scanner.held() <= 32 << 10, "{} bytes are held", scanner.held());
    }
    if found.is_none() {
        found = scanner.finish(&mut out).err();
    }
    Scan { released: out.concat(), findings: scanner.findings().to_vec(), found }
}

/// Masking keeps lengths, and what the cuts let out before the answer says nothing.
fn masked(stream: &[u8], whole: &[u8], pieces: &[u8]) {
    assert_eq!((whole.len(), pieces.len()), (stream.len(), stream.len()), "masking changes the length");
    let differs = |at: &usize| whole[*at] != pieces[*at];
    let mut at = 0;
    while let Some(start) = (at..stream.len()).find(differs) {
        let end = (start..stream.len()).find(|at| !differs(at)).unwrap_or(stream.len());
        says_nothing(&stream[start..end]);
        assert_eq!(pieces[start..end], stream[start..end], "cuts mask what is not masked whole");
        at = end;
    }
}

/// Under `block` a stream breaks off where the secret begins.
fn blocked(stream: &[u8], whole: &Scan, pieces: &Scan) {
    for scan in [whole, pieces] {
        assert!(stream.starts_with(&scan.released), "other bytes are released than came");
        assert!(
            scan.found.is_some() || scan.released.len() == stream.len(),
            "bytes are withheld for nothing"
        );
    }
    let [less, more] = [&whole.released, &pieces.released];
    assert!(less.len() <= more.len(), "cuts withhold more");
    says_nothing(&stream[less.len()..more.len()]);
}

/// The beginning of a secret that may go before it is known to be one: three bytes, or the words it begins with.
fn says_nothing(early: &[u8]) {
    let word = |byte: &u8| byte.is_ascii_alphabetic() || b"_-:/\"'=. ".contains(byte);
    assert!(
        early.len() <= 3 || early.iter().all(word),
        "{:?} left too early",
        early.escape_ascii().to_string()
    );
}

/// A field is a stream that is there as a whole.
fn field(action: SecretAction, stream: &[u8], whole: &Scan) {
    let key = DigestKey::new([7; 32]);
    match scan_field(&SECRETS, &key, action, &Exempt::none(), &Place::Body, stream) {
        Ok(scanned) => {
            assert_eq!(whole.found, None);
            assert_eq!(scanned.findings, whole.findings);
            assert_eq!(scanned.masked.as_deref().unwrap_or(stream), whole.released);
        }
        Err(found) => assert_eq!(Some(found), whole.found),
    }
}
