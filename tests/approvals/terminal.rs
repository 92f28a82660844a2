//! The terminal that `serve` runs in asks, one line a question, and is answered by lines.

use std::process::Stdio;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use crate::clients::has;
use crate::harness::{Gate, Raw, eventually};

#[tokio::test]
async fn the_terminal_of_the_gateway_asks_and_is_answered() {
    // Gives a program a terminal of its own.
    if !has("script") {
        return;
    }
    let gate = Gate::with_policy("version = 1\nask = [\"asked.test\"]\ndeny = [\"denied.test\"]");
    let serve = gate.command(&["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let words: Vec<String> = std::iter::once(serve.as_std().get_program())
        .chain(serve.as_std().get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    let mut command: Command = gate.program("script".as_ref());
    command.args(["-qefc", &words.join(" "), "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut keys = child.stdin.take().unwrap();
    let mut screen = child.stdout.take().unwrap();
    let shown = Arc::<Mutex<String>>::default();
    let seen = Arc::clone(&shown);
    tokio::spawn(async move {
        let mut bytes = [0; 4096];
        while let Ok(read @ 1..) = screen.read(&mut bytes).await {
            seen.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
    });
    let reads = async |text: &str| {
        eventually(text, async || shown.lock().unwrap().contains(text).then_some(())).await;
    };
    reads("proxy http://").await;
    let said = shown.lock().unwrap().clone();
    let line = said.lines().find_map(|line| line.trim().strip_prefix("proxy http://")).unwrap();
    let proxy = line.parse().unwrap();

    let mut raw = Raw::open(proxy).await;
    raw.send("GET http://asked.test/x?token=abc HTTP/1.1\r\nHost: asked.test\r\n\r\n").await;
    reads("[1] anonymous asks: GET http://asked.test:80/x?token=[redacted:query] (ask \"asked.test\")").await;
    reads("a once, s session, h one hour, A always, d deny").await;
    keys.write_all(b"what?\n").await.unwrap();
    keys.write_all(b"d 7\n").await.unwrap();
    reads("there is no question of this number").await;
    keys.write_all(b"A 1\n").await.unwrap();
    reads("nothing can be added to it here").await;

    // A letter alone is for one question that was there to be read; another path of a question is told as well.
    let mut other = Raw::open(proxy).await;
    other.send("GET http://asked.test/other HTTP/1.1\r\nHost: asked.test\r\n\r\n").await;
    reads("[1] asks for another path: GET /other").await;
    keys.write_all(b"d\n").await.unwrap();
    reads("the question came only now: a number is needed").await;
    let mut second = Raw::open(proxy).await;
    second.send("POST http://asked.test/ HTTP/1.1\r\nHost: asked.test\r\nContent-Length: 0\r\n\r\n").await;
    reads("[2] anonymous asks: POST").await;
    keys.write_all(b"d\n").await.unwrap();
    reads("several questions wait: a number is needed").await;
    keys.write_all(b"d 2\n").await.unwrap();
    reads("deny: anonymous writing http://asked.test:80: 1 request waited").await;
    assert_eq!(second.answer().await.reason(), Some("approval_denied"));
    tokio::time::sleep(std::time::Duration::from_millis(2200)).await;
    keys.write_all(b"d\n").await.unwrap();
    reads("deny: anonymous reading http://asked.test:80: 2 requests waited").await;
    assert_eq!(raw.answer().await.reason(), Some("approval_denied"));
    assert_eq!(other.answer().await.reason(), Some("approval_denied"));

    // An interrupt at the terminal stops it as ever.
    keys.write_all(b"\x03").await.unwrap();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), child.wait()).await;
    assert!(ended.is_ok(), "it did not stop: {}", shown.lock().unwrap());
    assert!(!shown.lock().unwrap().contains("panicked"), "{}", shown.lock().unwrap());
}
