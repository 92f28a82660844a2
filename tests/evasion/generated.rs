//! Beyond the catalogue's lines: spellings, cuts and orders without number, none of which gets anywhere.

use std::collections::BTreeMap;
use std::time::Duration;

use rustls::pki_types::ServerName;

use super::POLICY;
use crate::harness::{Raw, Request, World, secrets};

/// What a forbidden place may be spelled like; `{name}` is a denied name, `{address}` a loopback address.
const SPELLINGS: &[&str] = &[
    // A name, as it is and as others may read it.
    "{name}",
    "{name}.",
    "{name}..",
    ".{name}",
    "EVIL.test",
    "eViL.TeSt.",
    "e%76il.test",
    "%65vil.test",
    "evil%2etest",
    "evil%2Etest",
    "evil。test",
    "evil．test",
    "ｅvil.test",
    "evıl.test",
    "e\u{ad}vil.test",
    "evil\u{200b}.test",
    "evil.te\u{17f}t",
    "xn--evil.test",
    "evil.test\t",
    "\tevil.test",
    "evil.test\u{0}",
    "evil.test\u{0}.allowed.test",
    "evil.test%00",
    "evil.test%00.allowed.test",
    "evil.test%20",
    "evil.test,allowed.test",
    "evil.test;allowed.test",
    "evil.test\\",
    "evil.test\\.allowed.test",
    "evil.test#.allowed.test",
    "evil.test#@allowed.test",
    "evil.test?.allowed.test",
    "evil.test/.allowed.test",
    "evil.test/@allowed.test",
    "[evil.test]",
    "(evil.test)",
    "\"evil.test\"",
    "evil..test",
    "-evil.test",
    "evil.test|",
    "*.evil.test",
    "evil_.test",
    "allowed.test.evil.test",
    "allowed-test.evil.test",
    "allowed.testevil.test",
    "sub.{name}",
    // One name in front of another.
    "allowed.test@{name}",
    "allowed.test:80@{name}",
    "allowed.test%40{name}",
    "{name}@allowed.test",
    "user:password@{name}",
    "allowed.test%2f@{name}",
    "allowed.test\\@{name}",
    "allowed.test:443:{name}",
    "allowed.test {name}",
    "allowed.test#{name}",
    // An address, in every notation that some reader knows (inet_aton, RFC 4291, RFC 6052).
    "{address}",
    "{address}.",
    "127.3",
    "127.0.3",
    "2130706435",
    "0x7f000003",
    "0X7F.0.0.3",
    "0x7f.0x0.0x0.0x3",
    "0177.0.0.3",
    "017700000003",
    "0177.0.0.03",
    "127.0.0.003",
    "127.0.0.3%00",
    "127.0.0.259",
    "00000127.0.0.3",
    "127.0.0.3.nip.io",
    "①27.0.0.3",
    "127。0。0。3",
    "[::ffff:127.0.0.3]",
    "[::ffff:7f00:3]",
    "[0:0:0:0:0:ffff:7f00:0003]",
    "[::127.0.0.3]",
    "[64:ff9b::127.0.0.3]",
    "[64:ff9b::7f00:3]",
    "[2002:7f00:3::]",
    "[::1]",
    "[::1%25lo]",
    "[::1%lo]",
    "[fe80::1%lo]",
    "[::]",
    "0.0.0.0",
    "0",
    "[::ffff:0:127.0.0.3]",
    "[::1",
    "::1",
    "localhost",
    "localhost.",
    "LOCALHOST",
    "ip6-localhost",
    "127.0.0.1",
    "169.254.169.254",
    "[fd00:ec2::254]",
    "metadata.google.internal",
];

/// How a port may follow; the one that is meant is the origin's.
const PORTS: &[&str] = &[":{port}", ":0{port}", ":+{port}", ":{port} ", ": {port}", ":0x50", "::{port}"];

/// Which parts of a message name where it goes.
const PLACES: &[Place] = &[Place::Connect, Place::Absolute, Place::Host, Place::Inside];

#[derive(Clone, Copy, Debug)]
enum Place {
    /// The target of a CONNECT, and its Host.
    Connect,
    /// The target in absolute form, and Host.
    Absolute,
    /// Host alone, beside an allowed target.
    Host,
    /// Host inside an allowed tunnel.
    Inside,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_spelling_of_a_forbidden_place_gets_there() {
    let world = World::with_policy(POLICY).start().await;
    let mut tried = 0;
    for place in PLACES {
        for (number, spelling) in SPELLINGS.iter().enumerate() {
            let host = spelling.replace("{name}", "evil.test").replace("{address}", "127.0.0.3");
            // Every host with the port as it should be, and with one of the others in turn.
            for port in [PORTS[0], PORTS[1 + number % (PORTS.len() - 1)]] {
                must_be_refused(&world, *place, &host, port).await;
                tried += 1;
            }
        }
    }
    assert!(tried > 700, "{tried} spellings");
    let rows = world.gate.decisions_reach(tried).await;
    assert_eq!(rows.len(), tried, "one decision for each");
    let let_through: Vec<_> = rows.iter().filter(|row| row.text("action") != "deny").collect();
    assert!(let_through.is_empty(), "{let_through:#?}");
    assert!(rows.iter().all(|row| row.number("request_bytes") == 0), "{rows:#?}");
    world.origin.must_be_untouched();
    let asked = world.resolver.log();
    assert!(asked.iter().all(|name| name == "allowed.test"), "{asked:?}");
    world.finish().await;
}

async fn must_be_refused(world: &World, place: Place, host: &str, port: &str) {
    let (http, tls) = (world.origin.http, world.origin.tls);
    let inside_tls = matches!(place, Place::Connect | Place::Inside);
    let named = format!("{host}{}", port.replace("{port}", &if inside_tls { tls } else { http }.to_string()));
    let mut raw = match place {
        Place::Inside => {
            let request = Request::get("allowed.test", "/");
            world.agent.tls(&request, b"http/1.1").await.unwrap()
        }
        _ => Raw::open(world.gate.proxy).await,
    };
    raw.send(match place {
        Place::Connect => format!("CONNECT {named} HTTP/1.1\r\nHost: {named}\r\n\r\n"),
        Place::Absolute => format!("GET http://{named}/ HTTP/1.1\r\nHost: {named}\r\n\r\n"),
        Place::Host => format!("GET http://allowed.test:{http}/ HTTP/1.1\r\nHost: {named}\r\n\r\n"),
        Place::Inside => format!("GET / HTTP/1.1\r\nHost: {named}\r\n\r\n"),
    })
    .await;
    let connect = matches!(place, Place::Connect);
    let mut answer = raw.answer_to(if connect { "CONNECT" } else { "GET" }).await;
    let tunnel = connect && answer.status == 200;
    if tunnel {
        // What may not be reached is refused inside, where a client shows it; without TLS by closing.
        raw.send(format!("GET / HTTP/1.1\r\nHost: {named}\r\n\r\n")).await;
        answer = raw.answer().await;
    }
    let refused = matches!(answer.status, 400 | 403 | 414 | 421 | 431) || (tunnel && answer.status == 0);
    assert!(refused, "{place:?} {named:?}: {answer:?}");
}

/// A message that is refused however it is cut, and why.
struct Cut {
    says: &'static str,
    reason: &'static str,
    bytes: Vec<u8>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_message_is_cut_changes_nothing() {
    let world = World::with_policy(POLICY).start().await;
    let (http, tls) = (world.origin.http, world.origin.tls);
    let secret = secrets::anthropic_key();
    let tunnel = |then: &[u8]| {
        let head = format!("CONNECT allowed.test:{tls} HTTP/1.1\r\nHost: allowed.test:{tls}\r\n\r\n");
        [head.as_bytes(), then].concat()
    };
    let cuts = [
        Cut {
            says: "a secret in a header",
            reason: "secret_found",
            bytes: format!(
                "GET http://allowed.test:{http}/ HTTP/1.1\r\nHost: allowed.test:{http}\r\nConnection: close\r\nx-note: {secret}\r\n\r\n"
            )
            .into_bytes(),
        },
        Cut {
            says: "two authorities",
            reason: "authority_mismatch",
            bytes: format!("GET http://allowed.test:{http}/ HTTP/1.1\r\nHost: evil.test:{http}\r\nConnection: close\r\n\r\n").into(),
        },
        Cut { says: "another name in the handshake", reason: "authority_mismatch", bytes: tunnel(&hello("evil.test")) },
        Cut { says: "SSH in a tunnel", reason: "protocol_refused", bytes: tunnel(b"SSH-2.0-OpenSSH_9.9\r\n") },
    ];
    let mut expected: BTreeMap<&str, usize> = BTreeMap::new();
    for Cut { says, reason, bytes } in &cuts {
        for at in 1..bytes.len() {
            let mut raw = Raw::open(world.gate.proxy).await;
            raw.send_slowly(&[&bytes[..at], &bytes[at..]], Duration::from_millis(1)).await;
            let said = raw.must_close().await;
            let answers: Vec<_> =
                said.match_indices("HTTP/1.1 ").map(|(at, _)| &said[at + 9..at + 12]).collect();
            assert!(
                [&[][..], &["200"], &["403"], &["421"]].contains(&&answers[..]),
                "{says}, cut at {at}: {said}"
            );
        }
        *expected.entry(reason).or_default() += bytes.len() - 1;
    }
    let all: usize = expected.values().sum();
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    let rows = world.gate.decisions_reach(all).await;
    for row in &rows {
        *found.entry(row.text("reason")).or_default() += 1;
    }
    assert_eq!(found, expected);
    world.origin.must_be_untouched();
    world.finish().await;
}

/// The first bytes of a TLS client that means to talk to `name`.
fn hello(name: &str) -> Vec<u8> {
    let config = rustls::ClientConfig::builder_with_provider(crate::harness::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = rustls::ClientConnection::new(config.into(), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// Fields that together have more than one reading, or none.
const AMBIGUOUS: &[&[&str]] = &[
    &["Host: allowed.test:{http}", "Host: evil.test:{http}"],
    &["Host: allowed.test:{http}", "Host : evil.test:{http}"],
    &["Host: allowed.test:{http}", "Host: allowed.test:{http}"],
    &["Host: allowed.test:{http}", "Content-Length: 5", "Content-Length: 6"],
    &["Host: allowed.test:{http}", "Content-Length: 5, 6"],
    &["Host: allowed.test:{http}", "Content-Length: -5"],
    &["Host: allowed.test:{http}", "Content-Length: 0x5"],
    &["Host: allowed.test:{http}", "Content-Length : 5"],
    &["Host: allowed.test:{http}", "Transfer-Encoding: chunked, gzip"],
    &["Host: allowed.test:{http}", "Transfer-Encoding: xchunked"],
    &["Host: allowed.test:{http}", "Transfer-Encoding : chunked"],
    &["Host: allowed.test:{http}", "Transfer-Encoding: identity", "Content-Length: 5"],
    &["Host: allowed.test:{http}", "X-A: 1\rHost: evil.test"],
    &["Host: allowed.test:{http}", "X-A: 1\u{0}"],
];
/// Fields that everybody reads alike, for between.
const PLAIN: &[&str] = &["Accept: */*", "User-Agent: test"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_whatever_order_fields_come_they_are_refused() {
    let world = World::with_policy(POLICY).start().await;
    let http = world.origin.http.to_string();
    let mut tried = 0;
    for fields in AMBIGUOUS {
        for order in orders(&[fields, PLAIN].concat()) {
            let fields = order.join("\r\n").replace("{http}", &http);
            let mut raw = Raw::open(world.gate.proxy).await;
            raw.send(format!("POST http://allowed.test:{http}/echo HTTP/1.1\r\n{fields}\r\n\r\nhello")).await;
            let answer = raw.answer().await;
            assert!(matches!(answer.status, 400 | 421), "{fields:?}: {answer:?}");
            raw.must_close().await;
            tried += 1;
        }
    }
    let rows = world.gate.decisions_reach(tried).await;
    assert_eq!(rows.len(), tried, "one decision for each");
    for row in &rows {
        assert_eq!(row.text("action"), "deny", "{row:?}");
        assert!(["malformed_request", "authority_mismatch"].contains(&row.text("reason")), "{row:?}");
    }
    world.origin.must_be_untouched();
    world.finish().await;
}

/// Every order of a few things.
fn orders<'a>(things: &[&'a str]) -> Vec<Vec<&'a str>> {
    let Some((first, rest)) = things.split_first() else { return vec![Vec::new()] };
    let mut all = Vec::new();
    for order in orders(rest) {
        for place in 0..=order.len() {
            let mut longer = order.clone();
            longer.insert(place, *first);
            all.push(longer);
        }
    }
    all
}
