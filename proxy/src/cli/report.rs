//! `outgate report`: what happened, as evidence for people and programs.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use jiff::Timestamp;
use owo_colors::OwoColorize;
use policy::identity::AgentName;
use policy::report::{Builder, Moment, Report, Scope};

use super::moment::Since;
use super::output::Progress;
use super::records::Records;
use super::session::SessionEnding;
use super::{Context, Exit, Failure, output};
use crate::folder;
use crate::report::{html, markdown};

/// Report what was reached, denied, approved and found
#[derive(Debug, clap::Args)]
#[command(
    long_about = "\
Report what was reached, denied, approved and found.

The evidence of a session, an agent or a time: who asked, where to, how much, what was denied and why, who approved \
what, which secrets were found (kind and count, never what they were), by which policy, and whether the record is \
intact. Without options of what, everything that is kept.",
    after_help = "\
Examples:
  outgate report -o report.html
  outgate report --session 01K5C3ZJ8V7B5Q2M4N6P8R0T1W -o session.html
  outgate report --since 7d --agent claude --format markdown
  outgate report --since 2026-11-01 --until 2026-12-01 --format json | jq .totals"
)]
pub(crate) struct Arguments {
    /// Only this session, as `session list` prints it; the end of its id will do
    #[arg(long, value_name = "ID")]
    session: Option<SessionEnding>,
    /// Only this agent
    #[arg(long, value_name = "NAME")]
    agent: Option<AgentName>,
    /// Only since then: a length of time (`2h`), a date, or a time in RFC 3339
    #[arg(long, value_name = "TIME")]
    since: Option<Since>,
    /// Only until then, in the same ways
    #[arg(long, value_name = "TIME")]
    until: Option<Since>,
    /// A page that needs nothing else, text for a pull request, or data [default: as the file's name ends, else html]
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// Write to this file, for its owner alone, instead of standard output; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// What a report is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Html,
    Markdown,
    Json,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, Failure> {
    let now = Timestamp::now();
    let scope = arguments.scope(now)?;
    // What other programs understand by `-`.
    let file = arguments.output.as_deref().filter(|path| *path != Path::new("-"));
    let format = arguments.format()?;
    if let Some(path) = file {
        // Before the work, not after it.
        check_place(path)?;
    }
    let report = report(arguments, scope, now.as_microsecond(), context)?;
    let text = match format {
        Format::Html => html::page(&report),
        Format::Markdown => markdown::text(&report),
        Format::Json => serde_json::to_string_pretty(&report).map_err(Failure::failed)? + "\n",
    };
    match file {
        None => output::text(&text)?,
        Some(path) => {
            folder::write_private(path, text.as_bytes()).map_err(Failure::failed)?;
            output::note(format_args!("wrote `{}`: {}", path.display(), report.verdict));
        }
    }
    if let Some(problem) = report.chain.as_ref().and_then(|chain| chain.problem.as_ref()) {
        output::note(format_args!("{} the record is not intact: {problem}", "warning:".yellow().bold()));
    }
    Ok(Exit::Done)
}

impl Arguments {
    fn scope(&self, now: Timestamp) -> Result<Scope, Failure> {
        let moment = |since: Since| Moment(since.microseconds(now));
        let (since, until) = (self.since.map(moment), self.until.map(moment));
        if since.zip(until).is_some_and(|(since, until)| since > until) {
            return Err(Failure::usage("`--since` is after `--until`: nothing lies between them"));
        }
        Ok(Scope { session: None, agent: self.agent.clone(), since, until })
    }

    /// As said; else as the file's name ends; else a page.
    fn format(&self) -> Result<Format, Failure> {
        let extension = self.output.as_ref().and_then(|path| path.extension()).and_then(|name| name.to_str());
        if let Some(format) = self.format {
            return Ok(format);
        }
        match extension.map(str::to_ascii_lowercase).as_deref() {
            Some("md" | "markdown") => Ok(Format::Markdown),
            Some("json") => Ok(Format::Json),
            Some("html" | "htm") | None => Ok(Format::Html),
            Some(other) => Err(Failure::Usage(format!(
                "a report is not written as `.{}`: name the file `.html`, `.md` or `.json`, or say --format",
                output::Shown(other)
            ))),
        }
    }
}

fn report(arguments: &Arguments, scope: Scope, now: i64, context: &Context) -> Result<Report, Failure> {
    let records = Records::open(&context.config()?)?;
    let session = arguments.session.as_ref().map(|ending| ending.resolve(records.as_ref())).transpose()?;
    let scope = Scope { session, ..scope };
    let Some(records) = records else {
        let builder = Builder::new(scope, None);
        return Ok(builder.finish(env!("CARGO_PKG_VERSION"), Moment(now), None));
    };
    let mut progress = Progress::new("decisions read");
    let report = records.report(&scope, now, |read| progress.at(read));
    progress.end();
    report
}

fn check_place(path: &Path) -> Result<(), Failure> {
    let failed = |words: &str| Err(Failure::Failed(format!("cannot write `{}`: {words}", path.display())));
    if path.is_dir() {
        return failed("it is a folder; name a file in it");
    }
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
            failed("its folder does not exist")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parsed(arguments: &[&str]) -> Arguments {
        Line::parse_from([&["report"], arguments].concat()).arguments
    }

    #[test]
    fn the_format_is_what_was_said_or_how_the_file_ends() {
        for (arguments, format) in [
            (&[][..], Format::Html),
            (&["-o", "report"], Format::Html),
            (&["-o", "report.htm"], Format::Html),
            (&["-o", "a.md"], Format::Markdown),
            (&["-o", "A.Markdown"], Format::Markdown),
            (&["-o", "a.json"], Format::Json),
            (&["-o", "a.json", "--format", "html"], Format::Html),
            (&["--format", "markdown"], Format::Markdown),
        ] {
            assert_eq!(parsed(arguments).format().unwrap(), format, "{arguments:?}");
        }
        let refused = parsed(&["-o", "a.pdf"]).format().unwrap_err();
        assert!(refused.words().contains("`.html`, `.md` or `.json`"), "{}", refused.words());
    }

    #[test]
    fn a_period_that_ends_before_it_begins_is_wrong_usage() {
        let now: Timestamp = "2026-11-21T06:00:00Z".parse().unwrap();
        assert!(matches!(parsed(&["--since", "1h", "--until", "2h"]).scope(now), Err(Failure::Usage(_))));
        let scope = parsed(&["--since", "2h", "--until", "1h", "--agent", "claude"]).scope(now).unwrap();
        assert_eq!(scope.since, Some(Moment(now.as_microsecond() - 7_200_000_000)));
        assert_eq!(scope.agent.unwrap().as_str(), "claude");
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named_before_the_work() {
        let folder = tempfile::tempdir().unwrap();
        for (path, words) in
            [(folder.path().to_owned(), "is a folder"), (folder.path().join("no/a.html"), "does not exist")]
        {
            let error = check_place(&path).unwrap_err();
            assert!(error.words().contains(words) && error.words().contains('`'), "{}", error.words());
        }
        check_place(&folder.path().join("a.html")).unwrap();
        check_place(Path::new("a.html")).unwrap();
    }
}
