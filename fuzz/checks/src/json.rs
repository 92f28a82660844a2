//! JSON read from its beginning: what is told of a model call, an MCP call or large files is what the whole says.

use policy::mcp::{self, Signs};
use policy::{git, model};
use serde_json::Value;

/// Takes the beginning of a body.
pub fn check(input: &[u8]) {
    let shape = model::shape("POST", "/v1/chat/completions", None, input);
    let name = shape.as_ref().and_then(|shape| shape.model.as_deref());
    let call = mcp::call(&Signs { method: "POST", session: true, body: input, ..Signs::default() });
    let call = call.expect("its header makes it a call");
    let operation = git::lfs_operation(input);
    for told in [name, call.method.as_deref(), call.name.as_deref()].into_iter().flatten() {
        assert!(told.len() <= 128 && !told.is_empty() && !told.contains(char::is_control), "{told:?}");
    }
    path(input);
    let Some(whole) = Whole::of(input) else { return };
    if let Some(name) = name {
        assert_eq!(whole.text("model"), Some(name));
    }
    if let (Some(told), Some("2.0")) = (&call.method, whole.text("jsonrpc")) {
        assert_eq!(whole.text("method"), Some(told.as_str()));
    }
    let uploads = operation == Some(git::LfsOperation::Upload);
    let downloads = operation == Some(git::LfsOperation::Download);
    assert_eq!(uploads, whole.text("operation") == Some("upload"));
    assert_eq!(downloads, whole.text("operation") == Some("download"));
}

/// The same bytes as a path.
fn path(input: &[u8]) {
    let Ok(path) = std::str::from_utf8(input) else { return };
    let shape = model::shape("POST", path, None, b"");
    assert_eq!(
        shape.is_some(),
        model::by_path(path).is_some_and(|(_, sure)| sure == model::Certainty::Strong)
    );
    if let Some(name) = shape.and_then(|shape| shape.model) {
        assert!(path.contains(&*name));
    }
}

/// A whole document of the kind that is read to its end, as servers read it.
struct Whole(Value);

impl Whole {
    fn of(input: &[u8]) -> Option<Whole> {
        // The reading ends where nesting or the number of keys passes its limits.
        let colons = input.iter().filter(|byte| **byte == b':').count();
        let brackets = input.iter().filter(|byte| b"[{".contains(byte)).count();
        let value: Value = serde_json::from_slice(input).ok().filter(|_| colons < 256 && brackets < 64)?;
        let first = match value {
            Value::Array(values) => values.into_iter().next()?,
            other => other,
        };
        first.is_object().then_some(Whole(first))
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.as_str()
    }
}
