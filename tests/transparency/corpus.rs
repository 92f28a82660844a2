//! The shapes of requests and answers that are sent through both proxies.

use super::message::latin1;
use crate::harness::{Frame, Opcode, Request};

/// One request, or several on one connection, with what the origin answers.
pub struct Shape {
    /// A sentence on what is special about it.
    pub name: String,
    /// Which way it goes.
    pub route: Route,
    /// What the client sends.
    pub sends: Sends,
    /// What the recorder answers; the other origins answer by their own script.
    pub answers: Vec<Vec<u8>>,
    /// Whether Outgate refuses it, where the reference passes on whatever it can.
    pub refused: bool,
}

/// Protocols on both sides of the proxy. All but `Clear` are inside TLS on both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Absolute form in clear text, on to the recorder's clear-text port.
    Clear,
    /// HTTP/1.1, on to the recorder.
    Http1,
    /// HTTP/2, on to the recorder, which speaks HTTP/1.1 alone.
    Http2ToHttp1,
    /// HTTP/1.1, on to an origin that offers HTTP/2.
    Http1ToHttp2,
    /// HTTP/2 on both sides.
    Http2,
    /// A WebSocket, on to an origin that speaks HTTP/1.1 alone.
    WebSocket,
}

/// What the client sends.
pub enum Sends {
    /// Requests of HTTP/1.1 to the letter, one after the other.
    Written(Vec<Written>),
    /// A request that a library writes.
    Described(Request),
    /// A handshake with further fields, then frames.
    Frames(Vec<(&'static str, &'static str)>, Vec<Frame>),
}

/// A request to the letter.
#[derive(Clone)]
pub struct Written {
    /// Request line without version, then fields, a line each.
    pub head: String,
    /// What follows the head, framing included.
    pub body: Vec<u8>,
}

impl Written {
    /// Its method.
    pub fn method(&self) -> &str {
        self.head.split(' ').next().unwrap_or_default()
    }

    /// The head as bytes for the server `authority`, in absolute form or not.
    pub fn head(&self, authority: &str, absolute: bool) -> Vec<u8> {
        let (line, fields) = self.head.split_once('\n').unwrap_or((&self.head, ""));
        let (method, target) = line.split_once(' ').expect("a method and a target");
        let (target, version) = target.split_once(' ').unwrap_or((target, "HTTP/1.1"));
        let origin = if absolute { format!("http://{authority}") } else { String::new() };
        let host = format!("{method} {origin}{target} {version}\nHost: {authority}\n");
        latin1(&format!("{host}{fields}{}\n", end_of_line(fields)).replace('\n', "\r\n"))
    }
}

/// The whole corpus.
pub fn corpus() -> Vec<Shape> {
    let families = [methods(), statuses(), targets(), request_fields(), answer_fields(), bodies()];
    let more = [
        refused(),
        framing(),
        connections(),
        clear(),
        http2_to_http1(),
        answers_to_http2(),
        to_http2(),
        websockets(),
    ];
    families.into_iter().chain(more).flatten().collect()
}

fn methods() -> Vec<Shape> {
    let mut shapes: Vec<_> = ["GET", "OPTIONS", "DELETE", "PROPFIND", "M-SEARCH", "FROBNICATE", "get"]
        .map(|method| http1(format!("a request of {method} without body"), &format!("{method} /")))
        .into();
    for method in ["POST", "PUT", "PATCH", "DELETE", "REPORT", "GET"] {
        let head = format!("{method} /\ncontent-type: text/plain\ncontent-length: 5");
        shapes.push(http1(format!("a request of {method} with a body"), &head).body("hello"));
    }
    let length = "HTTP/1.1 200 OK\ncontent-length: 5\netag: \"a\"";
    shapes.push(http1("HEAD of something with a length", "HEAD /").answer(length, ""));
    let chunked = "HTTP/1.1 200 OK\ntransfer-encoding: chunked";
    shapes.push(http1("HEAD of something without a length", "HEAD /").answer(chunked, ""));
    shapes
}

fn statuses() -> Vec<Shape> {
    let table = [
        ("201 Created", "location: /things/7"),
        ("202 Accepted", "x-poll: /jobs/7"),
        ("203 Non-Authoritative Information", "warning: 214 - \"changed\""),
        ("301 Moved Permanently", "location: https://elsewhere.test/x?y=%2f"),
        ("303 See Other", "location: /there"),
        ("307 Temporary Redirect", "location: //elsewhere.test/"),
        ("308 Permanent Redirect", "location: ../up"),
        ("400 Bad Request", "x-why: because"),
        (
            "401 Unauthorized",
            "www-authenticate: Basic realm=\"a\", charset=\"UTF-8\"\nwww-authenticate: Bearer",
        ),
        ("403 Forbidden", "x-why: because"),
        ("404 Not Found", "x-why: because"),
        ("405 Method Not Allowed", "allow: GET, HEAD"),
        ("407 Proxy Authentication Required", "proxy-authenticate: Basic realm=\"the origin\""),
        ("416 Range Not Satisfiable", "content-range: bytes */10"),
        ("418 I am a teapot, short and stout", "x-why: because"),
        ("421 Misdirected Request", "x-why: because"),
        ("429 Too Many Requests", "retry-after: 3\nx-ratelimit-remaining: 0"),
        ("451 Unavailable For Legal Reasons", "link: <https://a.test>; rel=\"blocked-by\""),
        ("500 Internal Server Error", "x-why: because"),
        ("502 Bad Gateway", "x-why: because"),
        ("503 Service Unavailable", "retry-after: Thu, 01 Jan 1970 00:00:00 GMT"),
        ("504 Gateway Timeout", "x-why: because"),
        ("529 ", "x-why: because"),
        ("599 Made Up", "x-why: because"),
    ];
    let mut shapes: Vec<_> = table
        .map(|(status, field)| {
            let head = format!("HTTP/1.1 {status}\n{field}\ncontent-length: 5");
            http1(format!("an answer of {status}"), "GET /").answer(&head, "sorry")
        })
        .into();
    let no_content = "HTTP/1.1 204 No Content\nx-a: 1";
    shapes.push(http1("204 without any length", "DELETE /").answer(no_content, ""));
    let not_modified = "HTTP/1.1 304 Not Modified\netag: \"a\"\ncontent-length: 1234";
    shapes.push(
        http1("304 with the length of what it stands for", "GET /\nif-none-match: \"a\"")
            .answer(not_modified, ""),
    );
    let partial =
        "HTTP/1.1 206 Partial Content\ncontent-range: bytes 2-4/10\naccept-ranges: bytes\ncontent-length: 3";
    shapes.push(http1("a range", "GET /\nrange: bytes=2-4\nif-range: \"a\"").answer(partial, "cde"));
    let hints = "HTTP/1.1 103 Early Hints\nlink: </a.css>; rel=preload\n\nHTTP/1.1 200 OK\ncontent-length: 2";
    shapes.push(http1("early hints before the answer", "GET /").answer(hints, "ok"));
    let processing = "HTTP/1.1 102 Processing\n\nHTTP/1.1 200 OK\ncontent-length: 2";
    shapes.push(http1("two answers of 1xx and one of 200", "GET /").answer(processing, "ok"));
    shapes
}

fn targets() -> Vec<Shape> {
    let table = [
        ("an encoded slash", "/a%2fb/c%2Fd"),
        ("a scoped package", "/@scope%2fname"),
        ("a tilde", "/~user/file~1"),
        ("an encoded tilde", "/%7Euser/%41"),
        ("every sub-delimiter", "/!$&'()*+,;=:@"),
        ("characters of UTF-8", "/%E2%82%AC/%c3%a9"),
        ("an encoded space", "/a%20b%20c"),
        ("an encoded percent", "/100%25/%2525"),
        ("a trailing slash", "/a/b/"),
        ("empty segments", "/a//b///c"),
        ("brackets and a bar as browsers send them", "/a[0]|b"),
        ("a query", "/?a=1&b=2&a=3"),
        ("an encoded query", "/?q=%26%3D%3f%2F&r=%7e%41"),
        ("plus signs in a query", "/?q=a+b%2Bc"),
        ("a query of UTF-8", "/?q=%E2%82%AC"),
        ("semicolons in a query", "/?a=1;b=2;c"),
        ("a query that is empty", "/?"),
        ("a query with slashes, dots and question marks", "/?next=/../x/./y??z"),
        ("a query that holds a URL", "/?u=https://a.test:8443/x@y"),
        ("a query without names", "/?=&&=1&x"),
        ("a query with quotes and braces", "/?f={\"a\":['b']}"),
        ("dots in names", "/.well-known/a..b/...c/.git"),
        ("semicolons in a path", "/a;v=1/b;c"),
    ];
    let mut shapes: Vec<_> =
        table.map(|(what, target)| http1(format!("{what}: {target}"), &format!("GET {target}"))).into();
    let long = format!("GET /{}?{}", "a".repeat(3000), "b".repeat(3000));
    shapes.push(http1("a target of six thousand bytes", &long));
    shapes
}

fn request_fields() -> Vec<Shape> {
    let many: String = (0..80).map(|number| format!("\nx-{number}: {number}")).collect();
    let table = [
        ("fields of one name, in their order", "accept: text/html\nX-A: 1\naccept: text/plain\nx-a: 2".into()),
        ("one cookie field with many cookies", "cookie: a=1; b=\"2\"; c=%33; d".into()),
        ("several cookie fields", "cookie: a=1\ncookie: b=2\ncookie: c=3".into()),
        ("a field of twenty thousand bytes", format!("x-long: {}", "v".repeat(20_000))),
        ("eighty fields", many[1..].into()),
        ("bytes above ASCII in a value", "x-name: caf\u{e9} \u{ff}\u{80}".into()),
        ("a value that is empty", "x-empty:\nx-blank:   ".into()),
        ("a value with blanks and tabs inside", "x-blank:  \t a  \t b \t ".into()),
        ("names in odd cases", "X-ODD-case: 1\nACCEPT: */*\nuSeR-aGeNt: me".into()),
        ("a name of every character a token has", "x!#$%&'*+-.^_`|~9: 1".into()),
        ("a name with underscores", "x_under_score: 1".into()),
        ("credentials of the origin", "authorization: Basic dXNlcjpwYXNzd29yZA==".into()),
        ("what browsers add", "origin: https://a.test\nreferer: https://a.test/x\nsec-fetch-mode: cors\nsec-ch-ua: \"a\";v=\"1\"".into()),
        ("what proxies before us add", "via: 1.1 front\nforwarded: for=192.0.2.1\nx-forwarded-for: 192.0.2.1\nmax-forwards: 3".into()),
        ("what caches ask", "if-none-match: \"a\", W/\"b\"\nif-modified-since: Thu, 01 Jan 1970 00:00:00 GMT\ncache-control: no-cache\npragma: no-cache".into()),
        ("what a client accepts", "accept-encoding: gzip, br;q=0.5, zstd, identity;q=0\naccept-language: de, en;q=0.7\naccept-charset: utf-8".into()),
        ("dates and priorities", "date: Thu, 01 Jan 1970 00:00:00 GMT\npriority: u=1, i\nearly-data: 1".into()),
        ("traces", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\nbaggage: a=1".into()),
        ("a connection to be kept", "connection: keep-alive\nkeep-alive: timeout=5".into()),
        ("a connection to be closed", "connection: close".into()),
        ("fields of this connection by name", "connection: x-mine, keep-alive\nx-mine: 1\nx-other: 2".into()),
        ("fields for the proxy", "proxy-connection: keep-alive\nproxy-authorization: Basic bm9ib2R5Og==".into()),
        ("codings it takes: trailers", "te: trailers\nconnection: te".into()),
        ("codings it takes: gzip", "te: gzip, trailers;q=0.5".into()),
        ("an upgrade that is no WebSocket", "connection: upgrade, http2-settings\nupgrade: h2c\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA".into()),
        ("fields that carry our name", "x-outgate-decision: mine".into()),
    ];
    table.map(|(what, fields): (&str, String)| http1(what, &format!("GET /\n{fields}"))).into()
}

fn answer_fields() -> Vec<Shape> {
    let cookies = "set-cookie: a=1; Path=/; HttpOnly\nset-cookie: b=2; Expires=Thu, 01 Jan 1970 00:00:00 GMT\nset-cookie: a=3";
    let table = [
        ("several cookies set", cookies.into()),
        ("fields of one name", "vary: accept\nlink: <a>\nvary: origin\nLink: <b>".into()),
        ("a value of forty thousand bytes", format!("x-long: {}", "v".repeat(40_000))),
        ("bytes above ASCII", "x-name: caf\u{e9} \u{ff}\u{80}".into()),
        ("values that are empty", "x-empty:\nx-blank:   ".into()),
        ("names in odd cases", "X-ODD-case: 1\neTaG: W/\"x\"".into()),
        ("a name with underscores", "x_under_score: 1".into()),
        ("its own date and server", "date: Thu, 01 Jan 1970 00:00:00 GMT\nserver: old/1.0".into()),
        ("what browsers obey", "content-security-policy: default-src 'none'\nstrict-transport-security: max-age=1\naccess-control-allow-origin: *".into()),
        ("what caches obey", "cache-control: max-age=1, private\nage: 7\nexpires: 0\netag: \"a\"\nlast-modified: Thu, 01 Jan 1970 00:00:00 GMT".into()),
        ("another way to itself", "alt-svc: h3=\":443\"; ma=86400".into()),
        ("words of ours", "x-outgate-decision: allow\nx-outgate-reason: allowed_by_rule".into()),
        ("fields of its connection", "connection: keep-alive, x-mine\nkeep-alive: timeout=5\nx-mine: 1".into()),
        ("fields for proxies", "proxy-authentication-info: a=1\nproxy-connection: keep-alive\nvia: 1.1 back".into()),
        ("an upgrade on offer", "upgrade: h2c\nconnection: upgrade".into()),
        ("a file to save", "content-disposition: attachment; filename*=UTF-8''%e2%82%ac.txt\ncontent-type: text/plain; charset=\"utf-8\"".into()),
        ("the body's digest", "repr-digest: sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:\ncontent-md5: CY9rzUYh03PK3k6DJie09g==".into()),
    ];
    table
        .map(|(what, fields): (&str, String)| {
            let head = format!("HTTP/1.1 200 OK\n{fields}\ncontent-length: 2");
            http1(format!("an answer with {what}"), "GET /").answer(&head, "ok")
        })
        .into()
}

fn bodies() -> Vec<Shape> {
    let large = noise(3 << 20);
    let gzip: &[u8] = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xcbH\xcd\xc9\xc9\x07\0\x86\xa6\x106\x05\0\0\0";
    let table: [(&str, &str, &[u8]); 8] = [
        ("of no bytes", "text/plain", b""),
        ("of JSON", "application/json", b"{\"a\": [1, 2.50, \"\\u20ac\"],  \"a\": null}\n"),
        ("of a form", "application/x-www-form-urlencoded", b"a=1&b=%7E+x&a="),
        (
            "in parts",
            "multipart/form-data; boundary=X",
            b"--X\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\n1\r\n--X--\r\n",
        ),
        ("of every byte", "application/octet-stream", &every_byte()),
        ("that is compressed", "text/plain\ncontent-encoding: gzip", gzip),
        ("that says gzip and is not", "text/plain\ncontent-encoding: gzip", b"not gzip at all"),
        ("of three mebibytes", "application/octet-stream", &large),
    ];
    let mut shapes = Vec::new();
    for (what, kind, body) in table {
        let fields = format!("content-type: {kind}\ncontent-length: {}", body.len());
        let unreadable = what == "that says gzip and is not";
        let request = |name: String, fields: &str, body: &[u8]| Shape {
            refused: unreadable,
            ..http1(name, &format!("POST /\n{fields}")).body(body)
        };
        shapes.push(request(format!("a request body {what}"), &fields, body));
        let head = format!("HTTP/1.1 200 OK\n{fields}");
        shapes.push(http1(format!("an answer {what}"), "GET /").answer(&head, body));
        let fields = format!("content-type: {kind}\ntransfer-encoding: chunked");
        let body = chunked(&body.chunks(70_001).collect::<Vec<_>>(), "");
        shapes.push(request(format!("a chunked request body {what}"), &fields, &body));
        let head = format!("HTTP/1.1 200 OK\n{fields}");
        shapes.push(http1(format!("a chunked answer {what}"), "GET /").answer(&head, &body[..]));
    }
    shapes
}

/// What two servers could read in two ways.
fn refused() -> Vec<Shape> {
    let table = [
        ("dot segments", "GET /a/../b"),
        ("encoded dot segments", "GET /a/%2e%2e/b"),
        ("a segment of dots and a semicolon", "GET /a/..;/b"),
        ("a request that the server is to send back", "TRACE /"),
        ("a request about the server as a whole", "OPTIONS *"),
        ("a second host", "GET /\nhost: localhost"),
        ("a length spelt with an underscore", "POST /\ncontent_length: 5"),
        ("an expectation that nobody knows", "GET /\nexpect: miracles"),
    ];
    table.map(|(what, head)| http1(what, head).refused()).into()
}

fn framing() -> Vec<Shape> {
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

fn connections() -> Vec<Shape> {
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

fn clear() -> Vec<Shape> {
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

fn http2_to_http1() -> Vec<Shape> {
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

fn answers_to_http2() -> Vec<Shape> {
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

fn to_http2() -> Vec<Shape> {
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

fn websockets() -> Vec<Shape> {
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

fn http1(name: impl Into<String>, head: &str) -> Shape {
    let written = Written { head: head.into(), body: Vec::new() };
    Shape {
        name: name.into(),
        route: Route::Http1,
        sends: Sends::Written(vec![written]),
        answers: vec![ok("hello")],
        refused: false,
    }
}

fn http2(name: String, route: Route, request: Request) -> Shape {
    let head = request.method == "HEAD";
    let answer = if head { bytes("HTTP/1.1 200 OK\ncontent-length: 9", "") } else { ok("hello") };
    Shape { name, route, sends: Sends::Described(request), answers: vec![answer], refused: false }
}

impl Shape {
    fn body(mut self, body: impl AsRef<[u8]>) -> Shape {
        if let Sends::Written(requests) = &mut self.sends {
            requests[0].body = body.as_ref().into();
        }
        self
    }

    fn then(mut self, head: &str, body: &str) -> Shape {
        if let Sends::Written(requests) = &mut self.sends {
            requests.push(Written { head: head.into(), body: body.into() });
        }
        self
    }

    fn refused(self) -> Shape {
        Shape { refused: true, ..self }
    }

    fn answer(self, head: &str, body: impl AsRef<[u8]>) -> Shape {
        Shape { answers: vec![bytes(head, body)], ..self }
    }
}

fn ok(body: &str) -> Vec<u8> {
    bytes(&format!("HTTP/1.1 200 OK\ncontent-type: text/plain\ncontent-length: {}", body.len()), body)
}

/// An answer as bytes; none for an empty head.
fn bytes(head: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    if head.is_empty() {
        return Vec::new();
    }
    [&latin1(&format!("{head}\n\n").replace('\n', "\r\n")), body.as_ref()].concat()
}

fn chunked(pieces: &[&[u8]], trailers: &str) -> Vec<u8> {
    let mut all = Vec::new();
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        all.extend(format!("{:x}\r\n", piece.len()).into_bytes());
        all.extend_from_slice(piece);
        all.extend(b"\r\n");
    }
    all.extend(format!("0\r\n{trailers}\r\n").into_bytes());
    all
}

fn every_byte() -> Vec<u8> {
    (0..=255).collect()
}

/// Bytes in which nothing repeats and no detector finds text.
fn noise(length: u64) -> Vec<u8> {
    crate::harness::stream(length).flatten().collect()
}

fn end_of_line(fields: &str) -> &'static str {
    if fields.is_empty() { "" } else { "\n" }
}
