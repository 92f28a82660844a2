//! What a model call says about itself: which API it speaks, and which model it asks for.
//!
//! Read from the request line and the first kilobytes of the body, never from the host: it is how an unknown host is
//! seen to serve a model, and how a session learns its provider and model.

use std::borrow::Cow;

use crate::json_start::Start;

/// As much of a body as is worth giving to [`shape`].
pub const BODY_START: usize = 4096;
/// Longer "models" are something else, and would be stored with every record.
const MODEL_LIMIT: usize = 128;

/// A model API, by the vendor whose wire format it is; others serve it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Api {
    /// `POST …/chat/completions`.
    OpenAiChat,
    /// `POST …/responses`.
    OpenAiResponses,
    /// `POST …/completions`.
    OpenAiCompletions,
    /// `POST …/embeddings`.
    OpenAiEmbeddings,
    /// `POST …/v1/messages`.
    AnthropicMessages,
    /// `POST …/models/NAME:generateContent` and `:streamGenerateContent`.
    GeminiGenerate,
    /// `POST …/api/generate`.
    OllamaGenerate,
    /// `POST …/api/chat`.
    OllamaChat,
    /// `POST …/model/NAME/converse` and `/invoke`, streamed or not.
    Bedrock,
}

impl Api {
    /// The word used in findings.
    pub fn as_str(self) -> &'static str {
        match self {
            Api::OpenAiChat => "openai-chat",
            Api::OpenAiResponses => "openai-responses",
            Api::OpenAiCompletions => "openai-completions",
            Api::OpenAiEmbeddings => "openai-embeddings",
            Api::AnthropicMessages => "anthropic-messages",
            Api::GeminiGenerate => "gemini-generate",
            Api::OllamaGenerate => "ollama-generate",
            Api::OllamaChat => "ollama-chat",
            Api::Bedrock => "bedrock",
        }
    }
}

/// A request that has the shape of a model call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelShape<'a> {
    /// The API it speaks.
    pub api: Api,
    /// The model it asks for, as far as it was seen.
    pub model: Option<Cow<'a, str>>,
}

/// How sure a path alone makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// Nothing else has this path: it is enough where the body cannot be read.
    Strong,
    /// Other services may have it too: the body has to confirm.
    Generic,
}

/// Whether a request is a model call. `body` is its decoded beginning, up to [`BODY_START`] bytes, empty where none
/// was seen; `path` is without query.
///
/// A body that can be read decides: it confirms the path, or speaks for itself where it could be nothing else.
pub fn shape<'a>(
    method: &str,
    path: &'a str,
    content_type: Option<&str>,
    body: &'a [u8],
) -> Option<ModelShape<'a>> {
    if method != "POST" {
        return None;
    }
    let by_path = by_path(path);
    let Some(start) = Start::read(body) else {
        let may_be_json = content_type.is_none_or(is_json);
        return by_path
            .filter(|(_, certainty)| *certainty == Certainty::Strong && may_be_json)
            .map(|(api, _)| ModelShape { api, model: model_in_path(path) });
    };
    let api = match by_path {
        Some((api, certainty)) if confirms(api, &start) || undecided(certainty, &start) => api,
        _ => by_body(&start)?,
    };
    let model = start.text("model").map(|name| Cow::Owned(name.to_owned())).or_else(|| model_in_path(path));
    Some(ModelShape { api, model: model.filter(|name| is_model_name(name)) })
}

/// The API that a path belongs to, whatever stands before it.
pub fn by_path(path: &str) -> Option<(Api, Certainty)> {
    use Certainty::{Generic, Strong};
    let path = path.trim_end_matches('/');
    let ends = |end: &str| path.ends_with(end);
    Some(match () {
        () if ends("/chat/completions") => (Api::OpenAiChat, Strong),
        () if ends("/v1/completions") => (Api::OpenAiCompletions, Strong),
        () if ends("/completions") => (Api::OpenAiCompletions, Generic),
        () if ends("/v1/responses") => (Api::OpenAiResponses, Strong),
        () if ends("/responses") => (Api::OpenAiResponses, Generic),
        () if ends("/v1/embeddings") => (Api::OpenAiEmbeddings, Strong),
        () if ends("/embeddings") => (Api::OpenAiEmbeddings, Generic),
        () if ends("/v1/messages") || ends("/v1/messages/count_tokens") => (Api::AnthropicMessages, Strong),
        () if ends(":rawPredict") || ends(":streamRawPredict") => (Api::AnthropicMessages, Generic),
        () if ends("/messages") => (Api::AnthropicMessages, Generic),
        () if ends(":generateContent") || ends(":streamGenerateContent") => (Api::GeminiGenerate, Strong),
        () if ends("/api/chat") => (Api::OllamaChat, Strong),
        () if ends("/api/generate") => (Api::OllamaGenerate, Strong),
        () if is_bedrock(path) => (Api::Bedrock, Strong),
        () => return None,
    })
}

fn is_bedrock(path: &str) -> bool {
    let Some((_, rest)) = path.split_once("/model/") else { return false };
    let Some((name, call)) = rest.split_once('/') else { return false };
    !name.is_empty()
        && matches!(call, "converse" | "converse-stream" | "invoke" | "invoke-with-response-stream")
}

/// Whether the body has what the API's calls have to have.
fn confirms(api: Api, start: &Start<'_>) -> bool {
    match api {
        Api::OpenAiChat | Api::OllamaChat => {
            start.has_array("messages") && start.has_under("messages", "role")
        }
        Api::AnthropicMessages => {
            let versioned = start.has("model") || start.has("anthropic_version");
            start.has_array("messages") && start.has_under("messages", "role") && versioned
        }
        Api::OpenAiResponses => start.has("model") && (start.has("input") || start.has("prompt")),
        Api::OpenAiCompletions | Api::OllamaGenerate => start.has("model") && start.has("prompt"),
        Api::OpenAiEmbeddings => start.has("model") && start.has("input"),
        Api::GeminiGenerate => start.has("contents"),
        Api::Bedrock => true,
    }
}

/// Whether the missing keys may stand beyond what was seen, on a path that nothing else has.
fn undecided(certainty: Certainty, start: &Start<'_>) -> bool {
    certainty == Certainty::Strong && !start.is_complete()
}

/// What a body alone can be: a conversation with roles, addressed to a model, on a path made up by its host.
fn by_body(start: &Start<'_>) -> Option<Api> {
    if start.has_array("contents") && start.has_under("contents", "parts") {
        return Some(Api::GeminiGenerate);
    }
    if start.text("model").is_none()
        || !start.has_under("messages", "role")
        || !start.has_under("messages", "content")
    {
        return None;
    }
    // Anthropic's alone: the system prompt beside the conversation.
    let anthropic = start.has("system") || start.has("anthropic_version");
    Some(if anthropic { Api::AnthropicMessages } else { Api::OpenAiChat })
}

/// `…/models/NAME:verb`, `…/deployments/NAME/…`, `…/model/NAME/…`.
fn model_in_path(path: &str) -> Option<Cow<'_, str>> {
    let name = ["/models/", "/deployments/", "/model/"].iter().find_map(|marker| {
        let (_, rest) = path.rsplit_once(marker)?;
        rest.split(['/', ':']).next()
    })?;
    is_model_name(name).then_some(Cow::Borrowed(name))
}

fn is_model_name(name: &str) -> bool {
    let plain = |b: u8| {
        b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/' | b':' | b'@' | b'%' | b'+')
    };
    !name.is_empty() && name.len() <= MODEL_LIMIT && name.bytes().all(plain)
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAT: &str =
        r#"{"model":"some-model","messages":[{"role":"user","content":"hello"}],"stream":true}"#;
    const CLAUDE: &str = r#"{"model":"a-model","max_tokens":9,"system":"be kind","messages":[{"role":"user","content":"hi"}]}"#;
    const GEMINI: &str = r#"{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}"#;
    const PROMPT: &str = r#"{"model":"m:7b","prompt":"why"}"#;
    const INPUT: &str = r#"{"model":"m/e-5","input":["a"]}"#;

    #[test]
    fn model_calls_are_recognised_with_their_model() {
        for (path, body, api, model) in [
            ("/v1/chat/completions", CHAT, Api::OpenAiChat, Some("some-model")),
            ("/openai/deployments/gpt-x/chat/completions", CHAT, Api::OpenAiChat, Some("some-model")),
            ("/openai/deployments/gpt-x/chat/completions", "", Api::OpenAiChat, Some("gpt-x")),
            ("/api/v1/chat/completions/", CHAT, Api::OpenAiChat, Some("some-model")),
            ("/v1/messages", CLAUDE, Api::AnthropicMessages, Some("a-model")),
            ("/v1/messages", "", Api::AnthropicMessages, None),
            ("/v1/messages/count_tokens", CLAUDE, Api::AnthropicMessages, Some("a-model")),
            ("/relay/messages", CLAUDE, Api::AnthropicMessages, Some("a-model")),
            ("/v1/responses", INPUT, Api::OpenAiResponses, Some("m/e-5")),
            ("/responses", INPUT, Api::OpenAiResponses, Some("m/e-5")),
            ("/v1/completions", PROMPT, Api::OpenAiCompletions, Some("m:7b")),
            ("/v1/embeddings", INPUT, Api::OpenAiEmbeddings, Some("m/e-5")),
            ("/v1beta/models/flash-2:generateContent", GEMINI, Api::GeminiGenerate, Some("flash-2")),
            ("/v1beta/models/flash-2:streamGenerateContent", "", Api::GeminiGenerate, Some("flash-2")),
            ("/api/chat", CHAT, Api::OllamaChat, Some("some-model")),
            ("/api/generate", PROMPT, Api::OllamaGenerate, Some("m:7b")),
            ("/model/vendor.name-v1%3A0/converse-stream", "{}", Api::Bedrock, Some("vendor.name-v1%3A0")),
            // the body alone, on a path made up by its host
            ("/x/submit", CHAT, Api::OpenAiChat, Some("some-model")),
            ("/x/submit", CLAUDE, Api::AnthropicMessages, Some("a-model")),
            ("/", GEMINI, Api::GeminiGenerate, None),
            // what confirms stands beyond what was seen
            (
                "/v1/chat/completions",
                r#"{"temperature":0,"messages":[{"content":"a long"#,
                Api::OpenAiChat,
                None,
            ),
            ("/v1/messages", r#"{"max_tokens":1,"system":"a long"#, Api::AnthropicMessages, None),
        ] {
            let found = shape("POST", path, Some("application/json"), body.as_bytes());
            let found = found.unwrap_or_else(|| panic!("`{path}` with `{body}`"));
            assert_eq!((found.api, found.model.as_deref()), (api, model), "`{path}` with `{body}`");
        }
    }

    #[test]
    fn other_requests_are_not_model_calls() {
        let json = Some("application/json");
        let long = format!(r#"{{"room":1,"text":"{}"}}"#, "x".repeat(50));
        for (method, path, content_type, body) in [
            ("GET", "/v1/messages", None, ""),
            ("GET", "/v1/chat/completions", json, CHAT),
            // a chat that is no model's
            ("POST", "/api/chat", json, r#"{"room":"lobby","text":"hello"}"#),
            ("POST", "/v1/messages", json, r#"{"to":"+4912345","from":"+4954321","body":"your parcel"}"#),
            ("POST", "/v1/messages", json, long.as_str()),
            ("POST", "/api/generate", json, r#"{"template":"invoice","format":"pdf"}"#),
            // generic paths need a body that says so
            ("POST", "/responses", json, ""),
            ("POST", "/forms/7/responses", json, r#"{"answers":[1,2]}"#),
            ("POST", "/forms/7/responses", json, r#"{"answers":[1,2"#),
            ("POST", "/mail/messages", json, r#"{"messages":[{"subject":"x"}]}"#),
            ("POST", "/embeddings", json, ""),
            // what is no JSON does not speak these APIs
            ("POST", "/v1/messages", Some("application/x-www-form-urlencoded"), "to=1&body=2"),
            ("POST", "/v1/messages", Some("multipart/form-data; boundary=x"), "--x"),
            // bodies alone need both a model and a conversation
            ("POST", "/cars", json, r#"{"model":"t","messages":["sold"]}"#),
            ("POST", "/cars", json, r#"{"model":"t","input":"x"}"#),
            ("POST", "/log", json, r#"{"messages":[{"role":"user","content":"x"}]}"#),
            ("POST", "/", json, "{}"),
            ("POST", "/", None, ""),
        ] {
            assert_eq!(
                shape(method, path, content_type, body.as_bytes()),
                None,
                "{method} `{path}` with `{body}`"
            );
        }
    }

    #[test]
    fn a_model_name_is_short_and_plain() {
        let long = "m".repeat(129);
        for name in ["", "a b", "a\nb", "ü", "<script>", long.as_str()] {
            let body = serde_json::json!({"model": name, "messages": [{"role": "user", "content": "x"}]})
                .to_string();
            let found = shape("POST", "/v1/chat/completions", None, body.as_bytes()).unwrap();
            assert_eq!(found.model, None, "`{name}`");
        }
    }
}
