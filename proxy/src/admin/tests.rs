//! The admin listener over real sockets: what opens, what stays shut, what is said.

mod pages;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::connection::run_with;
use super::*;
use crate::config::IdentityMode;
use ::policy::secret::Secrets;

const HEADER_TIMEOUT: Duration = Duration::from_millis(300);
const TOKEN: &str = "test-token-test-token-test-token-test";

/// A gateway of which everything is known.
#[derive(Default)]
struct Pretend {
    unready: Mutex<Vec<String>>,
    mistakes: Mutex<Vec<String>>,
}

impl Control for Pretend {
    fn status(&self) -> Status {
        Status {
            version: "0.0.0",
            pid: 1,
            started: "2026-11-21T06:00:00Z".to_owned(),
            uptime_seconds: 5,
            policy: "sha256:00".to_owned(),
            mode: "enforce",
            listen: vec!["127.0.0.1:4480".to_owned()],
            admin: "127.0.0.1:4481".to_owned(),
            data_dir: "/data".to_owned(),
        }
    }

    fn unready(&self) -> BoxFuture<'_, Vec<String>> {
        let reasons = self.unready.lock().unwrap().clone();
        Box::pin(async { reasons })
    }

    fn policy(&self) -> serde_json::Value {
        serde_json::json!({ "mode": "enforce" })
    }

    fn explain(
        &self,
        url: &str,
        method: &str,
        agent: &AgentName,
        bytes: u64,
    ) -> Result<serde_json::Value, String> {
        match url {
            "x" => Err("`x` cannot be explained".to_owned()),
            url => Ok(serde_json::json!({ "asked": format!("{method} {url} by {agent} of {bytes}") })),
        }
    }

    fn record_keeping(&self) -> serde_json::Value {
        serde_json::json!({ "durability": "commit" })
    }

    fn redactor(&self) -> Redactor {
        Redactor::new(Arc::new(Secrets::new(Vec::new())))
    }

    fn reload(&self) -> BoxFuture<'_, Result<(), Vec<String>>> {
        let mistakes = self.mistakes.lock().unwrap().clone();
        Box::pin(async { if mistakes.is_empty() { Ok(()) } else { Err(mistakes) } })
    }

    fn approvals(&self) -> Vec<Approval> {
        Vec::new()
    }

    fn answer(
        &self,
        _: Ulid,
        answer: Answer,
        _: Option<usize>,
        _: Redacted,
    ) -> BoxFuture<'_, Result<Given, AnswerError>> {
        Box::pin(async move {
            match answer {
                Answer::Deny => Err(AnswerError::Answered),
                answer => Ok(Given { answer, waited: 3, written: None }),
            }
        })
    }

    fn answer_refusal<'a>(
        &'a self,
        _: &'a DecisionView,
        _: Answer,
        _: Redacted,
    ) -> BoxFuture<'a, Result<Given, AnswerError>> {
        Box::pin(async { Err(AnswerError::Unrecorded) })
    }

    fn preview(&self, _: Ulid, _: &Redacted) -> Result<Preview, AnswerError> {
        Ok(Preview { file: "/data/approved.toml".into(), entry: "[[approved]]".to_owned() })
    }

    fn preview_refusal(&self, _: &DecisionView, _: &Redacted) -> Result<Preview, AnswerError> {
        Err(AnswerError::Impossible("no".to_owned()))
    }

    fn check_reply(&self, _: Ulid, _: Answer, expires: i64, token: &str) -> Result<(), BadReply> {
        match (token, expires) {
            ("signed", 7) => Ok(()),
            ("signed", _) => Err(BadReply::Expired),
            _ => Err(BadReply::Forged),
        }
    }
}

struct Served {
    admin: Arc<Admin>,
    address: SocketAddr,
    pretend: Arc<Pretend>,
    stopping: CancellationToken,
    done: tokio::task::JoinHandle<()>,
    /// The cookie that was set last, as it was set.
    last_cookie: Mutex<String>,
    _folder: tempfile::TempDir,
}

async fn served(metrics_access: MetricsAccess) -> Served {
    served_with(metrics_access, HEADER_TIMEOUT, 256).await
}

async fn served_with(metrics_access: MetricsAccess, header_timeout: Duration, connections: usize) -> Served {
    let pretend = Arc::new(Pretend::default());
    let folder = tempfile::tempdir().unwrap();
    let (store, writer) = Store::open_beside(folder.path()).await.unwrap();
    let recorder = Recorder::start(writer);
    let admin = Arc::new(Admin {
        identities: Identities::load(&store, &recorder, IdentityMode::Required).await.unwrap(),
        proxy: Some("0.0.0.0:4480".parse().unwrap()),
        store,
        recorder,
        alerts: Alerts::silent(),
        control: Arc::clone(&pretend) as Arc<dyn Control>,
        metrics: Metrics::new(),
        metrics_access,
        token: AdminToken::of(TOKEN.as_bytes()),
        sign_ins: SignIns::default(),
        feed: Feed::default(),
        answers: Answers::default(),
        header_timeout,
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stopping) = (listener.local_addr().unwrap(), CancellationToken::new());
    let done = tokio::spawn(run_with(connections, Arc::clone(&admin), listener, stopping.clone()));
    Served { admin, address, pretend, stopping, done, last_cookie: Mutex::default(), _folder: folder }
}

/// What came back: status, head, body.
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Served {
    /// Sends a head as written, `<host>` standing for the listener's address, and reads to the end.
    async fn raw(&self, request: &str) -> Reply {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = request
            .replace("<host>", &self.address.to_string())
            .replace("<port>", &self.address.port().to_string());
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes);
        tokio::time::timeout(Duration::from_secs(5), read).await.unwrap().unwrap();
        let text = String::from_utf8(bytes).unwrap();
        if let Some((_, cookie)) = text.split_once("set-cookie: ") {
            *self.last_cookie.lock().unwrap() = cookie.split(';').next().unwrap().to_owned();
        }
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Reply { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    /// A request with the right `Host` and these further lines.
    async fn ask(&self, line: &str, headers: &str) -> Reply {
        self.raw(&format!("{line} HTTP/1.1\r\nHost: <host>\r\nConnection: close\r\n{headers}\r\n")).await
    }
}

fn with_token() -> String {
    format!("Authorization: Bearer {TOKEN}\r\n")
}

#[tokio::test]
async fn without_the_token_only_health_and_from_loopback_the_metrics_are_open() {
    for (access, metrics) in [(MetricsAccess::Open, 200), (MetricsAccess::Token, 401)] {
        let served = served(access).await;
        for route in ROUTES {
            let line = format!("{} {}", route.method.to_ascii_uppercase(), route.path);
            let expected = match route.path {
                "/healthz" | "/readyz" => 200,
                "/metrics" => metrics,
                // A body that says neither token nor code.
                "/login" => {
                    if route.method == "get" {
                        200
                    } else {
                        400
                    }
                }
                // Its own signature is missing.
                "/api/approvals/{id}/reply" => 403,
                _ => 401,
            };
            let reply = served.ask(&line, "").await;
            assert_eq!(reply.status, expected, "{line} with metrics {access:?}");
            assert_eq!(reply.head.contains("www-authenticate: bearer"), expected == 401, "{line}");
        }
        for wrong in ["Bearer test-token", "Basic dGVzdA==", "Bearer", ""] {
            let reply = served.ask("POST /api/policy/reload", &format!("Authorization: {wrong}\r\n")).await;
            assert_eq!(reply.status, 401, "`{wrong}`");
        }
        assert_eq!(served.ask("GET /nowhere", "").await.status, 401, "what there is is not told");
    }
}

#[tokio::test]
async fn with_the_token_everything_answers() {
    let served = served(MetricsAccess::Token).await;
    for (line, status, body) in [
        ("GET /healthz", 200, r#"{"alive":true}"#),
        ("GET /readyz", 200, r#"{"ready":true,"reasons":[]}"#),
        ("GET /metrics", 200, "outgate_decisions_total"),
        ("GET /", 200, "src=\"/console/app.js\""),
        ("GET /login", 200, "Sign in"),
        ("GET /console/app.js", 200, "import"),
        ("GET /console/style.css", 200, ":root"),
        ("GET /console/openapi.json", 404, "not_found"),
        ("GET /console/..%2fapp.js", 404, "not_found"),
        ("GET /api/overview", 200, r#""range":"24h""#),
        ("GET /api/overview?range=7d", 200, r#""part_seconds":7200"#),
        ("GET /api/overview?range=8d", 400, "`range` takes `1h`, `6h`, `24h`, `7d` or `30d`, not `8d`"),
        ("GET /api/destinations?range=1h", 200, r#""destinations":[]"#),
        ("GET /api/audit", 200, r#""intact":true"#),
        (
            "GET /api/explain?url=https://a.test/&method=PUT&agent=claude&bytes=5",
            200,
            "PUT https://a.test/ by claude of 5",
        ),
        ("GET /api/explain?url=x", 400, "`x` cannot be explained"),
        ("GET /api/explain?url=https://a.test/&agent=A%20B", 400, "`agent` takes the name of an agent"),
        ("GET /api/decisions/01K5C3ZJ8V7B5Q2M4N6P8R0T1W", 404, "there is no decision"),
        ("GET /api/decisions/x", 404, "there is no decision `x`"),
        ("GET /api/openapi.json", 200, "openapi"),
        ("GET /api/status", 200, r#""uptime_seconds":5"#),
        ("GET /api/policy", 200, r#"{"mode":"enforce"}"#),
        ("POST /api/policy/reload", 200, r#""policy":"sha256:00""#),
        ("GET /api/decisions", 200, "[]"),
        ("GET /api/decisions?class=tool&limit=5", 200, "[]"),
        (
            "GET /api/decisions?class=x&limit=0",
            400,
            "`class` takes `model`, `tool` or `unknown`, not `x`; `limit` takes",
        ),
        ("GET /nowhere", 404, r#"{"error":{"code":"not_found""#),
        ("DELETE /api/policy", 405, r#"{"error":{"code":"method_not_allowed""#),
        ("GET /api/policy/reload", 405, "method_not_allowed"),
    ] {
        let reply = served.ask(line, &with_token()).await;
        assert_eq!(reply.status, status, "{line}");
        assert!(reply.body.contains(body), "{line} says {}", reply.body);
    }
}

/// A question that is none, and a decision that is none.
const ID: &str = "01K5C3ZJ8V7B5Q2M4N6P8R0T1W";

#[tokio::test]
async fn questions_are_answered_with_the_token_or_with_a_signature() {
    let served = served(MetricsAccess::Token).await;
    let post = |path: &str, body: &str| {
        let json = "Content-Type: application/json\r\n";
        let line = format!("POST {path} HTTP/1.1\r\nHost: <host>\r\nConnection: close\r\n");
        format!("{line}{}{json}Content-Length: {}\r\n\r\n{body}", with_token(), body.len())
    };
    for (path, body, status, says) in [
        ("", r#"{"answer":"approve","for":"1h","by":"ana"}"#, 200, r#""for":"1h","by":"ana","requests":3"#),
        ("", r#"{"answer":"approve"}"#, 200, r#""for":"once","by":"admin API""#),
        ("", r#"{"answer":"approve","for":"ever"}"#, 400, "`for` takes"),
        ("", r#"{"answer":"yes"}"#, 400, "`answer` takes"),
        ("", r#"{"answer":"deny"}"#, 409, "answered already"),
        ("x", r#"{"answer":"deny"}"#, 404, "no such question"),
    ] {
        let reply = served.raw(&post(&format!("/api/approvals/{ID}{path}"), body)).await;
        assert_eq!(reply.status, status, "{body}: {}", reply.body);
        assert!(reply.body.contains(says), "{body}: {}", reply.body);
    }
    let missing = served.raw(&post(&format!("/api/decisions/{ID}/answer"), r#"{"for":"1h"}"#)).await;
    assert_eq!(missing.status, 404, "{}", missing.body);
    let listed = served.ask("GET /api/approvals", &with_token()).await;
    assert_eq!((listed.status, &*listed.body), (200, r#"{"approvals":[]}"#));
    let preview = served.ask(&format!("GET /api/approvals/{ID}/preview"), &with_token()).await;
    assert_eq!(&*preview.body, r#"{"file":"/data/approved.toml","entry":"[[approved]]"}"#);
    for (query, status, says) in [
        ("answer=approve&for=once&expires=7&token=signed", 200, r#""by":"signed reply""#),
        ("answer=approve&for=once&expires=7&token=signed&by=me", 403, "not signed"),
        ("answer=approve&for=once&expires=6&token=signed", 403, "too late"),
        ("answer=approve&for=once&expires=7&token=forged", 403, "not signed"),
        ("answer=approve&for=ever&expires=7&token=signed", 403, "not signed"),
        ("answer=deny&for=once&expires=7&token=signed", 409, "answered already"),
        ("", 403, "not signed"),
    ] {
        let reply = served.ask(&format!("POST /api/approvals/{ID}/reply?{query}"), "").await;
        assert_eq!(reply.status, status, "{query}: {}", reply.body);
        assert!(reply.body.contains(says), "{query}: {}", reply.body);
    }
    let looked = served.ask(&format!("GET /api/approvals/{ID}/reply?token=signed"), "").await;
    assert_eq!(looked.status, 401, "a link that is only looked at answers nothing");
}

#[tokio::test]
async fn only_its_own_names_are_its_host() {
    let served = served(MetricsAccess::Open).await;
    let token = with_token();
    for (head, status) in [
        ("GET /api/status HTTP/1.1\r\nHost: <host>\r\n", 200),
        ("GET /api/status HTTP/1.1\r\nHost: localhost:<port>\r\n", 200),
        ("GET /api/status HTTP/1.1\r\nHost: LOCALHOST:<port>\r\n", 200),
        ("GET /api/status HTTP/1.1\r\nHost: [::1]:<port>\r\n", 200),
        ("GET http://<host>/api/status HTTP/1.1\r\nHost: <host>\r\n", 200),
        ("GET http://evil.test/api/status HTTP/1.1\r\nHost: <host>\r\n", 403),
        ("GET http://localhost:<port>/api/status HTTP/1.1\r\nHost: <host>\r\n", 403),
        ("GET /api/status HTTP/1.1\r\nHost: evil.test:<port>\r\n", 403),
        ("GET /api/status HTTP/1.1\r\nHost: 127.0.0.1.evil.test:<port>\r\n", 403),
        ("GET /api/status HTTP/1.1\r\nHost: <host>.\r\n", 403),
        ("GET /api/status HTTP/1.1\r\nHost: 127.0.0.1\r\n", 403),
        ("GET /api/status HTTP/1.1\r\nHost: localhost\r\n", 403),
        ("GET /api/status HTTP/1.1\r\nHost: 127.0.0.1:1\r\n", 403),
        ("GET /api/status HTTP/1.1\r\nHost: \r\n", 403),
        ("GET /api/status HTTP/1.1\r\n", 403),
        ("GET /api/status HTTP/1.1\r\nHost: <host>\r\nHost: evil.test\r\n", 403),
        ("GET /metrics HTTP/1.1\r\nHost: evil.test:<port>\r\n", 403),
        ("GET /healthz HTTP/1.1\r\nHost: evil.test:<port>\r\n", 403),
    ] {
        let reply = served.raw(&format!("{head}{token}Connection: close\r\n\r\n")).await;
        assert_eq!(reply.status, status, "{head}");
    }
}

#[tokio::test]
async fn no_page_of_another_site_gets_in() {
    let served = served(MetricsAccess::Open).await;
    let own = format!("Origin: http://{}\r\n", served.address);
    for (line, headers, status) in [
        ("POST /api/policy/reload", own.as_str(), 200),
        ("POST /api/policy/reload", "Origin: http://evil.test\r\n", 403),
        ("POST /api/policy/reload", "Origin: null\r\n", 403),
        ("POST /api/policy/reload", "Origin: https://<host>\r\n", 403),
        ("POST /api/policy/reload", "Origin: http://localhost:<port>\r\n", 403),
        ("POST /api/policy/reload", "Origin: http://<host>\r\nOrigin: http://<host>\r\n", 403),
        ("POST /api/policy/reload", "Content-Type: text/plain\r\nSec-Fetch-Site: cross-site\r\n", 403),
        ("POST /api/policy/reload", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n", 403),
        ("GET /metrics", "Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: no-cors\r\n", 403),
        ("GET /api/status", "Sec-Fetch-Site: same-origin\r\n", 200),
        ("GET /", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n", 200),
    ] {
        let reply = served.ask(line, &format!("{headers}{}", with_token())).await;
        assert_eq!(reply.status, status, "{line} {headers}");
        assert!(!reply.head.contains("access-control-"), "{line} {headers}");
    }
}

#[tokio::test]
async fn headers_that_claim_another_peer_count_for_nothing() {
    let served = served(MetricsAccess::Token).await;
    let claims = "X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\nForwarded: for=127.0.0.1\r\n";
    assert_eq!(served.ask("GET /metrics", claims).await.status, 401);
    assert_eq!(served.ask("GET /api/status", claims).await.status, 401);
}

#[tokio::test]
async fn every_answer_is_hardened() {
    let served = served(MetricsAccess::Open).await;
    for (line, headers) in
        [("GET /", ""), ("GET /", "Origin: null\r\n"), ("GET /healthz", ""), ("GET /nowhere", "")]
    {
        let head = served.ask(line, headers).await.head;
        for expected in [
            "cache-control: no-store",
            "x-content-type-options: nosniff",
            "x-frame-options: deny",
            "referrer-policy: no-referrer",
            "cross-origin-resource-policy: same-origin",
            "content-security-policy: default-src 'none'",
        ] {
            assert_eq!(head.matches(expected).count(), 1, "{line} {headers}: `{expected}` in\n{head}");
        }
    }
}

#[tokio::test]
async fn readiness_and_reload_say_what_is_wrong() {
    let served = served(MetricsAccess::Open).await;
    *served.pretend.unready.lock().unwrap() = vec!["the store cannot be written".to_owned()];
    let reply = served.ask("GET /readyz", "").await;
    let expected = r#"{"ready":false,"reasons":["the store cannot be written"]}"#;
    assert_eq!((reply.status, reply.body.as_str()), (503, expected));
    assert_eq!(served.ask("GET /healthz", "").await.status, 200, "it still lives");
    *served.pretend.mistakes.lock().unwrap() =
        vec!["policy.toml:1: a".to_owned(), "policy.toml:2: b".to_owned()];
    let reply = served.ask("POST /api/policy/reload", &with_token()).await;
    let expected = r#"{"error":{"code":"bad_policy","message":"the policy in force stays: policy.toml:1: a\npolicy.toml:2: b"}}"#;
    assert_eq!((reply.status, reply.body.as_str()), (422, expected));
}

#[tokio::test]
async fn a_client_that_sends_no_head_is_let_go() {
    let served = served(MetricsAccess::Open).await;
    for start in ["", "GET /healthz HTTP/1.1\r\nHost: "] {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(start.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut bytes)).await;
        assert!(ended.is_ok(), "`{start}` was kept");
    }
}

#[tokio::test]
async fn who_shows_no_token_makes_room_for_who_does() {
    let served = served_with(MetricsAccess::Open, Duration::from_secs(60), 8).await;
    let mut stays = TcpStream::connect(served.address).await.unwrap();
    let request = format!("GET /api/status HTTP/1.1\r\nHost: {}\r\n{}\r\n", served.address, with_token());
    let mut asks = async || {
        stays.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = [0; 4096];
        let read = tokio::time::timeout(Duration::from_secs(5), stays.read(&mut bytes)).await.unwrap();
        String::from_utf8_lossy(&bytes[..read.unwrap()]).into_owned()
    };
    assert!(asks().await.starts_with("HTTP/1.1 200"));
    let mut flood = Vec::new();
    for _ in 0..40 {
        let mut idle = TcpStream::connect(served.address).await.unwrap();
        // Neither what is open to everybody nor half a head makes a place one's own.
        let said = if flood.len() % 2 == 0 { "GET /healthz HTTP/1.1\r\nHost: <host>\r\n\r\n" } else { "GET" };
        let said = said.replace("<host>", &served.address.to_string());
        let _ = idle.write_all(said.as_bytes()).await;
        flood.push(idle);
        let token = with_token();
        let asked = served.ask("GET /api/status", &token);
        let asked = tokio::time::timeout(Duration::from_secs(5), asked).await;
        assert_eq!(asked.expect("an answer under the flood").status, 200);
    }
    assert!(asks().await.starts_with("HTTP/1.1 200"), "who has shown the token stays");
    let mut bytes = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(5), flood[1].read_to_end(&mut bytes)).await;
    assert!(ended.is_ok(), "the oldest without a token was let go");
}

#[tokio::test]
async fn a_stopped_listener_takes_nobody_and_ends() {
    let served = served(MetricsAccess::Open).await;
    let idle = TcpStream::connect(served.address).await.unwrap();
    assert_eq!(served.ask("GET /healthz", "").await.status, 200);
    served.stopping.cancel();
    tokio::time::timeout(Duration::from_secs(3), served.done)
        .await
        .expect("an idle client does not hold it")
        .unwrap();
    drop(idle);
    assert!(TcpStream::connect(served.address).await.is_err());
}

impl Served {
    /// A request with the token and a JSON body; gives status and answer.
    async fn json(&self, line: &str, body: &str) -> (u16, serde_json::Value) {
        let (length, token) = (body.len(), with_token());
        let head = format!("{line} HTTP/1.1\r\nHost: <host>\r\nConnection: close\r\n{token}");
        let kind = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
        let reply = self.raw(&format!("{head}{kind}{body}")).await;
        (reply.status, serde_json::from_str(&reply.body).unwrap_or_default())
    }

    /// Whose a token is, as the proxy sees it.
    async fn whose(&self, token: &str) -> Result<String, String> {
        let header = format!("Bearer {token}");
        let client = self.admin.identities.identify(Some(header.as_bytes())).await;
        client.map(|client| client.agent.to_string()).map_err(|error| error.to_string())
    }
}

#[tokio::test]
async fn agents_are_registered_rotated_and_revoked_and_that_holds_at_once() {
    let served = served(MetricsAccess::Open).await;
    let new = r#"{"name":"claude","owner":"ana@example.com","expires":"2099-01-01T00:00:00Z"}"#;
    let (status, issued) = served.json("POST /api/agents", new).await;
    let first = issued["token"].as_str().unwrap().to_owned();
    assert_eq!((status, issued["expires"].as_str()), (201, Some("2099-01-01T00:00:00.000000Z")));
    assert_eq!(issued["proxy_url"], format!("http://claude:{first}@127.0.0.1:4480"));
    assert_eq!(served.whose(&first).await.unwrap(), "claude");
    assert_eq!(served.json("POST /api/agents", new).await.0, 409);

    let (status, issued) = served.json("POST /api/agents/claude/rotate", "").await;
    let second = issued["token"].as_str().unwrap();
    assert_eq!((status, issued["expires"].as_str()), (200, Some("2099-01-01T00:00:00.000000Z")), "kept");
    assert_eq!(served.whose(second).await.unwrap(), "claude");
    assert_eq!(served.whose(&first).await.unwrap(), "claude", "the old token is taken for a while");
    let at_once = r#"{"grace_seconds":0,"by":"ana"}"#;
    let (status, issued) = served.json("POST /api/agents/claude/rotate", at_once).await;
    assert_eq!(status, 200);
    for ended in [&first, second] {
        assert!(served.whose(ended).await.is_err(), "no grace ends every token before at once");
    }
    let second = issued["token"].as_str().unwrap();

    let (status, revoked) = served.json("POST /api/agents/claude/revoke", "").await;
    assert_eq!((status, revoked["status"].as_str()), (200, Some("revoked")));
    assert!(served.whose(second).await.is_err());
    assert_eq!(served.json("POST /api/agents/claude/rotate", "").await.0, 409);

    let (_, list) = served.json("GET /api/agents", "").await;
    assert_eq!(
        (list[0]["agent"].as_str(), list[0]["owner"].as_str()),
        (Some("claude"), Some("ana@example.com"))
    );
    assert!(!list.to_string().contains(second), "no list holds a token");
}

#[tokio::test]
async fn sessions_are_opened_shown_and_ended_with_their_tokens() {
    let served = served(MetricsAccess::Open).await;
    let secret = concat!("ghp_", "16C7e42F292c6912E7710c838347Ae178B4a");
    let body = format!(
        r#"{{"command":"agent --token {secret}","repo":"https://ana:pw@git.test/x","observe":true}}"#
    );
    let (status, opened) = served.json("POST /api/sessions", &body).await;
    let (id, token) = (opened["session"].as_str().unwrap(), opened["token"].as_str().unwrap());
    assert_eq!(status, 201);
    assert_eq!(opened["proxy_url"], format!("http://anonymous:{token}@127.0.0.1:4480"));
    assert_eq!(served.whose(token).await.unwrap(), "anonymous");
    let (_, shown) = served.json(&format!("GET /api/sessions/{id}"), "").await;
    assert_eq!((shown["observe"].as_bool(), shown["ended"].is_null()), (Some(true), true));
    assert_eq!(shown["repo"], "https://git.test/x");
    assert!(!shown.to_string().contains(secret), "{shown}");

    let (status, ended) = served.json(&format!("POST /api/sessions/{id}/end"), r#"{"exit_code":3}"#).await;
    assert_eq!((status, ended["exit_code"].as_i64(), ended["why"].as_str()), (200, Some(3), Some("exited")));
    assert!(served.whose(token).await.is_err(), "its token ends with it");
    let again = served.json(&format!("POST /api/sessions/{id}/end"), "").await;
    assert_eq!((again.0, again.1["exit_code"].as_i64()), (200, Some(3)), "ending it again changes nothing");
    assert_eq!(served.json("GET /api/sessions?limit=1", "").await.1[0]["session"], id);
}

#[tokio::test]
async fn what_cannot_be_done_is_said_in_words() {
    let served = served(MetricsAccess::Open).await;
    for (line, body, status, message) in [
        (
            "POST /api/agents",
            r#"{"name":"A b","owner":"x"}"#,
            400,
            "`A b` is not a name: a name is 1 to 64 of",
        ),
        ("POST /api/agents", r#"{"name":"a"}"#, 400, "`owner` is missing: who answers for the agent"),
        ("POST /api/agents", r#"{"name":"anonymous","owner":"x"}"#, 400, "the agent `anonymous` is that of"),
        (
            "POST /api/agents",
            r#"{"name":"a","owner":"x","expires":"30d"}"#,
            400,
            "`30d` is not a time such as",
        ),
        ("POST /api/agents", r#"{"nam":"a"}"#, 400, "unknown field `nam`"),
        ("POST /api/agents", "{", 400, "EOF while parsing"),
        ("POST /api/agents/nobody/rotate", "", 404, "there is no agent `nobody`"),
        ("POST /api/sessions", r#"{"agent":"nobody"}"#, 404, "there is no agent `nobody`"),
        ("GET /api/sessions/x", "", 404, "there is no session `x`"),
        ("POST /api/sessions/01K5C3ZJ8V7B5Q2M4N6P8R0T1W/end", "", 404, "there is no session"),
    ] {
        let (found, answer) = served.json(line, body).await;
        let said = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(found == status && said.contains(message), "{line} {body}: {found} {said}");
    }
    let text =
        "POST /api/agents HTTP/1.1\r\nHost: <host>\r\nConnection: close\r\nContent-Type: text/plain\r\n";
    let reply = served.raw(&format!("{text}Content-Length: 2\r\n{}\r\n{{}}", with_token())).await;
    assert_eq!(reply.status, 415, "a form or text of another site's page is no JSON");
    let long = format!(r#"{{"name":"{}"}}"#, "a".repeat(BODY_LIMIT));
    assert_eq!(served.json("POST /api/agents", &long).await.0, 413);
}

#[test]
fn the_description_lists_exactly_the_routes() {
    let document: serde_json::Value = serde_json::from_str(include_str!("openapi.json")).unwrap();
    let mut described = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            assert!(
                operation["summary"].is_string() && operation["responses"].is_object(),
                "{method} {path}"
            );
            described.insert((method.as_str(), path.as_str()));
        }
    }
    let served: BTreeSet<_> = ROUTES.iter().map(|route| (route.method, route.path)).collect();
    assert_eq!(described, served);
    let text = document.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(document["components"]["schemas"][name].is_object(), "`{name}` is not described");
    }
}
