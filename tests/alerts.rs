//! Alerts through the real program to real webhooks: in both shapes, gathered, signed, tried again, and never in the way.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::harness::{NameReply, Request, Way, World, eventually, secrets};

const POLICY: &str = "allow = [\"allowed.test:{http}\", \"allowed.test:{tls}\"]";

/// What a webhook was posted.
#[derive(Clone, Debug)]
struct Posted {
    head: String,
    body: String,
}

impl Posted {
    fn header(&self, name: &str) -> &str {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next().unwrap_or("")
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

/// A webhook on loopback that answers as it is told, one status after the other, the last one again and again; with
/// none it never answers.
struct Sink {
    address: SocketAddr,
    posted: Arc<Mutex<Vec<Posted>>>,
    _tasks: JoinSet<()>,
}

impl Sink {
    async fn start(statuses: &[u16]) -> Sink {
        Sink::on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap(), statuses)
    }

    fn on(listener: TcpListener, statuses: &[u16]) -> Sink {
        let address = listener.local_addr().unwrap();
        let posted = Arc::<Mutex<Vec<Posted>>>::default();
        let (log, statuses) = (Arc::clone(&posted), statuses.to_vec());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                connections.spawn(serve(stream, Arc::clone(&log), statuses.clone()));
            }
        });
        Sink { address, posted, _tasks: tasks }
    }

    fn url(&self) -> String {
        format!("http://{}/hook?token=T0KEN", self.address)
    }

    fn posted(&self) -> Vec<Posted> {
        self.posted.lock().unwrap().clone()
    }

    async fn reach(&self, count: usize) -> Vec<Posted> {
        eventually(&format!("{count} alerts"), async || {
            let posted = self.posted();
            (posted.len() >= count).then_some(posted)
        })
        .await
    }
}

async fn serve(mut stream: TcpStream, log: Arc<Mutex<Vec<Posted>>>, statuses: Vec<u16>) {
    let mut bytes = Vec::new();
    let (head, length) = loop {
        let mut piece = [0; 4096];
        let Ok(read @ 1..) = stream.read(&mut piece).await else { return };
        bytes.extend_from_slice(&piece[..read]);
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = head.to_ascii_lowercase();
            let length = length.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            bytes.drain(..end + 4);
            break (head, length.unwrap_or(0usize));
        }
    };
    while bytes.len() < length {
        let mut piece = [0; 4096];
        let Ok(read @ 1..) = stream.read(&mut piece).await else { return };
        bytes.extend_from_slice(&piece[..read]);
    }
    let number = {
        let mut log = log.lock().unwrap();
        log.push(Posted { head, body: String::from_utf8(bytes).unwrap() });
        log.len() - 1
    };
    let Some(status) = statuses.get(number).or(statuses.last()) else {
        return tokio::time::sleep(Duration::from_secs(3600)).await;
    };
    let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let _ = stream.write_all(answer.as_bytes()).await;
}

fn webhook(url: &str, more: &str) -> String {
    format!("[[alerts.webhook]]\nurl = \"{url}\"\n{more}\n")
}

async fn world(config: &str) -> World {
    World::with_policy(POLICY).config(config).start().await
}

/// What the API shows of alerts.
async fn overview(world: &World) -> Value {
    let token = format!("Authorization: Bearer {}\r\n", world.gate.admin_token());
    let answer = world.gate.admin("/api/alerts", &token).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(&answer.text()).unwrap()
}

async fn refused(world: &World, host: &str) {
    assert_eq!(world.send(Way::Http1, &Request::get(host, "/")).await.status, 403);
}

/// Whether a message is signed with a key, as its receiver would find out.
fn is_signed(posted: &Posted, key: &str) -> bool {
    let signature = posted.header("x-outgate-signature");
    let (time, tag) = signature.split_once(",v1=").unwrap_or_else(|| panic!("`{signature}`"));
    let time = time.strip_prefix("t=").unwrap();
    let age = time.parse::<i64>().unwrap() - i64::try_from(now()).unwrap();
    let tag: Vec<u8> =
        (0..tag.len()).step_by(2).map(|at| u8::from_str_radix(&tag[at..at + 2], 16).unwrap()).collect();
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    age.abs() < 60 && hmac::verify(&key, format!("{time}.{}", posted.body).as_bytes(), &tag).is_ok()
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test]
async fn a_refusal_is_told_as_json_signed_with_the_folders_key() {
    let sink = Sink::start(&[204]).await;
    let world = world(&webhook(&sink.url(), "on = [\"denied\"]")).await;
    refused(&world, "other.test").await;
    let posted = sink.reach(1).await.remove(0);
    let alert = posted.json();
    for (field, value) in [
        ("kind", "denied"),
        ("agent", "anonymous"),
        ("host", "other.test"),
        ("reason", "unknown_destination"),
        ("text", "anonymous to other.test: refused, unknown_destination"),
    ] {
        assert_eq!(alert[field], value, "{alert}");
    }
    assert_eq!((alert["count"].as_u64(), alert["reply_url"].is_null()), (Some(1), true), "{alert}");
    assert_eq!(alert["decision"], world.gate.only_decision().await["id"]);
    assert_eq!(posted.header("x-outgate-alert"), alert["id"].as_str().unwrap());
    assert!(posted.head.starts_with("POST /hook?token=T0KEN HTTP/1.1\r\n"), "{}", posted.head);
    let key = std::fs::read_to_string(world.gate.data().join("alerts.key")).unwrap();
    assert!(is_signed(&posted, key.trim()), "{posted:?}");
    assert!(!is_signed(&posted, &key.trim().replace(&key[..1], "x")));
    let changed = Posted { body: posted.body.replace("other", "0ther"), ..posted };
    assert!(!is_signed(&changed, key.trim()), "another body is not what was signed");
    let shown = eventually("the alert to be shown as sent", async || {
        let shown = overview(&world).await;
        (shown["alerts"][0]["sent"] == true).then_some(shown)
    })
    .await;
    assert_eq!((&shown["dropped"], &shown["failed"]), (&0.into(), &0.into()), "{shown}");
    assert_eq!(world.gate.metric("outgate_alerts_sent_total", &["result=\"ok\""]).await as u64, 1);
    let said = world.gate.stderr() + &world.gate.told(&["log", "--json"]).await;
    assert!(!said.contains("T0KEN"), "the URL of a webhook is a secret: {said}");
    world.finish().await;
}

#[tokio::test]
async fn each_kind_is_told_to_those_who_want_it_and_no_secret_with_it() {
    let (all, secret) = (Sink::start(&[200]).await, Sink::start(&[200]).await);
    let config = webhook(
        &all.url(),
        "on = [\"upload\", \"secret\", \"lookalike\", \"denied\", \"first_seen\"]\nsecret = \"sixteen-characters\"",
    ) + &webhook(&secret.url(), "on = [\"secret\"]");
    let mut world = World::with_policy(
        "allow = [\"allowed.test:{tls}\", \"new.test:{tls}\"]\n[uploads]\nrequest_block = \"64 KiB\"",
    )
    .config(&config)
    .start()
    .await;
    let key = secrets::aws_access_key();
    world.gate.plant(&key);
    // Before the store was asked nothing is called new.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let requests = [
        (Request::get("new.test", "/"), 200, "first_seen"),
        (Request::post("allowed.test", "/x", format!("key={key}")), 403, "secret"),
        (Request::post("allowed.test", "/y", vec![b'a'; 100_000]), 413, "upload"),
        (Request::get("githuub.com", "/"), 403, "lookalike"),
        (Request::get("other.test", "/"), 403, "denied"),
    ];
    for (number, (request, status, kind)) in requests.iter().enumerate() {
        assert_eq!(world.send(Way::Http1, request).await.status, *status, "{kind}");
        let posted = all.reach(number + 1).await;
        assert_eq!(posted[number].json()["kind"], *kind, "{posted:?}");
        assert!(is_signed(&posted[number], "sixteen-characters"), "{posted:?}");
    }
    let only = secret.posted();
    assert_eq!(only.len(), 1, "{only:?}");
    assert!(only[0].json()["text"].as_str().unwrap().contains("aws-access-key"), "{only:?}");
    for posted in all.posted().iter().chain(&only) {
        assert!(!posted.body.contains(&key), "{posted:?}");
    }
    // Seen once is seen, also by the gateway that comes after.
    world.send(Way::Http1, &Request::get("new.test", "/")).await;
    world.gate.stop().await;
    let world = world.again().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    world.send(Way::Http1, &Request::get("new.test", "/")).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let news = all.posted().iter().filter(|posted| posted.json()["kind"] == "first_seen").count();
    assert_eq!(news, 1, "{:?}", all.posted());
    world.finish().await;
}

#[tokio::test]
async fn equal_alerts_are_gathered() {
    let sink = Sink::start(&[200]).await;
    let world = world(&webhook(&sink.url(), "format = \"slack\"\non = [\"denied\"]\ndigest = \"2s\"")).await;
    for _ in 0..5 {
        refused(&world, "other.test").await;
    }
    sink.reach(1).await;
    assert_eq!(sink.posted().len(), 1, "the first is told at once, and no other: {:?}", sink.posted());
    let second = sink.reach(2).await.remove(1).json();
    let text = second["text"].as_str().unwrap();
    assert_eq!(
        text, "Outgate: denied (4×): anonymous to other.test: refused, unknown_destination",
        "{second}"
    );
    for block in second["blocks"].as_array().unwrap() {
        let texts = [&block["text"]].into_iter().chain(block["elements"].as_array().into_iter().flatten());
        for text in texts.filter(|text| !text.is_null()) {
            assert_eq!(text["type"], "plain_text", "{block}");
        }
    }
    assert_eq!(overview(&world).await["alerts"][0]["count"], 5);
    world.finish().await;
}

#[tokio::test]
async fn what_was_not_taken_is_tried_again_and_what_was_refused_is_not() {
    let late = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (failing, refusing) = (Sink::start(&[500, 503, 200]).await, Sink::start(&[400]).await);
    let address = late.local_addr().unwrap();
    drop(late);
    let config = webhook(&failing.url(), "on = [\"denied\"]")
        + &webhook(&refusing.url(), "on = [\"denied\"]")
        + &webhook(&format!("http://{address}/"), "on = [\"denied\"]");
    let world = world(&config).await;
    refused(&world, "other.test").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let late = Sink::on(TcpListener::bind(address).await.unwrap(), &[200]);
    let tries = failing.reach(3).await;
    let ids: Vec<&str> = tries.iter().map(|posted| posted.header("x-outgate-alert")).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "one message is the same each time: {ids:?}");
    late.reach(1).await;
    eventually("both ends to be counted", async || {
        let of = async |result: &str| world.gate.metric("outgate_alerts_sent_total", &[result]).await as u64;
        (of("ok").await == 2 && of("failed").await == 1).then_some(())
    })
    .await;
    assert_eq!(refusing.posted().len(), 1, "{:?}", refusing.posted());
    let shown = overview(&world).await;
    assert_eq!((&shown["failed"], &shown["alerts"][0]["sent"]), (&1.into(), &false.into()), "{shown}");
    world.finish().await;
}

#[tokio::test]
async fn a_name_that_leads_inside_is_told_nothing_unless_that_is_said() {
    let (inside, said) = (Sink::start(&[200]).await, Sink::start(&[200]).await);
    let url = |sink: &Sink| format!("http://hook.test:{}/", sink.address.port());
    let config = webhook(&url(&inside), "on = [\"denied\"]")
        + &webhook(&url(&said), &format!("on = [\"denied\"]\naddresses = [\"{}\"]", said.address));
    let world = world(&config).await;
    world.resolver.answers("hook.test", NameReply::at(&["127.0.0.1"]));
    refused(&world, "other.test").await;
    said.reach(1).await;
    eventually("the other to be given up", async || (overview(&world).await["failed"] == 1).then_some(()))
        .await;
    assert!(inside.posted().is_empty(), "{:?}", inside.posted());
    assert!(world.gate.stderr().contains("127.0.0.1 is loopback"), "{}", world.gate.stderr());
    world.finish().await;
}

#[tokio::test]
async fn a_webhook_that_never_answers_holds_nothing_up() {
    let sink = Sink::start(&[]).await;
    let world = world(&webhook(&sink.url(), "on = [\"denied\"]\ndigest = \"1s\"")).await;
    refused(&world, "other.test").await;
    sink.reach(1).await;
    let begun = Instant::now();
    for number in 0..200 {
        refused(&world, &format!("other{number}.test")).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
    assert_eq!(sink.posted().len(), 1, "one at a time");
    let stopping = Instant::now();
    world.finish().await;
    assert!(stopping.elapsed() < Duration::from_secs(15), "it took {:?}", stopping.elapsed());
}

#[tokio::test]
async fn people_hear_of_a_record_that_fails_and_of_a_token_that_ends() {
    let sink = Sink::start(&[200]).await;
    let world = world(&webhook(&sink.url(), "on = [\"audit_failure\", \"expiring\"]")).await;
    world.gate.told(&["agent", "add", "claude", "--owner", "ana", "--expires", "2h"]).await;
    world.gate.told(&["agent", "add", "codex", "--owner", "ana", "--expires", "30d"]).await;
    let ending = sink.reach(1).await.remove(0).json();
    assert_eq!((&ending["kind"], &ending["agent"]), (&"expiring".into(), &"claude".into()), "{ending}");
    std::fs::remove_file(world.gate.data().join("outgate.db")).unwrap();
    let answer = world.send(Way::Http1, &Request::get("allowed.test", "/")).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    let failure = sink.reach(2).await.remove(1).json();
    assert_eq!(failure["kind"], "audit_failure", "{failure}");
    assert!(failure["text"].as_str().unwrap().starts_with("records cannot be written"), "{failure}");
}
