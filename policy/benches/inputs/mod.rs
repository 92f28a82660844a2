//! What the scanner is measured with: files, JSON, base64, and the two worst cases.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Ordinary inputs first, then the worst: what only just is no secret, and what is escaped through and through.
pub(crate) const INPUTS: [&str; 6] = ["source", "json", "base64", "text", "near-misses", "percent"];

/// So many bytes of one of [`INPUTS`].
pub(crate) fn input(name: &str, size: usize) -> Vec<u8> {
    let source = [
        include_str!("../../src/scan.rs"),
        include_str!("../../src/secret/search.rs"),
        include_str!("../../src/decode.rs"),
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
    unit.repeat(size / unit.len() + 1).into_bytes()[..size].to_vec()
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..length).map(|_| next()).collect()
}
