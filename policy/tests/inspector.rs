//! Encoded bodies: what leaves, what does not, and why.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use policy::decode::{BodyInspector, DecodeLimits, Encoding, Refusal, Undecodable};
use policy::redact::{Excerpt, Redactor};
use policy::scan::{DigestKey, Place, Scanner, SecretAction};
use policy::secret::{Detector, Exempt, Secrets};

fn inspector(encodings: &[Encoding], action: SecretAction) -> BodyInspector {
    let scanner =
        Scanner::new(Secrets::detectors(), DigestKey::new([7; 32]), action, Exempt::none(), Place::Body);
    BodyInspector::new(encodings, scanner, DecodeLimits::default())
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).expect("a vector takes it");
    encoder.finish().expect("a vector takes it")
}

fn zlib(data: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).expect("a vector takes it");
    encoder.finish().expect("a vector takes it")
}

fn bare(data: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).expect("a vector takes it");
    encoder.finish().expect("a vector takes it")
}

fn zstd(data: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(zstd_safe::compress_bound(data.len()));
    zstd_safe::compress(&mut encoded, data, 3).expect("it fits");
    encoded
}

/// A brotli stream of uncompressed pieces (RFC 7932 section 9.2), which needs no encoder.
fn brotli(data: &[u8]) -> Vec<u8> {
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

fn encode(encoding: Encoding, data: &[u8]) -> Vec<u8> {
    match encoding {
        Encoding::Gzip => gzip(data),
        Encoding::Deflate => zlib(data),
        Encoding::Brotli => brotli(data),
        Encoding::Zstd => zstd(data),
    }
}

const ALL: [Encoding; 4] = [Encoding::Gzip, Encoding::Deflate, Encoding::Brotli, Encoding::Zstd];

fn run(
    mut inspector: BodyInspector,
    wire: &[u8],
    size: usize,
) -> (Vec<u8>, Result<(), Refusal>, BodyInspector) {
    let mut out = Vec::new();
    for piece in wire.chunks(size) {
        if let Err(refusal) = inspector.push(Bytes::copy_from_slice(piece), &mut out) {
            return (out.concat(), Err(refusal), inspector);
        }
    }
    let finished = inspector.finish(&mut out);
    (out.concat(), finished, inspector)
}

/// Text that does not compress well, so that cuts fall into it.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        b' ' + ((state >> 33) % 94) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn secret() -> String {
    let [example, _] = Detector::named("github-fine-grained-token").expect("a detector").examples();
    example
}

#[test]
fn clean_bodies_arrive_unchanged_in_every_encoding_and_any_pieces() {
    let data = noise(200_000);
    for encoding in ALL {
        let wire = encode(encoding, &data);
        for size in [1, 7, 1000, 1 << 20] {
            let (left, finished, inspector) = run(inspector(&[encoding], SecretAction::Block), &wire, size);
            assert_eq!(finished, Ok(()), "{encoding:?} in pieces of {size}");
            assert!(left == wire, "{encoding:?} in pieces of {size}");
            assert_eq!(inspector.decoded_bytes(), data.len() as u64);
        }
    }
}

#[test]
fn a_secret_stops_the_body_before_the_bytes_that_carry_it() {
    let secret = secret();
    for before in [0, 100, 70_000, 200_000] {
        let data = [&noise(before)[..], b" ", secret.as_bytes(), b" ", &noise(50_000)].concat();
        for encoding in ALL {
            let wire = encode(encoding, &data);
            for size in [1, 1000, 1 << 20] {
                for action in [SecretAction::Block, SecretAction::Mask] {
                    let (left, finished, _) = run(inspector(&[encoding], action), &wire, size);
                    let Err(Refusal::Secret(found)) = finished else {
                        panic!("{encoding:?} {before} {size}: {finished:?}")
                    };
                    assert_eq!(&*found.detector, "github-fine-grained-token");
                    // What did leave decodes to nothing of the secret.
                    let mut witness =
                        inspector(&[encoding], SecretAction::Alert).with_excerpt(Excerpt::new(1 << 20));
                    let _ = witness.push(Bytes::from(left), &mut Vec::new());
                    assert!(witness.decoded_bytes() <= before as u64 + 1 + 6, "{encoding:?} {before} {size}");
                }
            }
        }
    }
}

#[test]
fn two_layers_are_undone_and_three_are_refused() {
    let secret = secret();
    for outer in ALL {
        for inner in ALL {
            let clean = encode(outer, &encode(inner, b"nothing here"));
            let (left, finished, _) = run(inspector(&[inner, outer], SecretAction::Block), &clean, 10);
            assert_eq!((left, finished), (clean, Ok(())), "{inner:?} in {outer:?}");
            let wire = encode(outer, &encode(inner, secret.as_bytes()));
            let (_, finished, _) = run(inspector(&[inner, outer], SecretAction::Block), &wire, 10);
            assert!(matches!(finished, Err(Refusal::Secret(_))), "{inner:?} in {outer:?}: {finished:?}");
        }
    }
    for (header, expected) in [
        ("gzip", Ok(vec![Encoding::Gzip])),
        ("GZIP , br", Ok(vec![Encoding::Gzip, Encoding::Brotli])),
        ("identity", Ok(vec![])),
        ("", Ok(vec![])),
        ("x-gzip,identity,zstd", Ok(vec![Encoding::Gzip, Encoding::Zstd])),
        ("gzip, gzip, gzip", Err(Undecodable::TooManyLayers)),
        ("compress", Err(Undecodable::UnknownEncoding)),
        ("gzip;q=1", Err(Undecodable::UnknownEncoding)),
    ] {
        assert_eq!(Encoding::parse(header), expected, "{header}");
    }
}

#[test]
fn no_member_frame_or_rest_hides_data() {
    let secret = secret();
    let member = gzip(b"first member ");
    let with_secret = [&member[..], &gzip(secret.as_bytes())].concat();
    let frames = [&zstd(b"first frame ")[..], &zstd(secret.as_bytes())].concat();
    let skippable =
        [&[0x50, 0x2a, 0x4d, 0x18][..], &(secret.len() as u32).to_le_bytes(), secret.as_bytes()].concat();
    for (name, encoding, wire, expected) in [
        ("a second member", Encoding::Gzip, with_secret, None),
        ("a second frame", Encoding::Zstd, frames, None),
        ("a skippable frame", Encoding::Zstd, skippable.clone(), Some(Undecodable::TrailingData)),
        (
            "a skippable frame at the end",
            Encoding::Zstd,
            [zstd(b"x"), skippable].concat(),
            Some(Undecodable::TrailingData),
        ),
        (
            "bytes after gzip",
            Encoding::Gzip,
            [&member[..], secret.as_bytes()].concat(),
            Some(Undecodable::TrailingData),
        ),
        (
            "bytes after zlib",
            Encoding::Deflate,
            [&zlib(b"x")[..], secret.as_bytes()].concat(),
            Some(Undecodable::TrailingData),
        ),
        (
            "bytes after brotli",
            Encoding::Brotli,
            [&brotli(b"x")[..], secret.as_bytes()].concat(),
            Some(Undecodable::TrailingData),
        ),
        (
            "bytes after zstd",
            Encoding::Zstd,
            [&zstd(b"x")[..], secret.as_bytes()].concat(),
            Some(Undecodable::TrailingData),
        ),
        ("no gzip at all", Encoding::Gzip, secret.clone().into_bytes(), Some(Undecodable::BrokenData)),
        ("no zlib at all", Encoding::Deflate, vec![0xff; 40], Some(Undecodable::BrokenData)),
        ("half of gzip", Encoding::Gzip, member[..member.len() - 4].to_vec(), Some(Undecodable::Truncated)),
        ("half of zlib", Encoding::Deflate, zlib(b"abc")[..5].to_vec(), Some(Undecodable::Truncated)),
        ("half of brotli", Encoding::Brotli, brotli(b"abc")[..4].to_vec(), Some(Undecodable::Truncated)),
        ("half of zstd", Encoding::Zstd, zstd(b"abc")[..6].to_vec(), Some(Undecodable::Truncated)),
    ] {
        for size in [1, 1000] {
            let (left, finished, _) = run(inspector(&[encoding], SecretAction::Block), &wire, size);
            match (expected, finished) {
                (None, Err(Refusal::Secret(_))) => {}
                (Some(expected), Err(Refusal::Undecodable(reason))) => assert_eq!(reason, expected, "{name}"),
                (_, other) => panic!("{name}: {other:?}"),
            }
            assert!(memchr::memmem::find(&left, &secret.as_bytes()[12..20]).is_none(), "{name}");
        }
    }
}

#[test]
fn bare_deflate_is_deflate_too() {
    let secret = secret();
    for size in [1, 2, 1000] {
        let (_, finished, _) =
            run(inspector(&[Encoding::Deflate], SecretAction::Block), &bare(secret.as_bytes()), size);
        assert!(matches!(finished, Err(Refusal::Secret(_))), "{finished:?}");
    }
}

#[test]
fn bombs_are_refused_by_size_and_by_ratio() {
    let zeros = vec![b'0'; 8 << 20];
    for encoding in [Encoding::Gzip, Encoding::Deflate, Encoding::Zstd] {
        let (_, finished, inspector) =
            run(inspector(&[encoding], SecretAction::Block), &encode(encoding, &zeros), 1000);
        assert!(matches!(finished, Err(Refusal::TooLarge { .. })), "{encoding:?} {finished:?}");
        assert!(inspector.decoded_bytes() < 2 << 20);
    }
    let scanner = Scanner::new(
        Secrets::detectors(),
        DigestKey::new([7; 32]),
        SecretAction::Block,
        Exempt::none(),
        Place::Body,
    );
    let limits = DecodeLimits { decoded_bytes: 100_000, ratio: 1000 };
    let (_, finished, _) =
        run(BodyInspector::new(&[Encoding::Gzip], scanner, limits), &gzip(&noise(150_000)), 1000);
    assert!(matches!(finished, Err(Refusal::TooLarge { .. })), "{finished:?}");
}

#[test]
fn what_has_been_flushed_is_released_at_once() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let mut inspector = inspector(&[Encoding::Gzip], SecretAction::Block);
    for message in ["ping one ", "ping two ", "ping three "] {
        encoder.write_all(message.as_bytes()).expect("a vector takes it");
        encoder.flush().expect("a vector takes it");
        let wire = std::mem::take(encoder.get_mut());
        let mut out = Vec::new();
        inspector.push(Bytes::from(wire.clone()), &mut out).expect("no secret");
        assert_eq!(out.concat(), wire, "{message}");
    }
}

#[test]
fn a_refused_body_stays_refused_and_an_undecodable_one_can_be_let_go() {
    let mut broken = inspector(&[Encoding::Gzip], SecretAction::Block);
    let mut out = Vec::new();
    let wire = Bytes::from_static(b"this is not gzip");
    let first = broken.push(wire.clone(), &mut out);
    assert_eq!(first, Err(Refusal::Undecodable(Undecodable::BrokenData)));
    assert_eq!(broken.push(Bytes::from_static(b"more"), &mut out), first);
    assert_eq!(broken.finish(&mut out), first);
    assert!(out.is_empty());
    assert_eq!(broken.into_held(), [wire]);
}

#[test]
fn the_excerpt_is_of_the_decoded_body() {
    let body = inspector(&[Encoding::Gzip], SecretAction::Alert).with_excerpt(Excerpt::new(100));
    let text = format!("key {} end", secret());
    let (_, finished, mut body) = run(body, &gzip(text.as_bytes()), 10);
    assert_eq!(finished, Ok(()));
    let (excerpt, truncated) =
        body.take_excerpt().expect("collected").finish(&Redactor::new(Secrets::detectors()));
    assert_eq!((excerpt.as_str(), truncated), ("key [redacted:github-fine-grained-token] end", false));
}
