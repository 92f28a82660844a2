//! Requests and answers of HTTP/1.1, one at a time: methods, statuses, targets, fields and bodies.

use super::super::shape::{Shape, chunked, every_byte, http1, noise};

/// Methods, with and without a body.
pub fn methods() -> Vec<Shape> {
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

/// Statuses, with the fields that belong to them.
pub fn statuses() -> Vec<Shape> {
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

/// Paths and queries.
pub fn targets() -> Vec<Shape> {
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

/// Fields of requests.
pub fn request_fields() -> Vec<Shape> {
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

/// Fields of answers.
pub fn answer_fields() -> Vec<Shape> {
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

/// Bodies both ways, with a length and in chunks.
pub fn bodies() -> Vec<Shape> {
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
pub fn refused() -> Vec<Shape> {
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
