//! Where messages and connections of HTTP/1.1 end, inside TLS and in clear text.

use super::super::shape::{Route, Shape, bytes, chunked, http1, ok};

/// How bodies end, or do not.
pub fn framing() -> Vec<Shape> {
    let chunks: [&[u8]; 3] = [b"hello ", b"w", b"orld"];
    let trailers = "x-checksum: abc\r\nx-more: 1\r\nx-more: 2\r\n";
    let ok = "HTTP/1.1 200 OK";
    let post = "POST /\ncontent-type: text/plain\ntransfer-encoding: chunked";
    vec![
        http1("trailers after a request body", &format!("{post}\ntrailer: x-checksum, x-more"))
            .body(chunked(&chunks, trailers)),
        http1("trailers that no request announced", post).body(chunked(&chunks, trailers)),
        http1("trailers after an answer, asked for", "GET /\nte: trailers\nconnection: te").answer(
            &format!("{ok}\ntransfer-encoding: chunked\ntrailer: x-checksum, x-more"),
            chunked(&chunks, trailers),
        ),
        http1("trailers after an answer, not asked for", "GET /").answer(
            &format!("{ok}\ntransfer-encoding: chunked\ntrailer: x-checksum, x-more"),
            chunked(&chunks, trailers),
        ),
        http1("chunks with extensions", post).body("5;name=\"value\"\r\nhello\r\n0;last\r\n\r\n"),
        http1("chunks of an answer with extensions", "GET /")
            .answer(&format!("{ok}\ntransfer-encoding: chunked"), "5;a=b\r\nhello\r\n0\r\n\r\n"),
        http1("an answer that ends with its connection", "GET /").answer(ok, "until I close"),
        http1("an answer of HTTP/1.0", "GET /")
            .answer("HTTP/1.0 200 Fine\ncontent-type: text/plain", "until I close"),
        http1("an answer of HTTP/1.0 with a length", "GET /")
            .answer("HTTP/1.0 200 OK\ncontent-length: 5", "hello"),
        http1("an answer and then a closed connection", "GET /")
            .answer(&format!("{ok}\nconnection: close\ncontent-length: 5"), "hello"),
        http1("an answer broken off", "GET /")
            .answer(&format!("{ok}\nconnection: close\ncontent-length: 9"), "half"),
        http1("a chunked answer broken off", "GET /")
            .answer(&format!("{ok}\nconnection: close\ntransfer-encoding: chunked"), "4\r\nhalf\r\n"),
        http1("no answer at all", "GET /").answer("", ""),
        http1("an answer that is not HTTP", "GET /").answer("SSH-2.0-nothing", ""),
        http1("server-sent events", "GET /\naccept: text/event-stream\nlast-event-id: 3").answer(
            &format!(
                "{ok}\ncontent-type: text/event-stream\ncache-control: no-store\ntransfer-encoding: chunked"
            ),
            chunked(&[b"id: 4\ndata: a\n\n", b": ping\n\n", b"event: x\ndata: {}\n\n"], ""),
        ),
        http1("a request that waits for 100", "POST /\nexpect: 100-continue\ncontent-length: 5")
            .body("hello"),
        http1("a request of HTTP/1.0", "GET / HTTP/1.0"),
        http1("two lengths that are equal", "POST /\ncontent-length: 5\ncontent-length: 5").body("hello"),
    ]
}

/// Several requests on one connection.
pub fn connections() -> Vec<Shape> {
    let answers = |count: usize| (0..count).map(|number| ok(&format!("answer {number}"))).collect::<Vec<_>>();
    let post = "POST /b\ncontent-type: text/plain\ncontent-length: 5";
    vec![
        Shape {
            answers: answers(3),
            ..http1("three requests on one connection", "GET /a").then(post, "hello").then("GET /c", "")
        },
        Shape {
            answers: vec![
                bytes("HTTP/1.1 304 Not Modified\netag: \"a\"", ""),
                ok("two"),
                bytes("HTTP/1.1 204 No Content", ""),
                ok("four"),
            ],
            ..http1("answers with and without a body on one connection", "GET /a")
                .then("GET /b", "")
                .then("GET /c", "")
                .then("GET /d", "")
        },
        Shape {
            answers: vec![bytes("HTTP/1.1 200 OK\nconnection: close\ncontent-length: 1", "1"), ok("two")],
            ..http1("a request after the origin closed", "GET /a").then("GET /b", "")
        },
    ]
}

/// Absolute form, without TLS.
pub fn clear() -> Vec<Shape> {
    let post = "POST /things?a=%7e\ncontent-type: text/plain\ncontent-length: 5";
    let chunks: [&[u8]; 2] = [b"hello ", b"world"];
    let chunked_post = "POST /\ntransfer-encoding: chunked";
    let answer = "HTTP/1.1 200 OK\ntransfer-encoding: chunked";
    vec![
        http1("in clear text: a GET", "GET /a/b?c=d\naccept: */*\nuser-agent: me"),
        http1("in clear text: a POST", post).body("hello"),
        http1("in clear text: HEAD", "HEAD /").answer("HTTP/1.1 200 OK\ncontent-length: 7", ""),
        http1("in clear text: chunks and trailers", chunked_post)
            .body(chunked(&chunks, "x-a: 1\r\n"))
            .answer(answer, chunked(&chunks, "")),
        http1("in clear text: what old clients add", "GET /\nproxy-connection: keep-alive\npragma: no-cache"),
        http1("in clear text: a path that is only the root", "GET /"),
        http1("in clear text: two requests on one connection", "GET /a").then(post, "hello"),
        http1("in clear text: an answer of HTTP/1.0", "GET /").answer("HTTP/1.0 200 OK", "until I close"),
        http1("in clear text: a redirect to TLS", "GET /")
            .answer("HTTP/1.1 301 Moved Permanently\nlocation: https://localhost/\ncontent-length: 0", ""),
    ]
    .into_iter()
    .map(|shape| Shape { route: Route::Clear, ..shape })
    .collect()
}
