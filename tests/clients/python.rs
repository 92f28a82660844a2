//! pip, and programs in Python.

use super::{Desk, all_allowed, has, installed};
use crate::harness::{World, reply};

/// Runs a script with the libraries that `tests/setup.sh` installed; `None` where they are missing.
pub async fn python(desk: &Desk, script: &str, arguments: &[&str]) -> Option<super::Run> {
    let python = installed().join("python/bin/python");
    if !has(&python) {
        return None;
    }
    let mut command = desk.program(&python);
    Some(super::run(command.args(["-c", script]).args(arguments)).await)
}

const BOTH: &str = "allow = [\"allowed.test:{tls}\", \"allowed.test:{http}\"]";

#[tokio::test]
async fn pip_downloads() {
    let python = installed().join("python/bin/python");
    if !has(&python) {
        return;
    }
    let packed = tempfile::TempDir::new().unwrap();
    let name = "demo-1.0-py3-none-any.whl";
    let wheel = packed.path().join(name);
    let served = wheel.clone();
    let world = World::with_policy("allow = [\"index.test:{tls}\"]")
        .answering(move |asked| {
            let wheel = std::fs::read(&served).unwrap();
            async move {
                match &asked.path[..] {
                    "/simple/demo/" => {
                        reply(200, "text/html", format!("<a href=\"/files/{name}\">{name}</a>"))
                    }
                    path if path == format!("/files/{name}") => reply(200, "application/zip", wheel),
                    _ => reply(404, "text/plain", "no"),
                }
            }
        })
        .start()
        .await;
    let desk = Desk::in_front_of(&world).await;
    let pack = r#"
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w") as wheel:
    wheel.writestr("demo.py", "")
    wheel.writestr("demo-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n")
    wheel.writestr("demo-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr("demo-1.0.dist-info/RECORD", "")
"#;
    desk.run(&python, &["-c", pack, wheel.to_str().unwrap()]).await.ok();
    let index = format!("https://index.test:{}/simple", world.origin.tls);
    let mut pip = desk.program(&python);
    pip.env("PIP_CONFIG_FILE", "/dev/null").args(["-m", "pip", "download", "--no-deps", "--no-cache-dir"]);
    super::run(pip.args(["--disable-pip-version-check", "--index-url", &index, "demo"])).await.ok();
    assert!(desk.path().join(name).exists());
    all_allowed(&world).await;
    world.finish().await;
}

#[tokio::test]
async fn requests_and_httpx_pass() {
    let world = World::with_policy(BOTH).start().await;
    let desk = Desk::in_front_of(&world).await;
    let script = r#"
import sys, httpx, requests
secure, clear, other = sys.argv[1:]
for url in secure, clear:
    print(requests.post(url, data="hello").text)
    print(httpx.post(url, content="hello").text)
with httpx.Client(http2=True) as client:
    answer = client.post(secure, content=(piece for piece in [b"hel", b"lo"]))
    print(answer.http_version, answer.text)
print(requests.get(other).status_code, httpx.get(other).json()["error"]["code"])
"#;
    let secure = format!("https://allowed.test:{}/echo", world.origin.tls);
    let clear = format!("http://allowed.test:{}/echo", world.origin.http);
    let Some(run) = python(&desk, script, &[&secure, &clear, "https://other.test/"]).await else { return };
    assert_eq!(run.ok(), "hello\nhello\nhello\nhello\nHTTP/2 hello\n403 unknown_destination\n");
    world.finish().await;
}

/// A refusal comes while the upload is still being written. A client must get to read it all the same.
#[tokio::test]
async fn a_large_upload_is_told_why_it_is_refused() {
    let policy = format!("{BOTH}\n[uploads]\nrequest_block = \"1 MiB\"");
    let world = World::with_policy(&policy).start().await;
    let desk = Desk::in_front_of(&world).await;
    let script = r#"
import json, sys, urllib.error, urllib.request, httpx, requests
body = bytes(3 << 20)
for url in sys.argv[1:]:
    try:
        urllib.request.urlopen(urllib.request.Request(url, data=body, method="POST"))
    except urllib.error.HTTPError as refused:
        print("urllib", refused.status, json.load(refused)["error"]["code"])
    for library, answer in ("requests", requests.post(url, data=body)), ("httpx", httpx.post(url, content=body)):
        print(library, answer.status_code, answer.json()["error"]["code"])
"#;
    let (tls, http) = (world.origin.tls, world.origin.http);
    let urls = [
        (format!("https://allowed.test:{tls}/echo"), "413 upload_too_large"),
        (format!("http://allowed.test:{http}/echo"), "413 upload_too_large"),
        ("https://other.test/echo".to_owned(), "403 unknown_destination"),
        ("http://other.test/echo".to_owned(), "403 unknown_destination"),
    ];
    let arguments: Vec<&str> = urls.iter().map(|(url, _)| &url[..]).collect();
    let Some(run) = python(&desk, script, &arguments).await else { return };
    let told = |(_, why): &(String, &str)| format!("urllib {why}\nrequests {why}\nhttpx {why}\n");
    assert_eq!(run.ok(), urls.iter().map(told).collect::<String>());
    world.origin.must_be_untouched();
    world.finish().await;
}

#[tokio::test]
async fn websockets_pass() {
    let world = World::with_policy(BOTH).start().await;
    let desk = Desk::in_front_of(&world).await;
    let script = r#"
import sys
from websockets.sync.client import connect
for url in sys.argv[1:]:
    with connect(url) as socket:
        socket.send("hello")
        socket.send(b"\x00" * 100000)
        socket.ping().wait(5)
        print(socket.recv(), len(socket.recv()))
"#;
    let secure = format!("wss://allowed.test:{}/socket", world.origin.tls);
    let Some(run) = python(&desk, script, &[&secure]).await else { return };
    assert_eq!(run.ok(), "hello 100000\n");
    let row = world.gate.only_decision().await;
    row.is("allow", "allowed_by_rule");
    assert_eq!((row.text("kind"), row.text("outcome")), ("websocket", "completed"), "{row:?}");
    world.finish().await;
}
