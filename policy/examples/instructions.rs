//! Ten scenarios whose instructions are counted: `bench/instructions.sh` runs each under callgrind, which counts what
//! [`measured`] does and nothing else. The counts do not depend on the machine's mood, so CI can compare them.

#![expect(clippy::disallowed_methods, reason = "a program of its own, told by its command line what to run")]

#[path = "../benches/inputs/mod.rs"]
#[expect(dead_code, reason = "the list of them is for the bench")]
mod inputs;

use std::hint::black_box;
use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use policy::Policy;
use policy::catalogue::Catalogue;
use policy::decide::Grants;
use policy::decode::{BodyInspector, DecodeLimits, Encoding};
use policy::document::Source;
use policy::identity::AgentName;
use policy::path::RequestPath;
use policy::redact::Redactor;
use policy::request::{Kind, Request};
use policy::scan::{DigestKey, Place, Scanner, SecretAction, scan_field};
use policy::secret::{Exempt, Secrets};
use policy::target::{Scheme, Target};
use policy::usage::Usage;

/// Bytes of a body.
const SIZE: usize = 256 << 10;
/// What a connection typically hands over at once.
const CHUNK: usize = 16 << 10;

fn main() {
    let names = ["source", "json", "base64", "near-misses", "percent"];
    let scenario = std::env::args().nth(1).unwrap_or_default();
    // Doubled work must be seen: the script's own test asks for it.
    let times = if std::env::args().nth(2).as_deref() == Some("twice") { 2 } else { 1 };
    let mut run: Box<dyn FnMut()> = match scenario.as_str() {
        name if names.contains(&name) => scan(name),
        "gzip" => gzip(),
        "head" => head(),
        "redact" => redact(),
        "decide-100" => decide(100),
        "decide-10000" => decide(10_000),
        other => panic!("no scenario `{other}`"),
    };
    // What is made once is made before it counts.
    run();
    for _ in 0..times {
        measured(&mut run);
    }
}

/// What is counted.
#[inline(never)]
fn measured(run: &mut dyn FnMut()) {
    black_box(run)();
}

fn scanner() -> Scanner {
    let key = DigestKey::new([1; 32]);
    Scanner::new(Secrets::detectors(), key, SecretAction::Block, Exempt::none(), Place::Body)
}

fn scan(name: &str) -> Box<dyn FnMut()> {
    let data = Bytes::from(inputs::input(name, SIZE));
    Box::new(move || {
        let (mut scanner, mut out) = (scanner(), Vec::new());
        for start in (0..SIZE).step_by(CHUNK) {
            scanner.push(data.slice(start..start + CHUNK), &mut out).expect("no secret");
            out.clear();
        }
        scanner.finish(&mut out).expect("no secret");
    })
}

fn gzip() -> Box<dyn FnMut()> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&inputs::input("source", SIZE)).expect("a vector takes it");
    let data = Bytes::from(encoder.finish().expect("a vector takes it"));
    Box::new(move || {
        let mut inspector = BodyInspector::new(&[Encoding::Gzip], scanner(), DecodeLimits::default());
        let mut out = Vec::new();
        inspector.push(data.clone(), &mut out).expect("no secret");
        inspector.finish(&mut out).expect("no secret");
    })
}

/// The head of a request, as it is looked through before anything leaves.
fn head() -> Box<dyn FnMut()> {
    let head = b"host: api.example.com\nuser-agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\n\
        accept: application/json, text/plain;q=0.9, */*;q=0.8\naccept-encoding: gzip, deflate, br, zstd\n\
        content-type: application/json; charset=utf-8\nx-request-id: 3f2c1d9e-8a47-4a0b-9c55-1f0d2e6b7a83\n";
    let (secrets, key) = (Secrets::detectors(), DigestKey::new([1; 32]));
    Box::new(move || {
        let scanned =
            scan_field(&secrets, &key, SecretAction::Alert, &Exempt::none(), &Place::Body, black_box(head));
        assert!(scanned.is_ok_and(|scanned| scanned.findings.is_empty()));
    })
}

fn redact() -> Box<dyn FnMut()> {
    let (data, redactor) = (inputs::input("json", 4096), Redactor::new(Secrets::detectors()));
    Box::new(move || drop(black_box(redactor.excerpt(black_box(&data), 4096))))
}

fn decide(rules: usize) -> Box<dyn FnMut()> {
    let rules: Vec<String> = (0..rules)
        .map(|n| {
            format!(
                "[[rule]]\nname = \"rule {n}\"\naction = \"allow\"\nto = [\"api-{n}.example.org\"]\n\
                 methods = [\"GET\", \"POST\"]\npaths = [\"/repos/*/{n}/**\"]\nagents = [\"claude-*\"]\n"
            )
        })
        .collect();
    let text = rules.concat();
    let source = Source { name: "scenario.toml", text: &text };
    let policy =
        Policy::parse(&[source], Catalogue::builtin()).unwrap_or_else(|mistakes| panic!("{}", mistakes[0]));
    let agent: AgentName = "claude-1".parse().expect("a name");
    let target = Target::from_authority(Scheme::Https, b"api-50.example.org").expect("a host");
    let path = RequestPath::parse(b"/repos/example/50/pulls").expect("a path");
    let policy = Arc::new(policy);
    Box::new(move || {
        let request = Request {
            agent: &agent,
            kind: Kind::Http,
            target: &target,
            method: "POST",
            path: Some(&path),
            upload: 2_000,
            observe: false,
        };
        drop(black_box(policy.decide(black_box(&request), &Usage::default(), &Grants::none(), 0)));
    })
}
