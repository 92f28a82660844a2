//! Runs somebody's command in our place: its terminal, its signals, its exit code.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, getpgrp, kill_process};
use rustix::termios::tcgetpgrp;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use crate::fence::outside::Inhabited;
use crate::fence::terminal::Terminal;

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
/// # Errors
/// Where signals cannot be received or the command cannot be waited for.
pub(crate) async fn supervise(command: &[OsString], variables: &Variables) -> io::Result<Ended> {
    let Some((program, arguments)) = command.split_first() else {
        return Ok(Ended::NeverRan(NOT_FOUND, "there is no command".to_owned()));
    };
    let signals = Signals::listen()?;
    let spawned = Command::new(program).args(arguments).envs(variables.iter().cloned()).spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return Ok(never_ran(program, &error)),
    };
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let pass_on = |signal| {
        if let Some(pid) = pid {
            // It may just have ended, which is what `wait` is about to say.
            let _ = kill_process(pid, signal);
        }
    };
    tokio::select! {
        status = child.wait() => Ok(Ended::Ran(code(status?))),
        () = signals.each(pass_on) => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

/// Waits for the end of a command in a fence; what of it had to be ended with it. `signals` have been listened to since
/// before it started.
///
/// # Errors
/// Where signals cannot be received or the command cannot be waited for.
pub(crate) async fn supervise_fenced(
    command: &[OsString],
    mut fenced: Inhabited,
    signals: Signals,
) -> io::Result<(Ended, usize)> {
    let handle = fenced.handle();
    let _terminal = Terminal::ours();
    let ended = tokio::select! {
        ended = fenced.wait() => ended?,
        () = signals.each(|signal| handle.signal(signal)) => return Err(io::ErrorKind::BrokenPipe.into()),
    };
    let program = command.first().map_or_else(OsString::new, Clone::clone);
    let became = match ended.never_ran {
        Some(errno) => never_ran(&program, &io::Error::from_raw_os_error(errno)),
        None => Ended::Ran(ended.code),
    };
    Ok((became, ended.left))
}

/// Variables for a command, beside our own.
pub(crate) type Variables = [(String, OsString)];

/// Signals that reach us and are the command's. Those that a terminal has already sent to both of us are not passed
/// on: a second interrupt means something else to many programs.
pub(crate) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    quit: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

impl Signals {
    /// To be called before the command starts, so that none of them can end us and leave it behind.
    ///
    /// # Errors
    /// Where signals cannot be received.
    pub(crate) fn listen() -> io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Calls `pass_on` for each, without end.
    async fn each(mut self, pass_on: impl Fn(Signal)) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => if !from_the_terminal() { pass_on(Signal::INT) },
                _ = self.quit.recv() => if !from_the_terminal() { pass_on(Signal::QUIT) },
                _ = self.terminate.recv() => pass_on(Signal::TERM),
                _ = self.hang_up.recv() => pass_on(Signal::HUP),
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn run(command: &[&str], variables: &Variables) -> Ended {
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
        let variables = [("HTTPS_PROXY".to_owned(), "http://127.0.0.1:9".into())];
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
