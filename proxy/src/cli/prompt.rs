//! Questions in the terminal that `serve` runs in: one line each, answered by one line.
//!
//! Lines, not keys: what is typed stays whole between lines of the log, and the terminal is as it was whenever the
//! gateway ends. Input is looked for before it is read, since a read in the background would stop the process.

use std::io::{self, BufRead as _};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use policy::approval::{Answer, Question};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::getpgrp;
use rustix::termios::{isatty, tcgetpgrp};
use tokio::runtime::Handle;
use ulid::Ulid;

use super::changes::operator;
use super::output::{self, Shown};
use crate::control::approval;
use crate::gateway::Gateway;

/// How often what is over, and who has the terminal, is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Questions that keep their numbers; older ones are answered by command.
const NUMBERED: usize = 1000;

/// Asks at the terminal for as long as the gateway runs, where there is one and somebody to ask.
pub(crate) fn start(gateway: &Arc<Gateway>) {
    let here = isatty(io::stdin()) && isatty(io::stderr());
    if !here || gateway.hold.unattended {
        return;
    }
    let gateway = Arc::clone(gateway);
    let runtime = Handle::current();
    let asked = Arc::new(Asked::default());
    tokio::spawn(tell(Arc::clone(&gateway), Arc::clone(&asked)));
    // Not a task of the runtime: reading blocks, and nothing has to wait for its end.
    std::thread::spawn(move || listen(&gateway, &asked, &runtime));
}

/// What was asked here, by number.
#[derive(Default)]
struct Asked {
    questions: std::sync::Mutex<Vec<Ulid>>,
    told: AtomicBool,
}

async fn tell(gateway: Arc<Gateway>, asked: Arc<Asked>) {
    let mut news = gateway.hold.listen();
    loop {
        match news.recv().await {
            Ok(question) => {
                let number = asked.number(question.id);
                output::note(line(&gateway, &question, number));
                if !asked.told.swap(true, Ordering::Relaxed) {
                    output::note(
                        "    answer with a line: a once, s session, h one hour, A always, d deny; then its number",
                    );
                }
            }
            Err(tokio::sync::broadcast::error::RecvError::Lagged(missed)) => {
                output::note(format_args!("{missed} more questions: outgate approvals list"));
            }
            Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
        }
    }
}

fn line(gateway: &Gateway, question: &Question, number: usize) -> String {
    let shown = approval(question, &gateway.policy().redactor);
    let text = |text: Option<policy::redact::Redacted>| {
        text.map(|text| text.as_str().to_owned()).unwrap_or_default()
    };
    let rule = shown.rule.map_or_else(|| "the default".to_owned(), |rule| rule.as_str().to_owned());
    format!(
        "[{number}] {} asks: {} {}{} ({})",
        question.about.agent,
        Shown(&text(shown.method)),
        Shown(shown.destination.as_str()),
        Shown(&text(shown.path)),
        Shown(&rule)
    )
}

impl Asked {
    fn number(&self, id: Ulid) -> usize {
        let mut questions = self.lock();
        questions.push(id);
        questions.len()
    }

    fn find(&self, number: Option<usize>) -> Option<Ulid> {
        let questions = self.lock();
        let number = number.unwrap_or(questions.len());
        let near = number + NUMBERED > questions.len();
        number.checked_sub(1).filter(|_| near).and_then(|index| questions.get(index).copied())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Ulid>> {
        self.questions.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn listen(gateway: &Arc<Gateway>, asked: &Asked, runtime: &Handle) {
    let stdin = io::stdin();
    let mut text = String::new();
    while !gateway.draining.is_cancelled() {
        if !has_input(&stdin) {
            continue;
        }
        text.clear();
        match stdin.lock().read_line(&mut text) {
            Ok(1..) => {}
            // The terminal is gone, or said that nothing will come.
            _ => return,
        }
        if text.trim().is_empty() {
            continue;
        }
        match read(&text) {
            Some((answer, number)) => give(gateway, asked, runtime, answer, number),
            None => output::note(
                "a once, s session, h one hour, A always, d deny; then the number of the question",
            ),
        }
    }
}

/// Whether this process may read from the terminal now, and there is something to be read.
fn has_input(stdin: &io::Stdin) -> bool {
    let ours = tcgetpgrp(stdin.as_fd()).is_ok_and(|group| group == getpgrp());
    if !ours {
        std::thread::sleep(LOOK);
        return false;
    }
    let patience = Timespec { tv_sec: 0, tv_nsec: LOOK.subsec_nanos().into() };
    poll(&mut [PollFd::new(stdin, PollFlags::IN)], Some(&patience)).is_ok_and(|found| found > 0)
}

/// An answer and the number of a question, the last where none is given: `a`, `h 3`, `d2`.
fn read(text: &str) -> Option<(Answer, Option<usize>)> {
    let text = text.trim();
    let (key, number) = text.split_at_checked(1)?;
    let answer = match key {
        "a" => Answer::Once,
        "s" => Answer::Session,
        "h" => Answer::Hour,
        "A" => Answer::Always,
        "d" => Answer::Deny,
        _ => return None,
    };
    match number.trim() {
        "" => Some((answer, None)),
        number => number.parse().ok().map(|number| (answer, Some(number))),
    }
}

fn give(gateway: &Arc<Gateway>, asked: &Asked, runtime: &Handle, answer: Answer, number: Option<usize>) {
    let Some(id) = asked.find(number) else {
        return output::note("there is no question of this number");
    };
    let by = operator().unwrap_or_else(|| policy::redact::Redacted::literal("terminal"));
    match runtime.block_on(gateway.answer(id, answer, by)) {
        Ok(given) => {
            if let Some(written) = given.written {
                output::note(format_args!(
                    "added to {}:\n{}",
                    written.file.display(),
                    Shown(written.entry.trim_end())
                ));
            }
            let scope = match answer {
                Answer::Deny => String::new(),
                answer => format!(" for {}", answer.scope()),
            };
            let waited = output::count(given.waited as u64, "request");
            output::note(format_args!("{}{scope}: {waited} waited", answer.word()));
        }
        Err(error) => output::note(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_an_answer_and_a_number() {
        for (text, expected) in [
            ("a\n", Some((Answer::Once, None))),
            (" s 2 \n", Some((Answer::Session, Some(2)))),
            ("h12\n", Some((Answer::Hour, Some(12)))),
            ("A 1", Some((Answer::Always, Some(1)))),
            ("d 3", Some((Answer::Deny, Some(3)))),
            ("yes", None),
            ("a x", None),
            ("", None),
            ("ü", None),
        ] {
            assert_eq!(read(text), expected, "{text:?}");
        }
    }

    #[test]
    fn numbers_are_those_that_were_told() {
        let asked = Asked::default();
        let ids = [Ulid::from_parts(1, 1), Ulid::from_parts(1, 2)];
        assert_eq!(ids.map(|id| asked.number(id)), [1, 2]);
        assert_eq!(asked.find(Some(1)), Some(ids[0]));
        assert_eq!(asked.find(None), Some(ids[1]), "the last");
        assert_eq!(asked.find(Some(3)), None);
        assert_eq!(asked.find(Some(0)), None);
    }
}
