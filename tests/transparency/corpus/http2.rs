//! HTTP/2 on the client's side, on the server's, and on both.

use super::super::shape::{Route, Shape, bytes, chunked, http1, http2, noise};
use crate::harness::Request;

/// Requests of HTTP/2 to a server that speaks HTTP/1.1 alone.
pub fn http2_to_http1() -> Vec<Shape> {
    let get = |path: &str| Request::get("localhost", path);
    let post = |path: &str, body: &str| Request::post("localhost", path, body);
    let table = [
        ("a GET", get("/a?b=c").header("accept", "*/*").header("user-agent", "me")),
        ("a POST", post("/a", "hello")),
        ("a body without a length", post("/a", "").pieces(["hello ", "world"])),
        ("trailers", post("/a", "").pieces(["hello"]).header("trailer", "x-sum").trailer("x-sum", "1")),
        ("cookies in fields of their own", get("/").header("cookie", "a=1").header("cookie", "b=2")),
        ("trailers taken", get("/").header("te", "trailers")),
        ("an unknown method", get("/").method("FROBNICATE")),
        ("HEAD", get("/").method("HEAD")),
        ("OPTIONS", get("/x").method("OPTIONS")),
        ("a scoped package", get("/@scope%2fname?x=%41")),
        ("fields of one name", get("/").header("x-a", "1").header("x-b", "2").header("x-a", "3")),
        ("a priority", get("/").header("priority", "u=1")),
        ("a large body", Request::post("localhost", "/", noise(1 << 20))),
        ("a DELETE with a body", post("/a", "hello").method("DELETE")),
    ];
    table
        .map(|(what, request)| http2(format!("HTTP/2 to HTTP/1.1: {what}"), Route::Http2ToHttp1, request))
        .into()
}

/// Answers of HTTP/1.1 to a client of HTTP/2.
pub fn answers_to_http2() -> Vec<Shape> {
    let ok = "HTTP/1.1 200 OK";
    let pieces: [&[u8]; 2] = [b"hello ", b"world"];
    let trailers = format!("{ok}\ntransfer-encoding: chunked\ntrailer: x-a");
    let hop_by_hop =
        format!("{ok}\nconnection: keep-alive, x-mine\nkeep-alive: timeout=5\nx-mine: 1\ncontent-length: 2");
    let table = [
        (
            "several cookies set",
            bytes(&format!("{ok}\nset-cookie: a=1\nset-cookie: b=2\ncontent-length: 2"), "ok"),
        ),
        ("chunks and trailers", bytes(&trailers, chunked(&pieces, "x-a: 1\r\n"))),
        ("204", bytes("HTTP/1.1 204 No Content\nx-a: 1", "")),
        ("304", bytes("HTTP/1.1 304 Not Modified\netag: \"a\"", "")),
        ("a reason of its own", bytes("HTTP/1.1 404 Gone fishing\ncontent-length: 2", "no")),
        ("fields of its connection", bytes(&hop_by_hop, "ok")),
        ("HTTP/1.0 until it closes", bytes("HTTP/1.0 200 OK", "until I close")),
        (
            "early hints",
            bytes(&format!("HTTP/1.1 103 Early Hints\nlink: <a>\n\n{ok}\ncontent-length: 2"), "ok"),
        ),
        ("a body broken off", bytes(&format!("{ok}\nconnection: close\ncontent-length: 9"), "half")),
        ("another way to itself", bytes(&format!("{ok}\nalt-svc: h3=\":443\"\ncontent-length: 2"), "ok")),
        ("three mebibytes", bytes(&format!("{ok}\ncontent-length: {}", 3 << 20), noise(3 << 20))),
    ];
    let request = || Request::get("localhost", "/").header("te", "trailers");
    let shape = |(what, answer): (&str, Vec<u8>)| Shape {
        answers: vec![answer],
        ..http2(format!("HTTP/1.1 to HTTP/2, an answer: {what}"), Route::Http2ToHttp1, request())
    };
    table.map(shape).into()
}

/// Requests of either to a server that offers HTTP/2.
pub fn to_http2() -> Vec<Shape> {
    let get = |path: &str| Request::get("localhost", path);
    let post = |path: &str, body: &str| Request::post("localhost", path, body);
    let table = [
        ("a GET", get("/a?b=c").header("accept", "*/*").header("user-agent", "me")),
        (
            "the fields the origin sees",
            get("/a").header("x-a", "1").header("x-a", "2").header("cookie", "a=1").header("cookie", "b=2"),
        ),
        ("a POST", post("/echo", "hello")),
        ("a body without a length", post("/echo", "").pieces(["hello ", "world"])),
        ("trailers of an answer", get("/trailers").header("te", "trailers")),
        ("trailers of a request", post("/echo", "").pieces(["hello"]).trailer("x-sum", "1")),
        (
            "a call of gRPC",
            post("/grpc", "")
                .pieces([b"\0\0\0\0\x02hi".to_vec()])
                .header("te", "trailers")
                .header("grpc-timeout", "1S"),
        ),
        ("server-sent events", get("/sse/4/5")),
        ("a large answer", get("/bytes/2000000")),
        ("a large body", Request::post("localhost", "/echo", noise(1 << 20))),
        ("an answer of 404", get("/status/404")),
        ("an answer of 503", get("/status/503")),
        ("HEAD", get("/a").method("HEAD")),
        ("DELETE", get("/a").method("DELETE")),
    ];
    let both =
        table.map(|(what, request)| http2(format!("HTTP/2 on both sides: {what}"), Route::Http2, request));
    let chunks: [&[u8]; 2] = [b"hello ", b"world"];
    let from_http1 = [
        http1("a GET", "GET /a?b=c\naccept: */*\nconnection: keep-alive"),
        http1(
            "the fields the origin sees",
            "GET /a\ncookie: a=1; b=2\nX-Odd: 1\nte: trailers\nconnection: te",
        ),
        http1("several cookie fields", "GET /a\ncookie: a=1\ncookie: b=2"),
        http1("a POST", "POST /echo\ncontent-type: text/plain\ncontent-length: 5").body("hello"),
        http1("chunks", "POST /echo\ntransfer-encoding: chunked").body(chunked(&chunks, "")),
        http1("chunks and trailers", "POST /echo\ntransfer-encoding: chunked")
            .body(chunked(&chunks, "x-a: 1\r\n")),
        http1("server-sent events", "GET /sse/4/5"),
        http1("trailers of an answer", "GET /trailers\nte: trailers\nconnection: te"),
        http1("a large answer", "GET /bytes/2000000"),
        http1("an answer of 404", "GET /status/404"),
        http1("HEAD", "HEAD /a"),
        http1("a request that waits for 100", "POST /echo\nexpect: 100-continue\ncontent-length: 5")
            .body("hello"),
    ];
    let from_http1 = from_http1.map(|shape| Shape {
        name: format!("HTTP/1.1 to HTTP/2: {}", shape.name),
        route: Route::Http1ToHttp2,
        ..shape
    });
    both.into_iter().chain(from_http1).collect()
}
