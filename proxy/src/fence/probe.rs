//! Whether a fence can be put up here, and what would mend it where it cannot.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::{environment, inside};

/// An address for documentation (RFC 5737): nothing answers there, and inside there is no way to it.
const ELSEWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 443);

/// What a trial does in place of a command: a direct connection, which must fail for want of a way.
#[expect(
    clippy::disallowed_methods,
    reason = "inside a fence, where it leads nowhere; that is what is tried"
)]
pub(super) fn inside(control: &UnixStream) -> u8 {
    let says = match TcpStream::connect_timeout(&ELSEWHERE, Duration::from_secs(1)) {
        Err(error) if error.kind() == io::ErrorKind::NetworkUnreachable => return 0,
        Err(error) => error,
        Ok(_) => io::Error::other("it was connected"),
    };
    let _ = inside::fail(control, format!("a direct connection to {ELSEWHERE} must find no way"), &says);
    1
}

/// The command that would mend a fence which failed so, as far as this machine's settings tell.
pub(super) fn mend(errno: Option<i32>) -> String {
    let setting = |path: &str| fs::read_to_string(path).ok().map(|value| value.trim().to_owned());
    if setting("/proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        return "user namespaces are off: sudo sysctl -w kernel.unprivileged_userns_clone=1".to_owned();
    }
    if setting("/proc/sys/user/max_user_namespaces").as_deref() == Some("0") {
        return "user namespaces are off: sudo sysctl -w user.max_user_namespaces=15000".to_owned();
    }
    if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        return apparmor();
    }
    match errno {
        Some(libc::ENOSPC) => {
            "too many user namespaces: sudo sysctl -w user.max_user_namespaces=15000".to_owned()
        }
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS) if in_a_container() => {
            "this is a container that may not make namespaces: run `outgate run` on its host, or start it with \
             `--security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined`"
                .to_owned()
        }
        Some(libc::EPERM | libc::EACCES) => {
            "this user may not make namespaces; see `man 7 user_namespaces`, or whether a security module forbids it"
                .to_owned()
        }
        _ => "the fence needs Linux 5.12 or newer with user, network, mount, PID and IPC namespaces and seccomp"
            .to_owned(),
    }
}

/// Ubuntu 24.04 and later permit user namespaces to named programs alone.
fn apparmor() -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| "/usr/local/bin/outgate".into());
    format!(
        "AppArmor permits user namespaces to named programs only: printf 'abi <abi/4.0>,\\nprofile outgate {} \
         flags=(unconfined) {{ userns, }}\\n' | sudo tee /etc/apparmor.d/outgate && sudo apparmor_parser -r \
         /etc/apparmor.d/outgate",
        program.display()
    )
}

fn in_a_container() -> bool {
    ["/.dockerenv", "/run/.containerenv"].iter().any(|path| fs::metadata(path).is_ok())
        || environment::variable("container").is_some()
}
