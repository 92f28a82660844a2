//! git over smart HTTP, against `git http-backend`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::{Desk, has};
use crate::harness::{Asked, Reply, World};

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

/// A world with a forge that serves one empty repository, from a folder that lives as long as the second value.
async fn forge(policy: &str) -> (World, tempfile::TempDir) {
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
    let served = root.path().to_owned();
    let world =
        World::with_policy(policy).answering(move |asked| backend(served.clone(), asked)).start().await;
    (world, root)
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
