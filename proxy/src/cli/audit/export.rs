//! `outgate audit export`: the records as JSON Lines, signed at both ends, once or for as long as they come.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use policy::chain::Head;
use tokio::signal::unix::{SignalKind, signal};

use super::super::moment::Since;
use super::super::output::{self, Progress};
use super::super::records::Records;
use super::super::{Context, Exit, Failure};
use crate::config::Config;
use crate::export::{ExportError, Exporter};
use crate::signing::Signer;

/// How often is looked for new records.
const PAUSE: Duration = Duration::from_millis(250);

/// Write the records as JSON Lines that verify by themselves
#[derive(Debug, clap::Args)]
#[command(
    long_about = "\
Write the records as JSON Lines that verify by themselves.

The first line says what the first record follows on and the last one where the export ends; both are signed, so that \
neither end can be cut off unseen. With --follow the records to come are written too, as soon as they are there, until \
the command is interrupted: a copy elsewhere that is never more than a moment behind.",
    after_help = "\
Examples:
  outgate audit export -o records.jsonl
  outgate audit export --since 2026-11-01 | zstd > november.jsonl.zst
  outgate audit export --follow | ssh keeper 'cat >> records.jsonl'"
)]
pub(super) struct Export {
    /// Where to; a file that is there is not overwritten [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Only records from then on: `2h`, `2026-11-21`, `2026-11-21T06:00:00Z`
    #[arg(long, value_name = "T")]
    since: Option<Since>,
    /// Only records after this number, to go on where another export ended
    #[arg(long, value_name = "SEQ", conflicts_with = "since")]
    after: Option<u64>,
    /// Go on with the records to come, until interrupted
    #[arg(short, long)]
    follow: bool,
}

pub(super) fn run(arguments: &Export, context: &Context) -> Result<Exit, Failure> {
    let config = context.config()?;
    let Some(records) = Records::open(&config)? else {
        return Err(Failure::failed("nothing has been recorded yet"));
    };
    let signer = Signer::open(&config.data_dir).map_err(Failure::failed)?;
    let start = start(arguments, &records, &config)?;
    match &arguments.output {
        None => write(arguments, &records, &signer, start, BufWriter::new(io::stdout().lock())),
        Some(path) => {
            let written = write(arguments, &records, &signer, start, BufWriter::new(create(path)?))?;
            output::note(format_args!("written: `{}`", path.display()));
            Ok(written)
        }
    }
}

fn start(arguments: &Export, records: &Records, config: &Config) -> Result<Head, Failure> {
    let store = records.store();
    if let Some(since) = arguments.since {
        let since = since.microseconds(Timestamp::now());
        return records.run(store.point_before(since)).map_err(Failure::failed);
    }
    match arguments.after {
        None => records.run(store.beginning()).map_err(Failure::failed),
        Some(seq) => records.run(store.point(seq)).map_err(Failure::failed)?.ok_or_else(|| {
            Failure::failed(format!("there is no record {seq} in `{}`", config.data_dir.display()))
        }),
    }
}

fn create(path: &Path) -> Result<File, Failure> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|error| {
        match error.kind() {
            io::ErrorKind::AlreadyExists => {
                Failure::Failed(format!("`{}` is there already, and is not overwritten", path.display()))
            }
            _ => Failure::Failed(format!("cannot write `{}`: {error}", path.display())),
        }
    })
}

fn write(
    arguments: &Export,
    records: &Records,
    signer: &Signer,
    start: Head,
    out: impl Write,
) -> Result<Exit, Failure> {
    let mut progress = Progress::new("records written");
    let mut exporter = Exporter::start(records.store(), signer, start, out).map_err(Failure::from_output)?;
    let ended: Result<(), ExportError> = records.run(async {
        exporter.catch_up(|written| progress.at(written)).await?;
        if arguments.follow {
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            loop {
                tokio::select! {
                    _ = interrupt.recv() => break,
                    _ = terminate.recv() => break,
                    () = tokio::time::sleep(PAUSE) => exporter.catch_up(|_| {}).await?,
                }
            }
        }
        Ok(())
    });
    progress.end();
    ended.map_err(|error| match error {
        ExportError::Write(error) => Failure::from_output(error),
        error @ (ExportError::Store(_) | ExportError::Gap(_)) => Failure::failed(error),
    })?;
    exporter.end(signer).map_err(Failure::from_output)?;
    Ok(Exit::Done)
}
