//! Ways in which proxies of this kind have been bypassed, broken or made to forget, each tried on ours.
//!
//! A family of cases shares one world; after each case the rows, the origin and the resolver are looked at again.
//! The catalogue's numbers have gaps. `ledger` accounts for every one of them: held here, held elsewhere, or not.

mod administration;
mod audit;
mod authority;
mod destination;
mod exhaustion;
mod framing;
mod generated;
mod ledger;
mod outlets;
mod protocols;
mod redaction;
mod rules;
mod tunnels;
mod uploads;

use futures_util::future::LocalBoxFuture;
use std::time::Duration;

use crate::harness::{Agent, Answer, Raw, Request, Row, Seen, Way, World, WorldBuilder};

/// The policy that the families share unless they say otherwise. The names stand for kinds of destinations: `ro` may
/// be read, `llm` takes messages, `pin` is not decrypted, `evil` is nobody's.
pub const POLICY: &str = r#"
    allow = [
        "allowed.test", "allowed.test:{http}", "allowed.test:{tls}", "allowed2.test:{tls}", "rebind.test:{tls}",
        "*.wild.test:{tls}", "k.test:{tls}", "a.test:{tls}", "pin.test:{tls}",
    ]
    deny = ["denied.wild.test:{tls}", "secret.wild.test:{tls}"]

    [[rule]]
    name = "read"
    action = "allow"
    to = ["ro.test:{tls}", "reg.test:{tls}"]
    methods = ["GET", "HEAD", "OPTIONS"]

    [[rule]]
    name = "fetch"
    action = "allow"
    to = ["ro.test:{tls}"]
    methods = ["POST"]
    paths = ["/**/git-upload-pack"]

    [[rule]]
    name = "talk"
    action = "allow"
    to = ["llm.test:{tls}"]
    methods = ["POST"]
    paths = ["/v1/messages"]

    [tls]
    passthrough = ["pin.test:{tls}"]

    [uploads]
    request_alert = "32 KiB"
    request_block = "64 KiB"
    window = "60s"
    window_alert = "128 KiB"
    window_block = "256 KiB"
"#;

/// What a case found: nothing, or what did not hold.
pub type Finding = Result<(), String>;
type Attempt = for<'a> fn(&'a Scene) -> LocalBoxFuture<'a, Finding>;

/// One case of the catalogue.
pub struct Case {
    id: &'static str,
    says: &'static str,
    attempt: Attempt,
}

/// Names a case and what it tries.
pub const fn case(id: &'static str, says: &'static str, attempt: Attempt) -> Case {
    Case { id, says, attempt }
}

/// A world in which cases happen one after the other.
pub struct Scene {
    /// The world.
    pub world: World,
}

/// Everything that one attempt left behind.
#[derive(Debug)]
pub struct Trace {
    /// Its decisions.
    pub rows: Vec<Row>,
    /// What the origin saw of it.
    pub seen: Vec<Seen>,
    /// Connections it made to the origin.
    pub accepts: u64,
    /// Names it looked up.
    pub names: Vec<String>,
}

/// Tries every case of a family in one world; fails with all that did not hold, and prints the score.
pub async fn family(name: &str, world: WorldBuilder, cases: &[Case]) {
    let scene = Scene { world: world.start().await };
    let mut failures = Vec::new();
    for case in cases {
        let limit = Duration::from_secs(60);
        let attempt = tokio::time::timeout(limit, (case.attempt)(&scene)).await;
        let found = attempt.unwrap_or_else(|_| Err(format!("it took longer than {limit:?}")));
        if let Err(problem) = found {
            failures.push(format!("{} {}: {problem}", case.id, case.says));
        }
    }
    eprintln!("{name}: held {} of {} cases", cases.len() - failures.len(), cases.len());
    assert!(failures.is_empty(), "{}\n{}", failures.join("\n"), scene.world.gate.stderr());
    scene.world.finish().await;
}

impl Scene {
    /// Does something and gathers what it left behind: at least `rows` decisions are waited for.
    pub async fn trace<T>(&self, rows: usize, attempt: impl Future<Output = T>) -> (T, Trace) {
        let world = &self.world;
        let before = world.gate.decisions().await.len();
        let (requests, accepts) = (world.origin.requests().len(), world.origin.accepts());
        let names = world.resolver.log().len();
        let result = attempt.await;
        let all = if rows == 0 {
            // Nothing to wait for: time for what must not come to come.
            tokio::time::sleep(Duration::from_millis(100)).await;
            world.gate.decisions().await
        } else {
            world.gate.decisions_reach(before + rows).await
        };
        let trace = Trace {
            rows: all[before..].to_vec(),
            seen: world.origin.requests()[requests..].to_vec(),
            accepts: world.origin.accepts() - accepts,
            names: world.resolver.log()[names..].to_vec(),
        };
        (result, trace)
    }

    /// Puts the world's ports into a text.
    pub fn fill(&self, text: &str) -> String {
        let origin = &self.world.origin;
        text.replace("{http}", &origin.http.to_string()).replace("{tls}", &origin.tls.to_string())
    }

    /// A connection to the proxy on which `text` has been sent, ports filled in.
    pub async fn say(&self, text: &str) -> Raw {
        self.say_bytes(self.fill(text).as_bytes()).await
    }

    /// A connection to the proxy on which these bytes have been sent.
    pub async fn say_bytes(&self, bytes: &[u8]) -> Raw {
        let mut raw = Raw::open(self.world.gate.proxy).await;
        raw.send(bytes).await;
        raw
    }

    /// Sends text to the proxy's port that must be refused there with `status` and `reason`, in one row, reaching
    /// nobody, and with the connection closed where `closes`.
    pub async fn refused(&self, text: &str, status: u16, reason: &str) -> Finding {
        self.refused_bytes(self.fill(text).as_bytes(), status, reason).await
    }

    /// The same with any bytes.
    pub async fn refused_bytes(&self, bytes: &[u8], status: u16, reason: &str) -> Finding {
        let (answer, trace) = self.trace(1, async { self.say_bytes(bytes).await.answer().await }).await;
        answer.must_be(status, reason)?;
        trace.must_be_one_refusal(reason)
    }

    /// The same, and the connection is closed afterwards, with nothing else said.
    pub async fn refused_and_closed(&self, text: &str, status: u16, reason: &str) -> Finding {
        let bytes = self.fill(text).into_bytes();
        let attempt = async {
            let mut raw = self.say_bytes(&bytes).await;
            (raw.answer().await, raw.read_to_close(Duration::from_secs(5)).await)
        };
        let ((answer, rest), trace) = self.trace(1, attempt).await;
        answer.must_be(status, reason)?;
        ensure(rest.as_deref() == Some(b""), || format!("afterwards came {rest:?}"))?;
        trace.must_be_one_refusal(reason)
    }

    /// Sends a described request some way; it must be refused for `reason` and reach nobody.
    pub async fn denied(&self, way: Way, request: &Request, reason: &str) -> Finding {
        let (answer, trace) = self.trace(1, self.agent().send(way, request)).await;
        ensure(answer.status >= 400, || format!("{way:?}: {answer:?}"))?;
        ensure(answer.reason() == Some(reason), || format!("{way:?}: {answer:?}"))?;
        trace.must_be_one_refusal(reason)
    }

    /// Sends a described request some way; it must arrive.
    pub async fn passes(&self, way: Way, request: &Request) -> Result<(Answer, Trace), String> {
        let (answer, trace) = self.trace(1, self.agent().send(way, request)).await;
        ensure(answer.status < 400 && answer.complete, || format!("{way:?}: {answer:?}\n{trace:?}"))?;
        ensure(trace.rows.len() == 1 && trace.seen.len() == 1, || format!("{trace:#?}"))?;
        Ok((answer, trace))
    }

    /// The world's client.
    pub fn agent(&self) -> &Agent {
        &self.world.agent
    }
}

impl Trace {
    /// One decision, a denial for `reason`, of which nobody else heard.
    pub fn must_be_one_refusal(&self, reason: &str) -> Finding {
        ensure(self.rows.len() == 1, || format!("not one row: {:#?}", self.rows))?;
        let row = &self.rows[0];
        ensure((row.text("action"), row.text("reason")) == ("deny", reason), || {
            format!("recorded as {row:?}")
        })?;
        ensure(row.number("request_bytes") == 0, || format!("something left: {row:?}"))?;
        self.must_reach_nobody()
    }

    /// Nothing was dialled or sent.
    pub fn must_reach_nobody(&self) -> Finding {
        ensure(self.accepts == 0 && self.seen.is_empty(), || format!("the origin saw {:#?}", self.seen))
    }

    /// The reasons of the decisions, in order.
    pub fn reasons(&self) -> Vec<&str> {
        self.rows.iter().map(|row| row.text("reason")).collect()
    }
}

impl Answer {
    /// A refusal with this status and reason. What the HTTP library refuses by itself comes without a reason.
    pub fn must_be(&self, status: u16, reason: &str) -> Finding {
        let bare = matches!(status, 400 | 414 | 431) && self.reason().is_none();
        let told = bare || self.reason() == Some(reason);
        ensure(self.status == status && told, || format!("answered with {self:?}"))
    }
}

/// `Ok` where something holds, else why not.
pub fn ensure(holds: bool, problem: impl FnOnce() -> String) -> Finding {
    if holds { Ok(()) } else { Err(problem()) }
}
