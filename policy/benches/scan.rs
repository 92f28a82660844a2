//! How fast the scanner is, with all default detectors on, beside `memchr` looking for a byte that is not there.
//!
//! Run with `cargo bench -p policy --bench scan`; divan prints the throughput of each.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use policy::redact::Redactor;
use policy::scan::{DigestKey, Place, Scanner, SecretAction};
use policy::secret::{Exempt, KnownValue, Secrets};

fn main() {
    divan::main();
}

const SIZE: usize = 4 << 20;
/// What a connection typically hands over at once.
const CHUNK: usize = 64 << 10;

const INPUTS: [&str; 6] = ["source", "json", "base64", "text", "near-misses", "percent"];

fn input(name: &str) -> Bytes {
    let source = [
        include_str!("../src/scan.rs"),
        include_str!("../src/secret/search.rs"),
        include_str!("../src/decode.rs"),
    ]
    .concat();
    let unit = match name {
        "source" => source,
        "json" => {
            serde_json::json!({ "role": "user", "content": source, "max_tokens": 4096, "stream": true })
                .to_string()
        }
        "base64" => STANDARD.encode(noise(1 << 20)),
        "text" => "The quick brown fox jumps over the lazy dog, and then it asks for a token of its own. "
            .to_owned(),
        "near-misses" => {
            "sk-ant-x ghp_short AKIA1234 xoxb-1 glpat-no AIzaSy npm_install -----BEGIN CERT ".to_owned()
        }
        _ => "%7B%22key%22%3A%22%73%6B%2D%61%6E%74%22%7D".to_owned(),
    };
    unit.repeat(SIZE / unit.len() + 1).into_bytes()[..SIZE].to_vec().into()
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn scan(secrets: &std::sync::Arc<Secrets>, key: &DigestKey, data: &Bytes) -> usize {
    let mut scanner =
        Scanner::new(secrets.clone(), key.clone(), SecretAction::Block, Exempt::none(), Place::Body);
    let mut out = Vec::new();
    let mut passed = 0;
    for start in (0..data.len()).step_by(CHUNK) {
        scanner.push(data.slice(start..(start + CHUNK).min(data.len())), &mut out).expect("no secret");
        passed += out.drain(..).map(|bytes: Bytes| bytes.len()).sum::<usize>();
    }
    scanner.finish(&mut out).expect("no secret");
    passed
}

#[divan::bench(args = INPUTS)]
fn scanner(bencher: Bencher, name: &str) {
    let (data, secrets, key) = (input(name), Secrets::detectors(), DigestKey::new([1; 32]));
    bencher.counter(BytesCount::new(SIZE)).bench(|| scan(&secrets, &key, black_box(&data)));
}

#[divan::bench(args = INPUTS)]
fn scanner_with_known_values(bencher: Bencher, name: &str) {
    let values = (0..50)
        .filter_map(|index| KnownValue::new("env:X", format!("kn0wn-Value-{index}-{index}").as_bytes()).ok());
    let (data, secrets, key) = (input(name), Secrets::new(values.collect()).into(), DigestKey::new([1; 32]));
    bencher.counter(BytesCount::new(SIZE)).bench(|| scan(&secrets, &key, black_box(&data)));
}

#[divan::bench(args = ["source", "base64"])]
fn memchr_alone(bencher: Bencher, name: &str) {
    let data = input(name);
    bencher.counter(BytesCount::new(SIZE)).bench(|| memchr::memchr(0, black_box(&data)));
}

#[divan::bench(args = ["source", "json"])]
fn redact_excerpt(bencher: Bencher, name: &str) {
    let (data, redactor) = (input(name), Redactor::new(Secrets::detectors()));
    bencher.counter(BytesCount::new(4096_usize)).bench(|| redactor.excerpt(black_box(&data[..4096]), 4096));
}

/// A header's value, as there are twenty in a request.
#[divan::bench]
fn one_field(bencher: Bencher) {
    let (secrets, key) = (Secrets::detectors(), DigestKey::new([1; 32]));
    let value = b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)";
    let place = Place::Query;
    let exempt = Exempt::none();
    bencher.bench(|| {
        policy::scan::scan_field(&secrets, &key, SecretAction::Block, &exempt, &place, black_box(value))
    });
}
