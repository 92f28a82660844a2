//! Looking for secrets in text: leads are found, judged in order, and either rejected, matched, or still open.

use std::fmt;
use std::sync::{Arc, LazyLock};

use super::class::Class;
use super::cursor::{BASE64, Cursor, Escape, Next, View, escape, nibble, text_before};
use super::known::{KnownMatch, KnownValue};
use super::lead::{Entry, Lead, Leads, Sieve, lead_at, starts_of};
use super::pattern::{LEAD, Matched, Outcome, Pattern};
use super::{Check, Detector};

/// Everything that is looked for: the detectors, and the values known to a policy. Compiled once, shared by all.
pub struct Secrets {
    leads: Leads,
    known: Vec<KnownValue>,
    /// Which known value each of the first targets is. They come before the detectors, so that a value found both
    /// ways is reported by the name its owner gave it.
    order: Vec<u32>,
}

/// The place of a known value in the list its [`Secrets`] were made from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct KnownId(pub u32);

/// What was found.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Source {
    /// A credential by its shape.
    Detector(Detector),
    /// A value known to the policy.
    Known(KnownId),
}

static PATTERNS: LazyLock<Vec<(Detector, Pattern)>> = LazyLock::new(|| {
    Detector::all()
        .flat_map(|detector| {
            detector.rule().patterns.iter().map(move |source| (detector, Pattern::parse(source)))
        })
        .collect()
});

static DEFAULT: LazyLock<Arc<Secrets>> = LazyLock::new(|| Arc::new(Secrets::new(Vec::new())));

impl Secrets {
    /// The detectors alone.
    pub fn detectors() -> Arc<Self> {
        Arc::clone(&DEFAULT)
    }

    /// The detectors and some known values; a [`KnownId`] is an index into these.
    pub fn new(known: Vec<KnownValue>) -> Self {
        let mut order: Vec<u32> = (0..known.len() as u32).collect();
        // Of two values that begin alike the longer one must be tried first.
        order.sort_by_key(|index| std::cmp::Reverse(known[*index as usize].value().len()));
        let mut starts = Vec::new();
        for (target, index) in order.iter().enumerate() {
            starts.extend(known[*index as usize].starts(target as u32));
        }
        for (index, (_, pattern)) in PATTERNS.iter().enumerate() {
            let target = (known.len() + index) as u32;
            let beginnings = pattern.beginnings().into_iter();
            starts.extend(beginnings.flat_map(|beginning| starts_of(beginning, pattern.any_case(), target)));
        }
        Self { leads: Leads::new(starts), known, order }
    }

    /// The known values, in the order of their ids.
    pub fn known(&self) -> &[KnownValue] {
        &self.known
    }

    /// The name by which a find is reported: the detector's, or `known:` and the value's.
    pub fn name(&self, source: Source) -> Arc<str> {
        match source {
            Source::Detector(detector) => detector.name().into(),
            Source::Known(KnownId(index)) => {
                let name = self.known.get(index as usize).map_or("", |known| known.name());
                format!("known:{name}").into()
            }
        }
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").field("known", &self.known).finish_non_exhaustive()
    }
}

/// Which finds belong where the text is going: the credentials of the service itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exempt {
    /// Credentials by their shape.
    pub detectors: Vec<Detector>,
    /// Known values that name this destination.
    pub known: Vec<KnownId>,
}

impl Exempt {
    /// Nothing belongs here.
    pub fn none() -> Self {
        Self::default()
    }

    fn covers(&self, source: Source) -> bool {
        match source {
            Source::Detector(detector) => self.detectors.contains(&detector),
            Source::Known(id) => self.known.contains(&id),
        }
    }
}

/// What is asked of a search.
#[derive(Clone, Copy)]
pub(crate) struct Search<'s> {
    pub(crate) secrets: &'s Secrets,
    pub(crate) exempt: &'s Exempt,
    /// Whether detectors that serve records only take part.
    pub(crate) for_records: bool,
}

/// A secret in a text.
#[derive(Clone, Copy)]
pub(crate) struct Hit {
    pub(crate) source: Source,
    /// Whether it belongs where the text is going.
    pub(crate) exempt: bool,
    pub(crate) view: View,
    /// Where it begins: raw position, and in base64 the bits of that character that do not belong to it.
    pub(crate) start: (usize, u8),
    /// Raw position after it.
    pub(crate) end: usize,
    /// Bytes that still belong to it where they follow directly.
    pub(crate) tail: Option<Class>,
    /// Where the search goes on.
    pub(crate) next: usize,
}

/// What a search came to.
pub(crate) enum Step {
    Hit(Hit),
    /// Whether a secret begins at `start` depends on bytes to come. Those from `hold` on must not leave meanwhile.
    Open {
        start: usize,
        hold: Option<usize>,
    },
    /// There is nothing before `judged`; places from there on were too close to the end to be judged.
    Done {
        judged: usize,
    },
}

impl Search<'_> {
    /// The first thing at or after `from`. The bytes before `from` are looked at as context only. The decoded bytes of
    /// a hit are left in `decoded`. `last` says that no more bytes will come.
    pub(crate) fn next(&self, text: &[u8], from: usize, last: bool, decoded: &mut Vec<u8>) -> Step {
        let judged = if last { text.len() } else { judged(text).max(from) };
        let sieve = Sieve::from(from);
        let escapes = Escapes::default();
        let mut places =
            Places { search: self, text, judged, last, place: from, sieve, escapes, escaped: None };
        while let Some((place, escaped)) = places.next() {
            match self.judge(text, place, escaped, last, decoded) {
                None => {}
                Some(Step::Open { start, hold }) => {
                    let hold = self.earliest_hold(places, place, escaped, hold, decoded);
                    return Step::Open { start, hold };
                }
                Some(step) => return step,
            }
        }
        match self.hold_beyond(text, judged, last, decoded) {
            Some(hold) => Step::Open { start: judged, hold: Some(hold) },
            None => Step::Done { judged },
        }
    }

    /// From where bytes must be held although nothing there was judged: the digits of an escape, `%fc-7`, may be the
    /// beginning of something by themselves. What it comes to is for when the escape's own places are judged.
    fn hold_beyond(&self, text: &[u8], judged: usize, last: bool, decoded: &mut Vec<u8>) -> Option<usize> {
        let unjudged = judged..text.len().saturating_sub(LEAD - 1);
        unjudged.filter_map(|place| self.hold_at(text, place, false, last, decoded)).min()
    }

    /// From where bytes must be held for what may begin at a place.
    fn hold_at(
        &self,
        text: &[u8],
        place: usize,
        escaped: bool,
        last: bool,
        decoded: &mut Vec<u8>,
    ) -> Option<usize> {
        let held = |entry| match self.attempt(text, place, entry, last, decoded) {
            Some(Step::Hit(hit)) => Some(hit.start.0),
            Some(Step::Open { hold, .. }) => hold,
            _ => None,
        };
        self.entries(text, place, escaped, last).filter_map(held).min()
    }

    /// From where bytes must be held while the answer at one place is open: what begins at that place or after it is
    /// not decided before, but it must not leave either.
    fn earliest_hold(
        &self,
        mut places: Places<'_, '_>,
        open: usize,
        escaped: bool,
        mut hold: Option<usize>,
        decoded: &mut Vec<u8>,
    ) -> Option<usize> {
        let (text, last, judged) = (places.text, places.last, places.judged);
        let mut place = Some((open, escaped));
        while let Some((at, escaped)) = place.filter(|(at, _)| hold.is_none_or(|hold| *at < hold)) {
            let held = self.hold_at(text, at, escaped, last, decoded);
            hold = hold.into_iter().chain(held).min();
            place = places.next();
        }
        hold.into_iter().chain(self.hold_beyond(text, judged, last, decoded)).min()
    }

    /// The first place from which four bytes, one of them escaped, decode to a lead; `limit` if there is none.
    fn next_escaped(
        &self,
        text: &[u8],
        from: usize,
        limit: usize,
        last: bool,
        escapes: &mut Escapes,
    ) -> usize {
        let mut begin = from;
        let mut looked = from;
        while let Some(place) = escapes.next(text, looked) {
            if place >= limit.saturating_add(LEAD) {
                break;
            }
            looked = place + 1;
            let Some(length) = telling_escape(&text[place..]) else { continue };
            for start in begin.max(place.saturating_sub(LEAD - 1))..=place.min(limit.saturating_sub(1)) {
                let hit = decoded_lead(text, start, last)
                    .is_some_and(|lead| !self.secrets.leads.entries(lead).is_empty());
                if hit && !inside_escape(text, start) {
                    return start;
                }
            }
            looked = place + length;
            begin = looked;
        }
        limit
    }

    /// Tries everything that may begin at a place.
    fn judge(
        &self,
        text: &[u8],
        place: usize,
        escaped: bool,
        last: bool,
        decoded: &mut Vec<u8>,
    ) -> Option<Step> {
        let mut first: Option<(Hit, Vec<u8>)> = None;
        for entry in self.entries(text, place, escaped, last) {
            match self.attempt(text, place, entry, last, decoded) {
                None => {}
                // A find that belongs here excuses one at the same place that does not and is not longer.
                Some(Step::Hit(hit)) if !hit.exempt && !self.exempt.is_empty() => {
                    first.get_or_insert_with(|| (hit, decoded.clone()));
                }
                Some(Step::Hit(hit)) if first.as_ref().is_some_and(|(first, _)| hit.end < first.end) => {}
                Some(step) => return Some(step),
            }
        }
        let (hit, bytes) = first?;
        *decoded = bytes;
        Some(Step::Hit(hit))
    }

    /// What may begin at a place, in the order in which it is to be tried.
    fn entries(&self, text: &[u8], place: usize, escaped: bool, last: bool) -> impl Iterator<Item = Entry> {
        let raw = lead_at(text, place);
        let other =
            if escaped { decoded_lead(text, place, last).filter(|lead| raw != Some(*lead)) } else { None };
        let of = |lead: Option<Lead>| lead.map_or(&[][..], |lead| self.secrets.leads.entries(lead));
        let follows = move |entry: &Entry| entry.rest.may_follow(text, place + LEAD);
        let raw = of(raw).iter().map(|(_, entry)| *entry).filter(follows);
        raw.chain(of(other).iter().map(|(_, entry)| *entry))
    }

    fn attempt(
        &self,
        text: &[u8],
        place: usize,
        entry: Entry,
        last: bool,
        decoded: &mut Vec<u8>,
    ) -> Option<Step> {
        let (start, view) = entry.view.begin(place)?;
        let cursor = Cursor::new(text, start, view, last);
        let target = entry.target as usize;
        match self.secrets.order.get(target) {
            Some(index) => self.attempt_known(text, *index, cursor, view, decoded),
            None => self.attempt_pattern(text, target - self.secrets.order.len(), cursor, view, decoded),
        }
    }

    fn attempt_known(
        &self,
        text: &[u8],
        index: u32,
        cursor: Cursor<'_>,
        view: View,
        decoded: &mut Vec<u8>,
    ) -> Option<Step> {
        let known = &self.secrets.known[index as usize];
        match known.matches(text, cursor, view) {
            KnownMatch::No => None,
            KnownMatch::Wait { hold } => Some(Step::Open { start: hold, hold: Some(hold) }),
            KnownMatch::Yes { start, end } => {
                decoded.clear();
                decoded.extend_from_slice(known.value());
                let source = Source::Known(KnownId(index));
                Some(Step::Hit(Hit {
                    source,
                    exempt: self.exempt.covers(source),
                    view,
                    start,
                    end,
                    tail: None,
                    next: end,
                }))
            }
        }
    }

    fn attempt_pattern(
        &self,
        text: &[u8],
        index: usize,
        cursor: Cursor<'_>,
        view: View,
        decoded: &mut Vec<u8>,
    ) -> Option<Step> {
        let (detector, pattern) = &PATTERNS[index];
        let rule = detector.rule();
        if rule.records_only && !self.for_records {
            return None;
        }
        let (start, _) = cursor.place();
        let check = rule.check;
        let matched =
            match pattern.matches(cursor, text, view, decoded, &|beginning| check.may_hold(beginning)) {
                Outcome::No => return None,
                Outcome::Wait { hold } => return Some(Step::Open { start, hold }),
                Outcome::Yes(matched) => matched,
            };
        if !check.holds(decoded, &decoded[matched.random.clone()]) {
            return None;
        }
        Some(Step::Hit(self.hit(*detector, view, &matched)))
    }

    fn hit(&self, detector: Detector, view: View, matched: &Matched) -> Hit {
        let source = Source::Detector(detector);
        // What stands in a field may also be a credential by its own shape, which says more.
        let next = match detector.rule().check {
            Check::Password | Check::BasicPair => matched.start.0,
            _ => matched.end,
        };
        Hit {
            source,
            exempt: self.exempt.covers(source),
            view,
            start: matched.start,
            end: matched.end,
            tail: matched.tail.map(|class| widen(class, view)),
            next,
        }
    }
}

/// The places of a text at which something may begin, in order.
#[derive(Clone, Copy)]
struct Places<'s, 't> {
    search: &'s Search<'s>,
    text: &'t [u8],
    judged: usize,
    last: bool,
    /// Where to look on.
    place: usize,
    sieve: Sieve,
    escapes: Escapes,
    /// The next place at which something may begin with an escape.
    escaped: Option<usize>,
}

impl Iterator for Places<'_, '_> {
    /// A place, and whether it is one by its escapes.
    type Item = (usize, bool);

    fn next(&mut self) -> Option<Self::Item> {
        if self.place >= self.judged {
            return None;
        }
        let escaped = match self.escaped {
            Some(escaped) if escaped >= self.place => escaped,
            _ => {
                let Self { text, place, judged, last, ref mut escapes, .. } = *self;
                self.search.next_escaped(text, place, judged, last, escapes)
            }
        };
        self.escaped = Some(escaped);
        let limit = self.judged.min(escaped.saturating_add(1));
        let leads = &self.search.secrets.leads;
        let found = leads.find(self.text, self.place, limit, &mut self.sieve).unwrap_or(escaped);
        self.place = found + 1;
        (found < self.judged).then_some((found, found == escaped))
    }
}

/// Where in a text the next percent sign stands, and the next backslash that may begin a telling escape, as far as that
/// was looked for. Each is looked for by itself: JSON is full of backslashes that tell nothing.
#[derive(Clone, Copy, Default)]
struct Escapes {
    percent: Option<usize>,
    backslash: Option<usize>,
}

impl Escapes {
    /// The first of either kind from a place on.
    fn next(&mut self, text: &[u8], from: usize) -> Option<usize> {
        let stale = |at: &Option<usize>| at.is_none_or(|at| at < from);
        if stale(&self.percent) {
            let found = memchr::memchr(b'%', &text[from..]);
            self.percent = Some(found.map_or(text.len(), |found| from + found));
        }
        if stale(&self.backslash) {
            let telling = |place: &usize| matches!(text.get(place + 1), Some(b'u' | b'/'));
            let mut places = memchr::memchr_iter(b'\\', &text[from..]).map(|found| from + found);
            self.backslash = Some(places.find(telling).unwrap_or(text.len()));
        }
        self.percent.min(self.backslash).filter(|place| *place < text.len())
    }
}

impl Exempt {
    fn is_empty(&self) -> bool {
        self.detectors.is_empty() && self.known.is_empty()
    }
}

/// The raw bytes that may carry on a secret made of `class`.
fn widen(class: Class, view: View) -> Class {
    match view {
        View::Text => class.with(b"%\\"),
        View::Base64(_) | View::Hex => Class::EMPTY.with(BASE64).with(b"-_\r\n\\"),
    }
}

/// Before which place every lead, in any encoding, lies wholly within the text.
fn judged(text: &[u8]) -> usize {
    /// A surrogate pair written out, less one.
    const LONGEST_OPEN_ESCAPE: usize = 11;
    let tail = text.len().saturating_sub(LONGEST_OPEN_ESCAPE);
    let open = (tail..text.len())
        .find(|place| matches!(text[*place], b'%' | b'\\') && escape(&text[*place..], false) == Escape::Wait);
    let mut end = open.unwrap_or(text.len());
    for _ in 1..LEAD {
        end -= text_before(&text[..end]).map_or(0, |(_, length)| length);
    }
    end
}

/// The length of an escape that can stand for a byte of a lead. JSON's short escapes for quotes, backslashes and line
/// ends are not among these: source code in JSON is full of them and no detector begins with what they stand for.
fn telling_escape(rest: &[u8]) -> Option<usize> {
    match (rest, escape(rest, true)) {
        ([b'\\', b'n' | b'r' | b't' | b'b' | b'f' | b'"' | b'\\', ..], _) => None,
        (_, Escape::Byte(_, length) | Escape::Char(_, length)) => Some(length),
        _ => None,
    }
}

fn decoded_lead(text: &[u8], start: usize, last: bool) -> Option<Lead> {
    if let Some(lead) = text.get(start..).and_then(|rest| rest.first_chunk()).and_then(percents) {
        return Some(Lead::of(lead));
    }
    let mut cursor = Cursor::new(text, start, View::Text, last);
    let mut lead = [0; LEAD];
    for byte in &mut lead {
        let Next::Byte(decoded) = cursor.next() else { return None };
        *byte = decoded;
    }
    Some(Lead::of(lead))
}

/// Four bytes that are all written with a percent sign, as whoever encodes everything writes them.
fn percents(text: &[u8; 3 * LEAD]) -> Option<[u8; LEAD]> {
    let mut bytes = [0; LEAD];
    for (byte, written) in bytes.iter_mut().zip(text.as_chunks::<3>().0) {
        let &[b'%', high, low] = written else { return None };
        *byte = nibble(high)? << 4 | nibble(low)?;
    }
    Some(bytes)
}

fn inside_escape(text: &[u8], place: usize) -> bool {
    (1..6).any(|back| {
        place
            .checked_sub(back)
            .is_some_and(|start| telling_escape(&text[start..]).is_some_and(|length| length > back))
    })
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};

    use super::*;

    /// Examples of every detector and some known values, in every encoding.
    fn samples(known: &[&str]) -> Vec<String> {
        let examples = Detector::all().flat_map(Detector::examples);
        let plain: Vec<String> = examples.chain(known.iter().map(|value| (*value).to_owned())).collect();
        let escaped = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
        let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02X}")).collect::<String>();
        let half = |text: &str| match text.split_at_checked(4) {
            Some((lead, rest)) => format!("{lead}{}", escaped(rest)),
            None => escaped(text),
        };
        plain
            .iter()
            .flat_map(|text| {
                let json = serde_json::to_string(text).expect("text is JSON");
                let upper = text.to_ascii_uppercase();
                [text.clone(), upper, json, escaped(text), half(text), hex(text)]
                    .into_iter()
                    .chain((0..3).flat_map(|offset| {
                        let padded = format!("{}{text}", " ".repeat(offset));
                        [STANDARD.encode(&padded), URL_SAFE.encode(&padded)]
                    }))
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    #[test]
    fn no_place_at_which_something_begins_is_passed_over() {
        let known = ["S3cr3t with \"quotes\"", "\"\\\n\t first", "päss-wörd-1", "a b c d 1 2"];
        let values = known.map(|value| KnownValue::new("env:X", value.as_bytes()).expect("long enough"));
        let secrets = Secrets::new(values.to_vec());
        let search = Search { secrets: &secrets, exempt: &Exempt::none(), for_records: true };
        let mut begun = 0;
        for sample in samples(&known) {
            for (before, after) in [(0, 0), (1, 0), (0, 70), (1, 70), (62, 70), (63, 1)] {
                let whole = format!("{}{sample}{}", ".".repeat(before), ".".repeat(after));
                let whole = whole.as_bytes();
                for end in [whole.len(), whole.len() / 2, before + 5] {
                    let Some(text) = whole.get(..end) else { continue };
                    let (mut places, mut from, mut sieve) = (Vec::new(), 0, Sieve::from(0));
                    while let Some(place) = secrets.leads.find(text, from, text.len(), &mut sieve) {
                        places.push(place);
                        from = place + 1;
                    }
                    begun += places.len();
                    for place in 0..text.len() {
                        let known = lead_at(text, place).map_or(&[][..], |lead| secrets.leads.entries(lead));
                        for (_, entry) in known {
                            let tried = places.contains(&place) && entry.rest.may_follow(text, place + LEAD);
                            let step = search.attempt(whole, place, *entry, true, &mut Vec::new());
                            assert!(tried || step.is_none(), "{}", String::from_utf8_lossy(&text[place..]));
                        }
                    }
                }
            }
        }
        assert!(begun > 10_000, "{begun}");
    }

    #[test]
    fn the_prefilter_stays_sparse() {
        let secrets = Secrets::detectors();
        // Of 262,144 bits; a denser bitmap lets more through and costs speed.
        assert!(secrets.leads.len() < 20_000, "{} leads", secrets.leads.len());
    }
}
