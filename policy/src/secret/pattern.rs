//! The small language in which detectors are written, and its matcher.
//!
//! A pattern is matched from left to right, greedily and without going back, so that it takes linear time and can say
//! "wait" where the answer depends on bytes that have not arrived:
//!
//! | written | means |
//! |---|---|
//! | `abc`, `\.` | these bytes; letters in either case where the pattern begins with five fixed bytes or more |
//! | `(a\|bc\|)` | one of these, the longest that fits |
//! | `[A-Za-z]`, `\a` | one byte of a set; `\a` and its like stand for the sets of `Class::named`, `\i` for a UUID |
//! | `…{3}`, `…{3,9}`, `…{3,}` | a run of such bytes |
//! | `\b` | an edge: neither a letter, a digit nor `_` beyond |
//! | `<…>` | the secret itself, where the pattern also names the field it stands in |
//! | `(?<=…)` | only after these, at the very beginning |

use std::ops::Range;

use super::class::Class;
use super::cursor::{Cursor, Next, View, byte_before, sextet, text_before};
use super::lead::{Beginning, Kinds, Rest};

/// The most bytes a run without upper bound is followed; what goes on beyond belongs to the same secret.
pub(crate) const LONGEST_RUN: u16 = 4096;

/// From so many fixed bytes at its beginning on, a pattern is distinctive enough to be found in any letter case.
const DISTINCTIVE: usize = 5;

/// A compiled pattern.
pub(crate) struct Pattern {
    /// What must stand before, nearest last.
    behind: Vec<Class>,
    /// Whether an edge must lie before.
    edge: bool,
    any_case: bool,
    /// Whether the pattern marks its secret with `<` and `>`.
    marked: bool,
    /// Whether a port may stand where the pattern looks for a password.
    ports: bool,
    steps: Vec<Step>,
}

enum Step {
    OneOf(Vec<Vec<u8>>),
    Run { class: Class, min: u16, max: u16 },
    Edge,
    Open,
    Close,
}

/// What matching gave.
pub(crate) enum Outcome {
    No,
    /// The answer depends on bytes that have not arrived. Those from `hold` on must not leave meanwhile.
    Wait {
        hold: Option<usize>,
    },
    Yes(Matched),
}

/// A match, as raw positions.
pub(crate) struct Matched {
    /// Where the secret begins: raw position, and in base64 the bits of that character which do not belong to it.
    pub(crate) start: (usize, u8),
    /// Raw position after the secret.
    pub(crate) end: usize,
    /// Where in the caller's buffer the longest run lies: the random part of the secret.
    pub(crate) random: Range<usize>,
    /// Set where the secret was followed as far as [`LONGEST_RUN`] and may go on in these bytes.
    pub(crate) tail: Option<Class>,
}

/// Judges the random part of a secret before a long run is followed to its end.
pub(crate) type Early<'a> = &'a dyn Fn(&[u8]) -> bool;

/// After so many bytes of a run the early judgement falls.
const EARLY: u16 = 64;

impl Pattern {
    /// Matches at `pos`. `decoded` receives the secret's bytes.
    pub(crate) fn matches<'t>(
        &self,
        cursor: Cursor<'t>,
        text: &'t [u8],
        view: View,
        decoded: &mut Vec<u8>,
        early: Early<'_>,
    ) -> Outcome {
        decoded.clear();
        Attempt {
            pattern: self,
            text,
            begin: cursor.place(),
            view,
            cursor,
            decoded,
            early,
            fixed: 0,
            telling: false,
            opened: None,
            closed: None,
            random: 0..0,
            tail: None,
        }
        .run()
    }

    /// Whether what stands before allows a match here.
    fn stands(&self, text: &[u8], start: (usize, u8), view: View) -> bool {
        if self.edge && byte_before(text, start, view).is_some_and(is_word) {
            return false;
        }
        let mut before = &text[..start.0];
        if self.edge && view == View::Text && in_blob(before) {
            return false;
        }
        // Through base64 only the nearest byte can be read back; the literal that follows must do.
        if view != View::Text {
            return true;
        }
        self.behind.iter().rev().all(|class| match text_before(before) {
            Some((byte, length)) => {
                before = &before[..before.len() - length];
                class.has(byte)
            }
            None => false,
        })
    }
}

/// One attempt to match.
struct Attempt<'p, 't, 'd> {
    pattern: &'p Pattern,
    text: &'t [u8],
    begin: (usize, u8),
    view: View,
    cursor: Cursor<'t>,
    decoded: &'d mut Vec<u8>,
    early: Early<'d>,
    /// Bytes matched so far.
    fixed: usize,
    /// Whether something was matched that ordinary words do not have: a byte that is no letter, or a whole prefix.
    telling: bool,
    opened: Option<(usize, u8)>,
    /// Raw position after the secret, and how many decoded bytes it has.
    closed: Option<(usize, usize)>,
    /// The longest run so far.
    random: Range<usize>,
    tail: Option<Class>,
}

/// Why an attempt ended early.
enum Stop {
    No,
    Wait,
}

impl Attempt<'_, '_, '_> {
    fn run(mut self) -> Outcome {
        for (index, step) in self.pattern.steps.iter().enumerate() {
            let stop = self.step(step).err();
            // What stands before is looked at only where the first step, most often a literal, has not failed.
            if matches!(stop, Some(Stop::No))
                || index == 0 && !self.pattern.stands(self.text, self.begin, self.view)
            {
                return Outcome::No;
            }
            if stop.is_some() {
                return Outcome::Wait { hold: self.hold() };
            }
        }
        let (end, length) = self.closed.unwrap_or((self.cursor.pos(), self.decoded.len()));
        self.decoded.truncate(length);
        Outcome::Yes(Matched {
            start: self.opened.unwrap_or(self.begin),
            end,
            random: self.random,
            tail: self.tail,
        })
    }

    fn step(&mut self, step: &Step) -> Result<(), Stop> {
        match step {
            Step::OneOf(choices) => self.one_of(choices),
            Step::Run { class, min, max } => self.follow(class, *min, *max),
            Step::Edge => match self.cursor.peek() {
                Next::Byte(byte) if is_word(byte) => Err(Stop::No),
                Next::Wait => Err(Stop::Wait),
                _ => Ok(()),
            },
            Step::Open => {
                self.opened = Some(self.cursor.place());
                self.decoded.clear();
                self.random = 0..0;
                Ok(())
            }
            Step::Close => {
                self.closed = Some((self.cursor.pos(), self.decoded.len()));
                Ok(())
            }
        }
    }

    /// The choices stand longest first, so the first that fits is the one, unless a longer one is still open.
    fn one_of(&mut self, choices: &[Vec<u8>]) -> Result<(), Stop> {
        choices.iter().find_map(|choice| self.literal(choice)).unwrap_or(Err(Stop::No))
    }

    /// `None` where other bytes stand here.
    fn literal(&mut self, literal: &[u8]) -> Option<Result<(), Stop>> {
        let mut ahead = self.cursor;
        let mark = self.decoded.len();
        for (index, expected) in literal.iter().enumerate() {
            match ahead.next() {
                Next::Byte(byte) if self.same(byte, *expected) => self.decoded.push(byte),
                Next::Wait => {
                    self.note(&literal[..index]);
                    return Some(Err(Stop::Wait));
                }
                _ => {
                    self.decoded.truncate(mark);
                    return None;
                }
            }
        }
        self.cursor = ahead;
        self.note(literal);
        Some(Ok(()))
    }

    fn same(&self, byte: u8, expected: u8) -> bool {
        byte == expected || self.pattern.any_case && byte.eq_ignore_ascii_case(&expected)
    }

    fn note(&mut self, matched: &[u8]) {
        self.fixed += matched.len();
        self.telling |= matched.iter().any(|byte| !byte.is_ascii_alphabetic());
    }

    fn follow(&mut self, class: &Class, min: u16, max: u16) -> Result<(), Stop> {
        self.telling |= max > 1;
        let start = self.decoded.len();
        let mut count = 0;
        while count < max {
            let mut ahead = self.cursor;
            match ahead.next() {
                Next::Byte(byte) if class.has(byte) => self.decoded.push(byte),
                Next::Wait => return Err(Stop::Wait),
                _ => break,
            }
            self.cursor = ahead;
            self.fixed += 1;
            count += 1;
            if count == EARLY && max == LONGEST_RUN && !(self.early)(&self.decoded[start..]) {
                return Err(Stop::No);
            }
        }
        if count < min {
            return Err(Stop::No);
        }
        let run = start..self.decoded.len();
        if run.len() > self.random.len() && self.closed.is_none() {
            self.random = run;
        }
        if max == LONGEST_RUN && count == max {
            self.tail = Some(*class);
        }
        Ok(())
    }

    /// What must be held while the answer is open. Ordinary words that a prefix begins with, and the field before a
    /// marked secret, may go: they say nothing, and holding them would stall conversations that end in such a word.
    fn hold(&self) -> Option<usize> {
        match self.opened {
            Some((pos, _)) => {
                let port = self.pattern.ports
                    && self.decoded.len() <= 5
                    && self.decoded.iter().all(u8::is_ascii_digit);
                (!port).then_some(pos)
            }
            None if self.pattern.marked => None,
            None if self.view != View::Text => Some(self.begin.0),
            None => (self.fixed >= 4 && self.telling).then_some(self.begin.0),
        }
    }
}

/// Whether what stands before is base64, its last character `+`, `/` or `-`: that is no edge. Megabytes of it, as images
/// are, hold every short prefix somewhere.
fn in_blob(before: &[u8]) -> bool {
    const ENOUGH: usize = 32;
    let Some(blob) = before.last_chunk::<ENOUGH>() else { return false };
    matches!(blob[ENOUGH - 1], b'+' | b'/' | b'-')
        && blob.iter().all(|byte| sextet(*byte).is_some())
        && blob.iter().any(u8::is_ascii_uppercase)
        && blob.iter().any(u8::is_ascii_lowercase)
        && blob.iter().any(u8::is_ascii_digit)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// How many bytes the prefilter looks at.
pub(crate) const LEAD: usize = 4;

impl Pattern {
    /// Reads a pattern. The tables are part of the program and every line is compiled by a test, so a mistake panics.
    pub(crate) fn parse(source: &str) -> Self {
        let mut parser = Parser { rest: source.as_bytes(), steps: Vec::new() };
        let behind = parser.behind();
        let edge = parser.skip(br"\b");
        parser.sequence();
        let steps = parser.steps;
        let marked = steps.iter().any(|step| matches!(step, Step::Open));
        let any_case = fixed_length(&steps) >= DISTINCTIVE;
        let ports = source.contains("://");
        Self { behind, edge, any_case, marked, ports, steps }
    }

    /// Everything that a match can begin with.
    pub(crate) fn beginnings(&self) -> Vec<Beginning> {
        let mut leads = vec![(Vec::new(), None)];
        for (index, step) in self.steps.iter().enumerate() {
            if leads.iter().all(|(_, then)| then.is_some()) {
                break;
            }
            leads = leads.into_iter().flat_map(|lead| self.extend(lead, step, index)).collect();
            leads.sort();
            leads.dedup();
        }
        let whole = |(lead, then): Partial| {
            let (then, rest) = then.unwrap_or((Kinds::ALL, Rest::default()));
            Some(Beginning { lead: lead.try_into().ok()?, then: self.in_case(then), rest })
        };
        leads.into_iter().filter_map(whole).collect()
    }

    /// What a beginning becomes by one step, and once it is long enough, what may follow it.
    fn extend(&self, lead: Partial, step: &Step, index: usize) -> Vec<Partial> {
        let (lead, then) = lead;
        let room = LEAD - lead.len();
        match step {
            _ if then.is_some() => vec![(lead, then)],
            Step::OneOf(choices) => choices
                .iter()
                .map(|choice| {
                    let taken = choice.len().min(room);
                    let then = match choice.get(room..) {
                        Some([]) => Some((self.first(index + 1), Rest::default())),
                        Some(rest) => Some((Kinds::of([rest[0]]), Rest::of(rest, self.any_case))),
                        None => None,
                    };
                    ([&lead[..], &choice[..taken]].concat(), then)
                })
                .collect(),
            Step::Run { class, min, max } => {
                let mut leads = vec![lead];
                for _ in 0..usize::from(*min).min(room) {
                    leads = leads
                        .iter()
                        .flat_map(|lead| class.bytes().map(|byte| [&lead[..], &[byte]].concat()))
                        .collect();
                }
                let more = if usize::from(*max) > room { Kinds::of(class.bytes()) } else { Kinds::NONE };
                let over = if usize::from(*min) > room { Kinds::NONE } else { self.first(index + 1) };
                let then = (usize::from(*min) >= room).then(|| (more.or(over), Rest::default()));
                leads.into_iter().map(|lead| (lead, then)).collect()
            }
            Step::Edge | Step::Open | Step::Close => vec![(lead, None)],
        }
    }

    /// The kinds of bytes that the steps from `index` on can begin with.
    fn first(&self, index: usize) -> Kinds {
        match self.steps.get(index) {
            None | Some(Step::Edge) => Kinds::ALL,
            Some(Step::Open | Step::Close) => self.first(index + 1),
            Some(Step::OneOf(choices)) => {
                let firsts = Kinds::of(choices.iter().filter_map(|choice| choice.first().copied()));
                if choices.iter().any(Vec::is_empty) { firsts.or(self.first(index + 1)) } else { firsts }
            }
            Some(Step::Run { class, min, .. }) => {
                let firsts = Kinds::of(class.bytes());
                if *min == 0 { firsts.or(self.first(index + 1)) } else { firsts }
            }
        }
    }

    fn in_case(&self, kinds: Kinds) -> Kinds {
        if self.any_case { kinds.in_any_case() } else { kinds }
    }

    /// Whether letters of the literals match in either case.
    pub(crate) fn any_case(&self) -> bool {
        self.any_case
    }
}

fn fixed_length(steps: &[Step]) -> usize {
    steps
        .iter()
        .map_while(|step| match step {
            Step::OneOf(choices) => choices.iter().map(Vec::len).min(),
            Step::Run { min: 1, max: 1, .. } => Some(1),
            _ => None,
        })
        .sum()
}

/// The first bytes of a match, up to four, and once there are four, what follows them.
type Partial = (Vec<u8>, Option<(Kinds, Rest)>);

struct Parser<'s> {
    rest: &'s [u8],
    steps: Vec<Step>,
}

impl Parser<'_> {
    fn behind(&mut self) -> Vec<Class> {
        let mut classes = Vec::new();
        if self.skip(b"(?<=") {
            while !self.skip(b")") {
                let class = self.class();
                let (count, _) = self.count();
                classes.extend(std::iter::repeat_n(class, usize::from(count)));
            }
        }
        classes
    }

    fn sequence(&mut self) {
        while !self.rest.is_empty() {
            if self.skip(br"\b") {
                self.steps.push(Step::Edge);
            } else if self.skip(br"\i") {
                self.uuid();
            } else if self.skip(b"<") {
                self.steps.push(Step::Open);
            } else if self.skip(b">") {
                self.steps.push(Step::Close);
            } else if self.skip(b"(") {
                let choices = self.choices();
                self.steps.push(Step::OneOf(choices));
            } else {
                self.one();
            }
        }
    }

    fn uuid(&mut self) {
        let class = Class::named(b'h').unwrap_or(Class::EMPTY).with(b"ABCDEF");
        for (index, length) in [8, 4, 4, 4, 12].into_iter().enumerate() {
            if index > 0 {
                self.push_literal(b'-');
            }
            self.steps.push(Step::Run { class, min: length, max: length });
        }
    }

    fn choices(&mut self) -> Vec<Vec<u8>> {
        let mut choices = vec![Vec::new()];
        loop {
            match self.byte() {
                b')' => break,
                b'|' => choices.push(Vec::new()),
                byte => {
                    let byte = if byte == b'\\' { self.byte() } else { byte };
                    choices.last_mut().expect("one choice is there from the start").push(byte);
                }
            }
        }
        choices.sort_by_key(|choice| std::cmp::Reverse(choice.len()));
        choices
    }

    /// A literal byte, or a set with its count.
    fn one(&mut self) {
        let class = self.class();
        let (min, max) = self.count();
        let mut bytes = class.bytes();
        match (bytes.next(), bytes.next()) {
            (Some(byte), None) if (min, max) == (1, 1) => self.push_literal(byte),
            _ => self.steps.push(Step::Run { class, min, max }),
        }
    }

    fn push_literal(&mut self, byte: u8) {
        // A choice written out is closed; only plain text is gathered.
        match self.steps.last_mut() {
            Some(Step::OneOf(choices)) if choices.len() == 1 => choices[0].push(byte),
            _ => self.steps.push(Step::OneOf(vec![vec![byte]])),
        }
    }

    /// `[…]`, `\a`, or one byte.
    fn class(&mut self) -> Class {
        match self.byte() {
            b'[' => self.set(),
            b'\\' => {
                let letter = self.byte();
                Class::named(letter).unwrap_or_else(|| Class::EMPTY.with(&[control(letter)]))
            }
            byte => Class::EMPTY.with(&[byte]),
        }
    }

    fn set(&mut self) -> Class {
        let mut class = Class::EMPTY;
        loop {
            let first = match self.byte() {
                b']' => return class,
                byte => self.in_set(byte),
            };
            if self.rest.first() == Some(&b'-') && self.rest.get(1) != Some(&b']') {
                self.byte();
                let last = self.byte();
                let last = self.in_set(last);
                class.add_range(first, last);
            } else {
                class.add(first);
            }
        }
    }

    fn in_set(&mut self, byte: u8) -> u8 {
        if byte == b'\\' { control(self.byte()) } else { byte }
    }

    /// `{3}`, `{3,9}`, `{3,}`, or once.
    fn count(&mut self) -> (u16, u16) {
        if !self.skip(b"{") {
            return (1, 1);
        }
        let min = self.number().expect("a count begins with a number");
        let max = if self.skip(b",") { self.number().unwrap_or(LONGEST_RUN) } else { min };
        assert!(self.skip(b"}"), "a count is closed");
        (min, max)
    }

    fn number(&mut self) -> Option<u16> {
        let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (number, rest) = self.rest.split_at(digits);
        self.rest = rest;
        std::str::from_utf8(number).ok()?.parse().ok()
    }

    fn byte(&mut self) -> u8 {
        let (first, rest) = self.rest.split_first().expect("the pattern goes on here");
        self.rest = rest;
        *first
    }

    fn skip(&mut self, text: &[u8]) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }
}

fn control(letter: u8) -> u8 {
    match letter {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        other => other,
    }
}
