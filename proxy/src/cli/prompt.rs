//! Questions in the terminal that `serve` runs in: one line each, answered by one line.
//!
//! Lines, not keys: what is typed stays whole between lines of the log, and the terminal is as it was whenever the
//! gateway ends. Input is looked for before it is read, since a read in the background would stop the process.

use std::io::{self, BufRead as _};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use policy::approval::{Answer, Question, State};
use policy::decide::Methods;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::getpgrp;
use rustix::termios::{isatty, tcgetpgrp};
use tokio::runtime::Handle;
use ulid::Ulid;

use super::changes::operator;
use super::output::{self, Shown};
use crate::answering::AnswerError;
use crate::control::approval;
use crate::gateway::Gateway;

/// How often what is over, and who has the terminal, is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long a question has to have been on the screen before a letter without a number is taken to be about it.
const READ: Duration = Duration::from_secs(2);
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
    questions: std::sync::Mutex<Vec<Told>>,
    told: AtomicBool,
}

/// A question on the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    id: Ulid,
    /// How much of what is wanted was shown.
    shown: usize,
    /// Since when.
    since: Instant,
}

async fn tell(gateway: Arc<Gateway>, asked: Arc<Asked>) {
    let mut news = gateway.hold.listen();
    let mut look = tokio::time::interval(LOOK);
    loop {
        let received = tokio::select! {
            received = news.recv() => received,
            _ = look.tick() => {
                tell_more(&gateway, &asked);
                continue;
            }
        };
        match received {
            Ok(question) => {
                let number = asked.number(question.id, Instant::now());
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

/// What joined a question since it was shown: an answer for once is about what stands on the screen.
fn tell_more(gateway: &Gateway, asked: &Asked) {
    if asked.lock().is_empty() {
        return;
    }
    for question in pending(gateway) {
        let Some((number, shown)) = asked.more(question.id, question.wanted.len(), Instant::now()) else {
            continue;
        };
        for wanted in &question.wanted[shown..] {
            let text =
                |text: Option<&policy::redact::Redacted>| text.map_or("", |text| text.as_str()).to_owned();
            let (method, path) = (text(wanted.method.as_ref()), text(wanted.path.as_ref()));
            output::note(format_args!(
                "[{number}] asks for another path: {} {}",
                Shown(&method),
                Shown(&path)
            ));
        }
    }
}

fn pending(gateway: &Gateway) -> Vec<Question> {
    let mut questions = gateway.hold.questions();
    questions.retain(|question| question.state == State::Pending);
    questions
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
    fn number(&self, id: Ulid, now: Instant) -> usize {
        let mut questions = self.lock();
        questions.push(Told { id, shown: 1, since: now });
        questions.len()
    }

    /// The number of a question of which more is wanted than was shown, and how much that was.
    fn more(&self, id: Ulid, wanted: usize, now: Instant) -> Option<(usize, usize)> {
        let mut questions = self.lock();
        let (index, told) = questions.iter_mut().enumerate().rev().find(|(_, told)| told.id == id)?;
        let before = std::mem::replace(&mut told.shown, wanted);
        if wanted <= before {
            return None;
        }
        told.since = now;
        Some((index + 1, before))
    }

    fn find(&self, number: usize) -> Result<Told, &'static str> {
        let questions = self.lock();
        let near = number.saturating_add(NUMBERED) > questions.len();
        let found = number.checked_sub(1).filter(|_| near).and_then(|index| questions.get(index).copied());
        found.ok_or("there is no question of this number")
    }

    /// What a letter without a number is about: the one question that there is, where it has been there for long enough
    /// to have been read. Of several it would be whichever came last before the line was ended.
    fn only(&self, pending: &[Ulid], now: Instant) -> Result<Told, &'static str> {
        let told = match pending {
            [] => return Err("nothing waits for an answer"),
            [only] => self.lock().iter().rev().find(|told| told.id == *only).copied(),
            _ => return Err("several questions wait: a number is needed, such as `a 3`"),
        };
        let read = told.filter(|told| now.saturating_duration_since(told.since) >= READ);
        read.ok_or("the question came only now: a number is needed, such as `a 3`")
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Told>> {
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

/// An answer and, where one is given, the number of a question: `a`, `h 3`, `d2`.
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
    let found = match number {
        Some(number) => asked.find(number),
        None => {
            let pending: Vec<Ulid> = pending(gateway).iter().map(|question| question.id).collect();
            asked.only(&pending, Instant::now())
        }
    };
    let Told { id, shown, .. } = match found {
        Ok(told) => told,
        Err(why) => return output::note(why),
    };
    let about = match gateway.hold.pending(id) {
        Ok(question) => about(gateway, &question),
        Err(error) => return output::note(AnswerError::from(error)),
    };
    let by = operator().unwrap_or_else(|| policy::redact::Redacted::literal("terminal"));
    match runtime.block_on(gateway.answer(id, answer, Some(shown), by)) {
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
            output::note(format_args!("{}{scope}: {about}: {waited} waited", answer.word()));
        }
        Err(error) => output::note(error),
    }
}

/// What an answer is about, for whoever gave it to see that it is what they meant.
fn about(gateway: &Gateway, question: &Question) -> String {
    let class = match question.about.methods {
        Methods::Reading => "reading",
        Methods::Writing => "writing",
        Methods::Unread => "connecting to",
    };
    let destination = approval(question, &gateway.policy().redactor).destination;
    format!("{} {class} {}", question.about.agent, Shown(destination.as_str()))
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
        let (asked, now) = (Asked::default(), Instant::now());
        let ids = [Ulid::from_parts(1, 1), Ulid::from_parts(1, 2)];
        assert_eq!(ids.map(|id| asked.number(id, now)), [1, 2]);
        assert_eq!(asked.find(1).map(|told| (told.id, told.shown)), Ok((ids[0], 1)));
        for wrong in [0, 3] {
            assert_eq!(asked.find(wrong), Err("there is no question of this number"));
        }
    }

    #[test]
    fn a_letter_alone_is_about_the_one_question_that_was_there_to_be_read() {
        let (asked, start) = (Asked::default(), Instant::now());
        let [one, two] = [Ulid::from_parts(1, 1), Ulid::from_parts(1, 2)];
        asked.number(one, start);
        let found =
            |pending: &[Ulid], after| asked.only(pending, start + after).map(|told| (told.id, told.shown));
        let soon = "the question came only now: a number is needed, such as `a 3`";
        assert_eq!(found(&[one], Duration::from_millis(1999)), Err(soon));
        assert_eq!(found(&[one], READ), Ok((one, 1)));
        assert_eq!(found(&[], READ), Err("nothing waits for an answer"));
        assert_eq!(found(&[two], READ), Err(soon), "it is not on the screen yet");
        asked.number(two, start + READ);
        let several = "several questions wait: a number is needed, such as `a 3`";
        assert_eq!(found(&[one, two], 9 * READ), Err(several));
        assert_eq!(found(&[two], READ), Err(soon), "it came while the line was typed");
        assert_eq!(found(&[two], 2 * READ), Ok((two, 1)));
        assert_eq!(asked.more(two, 3, start + 2 * READ), Some((2, 1)));
        assert_eq!(asked.more(two, 3, start + 3 * READ), None, "nothing new");
        assert_eq!(found(&[two], 2 * READ), Err(soon), "there is more to be read");
        assert_eq!(found(&[two], 3 * READ), Ok((two, 3)));
    }
}
