//! The console's side of the listener: its pages, who is signed in, what they are told as it happens.

use super::super::console::FILES;
use super::*;
use crate::store::tests::{decision, outcome};

#[tokio::test]
async fn the_pages_need_nothing_from_anywhere() {
    let served = served(MetricsAccess::Open).await;
    for (line, headers, status) in
        [("GET /", with_token(), 200), ("GET /", String::new(), 401), ("GET /login", String::new(), 200)]
    {
        let reply = served.ask(line, &headers).await;
        assert_eq!(reply.status, status, "{line}");
        let policy = "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; \
            img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'; \
            require-trusted-types-for 'script'; trusted-types 'none'\r\n";
        assert!(reply.head.contains(policy), "{line}: {}", reply.head);
        for inline in ["<style", " style=", "<script>", " onclick", " onload", "javascript:"] {
            assert!(!reply.body.contains(inline), "{line} has `{inline}`");
        }
    }
    let pages = [
        include_str!("../../../../dashboards/console/index.html"),
        include_str!("../../../../dashboards/console/login.html"),
    ];
    let files = FILES.iter().map(|(name, _, text)| (*name, *text));
    for (name, text) in files.chain(pages.map(|page| ("a page", page))) {
        let text = text.replace("http://www.w3.org/2000/svg", "");
        for foreign in ["http://", "url(", "@import", "src=\"//", "from \"http", "eval(", "new Function"] {
            assert!(!text.contains(foreign) || name == "format.js", "{name} has `{foreign}`");
        }
        for markup in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "DOMParser",
            "createContextualFragment",
            "srcdoc",
            "setHTML",
        ] {
            assert!(!text.contains(markup), "{name} takes text for markup by `{markup}`");
        }
    }
}

/// A sign-in, as a browser keeps it: the cookie header and the page's word.
struct SignedIn {
    cookie: String,
    word: String,
}

impl Served {
    async fn sign_in(&self) -> SignedIn {
        let body = format!(r#"{{"token":"{TOKEN}"}}"#);
        let reply = self.post("/login", "", &body).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        let line = reply.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
        let (pair, attributes) = line.split_once("; ").unwrap();
        assert_eq!(attributes, "path=/; max-age=43200; httponly; samesite=strict");
        assert!(pair.starts_with(&format!("outgate_console_{}=", self.address.port())), "{pair}");
        let told: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
        assert!(!reply.head.contains(TOKEN) && !reply.body.contains(TOKEN), "the token comes back");
        // Heads are in lower case here; the cookie itself is not.
        let raw = self.last_cookie.lock().unwrap().clone();
        SignedIn { cookie: format!("Cookie: {raw}\r\n"), word: told["csrf"].as_str().unwrap().to_owned() }
    }

    async fn post(&self, path: &str, headers: &str, body: &str) -> Reply {
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nHost: <host>\r\nConnection: close\r\n{headers}");
        let kind = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
        self.raw(&format!("{head}{kind}{body}")).await
    }
}

#[tokio::test]
async fn the_cookie_opens_the_page_and_only_our_own_page_reads_and_changes() {
    let served = served(MetricsAccess::Token).await;
    let SignedIn { cookie, word } = served.sign_in().await;
    let other = served.sign_in().await;
    let own = "Origin: http://<host>\r\n";
    let says = |word: &str| format!("x-outgate-csrf: {word}\r\n");
    let (ours, theirs) = (says(&word), says(&other.word));
    for (line, headers, status) in [
        ("GET /", cookie.clone(), 200),
        ("GET /console/app.js", cookie.clone(), 200),
        ("GET /api/status", format!("{cookie}{ours}"), 200),
        ("HEAD /api/status", format!("{cookie}{ours}"), 200),
        ("GET /metrics", format!("{cookie}{ours}"), 200),
        // What a server on another port of this host is sent.
        ("GET /api/status", cookie.clone(), 403),
        ("HEAD /api/status", cookie.clone(), 403),
        ("GET /metrics", cookie.clone(), 403),
        ("GET /api/decisions", cookie.clone(), 403),
        ("GET /api/events", cookie.clone(), 403),
        ("GET /api/status", format!("{cookie}{theirs}"), 403),
        ("GET /api/status", String::new(), 401),
        ("GET /api/status", format!("Cookie: outgate_console_{}={TOKEN}\r\n", served.address.port()), 401),
        ("GET /api/status", cookie.replace("outgate_console_", "outgate_console_1"), 401),
        ("GET /api/status", format!("{cookie}{}", other.cookie), 401),
        ("GET /api/status", format!("{cookie}{ours}Sec-Fetch-Site: same-site\r\n"), 403),
        ("GET /api/status", format!("{cookie}{ours}Sec-Fetch-Site: cross-site\r\n"), 403),
        ("GET /api/status", format!("{cookie}{ours}Origin: http://evil.test\r\n"), 403),
        ("POST /api/policy/reload", format!("{cookie}{own}{ours}"), 200),
        ("POST /api/policy/reload", format!("{cookie}{ours}"), 403),
        ("POST /api/policy/reload", format!("{cookie}{own}"), 403),
        ("POST /api/policy/reload", format!("{cookie}{own}{theirs}"), 403),
        ("POST /api/policy/reload", format!("{cookie}{own}{ours}{ours}"), 403),
        ("POST /api/policy/reload", format!("{cookie}{own}{}", says("")), 403),
        ("POST /api/policy/reload", format!("{cookie}Origin: null\r\n{ours}"), 403),
        ("POST /api/policy/reload", format!("{cookie}Origin: http://localhost:<port>\r\n{ours}"), 403),
        ("POST /api/policy/reload", format!("{cookie}Origin: https://<host>\r\n{ours}"), 403),
        ("POST /api/policy/reload", format!("{own}{ours}"), 401),
        ("POST /api/policy/reload", format!("{cookie}{own}{ours}Sec-Fetch-Site: same-site\r\n"), 403),
        ("POST /api/policy/reload", with_token(), 200),
        ("POST /logout", format!("{cookie}{own}"), 403),
        ("POST /logout", format!("{cookie}{own}{ours}"), 204),
        ("GET /api/status", cookie.clone(), 401),
        ("GET /api/status", format!("{}{theirs}", other.cookie), 200),
    ] {
        let reply = served.ask(line, &headers).await;
        assert_eq!(reply.status, status, "{line} {headers} {}", reply.body);
    }
    let foreign = format!(
        "GET /api/status HTTP/1.1\r\nHost: evil.test:<port>\r\n{}{theirs}Connection: close\r\n\r\n",
        other.cookie
    );
    assert_eq!(served.raw(&foreign).await.status, 403);
}

#[tokio::test]
async fn signing_in_takes_the_token_or_a_link_and_not_for_ever() {
    let served = served(MetricsAccess::Open).await;
    let code = served.admin.sign_ins.link().unwrap();
    let good = format!(r#"{{"code":"{code}"}}"#);
    for (body, headers, status, said) in [
        (good.as_str(), "Origin: http://evil.test\r\n", 403, "another site"),
        (good.as_str(), "", 200, "csrf"),
        (good.as_str(), "", 401, "was used or is too old"),
        ("{}", "", 400, "say `token` or `code`"),
        (r#"{"token":"a","code":"b"}"#, "", 400, "say `token` or `code`"),
        (r#"{"token":"wrong"}"#, "", 401, "this is not the token"),
    ] {
        let reply = served.post("/login", headers, body).await;
        assert!(
            reply.status == status && reply.body.contains(said),
            "{body}: {} {}",
            reply.status,
            reply.body
        );
        assert_eq!(reply.head.contains("set-cookie"), status == 200, "{body}");
    }
    for _ in 0..8 {
        assert_eq!(served.post("/login", "", r#"{"token":"wrong"}"#).await.status, 401);
    }
    let reply = served.post("/login", "", r#"{"token":"wrong"}"#).await;
    assert_eq!(reply.status, 429, "the eleventh is told to wait");
    assert!(reply.head.contains("retry-after: "), "{}", reply.head);
    let right = format!(r#"{{"token":"{TOKEN}"}}"#);
    assert_eq!(served.post("/login", "", &right).await.status, 200, "who is wrong keeps nobody out");
    assert_eq!(served.post("/login", "", r#"{"token":"wrong"}"#).await.status, 429, "and still waits");
    assert_eq!(
        served.ask("GET /api/status", &with_token()).await.status,
        200,
        "the token itself still opens"
    );
}

#[tokio::test]
async fn what_is_recorded_is_told_to_who_looks_on() {
    let served = served(MetricsAccess::Open).await;
    let SignedIn { cookie, word } = served.sign_in().await;
    let cookie = format!("{cookie}x-outgate-csrf: {word}\r\n");
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let head = format!("GET /api/events HTTP/1.1\r\nHost: {}\r\n{cookie}\r\n", served.address);
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut told = String::new();
    read_until(&mut stream, &mut told, "event: hello\ndata: {\"seq\":0}\n\n").await;
    assert!(told.contains("text/event-stream"), "{told}");
    let decision = decision("asked.test");
    served.admin.recorder.decision(&decision).await.unwrap();
    read_until(&mut stream, &mut told, "event: decisions\ndata: [{\"id\":\"").await;
    read_until(&mut stream, &mut told, "\"outcome_seq\":null").await;
    served.admin.recorder.outcome(&outcome(&decision));
    read_until(&mut stream, &mut told, "\"outcome\":\"completed\"").await;
    let shown = served.ask(&format!("GET /api/decisions/{}", decision.id), &with_token()).await;
    assert_eq!(shown.status, 200, "{}", shown.body);
    let (status, _) = served.json("POST /api/agents", r#"{"name":"claude","owner":"ana"}"#).await;
    assert_eq!(status, 201);
    read_until(&mut stream, &mut told, "event: happening\ndata: {\"agent\":\"claude\"").await;
    served.stopping.cancel();
    read_until(&mut stream, &mut told, "0\r\n\r\n").await;
}

#[tokio::test]
async fn only_a_few_look_on() {
    let served = served(MetricsAccess::Open).await;
    let head = format!("GET /api/events HTTP/1.1\r\nHost: {}\r\n{}\r\n", served.address, with_token());
    let mut streams = Vec::new();
    for _ in 0..24 {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut told = String::new();
        read_until(&mut stream, &mut told, "event: hello").await;
        streams.push(stream);
    }
    assert_eq!(served.ask("GET /api/events", &with_token()).await.status, 503);
    drop(streams.pop());
    let freed = async {
        while served.ask("GET /api/status", &with_token()).await.status != 200
            || !served.admin.feed.has_room()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), freed).await.expect("who goes leaves a place");
}

/// Reads on until a text is there.
async fn read_until(stream: &mut TcpStream, told: &mut String, wanted: &str) {
    let reading = async {
        let mut bytes = [0; 4096];
        while !told.contains(wanted) {
            let read = stream.read(&mut bytes).await.unwrap();
            assert!(read > 0, "it ended before `{wanted}`: {told}");
            told.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
    };
    let late = tokio::time::timeout(Duration::from_secs(5), reading).await.is_err();
    assert!(!late, "no `{wanted}` in {told}");
}
