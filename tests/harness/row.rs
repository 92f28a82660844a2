//! A decision as `outgate log --json` tells it.

use std::fmt;
use std::ops::Index;

use serde_json::Value;

/// One decision.
#[derive(Clone)]
pub struct Row(pub Value);

impl Row {
    /// Asserts action and reason.
    pub fn is(&self, action: &str, reason: &str) {
        assert_eq!((self.text("action"), self.text("reason")), (action, reason), "in {self:?}");
    }

    /// A field as text; empty where it is null.
    pub fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_default()
    }

    /// A field as number; 0 where it is null.
    pub fn number(&self, field: &str) -> u64 {
        self.0[field].as_u64().unwrap_or_default()
    }

    /// The kinds of its findings.
    pub fn findings(&self) -> Vec<&str> {
        let findings = self.0["findings"].as_array().map(Vec::as_slice).unwrap_or_default();
        findings.iter().filter_map(|finding| finding["kind"].as_str()).collect()
    }

    /// Whether the exchange has ended.
    pub fn has_ended(&self) -> bool {
        !self.0["outcome"].is_null()
    }
}

impl Index<&str> for Row {
    type Output = Value;
    fn index(&self, field: &str) -> &Value {
        &self.0[field]
    }
}

/// On one line, without what tells a reader nothing: digests, times, numbers of the chain.
impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dull =
            ["body", "hash", "previous", "outcome_hash", "seq", "outcome_seq", "policy", "ms", "time", "id"];
        let telling = |(name, value): &(&String, &Value)| !value.is_null() && !dull.contains(&name.as_str());
        let fields = self.0.as_object().into_iter().flatten().filter(telling);
        let fields: Vec<String> = fields.map(|(name, value)| format!("{name}: {value}")).collect();
        f.write_str(&fields.join(", "))
    }
}
