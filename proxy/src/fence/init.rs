//! The first process of a fence: arranges what programs see, starts the command, buries the dead, ends what is left.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, set_parent_process_death_signal, wait,
};
use rustix::thread::{CapabilitySet, CapabilitySets, remove_capability_from_bounding_set, set_capabilities};

use super::inside::{self, CONTROL, Said};
use super::pass::send;
use super::plan::Plan;
use super::{mounts, seccomp, sys};

const NOT_FOUND: u8 = 127;
const NOT_RUNNABLE: u8 = 126;
const FAILED: u8 = 125;
/// How long descendants that outlive the command may take to end.
const PATIENCE: Duration = Duration::from_secs(1);
/// What an administrator keeps inside: the means by which packages are installed, none by which the kernel is configured.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID);

/// Runs as the first process of the fence; the exit code is the command's.
pub(super) fn run(plan: &Plan, control: &UnixStream, command: &[OsString], signals: &sys::Ignored) -> u8 {
    // Whoever kills our parent must not leave a command behind that nobody supervises.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    if let Err(mounts::Step(step, error)) = mounts::arrange(plan) {
        let _ = inside::fail(control, step, &error);
        return FAILED;
    }
    match sys::fork() {
        Ok(Some(child)) => supervise(control, child),
        Ok(None) => execute(plan, control, command, signals),
        Err(error) => {
            let _ = inside::fail(control, "starting the command", &error);
            FAILED
        }
    }
}

fn supervise(control: &UnixStream, child: Pid) -> u8 {
    // Has no use for privileges any more.
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    let _ = set_capabilities(None, none);
    let mut code = None;
    while code.is_none() {
        match wait(WaitOptions::empty()) {
            Ok(Some((ended, status))) if ended == child => code = Some(inside::code(status)),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => code = Some(FAILED),
        }
    }
    let left = end_the_others();
    let _ = send(control, &Said::Ended { left }, &[]);
    code.unwrap_or(FAILED)
}

/// Asks what is left to end, and waits a while for it; the kernel ends the rest with us. How many there were.
fn end_the_others() -> usize {
    let left = others();
    if left == 0 {
        return 0;
    }
    sys::end_all();
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => sleep(Duration::from_millis(5)),
            Err(_) => break,
        }
    }
    left
}

/// How many processes there are in the fence beside this one.
fn others() -> usize {
    let names = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = names.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != 1).count()
}

/// Becomes the command.
fn execute(plan: &Plan, control: &UnixStream, command: &[OsString], signals: &sys::Ignored) -> u8 {
    if let Err((step, error)) = confine(control) {
        let _ = inside::fail(control, step, &error);
        return FAILED;
    }
    if plan.trial {
        return super::probe::inside(control);
    }
    let Some((program, arguments)) = command.split_first() else { return NOT_FOUND };
    signals.restore();
    let error = Command::new(program).args(arguments).env_remove(CONTROL).exec();
    let _ = send(control, &Said::NeverRan(error.raw_os_error()), &[]);
    if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUNNABLE }
}

/// Gives up what a program inside must not have, and says that it starts.
fn confine(control: &UnixStream) -> Result<(), (&'static str, io::Error)> {
    let errno = |step| move |error: rustix::io::Errno| (step, io::Error::from(error));
    inside::keep_descriptors_in().map_err(|error| ("closing descriptors", error))?;
    let itself = pidfd_open(rustix::process::getpid(), PidfdFlags::empty())
        .map_err(errno("a handle to the command"))?;
    drop_privileges().map_err(errno("giving up privileges"))?;
    rustix::thread::set_no_new_privs(true).map_err(errno("giving up privileges"))?;
    // Where the kernel is too old for it, a signal to the group that `run` was started in reaches that.
    sys::keep_signals_in();
    seccomp::confine().map_err(|error| ("filtering system calls", error))?;
    send(control, &Said::Started, &[itself.as_fd()]).map_err(|error| ("saying that it starts", error))
}

fn drop_privileges() -> rustix::io::Result<()> {
    let root = rustix::process::geteuid().is_root();
    let kept = if root { KEPT } else { CapabilitySet::empty() };
    for capability in CapabilitySet::all().difference(kept).iter() {
        match remove_capability_from_bounding_set(capability) {
            // A kernel that does not know it cannot grant it.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error),
        }
    }
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets)
}
