//! curl, in HTTP/1.1, HTTP/2 and clear text.

use super::{Desk, all_allowed, has};
use crate::harness::World;

const POLICY: &str = "allow = [\"allowed.test:{tls}\", \"allowed.test:{http}\"]";

#[tokio::test]
async fn curl_passes_in_every_version() {
    if !has("curl") {
        return;
    }
    let world = World::with_policy(POLICY).start().await;
    let desk = Desk::in_front_of(&world).await;
    let (tls, http) = (world.origin.tls, world.origin.http);
    for (version, scheme, port, told) in [
        ("--http1.1", "https", tls, "1.1"),
        ("--http2", "https", tls, "2"),
        ("--http1.1", "http", http, "1.1"),
    ] {
        let url = format!("{scheme}://allowed.test:{port}/echo");
        let format = "\n%{http_version} %{http_code}";
        let said = desk.run("curl", &["-sS", version, "-d", "hello", "-w", format, &url]).await.ok();
        assert_eq!(said, format!("hello\n{told} 200"), "{version} {scheme}");
    }
    all_allowed(&world).await;
    world.finish().await;
}

#[tokio::test]
async fn curl_shows_a_refusal() {
    if !has("curl") {
        return;
    }
    let world = World::with_policy(POLICY).start().await;
    let desk = Desk::in_front_of(&world).await;
    let said = desk.run("curl", &["-sS", "-w", "\n%{http_code}", "https://other.test/"]).await.ok();
    let (body, status) = said.rsplit_once('\n').unwrap();
    let told: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!((status, told["error"]["code"].as_str()), ("403", Some("unknown_destination")), "{said}");
    assert!(told["error"]["message"].as_str().unwrap().contains("outgate policy allow other.test"), "{said}");
    world.finish().await;
}

#[tokio::test]
async fn curl_uploads_what_waits_to_be_asked_for() {
    if !has("curl") {
        return;
    }
    let world = World::with_policy(POLICY).start().await;
    let desk = Desk::in_front_of(&world).await;
    std::fs::write(desk.path().join("file"), vec![b'x'; 3 << 20]).unwrap();
    let url = format!("https://allowed.test:{}/status/201", world.origin.tls);
    let said =
        desk.run("curl", &["-sS", "--http1.1", "-T", "file", "-H", "Expect: 100-continue", &url]).await.ok();
    assert_eq!(said, "as asked");
    assert_eq!(world.origin.only_request().body.bytes, 3 << 20);
    all_allowed(&world).await;
    world.finish().await;
}
