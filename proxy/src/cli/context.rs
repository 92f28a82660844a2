//! What commands share: the settings, the data folder, and the gateway that runs on it.

use std::ffi::OsString;
use std::path::PathBuf;

use tokio::runtime::Runtime;

use super::variables::SESSION;
use super::{Failure, Global};
use crate::config::{Config, Flags, Mistakes, Place, Word};
use crate::folder;
use crate::running::Running;

/// The settings a command was given; read when first asked for, so that `--help` works whatever they are.
#[derive(Debug)]
pub(crate) struct Context {
    global: Global,
    session: Option<String>,
}

impl Context {
    /// A context of the program's own arguments and environment.
    pub(crate) fn new(global: Global) -> Context {
        Context { global, session: variable(SESSION) }
    }

    /// The settings.
    ///
    /// # Errors
    /// All mistakes in them: wrong usage where a flag is one, failure where a file or a variable is.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        self.config_with(&self.global.flags())
    }

    /// The settings with flags of one command added to [`Context::flags`].
    ///
    /// # Errors
    /// As [`Context::config`].
    pub(crate) fn config_with(&self, flags: &Flags) -> Result<Config, Failure> {
        Config::load_naming(flags, &variable, variables()).map_err(from_mistakes)
    }

    /// The global flags.
    pub(crate) fn flags(&self) -> Flags {
        self.global.flags()
    }

    /// The global flags as arguments, for a program of ours that is to have the same.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let global = &self.global;
        let mut arguments = Vec::new();
        let mut add = |flag: &str, value: OsString| arguments.extend([flag.into(), value]);
        if let Some(folder) = &global.data_dir {
            add("--data-dir", folder.into());
        }
        if let Some(file) = &global.config {
            add("--config", file.into());
        }
        for file in &global.policy {
            add("--policy", file.into());
        }
        if let Some(format) = global.log_format {
            add("--log-format", format.word().into());
        }
        arguments.extend((0..global.verbose).map(|_| OsString::from("-v")));
        arguments
    }

    /// Refuses inside a session, for commands that change something.
    ///
    /// An agent must not be able to follow the advice meant for its operator. That is a courtesy, not a boundary:
    /// the variable can be unset, the fence cannot.
    ///
    /// # Errors
    /// Inside a session.
    pub(crate) fn refuse_inside_a_session(&self, command: &str) -> Result<(), Failure> {
        match &self.session {
            None => Ok(()),
            Some(_) => Err(Failure::Failed(format!(
                "`outgate {command}` is for the operator and is refused inside a session; run it in a terminal of your own"
            ))),
        }
    }
}

/// The data folder, made where it is missing, as an absolute path.
///
/// # Errors
/// A folder that others may write, or that cannot be made.
pub(crate) fn folder_of(config: &Config) -> Result<PathBuf, Failure> {
    let folder = std::path::absolute(&config.data_dir).map_err(Failure::failed)?;
    folder::prepare(&folder).map_err(Failure::failed)?;
    Ok(folder)
}

/// A runtime for a command: one thread, since it waits for one thing at a time.
///
/// # Errors
/// Where the system has no more file descriptors.
pub(crate) fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)
}

/// The gateway that runs on the data folder, if one does.
///
/// # Errors
/// A note of it that cannot be read.
pub(crate) fn running(config: &Config) -> Result<Option<Running>, Failure> {
    Running::find(&config.data_dir).map_err(|error| {
        let folder = config.data_dir.display();
        Failure::Failed(format!("cannot tell whether a gateway runs on `{folder}`: {error}"))
    })
}

/// A variable of the environment, as text.
#[expect(clippy::disallowed_methods, reason = "the one place of the commands that reads the environment")]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The names of all variables that are text.
#[expect(clippy::disallowed_methods, reason = "the one place of the commands that reads the environment")]
fn variables() -> impl Iterator<Item = String> {
    std::env::vars_os().filter_map(|(name, _)| name.into_string().ok())
}

fn from_mistakes(mistakes: Mistakes) -> Failure {
    let by_flag = mistakes.0.iter().any(|mistake| matches!(mistake.place, Place::Flag(_)));
    match by_flag {
        true => Failure::usage(mistakes),
        false => Failure::failed(mistakes),
    }
}
