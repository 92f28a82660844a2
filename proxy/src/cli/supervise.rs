//! Runs somebody's command in our place: its terminal, its signals, its exit code.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, getpgrp, kill_process};
use rustix::termios::tcgetpgrp;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

/// What shells answer when a command is not there, or is not one.
const NOT_FOUND: u8 = 127;
const NOT_RUNNABLE: u8 = 126;
/// Added to the number of the signal that ended a command.
const BY_SIGNAL: i32 = 128;

/// How a command ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It ran; what its end is to whoever called us.
    Ran(u8),
    /// It never ran: the exit code and the reason.
    NeverRan(u8, String),
}

/// Runs a command with variables added to our own environment, and waits for its end.
///
/// Signals that reach us are passed on, except those a terminal has already sent to both of us: a second interrupt
/// means something else to many programs.
///
/// # Errors
/// Where signals cannot be received or the command cannot be waited for.
pub(crate) async fn supervise(
    command: &[OsString],
    variables: &[(&'static str, String)],
) -> io::Result<Ended> {
    let Some((program, arguments)) = command.split_first() else {
        return Ok(Ended::NeverRan(NOT_FOUND, "there is no command".to_owned()));
    };
    // Before the command starts, so that none of them can end us and leave it behind.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let spawned = Command::new(program).args(arguments).envs(variables.iter().cloned()).spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return Ok(never_ran(program, &error)),
    };
    loop {
        tokio::select! {
            status = child.wait() => return Ok(Ended::Ran(code(status?))),
            _ = interrupt.recv() => if !from_the_terminal() { pass_on(&child, Signal::INT) },
            _ = quit.recv() => if !from_the_terminal() { pass_on(&child, Signal::QUIT) },
            _ = terminate.recv() => pass_on(&child, Signal::TERM),
            _ = hang_up.recv() => pass_on(&child, Signal::HUP),
        }
    }
}

fn never_ran(program: &OsString, error: &io::Error) -> Ended {
    let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUNNABLE };
    Ended::NeverRan(code, format!("cannot run `{}`: {error}", program.to_string_lossy()))
}

/// The exit code, or 128 and the signal.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| BY_SIGNAL + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Whether an interrupt probably came from the keyboard, which sends it to our whole process group: it does if
/// our group is the one in the foreground of a terminal.
fn from_the_terminal() -> bool {
    File::open("/dev/tty").is_ok_and(|terminal| tcgetpgrp(terminal).is_ok_and(|group| group == getpgrp()))
}

fn pass_on(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may just have ended, which is what `wait` is about to say.
        let _ = kill_process(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(command: &[&str], variables: &[(&'static str, String)]) -> Ended {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let command: Vec<OsString> = command.iter().map(OsString::from).collect();
        runtime.block_on(supervise(&command, variables)).unwrap()
    }

    #[test]
    fn a_commands_end_is_ours() {
        for (script, code) in
            [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -KILL $$", 137)]
        {
            assert_eq!(run(&["sh", "-c", script], &[]), Ended::Ran(code), "`{script}`");
        }
    }

    #[test]
    fn a_command_sees_the_variables() {
        let variables = [("HTTPS_PROXY", "http://127.0.0.1:9".to_owned())];
        let script = r#"test "$HTTPS_PROXY" = http://127.0.0.1:9"#;
        assert_eq!(run(&["sh", "-c", script], &variables), Ended::Ran(0));
        assert_eq!(run(&["sh", "-c", script], &[]), Ended::Ran(1));
    }

    #[test]
    fn a_command_that_cannot_be_run_ends_as_in_a_shell() {
        let Ended::NeverRan(code, why) = run(&["/nowhere/at-all"], &[]) else { panic!("it ran") };
        assert_eq!(code, 127);
        assert!(why.starts_with("cannot run `/nowhere/at-all`: "), "{why}");
        let Ended::NeverRan(code, _) = run(&["/"], &[]) else { panic!("it ran") };
        assert_eq!(code, 126);
    }
}
