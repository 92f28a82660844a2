//! The vendors' own libraries, streaming, with a key that belongs where it goes.

use super::Desk;
use super::python::python;
use crate::harness::{Asked, Reply, World, reply, secrets};

/// The vendors' names, on the port of our own server.
const POLICY: &str = "allow = [\"api.anthropic.com:{tls}\", \"api.openai.com:{tls}\", \"other.test:{tls}\"]";

/// As much of both protocols as one streamed answer needs.
async fn vendor(asked: Asked) -> Reply {
    let events: Vec<(&str, String)> = match &asked.path[..] {
        "/v1/messages" => vec![
            ("message_start", r#"{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":1,"output_tokens":1}}}"#.into()),
            ("content_block_start", r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#.into()),
            ("content_block_delta", r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hel"}}"#.into()),
            ("content_block_delta", r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"lo"}}"#.into()),
            ("content_block_stop", r#"{"type":"content_block_stop","index":0}"#.into()),
            ("message_delta", r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":2}}"#.into()),
            ("message_stop", r#"{"type":"message_stop"}"#.into()),
        ],
        "/v1/chat/completions" => {
            let piece = |delta: &str, end: &str| {
                format!(r#"{{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{{"index":0,"delta":{delta},"finish_reason":{end}}}]}}"#)
            };
            vec![
                ("", piece(r#"{"role":"assistant","content":"hel"}"#, "null")),
                ("", piece(r#"{"content":"lo"}"#, "null")),
                ("", piece("{}", "\"stop\"")),
                ("", "[DONE]".into()),
            ]
        }
        _ => return reply(404, "application/json", "{}"),
    };
    let event = |(name, data): &(&str, String)| match *name {
        "" => format!("data: {data}\n\n"),
        name => format!("event: {name}\ndata: {data}\n\n"),
    };
    reply(200, "text/event-stream", events.iter().map(event).collect::<String>())
}

const ANTHROPIC: &str = r#"
import sys, anthropic
client = anthropic.Anthropic(api_key=sys.argv[1], base_url=sys.argv[2], max_retries=0)
try:
    with client.messages.stream(model="m", max_tokens=16, messages=[{"role": "user", "content": "hi"}]) as stream:
        print("".join(stream.text_stream))
except anthropic.PermissionDeniedError as error:
    print("denied:", error)
"#;

const OPENAI: &str = r#"
import sys, openai
client = openai.OpenAI(api_key=sys.argv[1], base_url=sys.argv[2] + "/v1", max_retries=0)
stream = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}], stream=True)
print("".join(piece.choices[0].delta.content or "" for piece in stream))
"#;

async fn world() -> World {
    let mut world = World::with_policy(POLICY).answering(vendor).start().await;
    let origin = world.origin.ip.to_string();
    for name in ["api.anthropic.com", "api.openai.com"] {
        world.resolver.answers(name, crate::harness::NameReply::at(&[&origin]));
    }
    world.gate.plant(&secrets::heart(&secrets::anthropic_key()));
    world
}

#[tokio::test]
async fn the_anthropic_library_streams_with_its_own_key() {
    let world = world().await;
    let desk = Desk::in_front_of(&world).await;
    let url = format!("https://api.anthropic.com:{}", world.origin.tls);
    let Some(run) = python(&desk, ANTHROPIC, &[&secrets::anthropic_key(), &url]).await else { return };
    assert_eq!(run.ok(), "hello\n");
    let row = world.gate.only_decision().await;
    row.is("allow", "allowed_by_rule");
    assert_eq!((row.text("class"), row.text("service")), ("model", "anthropic"), "{row:?}");
    assert!(row.findings().contains(&"credential_used"), "{row:?}");
    assert!(row["body"].is_null(), "prompts are not kept: {row:?}");
    world.finish().await;
}

#[tokio::test]
async fn the_same_key_is_refused_anywhere_else() {
    let world = world().await;
    let desk = Desk::in_front_of(&world).await;
    let url = format!("https://other.test:{}", world.origin.tls);
    let Some(run) = python(&desk, ANTHROPIC, &[&secrets::anthropic_key(), &url]).await else { return };
    let said = run.ok();
    assert!(said.starts_with("denied:") && said.contains("secret_found"), "{said}");
    world.gate.only_decision().await.is("deny", "secret_found");
    world.origin.must_be_untouched();
    world.finish().await;
}

#[tokio::test]
async fn the_openai_library_streams_with_its_own_key() {
    let world = world().await;
    let desk = Desk::in_front_of(&world).await;
    let url = format!("https://api.openai.com:{}", world.origin.tls);
    let Some(run) = python(&desk, OPENAI, &["sk-not-one-of-theirs", &url]).await else { return };
    assert_eq!(run.ok(), "hello\n");
    let row = world.gate.only_decision().await;
    row.is("allow", "allowed_by_rule");
    assert_eq!((row.text("class"), row.text("service")), ("model", "openai"), "{row:?}");
    world.finish().await;
}
