//! `outgate man`: the manual pages, in roff.

use std::fs;
use std::path::PathBuf;

use clap::CommandFactory;
use clap_mangen::Man;

use super::{Cli, Exit, Failure, output};

/// Print the manual page
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outgate man | man -l -
  outgate man --output /usr/local/share/man/man1")]
pub(crate) struct Arguments {
    /// Write a page for each command into this folder instead
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    match &arguments.output {
        None => {
            let mut page = Vec::new();
            Man::new(Cli::command()).render(&mut page).map_err(Failure::failed)?;
            output::text(&String::from_utf8_lossy(&page))?;
        }
        Some(folder) => {
            let failed = |error| Failure::Failed(format!("cannot write to `{}`: {error}", folder.display()));
            fs::create_dir_all(folder).map_err(failed)?;
            clap_mangen::generate_to(Cli::command(), folder).map_err(failed)?;
        }
    }
    Ok(Exit::Done)
}
