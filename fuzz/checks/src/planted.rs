//! Secrets planted in made-up text: the input says where and which, so that none stands in the corpus.

use std::sync::{Arc, LazyLock};

use policy::secret::{Detector, KnownValue, Secrets};

/// The byte that stands for a secret; the one after it says which.
const MARK: u8 = 1;
/// Values an operator knows, with what URLs, JSON and terminals treat as special.
pub(crate) const KNOWN: [&str; 2] = ["kn0wn \"Value\"/of%2Fthe+operator", "sup3rSecre?t&Value=12#34/56@78"];

/// The detectors and the known values.
pub(crate) static SECRETS: LazyLock<Arc<Secrets>> = LazyLock::new(|| {
    let value = |text: &str| KnownValue::new("env:KNOWN", text.as_bytes()).expect("worth looking for");
    Arc::new(Secrets::new(KNOWN.map(value).into()))
});

/// Every secret that can be planted; the known values first.
static ALL: LazyLock<Vec<String>> = LazyLock::new(|| {
    KNOWN
        .iter()
        .map(|value| (*value).to_owned())
        .chain(Detector::all().flat_map(Detector::examples))
        .collect()
});

/// The text that an input stands for.
pub(crate) fn expand(input: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(input.len() + 64);
    let mut bytes = input.iter();
    while let Some(byte) = bytes.next() {
        match (*byte == MARK).then(|| bytes.next()).flatten() {
            Some(which) => text.extend_from_slice(ALL[usize::from(*which) % ALL.len()].as_bytes()),
            None => text.push(*byte),
        }
    }
    text
}
