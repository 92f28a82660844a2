//! curl and the gateway read one authority: where we take a spelling, curl asks for the same host and port.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test says what is wrong by failing")]

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use policy::target::{Scheme, Target};

const HOSTS: [&str; 40] = [
    "allowed.test",
    "ALLOWED.Test",
    "allowed.test.",
    "allowed.test..",
    ".allowed.test",
    "a..test",
    "localhost",
    "192.0.2.1",
    "192.0.2.1.",
    "0xc0.0.2.1",
    "0300.0.2.1",
    "3221225985",
    "0xc0000201",
    "192.0.513",
    "127.1",
    "1.2.3.4.5",
    "256.1.1.1",
    "[::1]",
    "[0:0::1]",
    "[2001:DB8::0:1]",
    "[::ffff:192.0.2.1]",
    "[::1%25lo]",
    "[::1%lo]",
    "[allowed.test]",
    "a_b.test",
    "-a.test",
    "xn--mnchen-3ya.test",
    "xn--a.test",
    "m\u{fc}nchen.test",
    "\u{212a}elvin.test",
    "a\u{3002}test",
    "\u{ff41}.test",
    "a\u{ad}b.test",
    "1.test",
    "0x.test",
    "a.0x1",
    "a.1",
    "a%2etest",
    "a%00b.test",
    "a%20b.test",
];
const PORTS: [&str; 14] =
    ["", ":", ":80", ":443", ":8080", ":0", ":1", ":080", ":65535", ":65536", ":+80", ":-1", ":80:81", ":8o"];
const USERS: [&str; 8] = ["", "u:p@", "@", "b.test@", "b.test#@", "b.test\\@", "b.test?@", "b.test:80@"];

/// Every spelling of the table, for both schemes.
fn spellings() -> Vec<(Scheme, String)> {
    let mut spellings = Vec::new();
    for scheme in [Scheme::Http, Scheme::Https] {
        for host in HOSTS {
            spellings.extend(PORTS.iter().map(|port| (scheme, format!("{host}{port}"))));
            spellings.extend(USERS.iter().map(|user| (scheme, format!("{user}{host}"))));
        }
    }
    spellings
}

/// What curl asked a proxy for: the request line's target, and `Host`.
type Asked = (String, Option<String>);

/// Answers every request with nothing, and keeps what was asked under the number that came with it.
fn listen(listener: TcpListener, asked: &Arc<Mutex<HashMap<usize, Asked>>>) {
    let asked = Arc::clone(asked);
    // It ends with the process of the test.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if let Some((number, request)) = read(&stream) {
                asked.lock().unwrap().insert(number, request);
            }
            let _ = (&stream)
                .write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
}

fn read(stream: &TcpStream) -> Option<(usize, Asked)> {
    let mut lines = BufReader::new(stream).split(b'\n').map_while(Result::ok);
    let text = |line: Vec<u8>| String::from_utf8_lossy(&line).trim_end().to_owned();
    let line = text(lines.next()?);
    let target = line.split(' ').nth(1)?.to_owned();
    let (mut number, mut host) = (None, None);
    for field in lines.map(text).take_while(|field| !field.is_empty()) {
        match field.split_once(": ") {
            Some(("x-number", value)) => number = value.parse().ok(),
            Some(("Host", value)) => host = Some(value.to_owned()),
            _ => {}
        }
    }
    Some((number?, (target, host)))
}

/// One curl for all spellings.
fn ask(spellings: &[(Scheme, String)], proxy: u16) {
    let sections = spellings.iter().enumerate().map(|(number, (scheme, spelling))| {
        let url = format!("{scheme}://{spelling}/").replace('\\', "\\\\");
        format!(
            "url = \"{url}\"\nproxy = \"http://127.0.0.1:{proxy}\"\nheader = \"x-number: {number}\"\n\
             proxy-header = \"x-number: {number}\"\nnoproxy = \"\"\ngloboff\nsilent\nmax-time = 20\n"
        )
    });
    let config = sections.collect::<Vec<_>>().join("next\n");
    let mut curl = Command::new("curl");
    curl.args(["-q", "-K", "-"]).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    curl.env("LC_ALL", "C.UTF-8").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut curl = curl.spawn().unwrap();
    curl.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
    curl.wait().unwrap();
}

#[test]
fn curl_asks_for_the_host_and_port_that_we_read() {
    if Command::new("curl").arg("--version").output().is_err() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "`curl` is missing");
        return eprintln!("SKIPPED: `curl` is missing");
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = listener.local_addr().unwrap().port();
    let asked = Arc::default();
    listen(listener, &asked);
    let spellings = spellings();
    ask(&spellings, proxy);
    let asked = asked.lock().unwrap();
    let mut agreed = 0;
    for (number, (scheme, spelling)) in spellings.iter().enumerate() {
        let Some((target, host)) = asked.get(&number) else { continue };
        let judged = judged(*scheme, target);
        if let Ok(read) = Target::from_authority(*scheme, spelling.as_bytes()) {
            assert_eq!(judged, Some(read), "`{spelling}` became `{target}`");
            agreed += 1;
        }
        // Where the two differ, the request is refused: `authority_mismatch`.
        let named = host.as_ref().and_then(|host| Target::from_authority(*scheme, host.as_bytes()).ok());
        if let (Some(judged), Some(named)) = (judged, named) {
            assert_eq!(named, judged, "`{spelling}`: `{target}` beside `Host: {host:?}`");
        }
    }
    assert!(agreed > 100 && asked.len() > 400, "{agreed} of {} were compared", asked.len());
}

/// What the gateway takes a request's target for.
fn judged(scheme: Scheme, target: &str) -> Option<Target> {
    if scheme == Scheme::Https {
        return Target::from_connect(target.as_bytes()).ok();
    }
    let authority = target.strip_prefix("http://")?.split('/').next()?;
    Target::from_authority(scheme, authority.as_bytes()).ok()
}
