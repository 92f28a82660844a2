//! `outgate audit verify`: the store, a copy of it or an export, held against its own signatures and those kept elsewhere.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use owo_colors::OwoColorize;

use super::super::output::{self, Progress};
use super::super::records::Records;
use super::super::{Context, Exit, Failure};
use crate::config::Config;
use crate::evidence::{Evidence, Report, read_checkpoints};
use crate::store::FILE_NAME;
use crate::{export, signing};

/// What a SQLite database begins with (<https://sqlite.org/fileformat.html>, section 1.3).
const SQLITE: &[u8] = b"SQLite format 3\0";

/// Standard input as a file, for what other programs understand by `-`.
const STANDARD_INPUT: &str = "/dev/stdin";

/// Check that no record was changed, removed or put in between
#[derive(Debug, clap::Args)]
#[command(
    long_about = "\
Check that no record was changed, removed or put in between.

Each record holds the digest of the one before it, and every so often the chain is signed. Exit code 3 where something \
does not fit, with the first record that does not.

Without FILE the store of the data folder is checked, by the keys in `audit.pub` and the checkpoints in \
`checkpoints.jsonl` beside it. Of a copy or an export, whose keys are not known here, say with --key which are trusted, \
and with --checkpoints what was kept elsewhere.",
    after_help = "\
Examples:
  outgate audit verify
  outgate audit verify records.jsonl --key audit.pub
  outgate audit verify /backup/outgate.db --checkpoints /mnt/worm/checkpoints.jsonl --json"
)]
pub(super) struct Verify {
    /// A copy of `outgate.db`, or an export; `-` for one on standard input [default: the store of the data folder]
    file: Option<PathBuf>,
    /// A public key that is trusted, or a file with one a line; any number of times
    #[arg(long, value_name = "KEY|FILE")]
    key: Vec<String>,
    /// Checkpoints that were kept outside the store
    #[arg(long, value_name = "FILE")]
    checkpoints: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Verify, context: &Context) -> Result<Exit, Failure> {
    let config = context.config()?;
    let evidence = evidence(arguments, &config)?;
    let mut progress = Progress::new("records checked");
    let file =
        arguments.file.as_deref().map(|file| if file == "-" { Path::new(STANDARD_INPUT) } else { file });
    let report = match file {
        None => {
            let Some(records) = Records::open(&config)? else {
                return Err(Failure::failed("nothing has been recorded yet"));
            };
            progress.of(records.last_seq()?);
            records.verify(&evidence, |checked| progress.at(checked))?
        }
        Some(folder) if folder.is_dir() => return Err(Failure::usage(of_folder(folder))),
        Some(file) if is_database(file)? => {
            let records = Records::of_copy(file)?;
            progress.of(records.last_seq()?);
            records.verify(&evidence, |checked| progress.at(checked))?
        }
        Some(file) => {
            export::verify(file, &evidence, |checked| progress.at(checked)).map_err(Failure::failed)?
        }
    };
    progress.end();
    match arguments.json {
        true => output::json(&report)?,
        false => print(&report, arguments)?,
    }
    Ok(if report.intact { Exit::Done } else { Exit::Found })
}

fn evidence(arguments: &Verify, config: &Config) -> Result<Evidence, Failure> {
    let mut keys = Vec::new();
    for key in &arguments.key {
        keys.extend(trusted(key)?);
    }
    if keys.is_empty() && arguments.file.is_none() {
        keys = signing::public_keys(&config.data_dir).map_err(Failure::failed)?;
    }
    // Where the operator says that they are kept, they have to be there.
    let named = config.audit.checkpoint_file.is_some();
    let usual =
        || Some(config.checkpoint_file()).filter(|file| arguments.file.is_none() && (named || file.exists()));
    let checkpoints = match arguments.checkpoints.clone().or_else(usual) {
        Some(file) => read_checkpoints(&file).map_err(Failure::failed)?,
        None => Vec::new(),
    };
    Ok(Evidence { keys, checkpoints })
}

fn trusted(key: &str) -> Result<Vec<Arc<str>>, Failure> {
    if let Some(key) = signing::public_key(key) {
        return Ok(vec![key]);
    }
    let path = Path::new(key);
    if !path.exists() {
        // What is written as a path was meant as one.
        let what = if key.contains(['/', '.']) { "no such file, and" } else { "it is" };
        return Err(Failure::usage(format!(
            "`{key}`: {what} neither a public key of 64 hexadecimal digits nor a file of them; the gateway's is in `audit.pub` of its data folder"
        )));
    }
    let keys = signing::read_public_keys(path).map_err(Failure::failed)?;
    match keys.is_empty() {
        true => Err(Failure::failed(format!("there is no public key in `{key}`"))),
        false => Ok(keys),
    }
}

fn of_folder(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "`{folder}` is a folder; name the store in it, `{folder}/{FILE_NAME}`, or say --data-dir {folder}"
    )
}

/// Whether a file is a store; else it has to look like an export.
fn is_database(file: &Path) -> Result<bool, Failure> {
    let failed = |error| Failure::Failed(format!("cannot read `{}`: {error}", file.display()));
    if !std::fs::metadata(file).map_err(failed)?.is_file() {
        // A pipe gives its beginning once.
        return Ok(false);
    }
    let mut start = Vec::new();
    File::open(file)
        .and_then(|file| file.take(SQLITE.len() as u64).read_to_end(&mut start))
        .map_err(failed)?;
    if start != SQLITE && start.first().is_some_and(|first| *first != b'{') {
        return Err(Failure::Failed(format!("`{}` is neither a store nor an export", file.display())));
    }
    Ok(start == SQLITE)
}

fn print(report: &Report, arguments: &Verify) -> Result<(), Failure> {
    let records = output::count(report.records, "record");
    if let Some(bad) = &report.first_bad {
        return output::line(format_args!(
            "{} record {}: {} ({records} checked)",
            "not intact:".red(),
            bad.seq,
            bad.problem
        ));
    }
    output::line(format_args!("{} {records}, each as it was written", "intact:".green()))?;
    if report.after > 0 {
        output::line(format_args!(
            "  records up to {} are not here; a signed point stands for them",
            report.after
        ))?;
    }
    let checkpoints = output::count(report.checkpoints, "signed checkpoint");
    match report.kept {
        0 => {
            output::line(format_args!("  {checkpoints}; none kept outside the records to hold them against"))?
        }
        kept => output::line(format_args!("  {checkpoints}; {kept} kept outside the records agree"))?,
    }
    let unsigned = report.through.saturating_sub(report.signed);
    if report.signed == 0 && arguments.file.is_none() {
        output::line(format_args!("  {} no signature vouches for any of them", "beware:".yellow()))?;
    } else if unsigned > 1 {
        let more = output::count(unsigned, "record");
        output::line(format_args!("  signed through record {}; {more} after it not yet", report.signed))?;
    }
    for key in &report.keys {
        let known = arguments.file.is_none() || !arguments.key.is_empty();
        let trust = if known { "" } else { " (name the key you trust with --key to be sure whose it is)" };
        output::line(format_args!("  signed by {key}{trust}"))?;
    }
    Ok(())
}
