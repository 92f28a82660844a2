//! The only way text gets from a request into a record.

use serde::{Deserialize, Serialize};

/// Text that has passed the redactor, or never came from a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Redacted(String);

impl Redacted {
    /// Text of the program itself.
    pub fn literal(text: &'static str) -> Redacted {
        Redacted(text.to_owned())
    }

    /// Text read back from a record, where it arrived redacted.
    pub fn from_store(text: String) -> Redacted {
        Redacted(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
