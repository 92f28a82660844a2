//! Secrets that never were: of the right shape, put together at run time so that no scanner of sources trips over
//! them.

use policy::secret::Detector;

/// Characters without order, from which the bodies of keys are cut.
const NOISE: &str =
    "q7Zt2Lw9Xc4Vb1Nm8Kj5Hg3Fd6Sa0PoIuYtRe-WqAzSxDcFvGbHnJmKlP9o8I7u6Y5t4R3e2W1_qMnBvCxZlKjHgFdSaPoIuYtReWq";

/// A key of the Anthropic API.
pub fn anthropic_key() -> String {
    format!("sk-ant-api03-{}AA", &NOISE[..93])
}

/// An AWS access key id.
pub fn aws_access_key() -> String {
    format!("AKIA{}", "Q7ZT2LW9XC4VB6NM")
}

/// An example of what a detector finds, checksum included.
pub fn token(detector: &str) -> String {
    let [example, _] = Detector::named(detector).unwrap().examples();
    example
}

/// The part of a key that is nobody's but its owner's: what must not be found anywhere, whatever stands before it.
pub fn heart(secret: &str) -> String {
    let middle = secret.len() / 2;
    secret[middle - 6..middle + 6].to_owned()
}
