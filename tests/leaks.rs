//! Every kind of secret there is a detector for, planted all over requests: blocked, it does not leave; alerted, it
//! leaves, and is in no record all the same.

use std::io::Write;
use std::sync::LazyLock;

use flate2::Compression;
use flate2::write::GzEncoder;
use policy::redact::Redactor;
use policy::secret::{Detector, Secrets};

use crate::harness::{Answer, End, Request, Way, World, secrets};

const ALLOWED: &str = "allow = [\"allowed.test:{http}\", \"allowed.test:{tls}\"]\n";

/// Where a secret may be put in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Text,
    Json,
    Form,
    Multipart,
    Compressed,
    Split,
    Header,
    Cookie,
    Query,
    Path,
    Trailer,
}

const PLACES: [Place; 11] = [
    Place::Text,
    Place::Json,
    Place::Form,
    Place::Multipart,
    Place::Compressed,
    Place::Split,
    Place::Header,
    Place::Cookie,
    Place::Query,
    Place::Path,
    Place::Trailer,
];

impl Place {
    /// A request with the text in this place; `None` where such a text cannot stand there.
    ///
    /// Lines do not fit into a header, nor into a path; and what is already encoded is not encoded once more, since
    /// detectors look one level deep.
    fn request(self, text: &str) -> Option<Request> {
        let get = |path: &str| Request::get("allowed.test", path);
        let post = |content_type: &str| get("/echo").method("POST").header("content-type", content_type);
        let one_line = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        if !one_line && matches!(self, Place::Header | Place::Cookie | Place::Trailer | Place::Path) {
            return None;
        }
        let once = !text.contains(['%', '\\']);
        if !once && matches!(self, Place::Json | Place::Form | Place::Query | Place::Path) {
            return None;
        }
        Some(match self {
            Place::Text => post("text/plain").pieces([format!("before {text} after")]),
            Place::Json => {
                post("application/json").pieces([serde_json::json!({ "a": [1, { "b": text }] }).to_string()])
            }
            Place::Form => {
                post("application/x-www-form-urlencoded").pieces([format!("a=1&b={}&c=2", encoded(text))])
            }
            Place::Multipart => post("multipart/form-data; boundary=b").pieces([format!(
                "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n\r\n{text}\r\n--b--\r\n"
            )]),
            Place::Compressed => post("text/plain").header("content-encoding", "gzip").pieces([gzip(text)]),
            Place::Split => post("text/plain").pieces(text.as_bytes().chunks(7)),
            Place::Header => get("/echo").header("x-note", text),
            Place::Cookie => get("/echo").header("cookie", &format!("a=1; b={text}")),
            Place::Query => get(&format!("/echo?a=1&b={}", encoded(text))),
            Place::Path => get(&format!("/a/{}/b", encoded(text))),
            Place::Trailer => {
                post("text/plain").pieces(["body"]).header("te", "trailers").trailer("x-note", text)
            }
        })
    }
}

/// Percent-encoded, all but what a URL may hold anywhere (RFC 3986, section 2.3).
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// The middle of what the redactor takes out of a text: nobody but the secret's owner has reason to write it.
fn heart(text: &str) -> Option<String> {
    static REDACTOR: LazyLock<Redactor> = LazyLock::new(|| Redactor::new(Secrets::detectors()));
    let redacted = REDACTOR.text(text);
    let (before, rest) = redacted.as_str().split_once("[redacted:")?;
    let (_, after) = rest.split_once(']')?;
    let secret = text.get(before.len()..text.len().checked_sub(after.len())?)?;
    let middle = secret.len() / 2;
    // The end of a long secret is as telling as its middle; of a short one the middle is all there is.
    secret.get(middle.saturating_sub(6)..(middle + 6).min(secret.len())).map(str::to_owned)
}

/// Detectors with an example each, spread over places so that each detector meets several and each place all kinds.
fn planted(offset: usize) -> impl Iterator<Item = (Detector, Place, String, Request)> {
    let detectors = Detector::all().filter(|detector| !detector.records_only()).enumerate();
    detectors.flat_map(move |(number, detector)| {
        [0, 4].into_iter().filter_map(move |step| {
            let place = PLACES[(number + offset + step) % PLACES.len()];
            let [first, second] = detector.examples();
            let text = if step == 0 { first } else { second };
            let request = place.request(&text).or_else(|| Place::Text.request(&text))?;
            Some((detector, place, text, request))
        })
    })
}

async fn every_secret_is_blocked(way: Way, offset: usize) {
    let mut world = World::with_policy(&unlimited("block")).start().await;
    let mut sent = 0;
    let mut problems = Vec::new();
    for (detector, place, text, request) in planted(offset) {
        let heart = heart(&text);
        if let Some(heart) = &heart {
            world.gate.plant(heart);
        }
        let seen_before = world.origin.requests().len();
        let answer = world.send(way, &request).await;
        sent += 1;
        let refused = answer.status == 403 && answer.reason() == Some("secret_found");
        let seen = &world.origin.requests()[seen_before..];
        let whole = seen.iter().any(|seen| seen.end == End::Complete);
        let leaked = heart.is_some_and(|heart| format!("{seen:?}").contains(&heart));
        if !refused || whole || leaked {
            problems.push(format!(
                "{detector} in {place:?}: {} {:?} whole {whole} leaked {leaked}",
                answer.status, answer.error
            ));
        }
    }
    eprintln!("leaks: {} of {sent} secrets were stopped over {way:?}", sent - problems.len());
    assert!(sent >= 100, "only {sent} secrets were tried");
    assert!(problems.is_empty(), "{problems:#?}");
    world.finish().await;
}

fn unlimited(action: &str) -> String {
    let limits =
        "[uploads]\nwindow_alert = \"512 MiB\"\nwindow_block = \"1 GiB\"\nwindow_block_agent = \"2 GiB\"\n";
    format!("{ALLOWED}[secrets]\naction = \"{action}\"\n{limits}")
}

#[tokio::test]
async fn every_secret_is_blocked_over_http1() {
    every_secret_is_blocked(Way::Http1, 0).await;
}

#[tokio::test]
async fn every_secret_is_blocked_over_http2() {
    every_secret_is_blocked(Way::Http2, 5).await;
}

#[tokio::test]
async fn what_passes_with_an_alert_is_in_no_record() {
    let mut world = World::with_policy(&unlimited("alert")).start().await;
    let mut problems = Vec::new();
    for (detector, place, text, request) in planted(8) {
        if let Some(heart) = heart(&text) {
            world.gate.plant(&heart);
        }
        let answer: Answer = world.send(Way::Absolute, &request).await;
        if answer.status != 200 {
            problems.push(format!("{detector} in {place:?}: {} {:?}", answer.status, answer.reason()));
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
    let rows = world.gate.decisions().await;
    let missed = rows.iter().filter(|row| !row.findings().contains(&"secret"));
    assert_eq!(missed.count(), 0);
    world.finish().await;
}

/// Nothing follows a secret at the end of a body of declared length, not even a question for more: what only notes it
/// has to note it there as well, as what stops it does.
#[tokio::test]
async fn a_secret_that_ends_a_body_is_found_whatever_comes_of_it() {
    let key = secrets::aws_access_key();
    for action in ["alert", "mask", "block"] {
        let mut world = World::with_policy(&unlimited(action)).start().await;
        world.gate.plant(&secrets::heart(&key));
        let mut sent = 0;
        for way in [Way::Absolute, Way::Http1, Way::Http2] {
            let bodies =
                [key.clone(), format!("k={key}"), format!("{}{key}", "much before it ".repeat(5_000))];
            for body in bodies {
                let declared = Request::post("allowed.test", "/echo", body.clone());
                let in_pieces = declared.clone().pieces([body]);
                for request in [declared, in_pieces] {
                    world.send(way, &request).await;
                    sent += 1;
                }
            }
        }
        for row in world.gate.decisions_reach(sent).await {
            assert!(row.findings().contains(&"secret"), "{action}: {row:#?}");
            if action == "block" {
                row.is("deny", "secret_found");
            }
        }
        world.finish().await;
    }
}

/// Masked, a secret leaves as something else of the same length, and the request as a whole arrives.
#[tokio::test]
async fn what_is_masked_arrives_as_something_else() {
    let mut world = World::with_policy(&unlimited("mask")).start().await;
    let key = secrets::anthropic_key();
    let heart = secrets::heart(&key);
    world.gate.plant(&heart);
    for way in [Way::Absolute, Way::Http1, Way::Http2] {
        for request in [
            Request::post("allowed.test", "/echo", format!("before {key} after")),
            Request::post("allowed.test", "/echo", "")
                .pieces([format!("before {}", &key[..30]), format!("{} after", &key[30..])]),
        ] {
            let answer = world.send(way, &request).await;
            let told = answer.text();
            assert_eq!((answer.status, told.len()), (200, 13 + key.len()), "{way:?}: {answer:?}");
            assert!(told.starts_with("before ") && told.ends_with(" after"), "{told}");
            assert!(!told.contains(&heart), "{told}");
            assert_eq!(world.origin.requests().pop().unwrap().end, End::Complete);
        }
    }
    let rows = world.gate.decisions_reach(6).await;
    assert!(
        rows.iter().all(|row| row.text("action") == "allow" && row.findings().contains(&"secret")),
        "{rows:#?}"
    );
    world.finish().await;
}

/// Whoever resolves a name reads it, so a secret in one is stopped before that, also where nothing else is read.
#[tokio::test]
async fn a_secret_in_a_host_name_is_not_looked_up() {
    let policy = "allow = [\"*.wild.test:{http}\", \"*.wild.test:{tls}\", \"*.pin.test:{tls}\"]\n\
        tls = { passthrough = [\"*.pin.test:{tls}\"] }";
    let world = World::with_policy(policy).start().await;
    let label = secrets::aws_access_key().to_ascii_lowercase();
    for way in Way::ALL {
        let answer = world.send(way, &Request::get(&format!("{label}.wild.test"), "/")).await;
        assert_eq!((answer.status, answer.reason()), (403, Some("secret_found")), "{way:?}: {answer:?}");
    }
    let unread = world.agent.tunnel(&Request::get(&format!("{label}.pin.test"), "/")).await;
    let answer = unread.err().expect("the tunnel is refused");
    assert_eq!((answer.status, answer.reason()), (403, Some("secret_found")), "{answer:?}");
    for row in world.gate.decisions_reach(5).await {
        row.is("deny", "secret_found");
        assert!(!row.text("host").contains(&label), "{row:?}");
    }
    assert!(world.resolver.log().is_empty(), "{:?}", world.resolver.log());
    world.finish().await;
}
