//! The terminal that a fenced command is used at, put back at its end whatever the command left it like.

use std::fs::File;

use rustix::process::{getpgrp, test_kill_process_group};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr, tcsetpgrp};

use super::sys;

/// The terminal as it was when the command got it.
pub struct Terminal {
    file: File,
    settings: Termios,
}

impl Terminal {
    /// `None` where we are not in front of one.
    pub fn ours() -> Option<Terminal> {
        let file = File::options().read(true).write(true).open("/dev/tty").ok()?;
        if tcgetpgrp(&file).ok()? != getpgrp() {
            return None;
        }
        let settings = tcgetattr(&file).ok()?;
        Some(Terminal { file, settings })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A group that has ended stands in front of nobody; one that is there may be a shell's that took over.
        let abandoned = tcgetpgrp(&self.file).map_or(true, |group| test_kill_process_group(group).is_err());
        if abandoned {
            // Else taking it back from behind would stop us.
            sys::ignore_background_output();
            let _ = tcsetpgrp(&self.file, getpgrp());
        }
        if tcgetpgrp(&self.file).ok() == Some(getpgrp()) {
            let _ = tcsetattr(&self.file, OptionalActions::Drain, &self.settings);
        }
    }
}
