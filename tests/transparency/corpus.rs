//! The shapes of requests and answers that are sent through both proxies.

mod connections;
mod http1;
mod http2;
mod websocket;

use super::shape::Shape;

/// The whole corpus.
pub fn corpus() -> Vec<Shape> {
    let single = [
        http1::methods(),
        http1::statuses(),
        http1::targets(),
        http1::request_fields(),
        http1::answer_fields(),
        http1::bodies(),
        http1::refused(),
    ];
    let others = [
        connections::framing(),
        connections::connections(),
        connections::clear(),
        http2::http2_to_http1(),
        http2::answers_to_http2(),
        http2::to_http2(),
        websocket::websockets(),
    ];
    single.into_iter().chain(others).flatten().collect()
}
