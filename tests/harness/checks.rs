//! The vocabulary held against itself: what the other tests lean on has to stand.

use std::net::Ipv4Addr;

use tokio::net::UdpSocket;

use super::{
    Answer, Canary, End, Frame, NameReply, Origin, PATIENCE, Raw, Request, Resolver, Tally, TestCa, agent,
    tally,
};

/// Speaks to an origin directly.
async fn ask(origin: &Origin, request: &Request) -> Answer {
    let mut raw = Raw::open((origin.ip, origin.http).into()).await;
    let pieces = agent::http1_pieces(request, &request.path, &request.host, "");
    raw.exchange(&request.method, &pieces).await
}

#[tokio::test]
async fn an_origin_remembers_what_it_was_sent() {
    let origin = Origin::with_authority(&TestCa::new()).start().await;
    let request = Request::get("a.test", "/echo?q=1").method("POST").header("x-note", "kept");
    let answer = ask(&origin, &request.pieces(["one", "two"]).trailer("x-sum", "6")).await;
    assert_eq!((answer.status, answer.text(), answer.complete), (200, "onetwo".into(), true));
    let seen = origin.only_request();
    assert_eq!((&seen.method[..], &seen.path[..], &seen.authority[..]), ("POST", "/echo?q=1", "a.test"));
    assert_eq!((seen.header("x-note"), seen.end), (Some("kept"), End::Complete));
    assert_eq!(seen.body.sha256(), Tally::of(b"onetwo").sha256());
    assert_eq!(seen.trailers, [("x-sum".into(), "6".into())]);
    assert_eq!(origin.accepts(), 1);
    assert!(origin.saw("kept") && !origin.saw("three"));
}

#[tokio::test]
async fn an_origin_tells_an_aborted_body_from_a_short_one() {
    let origin = Origin::with_authority(&TestCa::new()).start().await;
    let mut raw = Raw::open((origin.ip, origin.http).into()).await;
    raw.send("POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nhalf").await;
    super::eventually("the beginning to arrive", async || origin.saw("half").then_some(())).await;
    drop(raw);
    super::eventually("the end to be noticed", async || {
        (origin.only_request().end == End::Aborted).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_origin_follows_its_script() {
    let origin = Origin::with_authority(&TestCa::new()).start().await;
    for (path, status, body, complete) in [
        ("/", 200, "hello", true),
        ("/status/418", 418, "as asked", true),
        ("/redirect", 302, "", true),
        ("/abort", 200, "half", false),
        ("/trailers", 200, "hello", true),
        ("/sse/2/1", 200, "id: 0\ndata: event 0\n\nid: 1\ndata: event 1\n\n", true),
        ("/slow/1", 200, "at last", true),
        ("/unsolicited-101", 101, "", true),
    ] {
        let answer = ask(&origin, &Request::get("a.test", path)).await;
        assert_eq!((answer.status, &answer.text()[..], answer.complete), (status, body, complete), "{path}");
    }
    let answer = ask(&origin, &Request::get("a.test", "/trailers").header("te", "trailers")).await;
    assert_eq!(answer.trailers, [("x-checksum".into(), "abc".into())]);
}

#[tokio::test]
async fn a_long_body_is_the_same_every_time() {
    let origin = Origin::with_authority(&TestCa::new()).start().await;
    let length = 3 * tally::PIECE as u64 + 17;
    let answer = ask(&origin, &Request::get("a.test", &format!("/bytes/{length}"))).await;
    let mut expected = Tally::default();
    tally::stream(length).for_each(|piece| expected.add(&piece));
    assert_eq!((answer.body.bytes, answer.body.sha256()), (length, expected.sha256()));
}

#[tokio::test]
async fn a_websocket_is_echoed_and_closed() {
    let origin = Origin::with_authority(&TestCa::new()).start().await;
    let mut raw = Raw::open((origin.ip, origin.http).into()).await;
    let upgrade = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    raw.send(upgrade).await;
    let answer = raw.answer().await;
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    for length in [0, 125, 126, 70_000] {
        let sent = Frame::binary(vec![7; length]);
        sent.write(&mut raw.output, true).await.unwrap();
        assert_eq!(Frame::read(&mut raw.input).await.unwrap(), sent);
    }
    Frame::text("code:1008").write(&mut raw.output, true).await.unwrap();
    assert_eq!(Frame::read(&mut raw.input).await.unwrap().close_code(), Some(1008));
}

#[tokio::test]
async fn a_resolver_answers_by_script_and_logs() {
    let resolver = Resolver::start().await;
    resolver.answers(".test", NameReply::at(&["127.0.0.2", "::1"]));
    resolver.answers_in_turn("twice.test", vec![NameReply::at(&["127.0.0.2"]), NameReply::Failure]);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let ask = async |name: &str, kind: u8| {
        let mut question = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            question.push(label.len() as u8);
            question.extend(label.as_bytes());
        }
        question.extend([0, 0, kind, 0, 1]);
        socket.send_to(&question, resolver.address).await.unwrap();
        let mut answer = [0; 512];
        let length = tokio::time::timeout(PATIENCE, socket.recv(&mut answer)).await.unwrap().unwrap();
        (answer[3] & 15, answer[7], answer[length - 4..length].to_vec())
    };
    assert_eq!(ask("Any.TEST", 1).await, (0, 1, vec![127, 0, 0, 2]));
    assert_eq!(ask("any.test", 28).await, (0, 1, vec![0, 0, 0, 1]));
    assert_eq!(ask("twice.test", 1).await.0, 0);
    assert_eq!(ask("twice.test", 1).await.0, 2);
    assert_eq!(ask("any.other", 1).await.0, 3);
    assert_eq!(resolver.log(), ["any.test", "any.test", "twice.test", "twice.test", "any.other"]);
    assert_eq!(resolver.lookups("twice.test"), 2);
    resolver.must_not_know("evil.test");
}

#[tokio::test]
async fn a_canary_counts_who_comes() {
    let canary = Canary::at("127.0.0.3", &[0]).await.unwrap();
    canary.must_be_untouched();
    Raw::open((canary.ip, canary.ports[0]).into()).await.send("hello").await;
    super::eventually("the canary to notice", async || (canary.accepts() == 1).then_some(())).await;
}
