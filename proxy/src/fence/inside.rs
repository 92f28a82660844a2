//! The inside of a fence: makes the namespaces, hands the sockets out, starts the command, and stays until it has ended.
//!
//! Three processes, each the child of the one before. This one is in the new network and sees the host's processes: no
//! program inside can see it, and it connects for `--publish`. The next is the first of the new processes: it arranges
//! the mounts and buries the dead (`init.rs`). The last is the command.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Signal, WaitOptions, getppid, kill_process, pidfd_open,
    set_dumpable_behavior, set_parent_process_death_signal, waitpid,
};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use super::pass::{Role, borrowed, receive, send};
use super::plan::Plan;
use super::{environment, init, network, sys};

/// Names the descriptor over which the inside talks with whoever started it.
pub const CONTROL: &str = "OUTGATE_FENCE";
/// The inside ends with it where the fence could not be put up; what failed has been said over the socket.
const FAILED: u8 = 125;
/// The loopback device answers at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// What the inside says.
#[derive(Debug, Serialize, Deserialize)]
pub enum Said {
    /// The sockets exist: what each descriptor beside the message is for.
    Made(Vec<Role>),
    /// The command is about to run; beside it, a handle to its process.
    Started,
    /// The command is not one that can be executed: the error's number.
    NeverRan(Option<i32>),
    /// The command has ended, and so many of its descendants had not.
    Ended {
        /// Processes that are ended with the fence.
        left: usize,
    },
    /// A step failed, and how; there is no command.
    Failed {
        /// What was being done.
        step: String,
        /// What the system said.
        why: String,
        /// The number of that error.
        errno: Option<i32>,
    },
    /// Beside it, a connection to the port that was asked for; without it, nothing listens there.
    Connection,
}

/// What the inside is told, after its plan.
#[derive(Debug, Serialize, Deserialize)]
pub enum Asked {
    /// The sockets are served: start the command.
    Start,
    /// Connect to a port of the loopback inside.
    Connect(u16),
}

/// Runs the inside of a fence and returns the exit code of the command.
///
/// # Errors
/// Where it was not started by `outgate run`.
pub(crate) fn run(command: &[OsString]) -> io::Result<u8> {
    let number = environment::variable(CONTROL).and_then(|number| number.to_str()?.parse().ok());
    let control = sys::inherited(number.ok_or(io::ErrorKind::InvalidInput)?)?;
    let control = UnixStream::from(control);
    let Some((plan, _)) = receive::<Plan>(&control)? else { return Ok(FAILED) };
    // Ends with `run`, also where it is stopped meanwhile; and now, where that has ended already.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid().map(Pid::as_raw_nonzero).map(std::num::NonZero::get) != i32::try_from(plan.parent).ok() {
        return Ok(FAILED);
    }
    match put_up(&plan, &control, command) {
        Ok(init) => attend(&control, init),
        Err(Failed(step, error)) => {
            let _ = fail(&control, step, &error);
            Ok(FAILED)
        }
    }
}

/// A step that failed, and how.
struct Failed(&'static str, io::Error);

fn at(step: &'static str) -> impl Fn(io::Error) -> Failed {
    move |error| Failed(step, error)
}

/// Says over the socket what failed.
pub(super) fn fail(control: &UnixStream, step: impl Into<String>, error: &io::Error) -> io::Result<()> {
    let said = Said::Failed { step: step.into(), why: error.to_string(), errno: error.raw_os_error() };
    send(control, &said, &[])
}

/// Everything up to the first process of the fence.
fn put_up(plan: &Plan, control: &UnixStream, command: &[OsString]) -> Result<Pid, Failed> {
    enter().map_err(at("making namespaces"))?;
    network::prepare().map_err(at("configuring the network inside"))?;
    {
        let made = network::sockets(&plan.forward).map_err(at("listening inside"))?;
        let (roles, sockets): (Vec<Role>, Vec<OwnedFd>) = made.into_iter().unzip();
        send(control, &Said::Made(roles), &borrowed(&sockets)).map_err(at("handing the sockets out"))?;
    }
    match receive::<Asked>(control).map_err(at("waiting for the gateway"))? {
        Some((Asked::Start, _)) => {}
        _ => return Err(Failed("waiting for the gateway", io::ErrorKind::ConnectionAborted.into())),
    }
    let before = sys::ignore_signals();
    // Nothing that runs as the same user may look into these processes, or trace them.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| Failed("hiding itself", error.into()))?;
    match sys::fork().map_err(at("starting the first process"))? {
        Some(init) => Ok(init),
        None => sys::exit(init::run(plan, control, command, &before)),
    }
}

/// New namespaces, in which the user is who they were outside.
fn enter() -> io::Result<()> {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    let (users, groups) =
        (fs::read_to_string("/proc/self/uid_map")?, fs::read_to_string("/proc/self/gid_map")?);
    sys::unshare(
        UnshareFlags::NEWUSER
            | UnshareFlags::NEWNET
            | UnshareFlags::NEWNS
            | UnshareFlags::NEWPID
            | UnshareFlags::NEWIPC,
    )?;
    // An administrator may map everybody, so that `apt` and `chown` work inside.
    if user.is_root()
        && fs::write("/proc/self/uid_map", identity(&users)).is_ok()
        && fs::write("/proc/self/gid_map", identity(&groups)).is_ok()
    {
        return Ok(());
    }
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{0} {0} 1\n", user.as_raw()))?;
    fs::write("/proc/self/gid_map", format!("{0} {0} 1\n", group.as_raw()))
}

/// A map of all that is mapped here onto itself.
fn identity(map: &str) -> String {
    let line = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (first, count) = (fields.next()?, fields.nth(1)?);
        Some(format!("{first} {first} {count}\n"))
    };
    map.lines().filter_map(line).collect()
}

/// Waits for the end of the fence's first process, connecting for whoever asks meanwhile. When the other side has gone,
/// nobody supervises the command any more, and it is ended with all its descendants.
fn attend(control: &UnixStream, init: Pid) -> io::Result<u8> {
    let ended = pidfd_open(init, PidfdFlags::empty())?;
    loop {
        let mut watched = [PollFd::new(control, PollFlags::IN), PollFd::new(&ended, PollFlags::IN)];
        match poll(&mut watched, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [asked, over] = watched.map(|watched| !watched.revents().is_empty());
        if over {
            return Ok(exit_code(init));
        }
        if asked && !answer(control) {
            let _ = kill_process(init, Signal::KILL);
            return Ok(exit_code(init));
        }
    }
}

/// Whether whoever asks is still there.
fn answer(control: &UnixStream) -> bool {
    let Ok(Some((Asked::Connect(port), _))) = receive::<Asked>(control) else { return false };
    let connection =
        [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))]
            .iter()
            .find_map(|address| connect(address).ok());
    let beside: Vec<_> = connection.iter().map(AsFd::as_fd).collect();
    send(control, &Said::Connection, &beside).is_ok()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the loopback of the fence's own network, which leads nowhere else"
)]
fn connect(address: &SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(address, CONNECT_TIMEOUT)
}

/// The exit code of a child that has ended, or 128 and the signal.
pub(super) fn exit_code(child: Pid) -> u8 {
    let Ok(Some((_, status))) = waitpid(Some(child), WaitOptions::empty()) else { return FAILED };
    code(status)
}

/// The exit code, or 128 and the signal.
pub(super) fn code(status: rustix::process::WaitStatus) -> u8 {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED)
}

/// Descriptors that a program inside must not inherit: folders, by which the host's files could be reached past every
/// cover, sockets, devices, handles to processes. Pipes and plain files are a shell's business.
pub(super) fn keep_descriptors_in() -> io::Result<()> {
    const FOLDER: u32 = 0o040_000;
    const PIPE: u32 = 0o010_000;
    const FILE: u32 = 0o100_000;
    let open: Vec<i32> = fs::read_dir("/proc/self/fd")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    for number in open {
        match sys::file_kind(number) {
            Some(FOLDER) if number < 3 => {
                return Err(io::Error::other("a folder is not an input or output"));
            }
            Some(PIPE | FILE) | None => {}
            Some(_) if number > 2 => sys::close_on_exec(number),
            Some(_) => {}
        }
    }
    Ok(())
}

/// The number of a descriptor, as a variable passes it to the inside.
pub(super) fn number(descriptor: &impl AsFd) -> String {
    descriptor.as_fd().as_raw_fd().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_copied_onto_itself() {
        assert_eq!(identity("         0          0 4294967295\n"), "0 0 4294967295\n");
        assert_eq!(identity("0 1000 1\n1 100000 65536\n"), "0 0 1\n1 1 65536\n");
    }
}
