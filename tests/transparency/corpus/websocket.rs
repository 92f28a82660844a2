//! WebSockets.

use super::super::shape::{Route, Sends, Shape, every_byte, noise};
use crate::harness::{Frame, Opcode};

/// Conversations with an origin that sends every message back.
pub fn websockets() -> Vec<Shape> {
    let part = |last, opcode, payload: &str| Frame { last, rsv1: false, opcode, payload: payload.into() };
    let fragments = vec![
        part(false, Opcode::Text, "hello "),
        part(false, Opcode::Continuation, "wide "),
        part(true, Opcode::Continuation, "world"),
    ];
    type Row = (&'static str, Vec<(&'static str, &'static str)>, Vec<Frame>);
    let table: [Row; 8] = [
        ("a text", vec![], vec![Frame::text("hello \u{20ac}")]),
        ("bytes", vec![], vec![Frame::binary(every_byte())]),
        ("many messages", vec![], (0..50).map(|number| Frame::text(format!("message {number}"))).collect()),
        ("a large message", vec![], vec![Frame::binary(noise(1 << 20))]),
        ("a message in fragments", vec![], fragments),
        ("a ping", vec![], vec![part(true, Opcode::Ping, "there?"), Frame::text("still")]),
        ("a close with a code of the origin's", vec![], vec![Frame::text("code:4001")]),
        (
            "a sub-protocol, an origin and compression on offer",
            vec![
                ("origin", "https://a.test"),
                ("sec-websocket-protocol", "chat"),
                ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"),
                ("cookie", "a=1"),
            ],
            vec![Frame::text("hello")],
        ),
    ];
    let shape = |(what, fields, frames)| Shape {
        name: format!("a WebSocket with {what}"),
        route: Route::WebSocket,
        sends: Sends::Frames(fields, frames),
        answers: vec![Vec::new()],
        refused: false,
    };
    table.map(shape).into()
}
