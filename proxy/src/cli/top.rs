//! `outgate top`: sessions, destinations, bytes and refusals of the last minutes, drawn anew every other second.
//!
//! Read from the store, like `log --follow`: also when the gateway is busy or gone. On anything but a terminal one picture
//! is printed.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use jiff::Timestamp;
use policy::identity::SessionId;
use policy::verdict::{Action, Class};
use policy::view::DecisionView;

use super::moment::{self, Span};
use super::output::{bold, bytes, count, style_of};
use super::records::{Records, nothing_yet};
use super::rows::Decisions;
use super::table::{Cell, Column, Table};
use super::{Context, Exit, Failure, output, rows};
use crate::store::query::Filter;

/// Decisions that are looked at; of more the latest.
const KEPT: usize = 50_000;
/// Lines of each table.
const LINES: usize = 10;
/// Characters of a session's id that are shown.
const ENDING: usize = 8;
/// The other screen, without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// To the corner; and what is left from there on goes.
const HOME: &str = "\x1b[H";
const CLEAR: &str = "\x1b[J";

/// Watch sessions, destinations, bytes and refusals
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outgate top
  outgate top --window 1h --every 5s")]
pub(crate) struct Arguments {
    /// How far back
    #[arg(long, value_name = "TIME", default_value = "10m")]
    window: Span,
    /// How often it is drawn
    #[arg(long, value_name = "TIME", default_value = "2s")]
    every: Span,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, Failure> {
    let config = context.config()?;
    let Some(records) = Records::open(&config)? else {
        nothing_yet(&config);
        return Ok(Exit::Done);
    };
    let mut recent = Recent::read(&records, arguments.window.0)?;
    if !io::stdout().is_terminal() {
        output::text(&recent.picture(None))?;
        return Ok(Exit::Done);
    }
    let every = arguments.every.0.max(Duration::from_millis(200));
    let screen = Screen::enter()?;
    loop {
        screen.draw(&recent)?;
        let ended = records.run(async {
            tokio::select! {
                // Where no signal can be waited for, the one that ends the program ends it the usual way.
                Ok(()) = tokio::signal::ctrl_c() => true,
                () = tokio::time::sleep(every) => false,
            }
        });
        if ended {
            return Ok(Exit::Done);
        }
        recent.follow(&records)?;
    }
}

/// The terminal's other screen, until it is dropped.
struct Screen;

impl Screen {
    fn enter() -> Result<Screen, Failure> {
        write(ENTER)?;
        Ok(Screen)
    }

    fn draw(&self, recent: &Recent) -> Result<(), Failure> {
        // What does not fit would scroll the top away.
        let rows = rustix::termios::tcgetwinsize(io::stdout()).map_or(usize::MAX, |size| size.ws_row.into());
        let rows = rows.saturating_sub(1).max(1);
        let picture = recent.picture(Some(rows));
        let lines: Vec<&str> = picture.lines().take(rows).collect();
        // Each line ends by clearing what stood there before.
        let text: String = lines.iter().map(|line| format!("{line}\x1b[K\r\n")).collect();
        write(&format!("{HOME}{text}{CLEAR}"))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nobody is left to be told where the terminal has gone.
        let _ = write(LEAVE);
    }
}

fn write(text: &str) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::from_output)
}

/// The decisions of the last minutes.
struct Recent {
    window: Duration,
    decisions: VecDeque<DecisionView>,
    seen: u64,
    /// Sessions that go on.
    running: Vec<SessionId>,
    /// What sessions are called: their label, else the program that ran.
    named: BTreeMap<SessionId, String>,
}

/// What one line of a table counts.
#[derive(Clone, Debug, Default)]
struct Counts {
    requests: u64,
    refused: u64,
    sent: u64,
    received: u64,
}

impl Recent {
    fn read(records: &Records, window: Duration) -> Result<Recent, Failure> {
        let mut recent = Recent {
            window,
            decisions: VecDeque::new(),
            seen: 0,
            running: Vec::new(),
            named: BTreeMap::new(),
        };
        recent.seen = records.last_seq()?;
        let since = Some(recent.since());
        let limit = u32::try_from(KEPT).ok();
        let mut decisions = records.decisions(&Filter { since, limit, ..Filter::default() })?;
        decisions.retain(|view| view.outcome_seq.is_some_and(|seq| seq <= recent.seen) && !view.is_probe());
        recent.decisions = decisions.into_iter().rev().collect();
        recent.look_at_sessions(records)?;
        Ok(recent)
    }

    fn follow(&mut self, records: &Records) -> Result<(), Failure> {
        let ended = records.ended_after(self.seen, &Filter::default())?;
        self.seen = ended.iter().filter_map(|view| view.outcome_seq).max().unwrap_or(self.seen);
        self.decisions.extend(ended.into_iter().filter(|view| !view.is_probe()));
        let since = policy::view::rfc3339(self.since());
        while self.decisions.front().is_some_and(|view| view.time < since || self.decisions.len() > KEPT) {
            self.decisions.pop_front();
        }
        self.look_at_sessions(records)
    }

    fn look_at_sessions(&mut self, records: &Records) -> Result<(), Failure> {
        let sessions = records.sessions(Some(1000))?;
        self.running =
            sessions.iter().filter(|session| session.ended.is_none()).map(|session| session.id).collect();
        let named = sessions.into_iter().filter_map(|session| {
            let name = session.label.as_ref().or(session.tool.as_ref())?;
            Some((session.id, name.to_string()))
        });
        self.named = named.collect();
        Ok(())
    }

    fn since(&self) -> i64 {
        let window = i64::try_from(self.window.as_micros()).unwrap_or(i64::MAX);
        Timestamp::now().as_microsecond().saturating_sub(window)
    }

    /// What is drawn, on so many rows.
    fn picture(&self, rows: Option<usize>) -> String {
        let mut all = Counts::default();
        self.decisions.iter().for_each(|view| all.add(view));
        let head = format!(
            "{}  {} in {}, {} refused, {} sent, {} back; {} running\n",
            bold("outgate"),
            count(all.requests, "request"),
            moment::lasted(self.window),
            all.refused,
            bytes(all.sent),
            bytes(all.received),
            count(self.running.len() as u64, "session"),
        );
        // Each table, and the head, has a line above it; each table a header.
        let room = rows.map_or(3 * LINES, |rows| rows.saturating_sub(7));
        let (sessions, destinations) = (self.sessions(), self.destinations());
        let refused = self.decisions.iter().filter(|view| view.action == Action::Deny).take(LINES).count();
        let [s, d, r] = shares(room, [sessions.len(), destinations.len(), refused]);
        [head, self.session_table(sessions, s), destination_table(destinations, d), self.refusals(r)]
            .join("\n")
    }

    /// By session, and by agent where there is none; the busiest first.
    fn sessions(&self) -> Vec<((String, Option<SessionId>), Counts)> {
        let mut all: BTreeMap<(String, Option<SessionId>), Counts> = BTreeMap::new();
        for id in &self.running {
            if let Some(view) = self.decisions.iter().find(|view| view.session == Some(*id)) {
                all.entry((view.agent.to_string(), Some(*id))).or_default();
            }
        }
        for view in &self.decisions {
            all.entry((view.agent.to_string(), view.session)).or_default().add(view);
        }
        busiest(all)
    }

    fn session_table(&self, sessions: Vec<((String, Option<SessionId>), Counts)>, lines: usize) -> String {
        let mut table = Table::new(
            [Column::gives_way("AGENT"), Column::new("SESSION"), Column::gives_way("LABEL OR TOOL")]
                .into_iter()
                .chain(columns())
                .collect::<Vec<_>>(),
        );
        for ((agent, session), counts) in sessions.into_iter().take(lines) {
            let label = session.and_then(|id| self.named.get(&id)).map_or("", String::as_str);
            // The end of an id is what tells it from others, and will do wherever one is asked for.
            let id = session.map(|id| id.to_string()).unwrap_or_default();
            let id = id.get(id.len().saturating_sub(ENDING)..).unwrap_or_default();
            let cells: [Cell; 3] = [agent.into(), id.into(), label.into()];
            table.row(cells.into_iter().chain(counts.cells()).collect::<Vec<Cell>>());
        }
        table.text()
    }

    fn destinations(&self) -> Vec<((String, Class), Counts)> {
        let mut all: BTreeMap<(String, Class), Counts> = BTreeMap::new();
        for view in &self.decisions {
            all.entry((view.destination(), view.class)).or_default().add(view);
        }
        busiest(all)
    }

    /// The latest that were refused.
    fn refusals(&self, lines: usize) -> String {
        let now = Timestamp::now();
        let refused = self.decisions.iter().rev().filter(|view| view.action == Action::Deny).take(lines);
        let mut table = Decisions::new(output::terminal_width(), false);
        refused.for_each(|view| table.add(view, now));
        table.text()
    }
}

fn destination_table(destinations: Vec<((String, Class), Counts)>, lines: usize) -> String {
    let first = [Column::gives_way("DESTINATION"), Column::new("CLASS")];
    let mut table = Table::new(first.into_iter().chain(columns()).collect::<Vec<_>>());
    for ((destination, class), counts) in destinations.into_iter().take(lines) {
        let cells = [destination.into(), rows::class(class)];
        table.row(cells.into_iter().chain(counts.cells()).collect::<Vec<Cell>>());
    }
    table.text()
}

/// How many lines each table gets of the room there is: as many as the others, until it has what it wants.
fn shares(room: usize, wanted: [usize; 3]) -> [usize; 3] {
    let mut shares = [0; 3];
    let mut left = room;
    while left > 0 && shares != wanted {
        // Refusals first: of one line they are what one looks for.
        for (share, wanted) in shares.iter_mut().zip(wanted).rev() {
            if *share < wanted && left > 0 {
                *share += 1;
                left -= 1;
            }
        }
    }
    shares
}

fn columns() -> [Column; 4] {
    ["REQUESTS", "REFUSED", "SENT", "BACK"].map(Column::right)
}

fn busiest<K: Ord>(all: BTreeMap<K, Counts>) -> Vec<(K, Counts)> {
    let mut all: Vec<(K, Counts)> = all.into_iter().collect();
    // What most bytes went to first: that is what one looks for.
    all.sort_by_key(|(_, counts)| std::cmp::Reverse((counts.sent, counts.requests)));
    all.truncate(LINES);
    all
}

impl Counts {
    fn add(&mut self, view: &DecisionView) {
        self.requests += 1;
        self.refused += u64::from(view.action == Action::Deny);
        self.sent += view.request_bytes.unwrap_or(0);
        self.received += view.response_bytes.unwrap_or(0);
    }

    fn cells(&self) -> [Cell; 4] {
        let refused = match self.refused {
            0 => Cell::from("0"),
            some => Cell::styled(some.to_string(), style_of(Action::Deny)),
        };
        [self.requests.to_string().into(), refused, bytes(self.sent).into(), bytes(self.received).into()]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::summary::tests::view;

    #[test]
    fn each_table_gets_its_share_of_the_rows() {
        for (room, wanted, expected) in [
            (30, [10, 10, 10], [10, 10, 10]),
            (16, [10, 10, 10], [5, 5, 6]),
            (16, [1, 10, 10], [1, 7, 8]),
            (16, [10, 10, 0], [8, 8, 0]),
            (1, [10, 10, 10], [0, 0, 1]),
            (0, [1, 1, 1], [0, 0, 0]),
        ] {
            assert_eq!(shares(room, wanted), expected, "{room} for {wanted:?}");
        }
    }

    #[test]
    fn on_24_rows_there_are_refusals_and_what_sessions_are_called() {
        let id: SessionId = serde_json::from_value(json!("01K5C3ZJ8V7B5Q2M4N6P8R0T1W")).unwrap();
        let decisions = (0..30).map(|number| {
            view(json!({"host": format!("h{number}.test"), "session": if number == 0 { json!(id) } else { json!(null) },
                "agent": format!("a{number}"), "request_bytes": 1000 - number}))
        });
        let recent = Recent {
            window: Duration::from_secs(600),
            decisions: decisions.collect(),
            seen: 0,
            running: Vec::new(),
            named: BTreeMap::from([(id, "fix-42".to_owned())]),
        };
        let picture = anstream::adapter::strip_str(&recent.picture(Some(23))).to_string();
        let lines: Vec<&str> = picture.lines().collect();
        assert!(lines.len() <= 23, "{picture}");
        assert!(lines.iter().filter(|line| line.contains("unknown_destination")).count() >= 5, "{picture}");
        assert!(picture.contains("6P8R0T1W  fix-42"), "{picture}");
    }
}
