//! Namespaces for tests: one in which disks can be mounted, and one with a network of its own.

use std::path::Path;
use std::time::Duration;

use tokio::process::Command;

use super::session::STAND_IN;

/// Tells a test that it runs inside such a namespace.
const INSIDE: &str = "TEST_INSIDE_A_NAMESPACE";

/// An address of the network of [`inside_a_network`] that is nobody's (RFC 5737): what gets out arrives there.
pub const ELSEWHERE: &str = "203.0.113.7";
/// The same over IPv6 (RFC 3849).
pub const ELSEWHERE6: &str = "2001:db8::7";

/// Runs an ignored test of this program in a mount namespace of its own, after `mounts`, commands in which `$0` is
/// `folder`; the test's temporary files go there. Says so and does nothing where there is no such namespace to be had.
pub async fn inside_a_namespace(folder: &Path, mounts: &str, test: &str) {
    let namespace = |then: &str| namespace(&["--mount"], &format!("{mounts} && {then}"), folder);
    if !namespace("true").output().await.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: a disk cannot be mounted here; {test} was not tried");
        return;
    }
    run(namespace("TMPDIR=\"$0\" exec \"$@\""), test).await;
}

/// Runs an ignored test of this program with a network of its own, where every port is free, [`ELSEWHERE`] is reached
/// and nothing else is. Says so and does nothing where there is no such network to be had, and fails there in CI.
pub async fn inside_a_network(test: &str) {
    if let Some(inside) = in_a_network(test, "exec \"$@\"").await {
        run(inside, test).await;
    }
}

/// Runs tests of this program whose names begin so, one after the other, in such a network and with a variable set.
pub async fn all_inside_a_network(tests: &[&str], (name, value): (&str, &str)) {
    let Some(mut inside) = in_a_network(&tests.join(", "), "exec \"$@\"").await else { return };
    inside.env_remove(INSIDE).env(name, value);
    inside.arg(std::env::current_exe().unwrap()).args(["--nocapture", "--test-threads=1"]).args(tests);
    let output = tokio::time::timeout(Duration::from_secs(600), inside.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains(" 0 passed"), "{said}\n{complained}");
}

async fn in_a_network(tests: &str, start: &str) -> Option<Command> {
    let network = |then: &str| {
        let up = format!(
            "ip link set lo up && for it in {ELSEWHERE} {STAND_IN}; do ip addr add $it/32 dev lo; done && \
             ip addr add {ELSEWHERE6}/128 dev lo nodad && {then}"
        );
        namespace(&["--net", "--mount"], &up, Path::new("."))
    };
    if !network("true").output().await.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: no network of its own can be made here (unshare, ip); not tried: {tests}");
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI has to try {tests}");
        return None;
    }
    Some(network(start))
}

fn namespace(kinds: &[&str], script: &str, folder: &Path) -> Command {
    let user: &[&str] = if rustix::process::geteuid().is_root() { &[] } else { &["--map-root-user"] };
    let mut command = Command::new("unshare");
    command
        .args(user)
        .args(kinds)
        .args(["sh", "-c", script])
        .arg(folder)
        .env(INSIDE, "yes")
        .kill_on_drop(true);
    command
}

async fn run(mut inside: Command, test: &str) {
    inside.arg(std::env::current_exe().unwrap()).args(["--ignored", "--nocapture", "--exact", test]);
    let output = tokio::time::timeout(Duration::from_secs(120), inside.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}\n{complained}");
}

/// Whether this is such a namespace; says so where it is not.
pub fn is_inside_a_namespace() -> bool {
    let inside = std::env::var_os(INSIDE).is_some();
    if !inside {
        eprintln!("SKIPPED: this part of a test runs in a namespace, started by another");
    }
    inside
}
