//! What a call of the Model Context Protocol over HTTP says about itself (its Streamable HTTP transport).

use crate::json_start::Start;

/// Longer names are something else, and would be stored with every record.
const NAME_LIMIT: usize = 128;

/// What of a request tells whether it is an MCP call. Header values are as sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Signs<'a> {
    /// Method.
    pub method: &'a str,
    /// Whether there is an `mcp-session-id` header.
    pub session: bool,
    /// Whether there is an `mcp-protocol-version` header.
    pub protocol_version: bool,
    /// The `accept` header.
    pub accept: Option<&'a str>,
    /// The decoded beginning of the body, empty where none was seen.
    pub body: &'a [u8],
}

/// A call of an MCP server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct McpCall {
    /// The JSON-RPC method, such as `tools/call`, where the body was seen.
    pub method: Option<String>,
    /// The tool, prompt or resource that is called.
    pub name: Option<String>,
}

/// Whether a request is an MCP call: by the protocol's own headers, or by a JSON-RPC message only it has.
pub fn call(signs: &Signs<'_>) -> Option<McpCall> {
    if !matches!(signs.method, "POST" | "GET" | "DELETE") {
        return None;
    }
    let start = if signs.method == "POST" { Start::read(signs.body) } else { None };
    let message = start.as_ref().filter(|start| start.text("jsonrpc") == Some("2.0"));
    let method = message.and_then(|message| message.text("method"));
    let by_body = match (message, method) {
        (Some(message), Some(method)) => is_own_method(method, message, accepts_events(signs)),
        _ => false,
    };
    if !(by_body || signs.session || signs.protocol_version) {
        return None;
    }
    let name =
        message.and_then(|message| ["name", "uri"].iter().find_map(|key| message.text_under("params", key)));
    Some(McpCall { method: method.and_then(bounded), name: name.and_then(bounded) })
}

/// `tools/…` and its kin are MCP's; `initialize` and `ping` belong to other JSON-RPC protocols too, so they need the
/// protocol version in their parameters, or a client that takes an answer as JSON or as events.
fn is_own_method(method: &str, message: &Start<'_>, accepts_events: bool) -> bool {
    match method {
        "initialize" => message.has_under("params", "protocolVersion") || accepts_events,
        "ping" | "logging/setLevel" | "completion/complete" => accepts_events,
        _ => ["tools/", "resources/", "prompts/", "sampling/", "elicitation/", "roots/", "notifications/"]
            .iter()
            .any(|family| method.starts_with(family)),
    }
}

fn accepts_events(signs: &Signs<'_>) -> bool {
    signs.accept.is_some_and(|accept| accept.to_ascii_lowercase().contains("text/event-stream"))
}

fn bounded(name: &str) -> Option<String> {
    let fits = !name.is_empty() && name.len() <= NAME_LIMIT && !name.chars().any(char::is_control);
    fits.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: Option<&str> = Some("application/json, text/event-stream");

    #[test]
    fn mcp_calls_are_recognised_with_method_and_name() {
        let initialize =
            r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}"#;
        let bare = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{}}"#;
        let tool = r#"{"method":"tools/call","params":{"name":"search","arguments":{"q":"x"}},"jsonrpc":"2.0","id":2}"#;
        let batch = r#"[{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:///a"}}]"#;
        for (body, accept, method, name) in [
            (initialize, None, "initialize", None),
            (bare, EVENTS, "initialize", None),
            (r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#, None, "tools/list", None),
            (tool, None, "tools/call", Some("search")),
            (batch, None, "resources/read", Some("file:///a")),
            (
                r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
                None,
                "notifications/initialized",
                None,
            ),
            (r#"{"jsonrpc":"2.0","id":3,"method":"ping"}"#, EVENTS, "ping", None),
        ] {
            let found = call(&Signs { method: "POST", accept, body: body.as_bytes(), ..Signs::default() });
            let found = found.unwrap_or_else(|| panic!("`{body}`"));
            assert_eq!((found.method.as_deref(), found.name.as_deref()), (Some(method), name), "`{body}`");
        }
    }

    #[test]
    fn the_protocols_own_headers_are_enough() {
        for method in ["POST", "GET", "DELETE"] {
            let session = Signs { method, session: true, ..Signs::default() };
            assert_eq!(call(&session), Some(McpCall::default()), "{method}");
            let version = Signs { method, protocol_version: true, accept: EVENTS, ..Signs::default() };
            assert_eq!(call(&version), Some(McpCall::default()), "{method}");
        }
        assert_eq!(call(&Signs { method: "PUT", session: true, ..Signs::default() }), None);
    }

    #[test]
    fn other_requests_are_not_mcp_calls() {
        for (method, accept, body) in [
            ("GET", Some("text/event-stream"), ""),
            ("POST", EVENTS, ""),
            ("POST", EVENTS, r#"{"hello":"world"}"#),
            ("POST", None, r#"{"jsonrpc":"2.0","id":1,"method":"eth_blockNumber","params":[]}"#),
            (
                "POST",
                None,
                r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"rootUri":"file:///x"}}"#,
            ),
            ("POST", None, r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#),
            ("POST", EVENTS, r#"{"jsonrpc":"1.0","id":1,"method":"tools/list"}"#),
            ("POST", EVENTS, r#"{"method":"tools/list"}"#),
            ("POST", EVENTS, r#"{"text":"{\"jsonrpc\":\"2.0\",\"method\":\"tools/list\"}"}"#),
        ] {
            let found = call(&Signs { method, accept, body: body.as_bytes(), ..Signs::default() });
            assert_eq!(found, None, "{method} `{body}`");
        }
    }
}
