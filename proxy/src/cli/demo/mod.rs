//! `outgate demo`: the whole product on this machine alone, in a few seconds.

mod internet;
mod scenes;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::process::Command;

use owo_colors::{OwoColorize, Style};
use policy::view::DecisionView;
use tempfile::TempDir;

use super::output::{self, Shown, bold, style_of};
use super::probe::{Answer, Client};
use super::records;
use super::start::{self, Background};
use super::table::{Cell, Column, Table};
use super::trust::Trust;
use super::{Exit, Failure, context, rows};
use crate::config::{Config, Flags};
use internet::Internet;
use scenes::{HOSTS, MASKED, POLICY, REFUSED, Scene, scenes};

/// See what it does, on this machine alone, in a few seconds
#[derive(Debug, clap::Args)]
#[command(
    long_about = "\
See what it does, on this machine alone, in a few seconds.

Starts a gateway in a temporary folder and a few servers on loopback, plays an agent that calls a model, uses a tool, \
tries an unknown host, uploads too much and leaks a secret, and prints what was decided. Nothing leaves the machine.",
    after_help = "\
Examples:
  outgate demo
  outgate demo --json"
)]
pub(crate) struct Arguments {
    /// Print the decisions as JSON, one object a line
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    if !arguments.json {
        output::line(format_args!(
            "{}\nA gateway and a small internet, both on this machine; nothing leaves it.\n",
            bold("outgate demo")
        ))?;
    }
    let folder = tempfile::Builder::new().prefix("outgate-demo-").tempdir().map_err(Failure::failed)?;
    let runtime = context::runtime()?;
    let internet = runtime.block_on(Internet::start(&HOSTS)).map_err(Failure::failed)?;
    let config = settle(&folder, &internet).map_err(Failure::failed)?;
    let gateway = start::start(serve(&config)?, &config)?;
    let scenes = scenes();
    let played = Trust::prepare(&config)
        .and_then(|trust| runtime.block_on(play(&gateway, &trust, &scenes)).map_err(Failure::failed));
    // Stopped first, so that every outcome is in its record.
    gateway.stop();
    let answers = played?;
    let decisions = records::all(&config)?;
    check(&scenes, &decisions)?;
    if arguments.json {
        decisions.iter().try_for_each(output::json_line)?;
    } else {
        tell(&scenes, &answers, &decisions, &internet)?;
    }
    Ok(Exit::Done)
}

/// The settings of the demo: its policy, and its internet as the way out. Nothing of this machine's own settings.
fn settle(folder: &TempDir, internet: &Internet) -> io::Result<Config> {
    let path = |name: &str| folder.path().join(name);
    fs::write(path("policy.toml"), POLICY)?;
    fs::write(path("internet.pem"), &internet.certificate)?;
    let settings = format!(
        "[upstream]\nproxy = \"http://{}\"\nca_files = [{:?}]\n",
        internet.address,
        path("internet.pem")
    );
    fs::write(path("outgate.toml"), settings)?;
    let flags = Flags { data_dir: Some(folder.path().to_owned()), ..Flags::default() };
    Config::load(&flags, &|_| None).map_err(io::Error::other)
}

fn serve(config: &Config) -> Result<Command, Failure> {
    let folder = config.data_dir.clone().into_os_string();
    let fixed = ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--until-idle"];
    let mut serve =
        start::command(["--data-dir".into(), folder].into_iter().chain(fixed.map(OsString::from)))?;
    serve.env_clear();
    Ok(serve)
}

async fn play(gateway: &Background, trust: &Trust, scenes: &[Scene]) -> io::Result<Vec<Answer>> {
    let client = Client::new(gateway.running.proxy, None, &fs::read(&trust.certificate)?)?;
    let mut answers = Vec::new();
    for scene in scenes {
        answers.push(client.run(scene.errand.clone()).await?);
    }
    Ok(answers)
}

/// Whether the gateway decided as the demo says.
fn check(scenes: &[Scene], decisions: &[DecisionView]) -> Result<(), Failure> {
    let same =
        |(scene, view): (&Scene, &DecisionView)| (scene.action, scene.reason) == (view.action, view.reason);
    if scenes.len() == decisions.len() && scenes.iter().zip(decisions).all(same) {
        return Ok(());
    }
    let decided: Vec<String> =
        decisions.iter().map(|view| format!("{} {}", rows::request(view), view.reason)).collect();
    Err(Failure::Failed(format!("the demo did not go as it should; decided was:\n{}", decided.join("\n"))))
}

/// Terminals narrower than this have what the agent does, or what was found, below the table.
const WITH_AGENT: usize = 105;
const WITH_ALL: usize = 190;

fn tell(
    scenes: &[Scene],
    answers: &[Answer],
    decisions: &[DecisionView],
    internet: &Internet,
) -> Result<(), Failure> {
    output::text(&listed(scenes, decisions, output::terminal_width()))?;
    tell_both_sides(answers, scenes, internet)?;
    output::text(NEXT)
}

/// The table of what was decided, and what each row shows. What a narrow terminal has no room for in the table stands
/// below it.
fn listed(scenes: &[Scene], decisions: &[DecisionView], terminal: Option<usize>) -> String {
    let (who, all) = (rows::at_least(terminal, WITH_AGENT), rows::at_least(terminal, WITH_ALL));
    let only = |shown: bool, column: Column| shown.then_some(column);
    let columns = [
        Some(Column::right("")),
        only(who, Column::new("THE AGENT")),
        Some(Column::gives_way("REQUEST").floor(30).cut_by(rows::cut_request)),
        only(all, Column::new("CLASS")),
        Some(Column::new("ACTION")),
        Some(Column::new("REASON")),
        Some(Column::right("SENT")),
        only(all, Column::gives_way("FOUND").floor(40)),
    ];
    let mut table = Table::new(columns.into_iter().flatten().collect::<Vec<_>>());
    let mut notes = String::new();
    for (number, (scene, view)) in (1..).zip(scenes.iter().zip(decisions)) {
        let only = |shown: bool, cell: Cell| shown.then_some(cell);
        let found = found(view);
        let cells = [
            Some(number.to_string().into()),
            only(who, scene.does.into()),
            Some(rows::request(view).into()),
            only(all, rows::class(view.class)),
            Some(Cell::styled(view.action.as_str(), style_of(view.action))),
            Some(view.reason.as_str().into()),
            Some(rows::sent(view).into()),
            only(all, Cell::styled(&found, Style::new().yellow())),
        ];
        table.row(cells.into_iter().flatten().collect::<Vec<_>>());
        let does = if who { String::new() } else { format!("{}: ", scene.does) };
        // Writing to a string does not fail.
        let _ = writeln!(notes, "{number:>3}  {does}{}", scene.shows);
        if !all && !found.is_empty() {
            let _ = writeln!(notes, "     {}", Shown(&found).yellow());
        }
    }
    format!("{}\n{notes}", table.take(terminal))
}

/// What was seen, and what a rule on trial would have done.
fn found(view: &DecisionView) -> String {
    match view.would {
        Some(would) => format!("enforcing would {}", would.as_str()),
        None => rows::found(view),
    }
}

/// What the agent was told, and what the other side got to see.
fn tell_both_sides(answers: &[Answer], scenes: &[Scene], internet: &Internet) -> Result<(), Failure> {
    if let Some(answer) = answers.get(REFUSED) {
        output::line(format_args!("\n{}", bold(&format!("What the agent was told at {}", REFUSED + 1))))?;
        output::line(format_args!("  {} {}", answer.status, Shown(&answer.body).dimmed()))?;
    }
    let seen = scenes.get(MASKED).and_then(|scene| internet.last_for(&scene.errand.host));
    if let Some(arrived) = seen {
        output::line(format_args!("\n{}", bold(&format!("What the model got to see at {}", MASKED + 1))))?;
        output::line(format_args!("  {}", Shown(&arrived.body).dimmed()))?;
    }
    Ok(())
}

const NEXT: &str = "
Next
  outgate run -- claude          an agent of your own behind it; any command will do
  outgate policy show            the policy you begin with; `outgate policy allow HOST` adds to it
  outgate log --follow           what is decided, as it is decided
  outgate doctor                 whether it works here
";

#[cfg(test)]
mod tests {
    use serde_json::json;
    use unicode_width::UnicodeWidthStr as _;

    use super::*;
    use crate::cli::summary::tests::view;

    #[test]
    fn each_terminal_shows_who_asked_for_which_host_and_what_was_found() {
        let decisions: Vec<DecisionView> = scenes()
            .iter()
            .map(|scene| {
                view(json!({"host": scene.errand.host, "path": scene.errand.path,
                    "method": scene.errand.method.as_str(), "action": scene.action, "reason": scene.reason,
                    "findings": [{"kind": "lookalike_domain", "of": "github.com"}]}))
            })
            .collect();
        for terminal in [80, 100, 120, 200] {
            let text =
                anstream::adapter::strip_str(&listed(&scenes(), &decisions, Some(terminal))).to_string();
            for (scene, row) in scenes().iter().zip(text.lines().skip(1)) {
                let request = format!("{} {}", scene.errand.method, scene.errand.host);
                for word in [&*request, scene.action.as_str(), scene.reason.as_str()] {
                    assert!(row.contains(word), "{terminal}: `{word}` in `{row}`");
                }
                assert!(row.width() <= terminal, "{terminal}: {row}");
                assert!(text.contains(scene.does), "{terminal}: `{}` in {text}", scene.does);
            }
            assert_eq!(text.matches("looks like github.com").count(), scenes().len(), "{terminal}: {text}");
        }
    }
}
