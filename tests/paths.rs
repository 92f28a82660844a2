//! Whichever way a request travels, the decision is the same, for the same reason, with the same record.

use crate::harness::{
    End, NO_NAME, Request, Row, UNAWARE, Way, World, WorldBuilder, all_inside_a_network, secrets,
};

/// One rule for both ports, so that it has one name on every way.
const ALLOWED: &str = r#"
    [[rule]]
    name = "the host"
    action = "allow"
    to = ["allowed.test:{http}", "allowed.test:{tls}"]
"#;

/// One promise, to be kept on every way.
struct Promise {
    world: WorldBuilder,
    request: Request,
    action: &'static str,
    reason: &'static str,
    /// Status of the answer, and of the answer to a WebSocket's handshake where that is another one.
    status: (u16, u16),
    outcome: &'static str,
    /// What may have heard of the request at all.
    reach: Reach,
}

/// How far a request may get.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Its name is not even looked up.
    Nobody,
    /// Its name is looked up, nothing is dialled.
    Resolver,
    /// It arrives.
    Origin,
}

fn promise(policy: &str, request: Request) -> Promise {
    Promise {
        world: World::with_policy(policy),
        request,
        action: "allow",
        reason: "allowed_by_rule",
        status: (200, 101),
        outcome: "completed",
        reach: Reach::Origin,
    }
}

impl Promise {
    fn allowed(self, reason: &'static str) -> Promise {
        Promise { reason, ..self }
    }

    fn denied(self, reason: &'static str, status: u16) -> Promise {
        Promise {
            action: "deny",
            reason,
            status: (status, status),
            outcome: "denied",
            reach: Reach::Nobody,
            ..self
        }
    }

    fn fails(self, reason: &'static str, status: u16) -> Promise {
        Promise { reason, status: (status, status), outcome: "failed", reach: Reach::Resolver, ..self }
    }

    fn reaching(self, reach: Reach) -> Promise {
        Promise { reach, ..self }
    }

    /// Sends the request every way, holds each answer and each row against the promise, and the rows against each
    /// other.
    async fn on_every_way(self) {
        self.on(&Way::ALL).await;
    }

    async fn on(self, ways: &[Way]) {
        let mut world = self.world.start().await;
        for secret in [secrets::anthropic_key(), secrets::aws_access_key()] {
            world.gate.plant(&secrets::heart(&secret));
        }
        for way in ways {
            let answer = world.send(*way, &self.request).await;
            if answer.error.as_deref() == Some(NO_NAME) {
                let Promise { request, action, reason, reach, .. } = self;
                assert!(reach == Reach::Nobody && action == "deny", "there is no {}", request.host);
                return is_refused_by_name(world, &request.host, reason).await;
            }
            let status = if *way == Way::WebSocket { self.status.1 } else { self.status.0 };
            assert_eq!(answer.status, status, "{way:?}: {answer:?}\n{}", world.gate.stderr());
            if status >= 400 {
                assert_eq!(answer.reason(), Some(self.reason), "{way:?}: {answer:?}");
            }
        }
        let rows = world.gate.decisions_reach(ways.len()).await;
        assert_eq!(rows.len(), ways.len(), "one decision a request: {rows:#?}");
        for (row, way) in rows.iter().zip(ways) {
            assert_eq!(
                (row.text("action"), row.text("reason"), row.text("outcome")),
                (self.action, self.reason, self.outcome),
                "{way:?}: {row:?}"
            );
            assert_eq!(comparable(row), comparable(&rows[0]), "{way:?} is recorded differently");
            let kind = if *way == Way::WebSocket { "websocket" } else { "http" };
            assert_eq!(row.text("kind"), kind, "{way:?}: {row:?}");
        }
        if self.reach == Reach::Nobody {
            world.resolver.must_not_know(&self.request.host);
        }
        if self.reach != Reach::Origin {
            world.origin.must_be_untouched();
            assert!(rows.iter().all(|row| row.number("request_bytes") == 0), "{rows:#?}");
        }
        world.finish().await;
    }
}

/// A program that knows no proxy learns of a host that is refused as a whole that there is no such host.
async fn is_refused_by_name(world: World, host: &str, reason: &str) {
    let row = world.gate.only_decision().await;
    row.is("deny", reason);
    assert_eq!((row.text("kind"), row.text("outcome")), ("dns", "denied"), "{row:?}");
    world.resolver.must_not_know(host);
    world.origin.must_be_untouched();
    world.finish().await;
}

/// What of a row does not depend on the way.
fn comparable(row: &Row) -> Vec<String> {
    let same = [
        "session",
        "agent",
        "owner",
        "class",
        "service",
        "host",
        "domain",
        "path",
        "action",
        "reason",
        "decided",
        "would",
        "would_reason",
        "rule",
        "mode",
        "policy",
        "outcome",
    ];
    let mut fields: Vec<String> = same.iter().map(|field| format!("{field}: {}", row[field])).collect();
    fields.push(format!("{:?}", row.findings()));
    fields
}

/// Everything below once more, by the ways out of a fence that programs take which know no proxy.
#[tokio::test]
async fn programs_that_know_no_proxy_are_decided_alike() {
    let tests = [
        "paths::",
        "--skip=paths::programs_that_know_no_proxy",
        // Whose connection it is, the socket says; and there are two ports alone.
        "--skip=paths::who_does_not_say_who_they_are",
        "--skip=paths::an_allowed_host_is_refused_on_another_port",
    ];
    all_inside_a_network(&tests, (UNAWARE, "yes")).await;
}

#[tokio::test]
async fn what_a_rule_allows_passes() {
    promise(ALLOWED, Request::get("allowed.test", "/echo")).on_every_way().await;
}

#[tokio::test]
async fn what_a_default_allows_passes() {
    promise("defaults = { unknown = \"allow\" }", Request::get("allowed.test", "/echo"))
        .allowed("allowed_by_default")
        .on_every_way()
        .await;
}

#[tokio::test]
async fn what_nobody_is_there_to_answer_is_denied() {
    let policy = ALLOWED.replace("\"allow\"", "\"ask\"");
    let mut asked =
        promise(&policy, Request::get("allowed.test", "/echo")).denied("approval_unattended", 403);
    asked.world = asked.world.gate(|gate| gate.argument("--unattended"));
    asked.on_every_way().await;
}

#[tokio::test]
async fn what_a_rule_denies_is_refused_though_another_allows_it() {
    let denial = ALLOWED.replace("\"allow\"", "\"deny\"").replace("the host", "not the host");
    let policy = format!("{ALLOWED}{denial}");
    promise(&policy, Request::get("allowed.test", "/echo"))
        .denied("denied_by_rule", 403)
        .on_every_way()
        .await;
}

#[tokio::test]
async fn what_no_rule_names_is_unknown() {
    promise(ALLOWED, Request::get("other.test", "/echo"))
        .denied("unknown_destination", 403)
        .on_every_way()
        .await;
}

#[tokio::test]
async fn an_allowed_host_is_refused_on_another_port() {
    promise("allow = [\"allowed.test\"]", Request::get("allowed.test", "/echo"))
        .denied("port_refused", 403)
        .on_every_way()
        .await;
}

#[tokio::test]
async fn a_path_outside_the_rule_is_refused() {
    let policy = r#"
        [[rule]]
        name = "public only"
        action = "allow"
        to = ["allowed.test:{http}", "allowed.test:{tls}"]
        paths = ["/public/**"]
    "#;
    promise(policy, Request::get("allowed.test", "/public/echo")).on_every_way().await;
    promise(policy, Request::get("allowed.test", "/private/echo"))
        .denied("unknown_destination", 403)
        .on_every_way()
        .await;
}

#[tokio::test]
async fn observing_lets_pass_and_says_what_it_would_have_done() {
    let policy = "mode = \"observe\"";
    promise(policy, Request::get("other.test", "/echo")).allowed("allowed_by_observe").on_every_way().await;
}

#[tokio::test]
async fn a_declared_upload_over_the_limit_is_refused_before_its_first_byte() {
    let policy = format!("{ALLOWED}\n[uploads]\nrequest_block = \"64 KiB\"");
    promise(&policy, Request::post("allowed.test", "/echo", vec![b'x'; 100 << 10]))
        .denied("upload_too_large", 413)
        .on(&[Way::Absolute, Way::Http1, Way::Http2])
        .await;
}

#[tokio::test]
async fn an_undeclared_upload_is_broken_off_at_the_limit() {
    let policy = format!("{ALLOWED}\n[uploads]\nrequest_block = \"64 KiB\"");
    let request = Request::get("allowed.test", "/echo").method("POST").pieces(vec![vec![b'x'; 16 << 10]; 8]);
    for way in Way::ALL {
        let world = World::with_policy(&policy).start().await;
        let answer = world.send(way, &request).await;
        let cut = match way {
            Way::WebSocket => {
                answer.status == 101 && answer.close_code != Some(1000) && answer.body.bytes <= 64 << 10
            }
            _ => answer.status == 413 || answer.status == 0,
        };
        assert!(cut, "{way:?}: {answer:?}");
        let row = world.gate.only_decision().await;
        row.is("deny", "upload_too_large");
        assert_eq!((row.text("decided"), row.text("outcome")), ("allow", "cut"), "{way:?}: {row:?}");
        assert!(row.number("request_bytes") <= 64 << 10, "{way:?}: {row:?}");
        assert!(row.findings().contains(&"large_upload"), "{way:?}: {row:?}");
        let seen = world.origin.requests();
        assert!(seen.iter().all(|seen| seen.body.bytes <= 64 << 10), "{way:?}: {seen:#?}");
        assert!(
            way == Way::WebSocket || seen.iter().all(|seen| seen.end != End::Complete),
            "{way:?}: {seen:#?}"
        );
        world.finish().await;
    }
}

#[tokio::test]
async fn a_secret_in_a_header_does_not_leave() {
    let request = Request::get("allowed.test", "/echo").header("x-note", &secrets::anthropic_key());
    promise(ALLOWED, request).denied("secret_found", 403).on_every_way().await;
}

#[tokio::test]
async fn a_secret_in_the_query_does_not_leave() {
    let request = Request::get("allowed.test", &format!("/echo?id={}", secrets::aws_access_key()));
    promise(ALLOWED, request).denied("secret_found", 403).on_every_way().await;
}

#[tokio::test]
async fn a_secret_in_the_path_does_not_leave() {
    let request = Request::get("allowed.test", &format!("/bot/{}/send", secrets::aws_access_key()));
    promise(ALLOWED, request).denied("secret_found", 403).on_every_way().await;
}

/// A body that is scanned on its way is only known to be bad once it is there: what came before the secret may have
/// left, the secret has not.
#[tokio::test]
async fn a_secret_in_the_body_does_not_leave() {
    let key = secrets::anthropic_key();
    let (first, second) = key.split_at(20);
    let declared = Request::post("allowed.test", "/echo", format!("before {key} after"));
    let split = declared.clone().pieces([format!("before {first}"), format!("{second} after")]);
    for (request, ways) in [(declared, &Way::ALL[..]), (split, &Way::ALL[..3])] {
        for way in ways {
            let mut world = World::with_policy(ALLOWED).start().await;
            world.gate.plant(&secrets::heart(&key));
            let answer = world.send(*way, &request).await;
            match way {
                Way::WebSocket => {
                    assert_eq!((answer.status, answer.close_code), (101, Some(1008)), "{answer:?}");
                }
                _ => assert_eq!(
                    (answer.status, answer.reason()),
                    (403, Some("secret_found")),
                    "{way:?}: {answer:?}"
                ),
            }
            let row = world.gate.only_decision().await;
            row.is("deny", "secret_found");
            assert!(row.findings().contains(&"secret"), "{way:?}: {row:?}");
            assert!(!world.origin.saw(&secrets::heart(&key)), "{way:?}: {:#?}", world.origin.requests());
            let mut seen = world.origin.requests().into_iter();
            assert!(*way == Way::WebSocket || seen.all(|seen| seen.end != End::Complete), "{way:?}");
            world.finish().await;
        }
    }
}

#[tokio::test]
async fn an_address_that_may_not_be_dialled_is_not() {
    let policy = format!("{ALLOWED}\n[addresses]\nallow = []");
    promise(&policy, Request::get("allowed.test", "/echo"))
        .denied("address_forbidden", 403)
        .reaching(Reach::Resolver)
        .on_every_way()
        .await;
}

#[tokio::test]
async fn an_authority_that_differs_from_the_destination_is_refused() {
    promise(ALLOWED, Request::get("allowed.test", "/echo").claiming("other.test"))
        .denied("authority_mismatch", 421)
        .on_every_way()
        .await;
}

#[tokio::test]
async fn a_path_that_two_readers_could_read_differently_is_malformed() {
    for path in ["/public/../secret", "/public/%2e%2e/secret", "/public/..;/secret"] {
        promise(ALLOWED, Request::get("allowed.test", path))
            .denied("malformed_request", 400)
            .on_every_way()
            .await;
    }
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_told_apart_from_a_refusal() {
    let mut missing = promise(ALLOWED, Request::get("allowed.test", "/echo")).fails("name_not_found", 502);
    missing.world = missing.world.config("[dns.hosts]");
    let world = missing.world.start().await;
    world.resolver.answers("allowed.test", crate::harness::NameReply::NoName);
    for way in Way::ALL {
        let answer = world.send(way, &missing.request).await;
        assert_eq!((answer.status, answer.reason()), (502, Some("name_not_found")), "{way:?}: {answer:?}");
    }
    for row in world.gate.decisions_reach(4).await {
        assert_eq!((row.text("reason"), row.text("outcome")), ("name_not_found", "failed"), "{row:?}");
    }
    world.origin.must_be_untouched();
    world.finish().await;
}

#[tokio::test]
async fn who_does_not_say_who_they_are_is_refused_where_that_is_required() {
    let mut unknown =
        promise(ALLOWED, Request::get("allowed.test", "/echo")).denied("identity_required", 407);
    unknown.world = unknown.world.config("identity = \"required\"");
    let world = unknown.world.start().await;
    for way in Way::ALL {
        let answer = world.send(way, &unknown.request).await;
        assert_eq!((answer.status, answer.reason()), (407, Some("identity_required")), "{way:?}: {answer:?}");
        assert_eq!(answer.header("proxy-authenticate"), Some("Basic realm=\"outgate\""));
        let stranger = world.agent.known_as("nobody:wrong").send(way, &unknown.request).await;
        assert_eq!(
            (stranger.status, stranger.reason()),
            (407, Some("identity_unknown")),
            "{way:?}: {stranger:?}"
        );
    }
    for row in world.gate.decisions_reach(8).await {
        assert_eq!((row.text("action"), row.text("outcome")), ("deny", "denied"), "{row:?}");
    }
    world.resolver.must_not_know("allowed.test");
    world.origin.must_be_untouched();
    world.finish().await;
}
