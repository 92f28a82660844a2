//! Encoded bodies: what was encoded is what is looked into, in bounded size, however the wire cuts it.

use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use policy::decode::{BodyInspector, DecodeLimits, Encoding, Refusal};
use policy::redact::{Excerpt, Redactor};
use policy::scan::{DigestKey, Place, Scanner, SecretAction};
use policy::secret::Exempt;

use crate::cuts::Cuts;
use crate::planted::{self, SECRETS};

const ENCODINGS: [Encoding; 4] = [Encoding::Gzip, Encoding::Deflate, Encoding::Brotli, Encoding::Zstd];
/// Small, so that what is made up reaches it.
const LIMITS: DecodeLimits = DecodeLimits { decoded_bytes: 4 << 20, ratio: 100 };

/// Takes a seed, a byte that picks encodings, and either a body as it is on the wire or one to be encoded.
pub fn check(input: &[u8]) {
    let Some((mut cuts, [pick, body @ ..])) = Cuts::of(input) else { return };
    let mut encodings = vec![ENCODINGS[usize::from(pick & 3)]];
    if pick & 4 != 0 {
        encodings.push(ENCODINGS[usize::from(pick >> 3 & 3)]);
    }
    if pick & 0x80 != 0 {
        return wire(&encodings, body, &mut cuts);
    }
    let body = planted::expand(body);
    let encoded = encodings.iter().fold(body.clone(), |data, encoding| encode(*encoding, &data, *pick));
    comes_back(&encodings, &body, &encoded, &mut cuts);
}

/// What became of a body.
struct Inspected {
    left: Vec<u8>,
    result: Result<(), Refusal>,
    inspector: BodyInspector,
}

fn inspect(encodings: &[Encoding], action: SecretAction, pieces: &[&[u8]]) -> Inspected {
    let key = DigestKey::new([7; 32]);
    let scanner = Scanner::new(Arc::clone(&SECRETS), key, action, Exempt::none(), Place::Body);
    let mut inspector = BodyInspector::new(encodings, scanner, LIMITS).with_excerpt(Excerpt::new(1 << 20));
    let mut out = Vec::new();
    let pushed = pieces.iter().try_for_each(|piece| inspector.push(Bytes::copy_from_slice(piece), &mut out));
    let result = pushed.and_then(|()| inspector.finish(&mut out));
    let wire: Vec<u8> = pieces.concat();
    let left = out.concat();
    assert!(wire.starts_with(&left), "other bytes leave than came");
    assert!(result.is_err() || left == wire, "bytes are withheld for nothing");
    assert!(inspector.decoded_bytes() <= LIMITS.decoded_bytes + (64 << 10), "the limit does not hold");
    Inspected { left, result, inspector }
}

/// Whatever comes over the wire is judged alike in pieces and whole.
fn wire(encodings: &[Encoding], body: &[u8], cuts: &mut Cuts) {
    let whole = inspect(encodings, SecretAction::Block, &[body]);
    let pieces = inspect(encodings, SecretAction::Block, &cuts.pieces(body));
    // How much stands against how much on the wire is asked at every piece.
    let small = |inspected: &Inspected| inspected.inspector.decoded_bytes() <= 1 << 20;
    if !small(&whole) || !small(&pieces) {
        return;
    }
    // Where both layers are wrong, which of them is seen first depends on what has come.
    let undecodable = |inspected: &Inspected| matches!(inspected.result, Err(Refusal::Undecodable(_)));
    if encodings.len() > 1 && undecodable(&whole) && undecodable(&pieces) {
        return;
    }
    assert_eq!(pieces.result, whole.result, "{encodings:?}: the answer depends on the cuts");
    if whole.result.is_ok() {
        assert_eq!(pieces.inspector.decoded_bytes(), whole.inspector.decoded_bytes());
        assert_eq!(pieces.inspector.findings(), whole.inspector.findings());
        assert_eq!(pieces.left, whole.left);
    }
}

/// What was encoded is found as if it had not been, and nothing of a body with a secret is complete.
fn comes_back(encodings: &[Encoding], body: &[u8], encoded: &[u8], cuts: &mut Cuts) {
    let pieces = cuts.pieces(encoded);
    let mut through = inspect(encodings, SecretAction::Alert, &pieces);
    let mut plain = inspect(&[], SecretAction::Alert, &[body]);
    if through.result.is_err() {
        let refused = matches!(through.result, Err(Refusal::TooLarge { .. }));
        return assert!(refused && body.len() > 1 << 20, "{encodings:?}: {:?}", through.result);
    }
    assert_eq!(through.inspector.decoded_bytes(), body.len() as u64, "{encodings:?}");
    assert_eq!(through.inspector.findings(), plain.inspector.findings(), "{encodings:?}");
    let redactor = Redactor::new(Arc::clone(&SECRETS));
    let excerpt =
        |inspected: &mut Inspected| inspected.inspector.take_excerpt().map(|read| read.finish(&redactor));
    assert_eq!(excerpt(&mut through), excerpt(&mut plain), "{encodings:?}");
    let blocked = inspect(encodings, SecretAction::Block, &pieces);
    assert_eq!(blocked.result.is_err(), !plain.inspector.findings().is_empty(), "{encodings:?}");
    assert!(blocked.result.is_ok() || blocked.left.len() < encoded.len(), "{encodings:?}: all of it left");
}

fn encode(encoding: Encoding, data: &[u8], pick: u8) -> Vec<u8> {
    let level = Compression::new(u32::from(pick >> 5 & 3) * 3);
    let written = "a vector takes it";
    match encoding {
        Encoding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), level);
            encoder.write_all(data).expect(written);
            encoder.finish().expect(written)
        }
        Encoding::Deflate if pick & 0x20 != 0 => {
            let mut encoder = DeflateEncoder::new(Vec::new(), level);
            encoder.write_all(data).expect(written);
            encoder.finish().expect(written)
        }
        Encoding::Deflate => {
            let mut encoder = ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(data).expect(written);
            encoder.finish().expect(written)
        }
        Encoding::Brotli => brotli(data),
        Encoding::Zstd => {
            let mut encoded = Vec::with_capacity(zstd_safe::compress_bound(data.len()));
            zstd_safe::compress(&mut encoded, data, i32::from(pick >> 5 & 3)).expect("there is room");
            encoded
        }
    }
}

/// A brotli stream of uncompressed pieces (RFC 7932 section 9.2), which needs no encoder.
fn brotli(data: &[u8]) -> Vec<u8> {
    if data.is_empty() {
        return vec![6];
    }
    // Window bits 16 are one zero bit; then, for each piece, ISLAST 0, MNIBBLES 4, MLEN - 1, ISUNCOMPRESSED 1.
    let mut encoded = Vec::new();
    for (index, piece) in data.chunks(1 << 16).enumerate() {
        let header = (piece.len() as u32 - 1) << 3 | 1 << 19;
        let header = if index == 0 { header << 1 } else { header };
        encoded.extend_from_slice(&header.to_le_bytes()[..3]);
        encoded.extend_from_slice(piece);
    }
    encoded.push(3);
    encoded
}
