//! git over smart HTTP, against `git http-backend`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::{Desk, has, starter};
use crate::harness::{Asked, End, NameReply, Reply, Request, Way, World, eventually, secrets};

/// Answers by running `git http-backend` as a web server would (RFC 3875).
async fn backend(root: PathBuf, asked: Asked) -> Reply {
    let header =
        |name: &str| asked.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REMOTE_USER", "somebody")
        .env("REQUEST_METHOD", &asked.method)
        .env("PATH_INFO", &asked.path)
        .env("QUERY_STRING", &asked.query)
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", asked.body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let body = asked.body.clone();
    let feed = tokio::spawn(async move { input.write_all(&body).await });
    let output = child.wait_with_output().await.unwrap();
    let _ = feed.await;
    answer(&output.stdout)
}

fn answer(output: &[u8]) -> Reply {
    let end = output.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let mut reply = crate::harness::reply(200, "text/plain", output[end + 4..].to_vec());
    for line in str::from_utf8(&output[..end]).unwrap().lines() {
        let (name, value) = line.split_once(": ").unwrap();
        if name == "Status" {
            *reply.status_mut() = value[..3].parse().unwrap();
        } else {
            reply.headers_mut().insert(name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
        }
    }
    reply
}

async fn git(desk: &Desk, folder: &Path, arguments: &[&str]) -> super::Run {
    let mut command = desk.program("git");
    command
        .current_dir(folder)
        .args(arguments)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0");
    for role in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{role}_NAME"), "a").env(format!("GIT_{role}_EMAIL"), "a@example.com");
    }
    super::run(&mut command).await
}

/// A folder with one empty repository that may be pushed to.
async fn repository() -> tempfile::TempDir {
    let root = tempfile::TempDir::new().unwrap();
    let repository = root.path().join("repository.git");
    for arguments in
        [&["init", "--bare", "--initial-branch=main"][..], &["config", "http.receivepack", "true"]]
    {
        std::fs::create_dir_all(&repository).unwrap();
        let status =
            Command::new("git").current_dir(&repository).args(arguments).stdout(Stdio::null()).status();
        assert!(status.await.unwrap().success());
    }
    root
}

/// A world with a forge that serves one empty repository, from a folder that lives as long as the second value.
async fn forge(policy: &str) -> (World, tempfile::TempDir) {
    let root = repository().await;
    let served = root.path().to_owned();
    let world =
        World::with_policy(policy).answering(move |asked| backend(served.clone(), asked)).start().await;
    (world, root)
}

/// The same behind the starter policy, at `github.com` and `allowed.test`, for whoever knows the `name:token`.
async fn private_forge(credentials: &str) -> (World, tempfile::TempDir) {
    let root = repository().await;
    let served = root.path().to_owned();
    let expected = format!("Basic {}", STANDARD.encode(credentials));
    let policy = starter(&["github.com:{tls}", "allowed.test:{tls}", "allowed.test:{http}"]);
    let mut world = World::with_policy(&policy)
        .answering(move |asked| {
            let known = asked.headers.get("authorization").is_some_and(|value| *value == expected[..]);
            let served = served.clone();
            async move {
                if known {
                    return backend(served, asked).await;
                }
                let mut challenge = crate::harness::reply(401, "text/plain", "who are you?");
                challenge.headers_mut().insert("www-authenticate", "Basic realm=\"forge\"".parse().unwrap());
                challenge
            }
        })
        .start()
        .await;
    world.resolver.answers("github.com", NameReply::at(&[&world.origin.ip.to_string()]));
    let (_, token) = credentials.split_once(':').unwrap();
    world.gate.plant(&secrets::heart(token));
    world.gate.plant(&secrets::heart(&STANDARD.encode(credentials)));
    (world, root)
}

/// Commits something and pushes it to the repository at `host`, with the credentials in the URL.
async fn push(world: &World, credentials: &str, host: &str) -> super::Run {
    let desk = Desk::in_front_of(world).await;
    let url = format!("https://{credentials}@{host}:{}/repository.git", world.origin.tls);
    git(&desk, desk.path(), &["init", "--quiet"]).await.ok();
    git(&desk, desk.path(), &["commit", "--allow-empty", "-m", "first"]).await.ok();
    git(&desk, desk.path(), &["push", &url, "HEAD:main"]).await
}

#[tokio::test]
async fn git_pushes_with_a_token_of_the_forge() {
    if !has("git") {
        return;
    }
    let credentials = format!("x-access-token:{}", secrets::token("github-token"));
    let (world, root) = private_forge(&credentials).await;
    push(&world, &credentials, "github.com").await.ok();
    assert!(root.path().join("repository.git/refs/heads/main").exists());
    let rows = world.gate.decisions_reach(1).await;
    for row in &rows {
        row.is("allow", "allowed_by_rule");
        assert_eq!((row.text("class"), row.text("service")), ("tool", "github"), "{row:?}");
        assert!(!row.findings().contains(&"secret"), "{row:?}");
    }
    let sent = rows.iter().rfind(|row| row.text("method") == "POST").unwrap();
    assert!(
        sent.findings().contains(&"git_push") && sent.findings().contains(&"credential_used"),
        "{sent:?}"
    );
    world.finish().await;
}

#[tokio::test]
async fn a_token_of_the_forge_is_refused_anywhere_else() {
    if !has("git") {
        return;
    }
    let token = secrets::token("github-token");
    let credentials = format!("x-access-token:{token}");
    let (world, _root) = private_forge(&credentials).await;
    let pushed = push(&world, &credentials, "allowed.test").await;
    assert_ne!(pushed.code, 0, "{}", pushed.err);
    assert!(pushed.err.contains("outgate refused this request"), "{}", pushed.err);
    // git shows its credentials only once it is asked for them: what arrived is the request without.
    assert_eq!(world.origin.only_request().header("authorization"), None);
    let basic = format!("Basic {}", STANDARD.encode(&credentials));
    let get = || Request::get("allowed.test", "/");
    let elsewhere = [
        get().header("authorization", &basic),
        get().header("authorization", &format!("Bearer {token}")),
        get().header("x-note", &token),
        Request::post("allowed.test", "/", format!("the token is {token}")),
    ];
    for way in [Way::Absolute, Way::Http1, Way::Http2] {
        for request in &elsewhere {
            let answer = world.send(way, request).await;
            assert_eq!((answer.status, answer.reason()), (403, Some("secret_found")), "{way:?}: {request:?}");
        }
    }
    // What stands before the token may be on its way when it is found; of the token nothing is.
    eventually("the origin to have seen their ends", async || {
        world.origin.requests().iter().all(|seen| seen.end != End::Reading).then_some(())
    })
    .await;
    for seen in &world.origin.requests()[1..] {
        assert_eq!((&seen.method[..], seen.end), ("POST", End::Aborted), "{seen:#?}");
    }
    assert!(world.origin.requests().iter().all(|seen| seen.header("authorization").is_none()));
    assert!(!world.origin.saw(&token[..4]));
    let rows = world.gate.decisions_reach(14).await;
    rows[0].is("allow", "allowed_by_rule");
    for row in &rows[1..] {
        row.is("deny", "secret_found");
    }
    world.finish().await;
}

#[tokio::test]
async fn git_pushes_and_clones() {
    if !has("git") {
        return;
    }
    let (world, _root) = forge("allow = [\"forge.test:{tls}\"]").await;
    let desk = Desk::in_front_of(&world).await;
    let url = format!("https://forge.test:{}/repository.git", world.origin.tls);
    let work = desk.path().join("work");
    git(&desk, desk.path(), &["clone", &url, "work"]).await.ok();
    std::fs::write(work.join("file"), "content\n".repeat(100_000)).unwrap();
    git(&desk, &work, &["add", "file"]).await.ok();
    git(&desk, &work, &["commit", "-m", "first"]).await.ok();
    git(&desk, &work, &["push", "origin", "HEAD:main"]).await.ok();
    git(&desk, desk.path(), &["clone", &url, "again"]).await.ok();
    let (sent, received) = (work.join("file"), desk.path().join("again/file"));
    assert_eq!(std::fs::read(sent).unwrap(), std::fs::read(received).unwrap());
    let rows = world.gate.decisions_reach(1).await;
    assert!(rows.iter().all(|row| row.text("action") == "allow"), "{rows:#?}");
    let pushes = rows.iter().filter(|row| row.findings().contains(&"git_push"));
    assert!(pushes.count() >= 1, "{rows:#?}");
    world.finish().await;
}

#[tokio::test]
async fn git_shows_why_a_push_is_refused() {
    if !has("git") {
        return;
    }
    let policy = r#"
        [[rule]]
        name = "read"
        action = "allow"
        to = ["forge.test:{tls}"]
        methods = ["GET", "HEAD"]

        [[rule]]
        name = "fetch"
        action = "allow"
        to = ["forge.test:{tls}"]
        methods = ["POST"]
        paths = ["/**/git-upload-pack"]
    "#;
    let (world, _root) = forge(policy).await;
    let desk = Desk::in_front_of(&world).await;
    let url = format!("https://forge.test:{}/repository.git", world.origin.tls);
    git(&desk, desk.path(), &["clone", &url, "work"]).await.ok();
    let work = desk.path().join("work");
    git(&desk, &work, &["commit", "--allow-empty", "-m", "first"]).await.ok();
    let push = git(&desk, &work, &["push", "origin", "HEAD:main"]).await;
    assert_ne!(push.code, 0, "{}", push.err);
    assert!(push.err.contains("outgate refused this request"), "{}", push.err);
    world.finish().await;
}
