//! How fast the scanner is, with all default detectors on, beside `memchr` looking for a byte that is not there.
//!
//! Run with `cargo bench -p policy --bench scan`; divan prints the throughput of each.

mod inputs;

use bytes::Bytes;
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use policy::redact::Redactor;
use policy::scan::{DigestKey, Place, Scanner, SecretAction};
use policy::secret::{Exempt, KnownValue, Secrets};

use inputs::INPUTS;

fn main() {
    divan::main();
}

const SIZE: usize = 4 << 20;
/// What a connection typically hands over at once.
const CHUNK: usize = 64 << 10;

fn input(name: &str) -> Bytes {
    inputs::input(name, SIZE).into()
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
