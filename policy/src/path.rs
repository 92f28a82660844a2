//! The path of a request in the one spelling in which it is matched and sent on.

/// An absolute path, percent-decoded where that changes nothing, without dot segments; and the raw query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestPath {
    path: String,
    query: Option<String>,
}

impl RequestPath {
    /// The canonical path, beginning with `/`.
    pub fn as_str(&self) -> &str {
        &self.path
    }

    /// The query as sent, without `?`.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }
}
