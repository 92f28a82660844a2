//! The prefilter: where, in raw bytes, could a secret begin?
//!
//! Everything that is looked for, in every encoding that four raw bytes can tell (text, three alignments of base64,
//! hex), is known by its first four bytes, its lead, and by the kinds of the byte after it. So four bytes at every second
//! place tell of two: of a lead that begins there, and of one that began a byte before. A bitmap over a hash of the four
//! answers "nothing begins here" for nearly every pair without a branch; the few others are looked up exactly.

use super::cursor::{BASE64, View};
use super::pattern::LEAD;

/// The first four bytes of what begins at a place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Lead(u32);

impl Lead {
    pub(crate) fn of(bytes: [u8; LEAD]) -> Self {
        Self(u32::from_le_bytes(bytes))
    }

    fn hash(self) -> usize {
        hash(self.0)
    }

    /// The lead with its bits spread: the upper ones are its hash, and no two leads have the same.
    fn spread(self) -> u32 {
        self.0.wrapping_mul(SPREAD)
    }

    /// Bytes two to four of the lead and a byte of this kind after it.
    fn shifted(self, kind: u32) -> u32 {
        self.0 >> 8 | kind << 29
    }
}

/// Kinds of bytes, one bit each: a byte is of the kind that its upper three bits name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Kinds(u8);

impl Kinds {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const ALL: Self = Self(0xff);

    pub(crate) fn of(bytes: impl IntoIterator<Item = u8>) -> Self {
        bytes.into_iter().fold(Self::NONE, |kinds, byte| kinds.or(Self(1 << (byte >> 5))))
    }

    pub(crate) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// With the letters of either case for those of the other.
    pub(crate) fn in_any_case(self) -> Self {
        const UPPER: u8 = 1 << (b'A' >> 5);
        const LOWER: u8 = 1 << (b'a' >> 5);
        if self.0 & (UPPER | LOWER) == 0 { self } else { self.or(Self(UPPER | LOWER)) }
    }

    fn each(self) -> impl Iterator<Item = u32> {
        (0..8).filter(move |kind| self.0 >> kind & 1 == 1)
    }
}

/// What must follow a lead in raw text: up to four bytes, as far as they are the same in every match.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Rest {
    bytes: u32,
    /// The bits that are looked at.
    mask: u32,
}

impl Rest {
    /// These bytes, letters in either case where asked for.
    pub(crate) fn of(bytes: &[u8], any_case: bool) -> Self {
        let mut masks = [0; 4];
        let mut four = [0; 4];
        for (index, byte) in bytes.iter().take(4).enumerate() {
            masks[index] = if any_case && byte.is_ascii_alphabetic() { !0x20 } else { 0xff };
            four[index] = byte & masks[index];
        }
        Self { bytes: u32::from_le_bytes(four), mask: u32::from_le_bytes(masks) }
    }

    /// Whether the text may go on so. Where an escape stands in the way, it may.
    pub(crate) fn may_follow(self, text: &[u8], place: usize) -> bool {
        let Some(four) = text.get(place..).and_then(|rest| rest.first_chunk()) else { return true };
        u32::from_le_bytes(*four) & self.mask == self.bytes || four.iter().any(|byte| ESCAPES.contains(byte))
    }
}

/// A byte that text may go on with instead of the one that is looked for, if an escape stands for it.
const ESCAPES: [u8; 2] = *b"%\\";

/// An odd number, so that multiplying by it loses nothing.
const SPREAD: u32 = 0x9E37_79B1;

fn hash(four: u32) -> usize {
    (four.wrapping_mul(SPREAD) >> (32 - HASH_BITS)) as usize
}

/// The place of four bytes in the bitmap of pairs, which asks only for the kind of the last one.
#[inline]
fn pair_hash(four: u32) -> usize {
    hash(four & 0xE0FF_FFFF)
}

/// 32 KiB of bitmap: it stays in the first-level cache and is sparse enough for ten thousand leads.
const HASH_BITS: u32 = 18;
const WORDS: usize = 1 << (HASH_BITS - 6);

/// Places that are looked at together.
const BLOCK: usize = 64;

/// What is known of a block of a text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sieve {
    /// Where it begins.
    begin: usize,
    /// The place after it.
    end: usize,
    /// One bit for each second place at which, or a byte before which, a lead may begin.
    hits: u32,
}

impl Sieve {
    /// Nothing, of a text that is looked at from a place on.
    pub(crate) fn from(place: usize) -> Self {
        Self { begin: place, end: place, hits: 0 }
    }
}

/// A set of leads, each with the things that may begin with it.
pub(crate) struct Leads {
    /// By [`pair_hash`]: leads, and leads without their first byte.
    pairs: Box<[u64; WORDS]>,
    /// By [`hash`]: leads.
    bits: Box<[u64; WORDS]>,
    /// Sorted by lead, as [`Lead::spread`] has it, then in the order in which they are to be tried.
    entries: Vec<(Lead, Entry)>,
    /// Where in `entries` the leads of each bucket begin.
    buckets: Vec<u32>,
}

/// Something to be looked for at a place that has its lead.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Entry {
    /// What: an index that the search gives meaning to. Lower ones are tried first.
    pub(crate) target: u32,
    pub(crate) view: Way,
    /// What follows the lead.
    pub(crate) rest: Rest,
}

/// How the lead was written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Way {
    Text,
    /// In base64, so many bytes into a group of three.
    Base64(u8),
    Hex,
}

impl Way {
    /// Where, relative to the place of the lead, reading has to begin, and how.
    pub(crate) fn begin(self, place: usize) -> Option<(usize, View)> {
        match self {
            Self::Text => Some((place, View::Text)),
            Self::Hex => Some((place, View::Hex)),
            Self::Base64(0) => Some((place, View::Base64(0))),
            // The bytes begin within the character before the first one that they determine wholly.
            Self::Base64(offset) => Some((place.checked_sub(1)?, View::Base64(offset * 2))),
        }
    }
}

const BUCKET_BITS: u32 = 12;

impl Leads {
    pub(crate) fn new(starts: Vec<Start>) -> Self {
        let mut pairs = Box::new([0; WORDS]);
        let mut set = |four| pairs[pair_hash(four) >> 6] |= 1 << (pair_hash(four) & 63);
        for Start { lead, then, .. } in &starts {
            set(lead.0);
            then.each().for_each(|kind| set(lead.shifted(kind)));
        }
        let mut entries: Vec<_> = starts.into_iter().map(|start| (start.lead, start.entry)).collect();
        let bucket = |lead: Lead| lead.hash() >> (HASH_BITS - BUCKET_BITS);
        entries.sort_unstable_by_key(|(lead, entry)| (lead.spread(), *entry));
        // What one thing begins with in two ways goes on in two ways.
        entries.dedup_by(|(lead, entry), (kept, other)| {
            let same = lead == kept && (entry.target, entry.view) == (other.target, other.view);
            if same && entry.rest != other.rest {
                other.rest = Rest::default();
            }
            same
        });
        let mut bits = Box::new([0; WORDS]);
        for (lead, _) in &entries {
            let hash = lead.hash();
            bits[hash >> 6] |= 1 << (hash & 63);
        }
        let buckets = (0..=1 << BUCKET_BITS)
            .map(|index| entries.partition_point(|(lead, _)| bucket(*lead) < index) as u32);
        Self { pairs, buckets: buckets.collect(), bits, entries }
    }

    /// How many leads are known.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    #[inline]
    fn may_hold(&self, lead: Lead) -> bool {
        let hash = lead.hash();
        self.bits[hash >> 6 & (WORDS - 1)] >> (hash & 63) & 1 == 1
    }

    /// The first place in `from..limit` whose four bytes are a lead, and where the byte after them is of a kind that
    /// may follow it; where that byte is not of such a kind, the place may be given or not. `sieve` is what was seen
    /// on the way; it holds for this text only.
    pub(crate) fn find(&self, text: &[u8], from: usize, limit: usize, sieve: &mut Sieve) -> Option<usize> {
        let limit = limit.min(text.len().saturating_sub(LEAD - 1));
        if from < sieve.begin {
            *sieve = Sieve { begin: from, end: from, hits: 0 };
        }
        loop {
            while sieve.hits != 0 {
                // A hit tells of its own place and of the one before.
                let second = sieve.begin + 2 * sieve.hits.trailing_zeros() as usize;
                for found in second.saturating_sub(1).max(from)..=second {
                    if found >= limit {
                        return None;
                    }
                    if self.is_lead(text, found) {
                        return Some(found);
                    }
                }
                sieve.hits &= sieve.hits - 1;
            }
            if sieve.end >= limit {
                break;
            }
            *sieve = self.look(text, sieve.end.max(from));
        }
        // The last place of a block has not been looked at together with what follows it.
        let rest = sieve.end.saturating_sub(1).max(from);
        (rest..limit).find(|place| self.is_lead(text, *place))
    }

    #[inline]
    fn is_lead(&self, text: &[u8], place: usize) -> bool {
        lead_at(text, place).is_some_and(|lead| self.may_hold(lead) && !self.entries(lead).is_empty())
    }

    /// What there is from a place on. The text holds a lead there, if only just.
    #[inline]
    fn look(&self, text: &[u8], begin: usize) -> Sieve {
        let rest = text.get(begin..).unwrap_or_default();
        if let Some(block) = rest.first_chunk() {
            return Sieve { begin, end: begin + BLOCK, hits: self.pairs(block) };
        }
        let mut padded = [0; BLOCK + 8];
        let length = rest.len().min(BLOCK + LEAD - 2);
        padded[..length].copy_from_slice(&rest[..length]);
        // The last pair that is there as a whole.
        let last = length.saturating_sub(LEAD) / 2;
        Sieve { begin, end: begin + 2 * last + 1, hits: self.pairs(&padded) & u32::MAX >> (31 - last) }
    }

    /// One bit for each second place of a block at which, or a byte before which, a lead may begin.
    #[inline]
    fn pairs(&self, block: &[u8; BLOCK + 8]) -> u32 {
        let (words, _) = block.as_chunks::<8>();
        let mut hits = 0;
        for index in 0..BLOCK / 8 {
            let (word, next) = (u64::from_le_bytes(words[index]), u64::from_le_bytes(words[index + 1]));
            let four = self.pair(word as u32)
                | self.pair((word >> 16) as u32) << 1
                | self.pair((word >> 32) as u32) << 2
                | self.pair((word >> 48 | next << 16) as u32) << 3;
            hits |= four << (4 * index);
        }
        hits
    }

    /// Whether these four bytes may be a lead or the four after its first one.
    #[inline]
    fn pair(&self, four: u32) -> u32 {
        let hash = pair_hash(four);
        (self.pairs[hash >> 6 & (WORDS - 1)] >> (hash & 63) & 1) as u32
    }

    /// What may begin with this lead, in the order in which it is to be tried.
    pub(crate) fn entries(&self, lead: Lead) -> &[(Lead, Entry)] {
        if !self.may_hold(lead) {
            return &[];
        }
        let bucket = lead.hash() >> (HASH_BITS - BUCKET_BITS);
        let entries = &self.entries[self.buckets[bucket] as usize..self.buckets[bucket + 1] as usize];
        let start = entries.partition_point(|(other, _)| other.spread() < lead.spread());
        let length = entries[start..].iter().take_while(|(other, _)| *other == lead).count();
        &entries[start..start + length]
    }
}

/// The lead at a place, where four bytes are there.
pub(crate) fn lead_at(text: &[u8], place: usize) -> Option<Lead> {
    text.get(place..)?.first_chunk::<LEAD>().map(|bytes| Lead::of(*bytes))
}

/// Something to be looked for: how it begins, and the kinds of the raw byte that follows its lead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    pub(crate) lead: Lead,
    pub(crate) then: Kinds,
    pub(crate) entry: Entry,
}

/// The first bytes of something, the kinds of the byte after them, and what follows if that is certain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beginning {
    pub(crate) lead: [u8; LEAD],
    pub(crate) then: Kinds,
    pub(crate) rest: Rest,
}

/// How something begins, as text and in base64, in any letter case where asked for.
pub(crate) fn starts_of(beginning: Beginning, any_case: bool, target: u32) -> Vec<Start> {
    let Beginning { lead: bytes, then, rest } = beginning;
    let (text, encoded) =
        if any_case { (in_every_case(bytes), in_usual_cases(bytes)) } else { (vec![bytes], vec![bytes]) };
    let then = then.or(Kinds::of(ESCAPES));
    let entry = Entry { target, view: Way::Text, rest };
    let mut starts: Vec<_> =
        text.into_iter().map(|lead| Start { lead: Lead::of(lead), then, entry }).collect();
    for offset in 0..3 {
        let entry = Entry { target, view: Way::Base64(offset), rest: Rest::default() };
        for bytes in &encoded {
            let then = after_base64(*bytes, offset);
            let leads = base64_leads(*bytes, offset).into_iter();
            starts.extend(leads.map(|lead| Start { lead: Lead::of(lead), then, entry }));
        }
    }
    starts
}

/// The kinds of what follows the lead in base64: the characters that are left of these bytes, the end of a line, and the
/// backslash of an escaped one or of `\/`.
fn after_base64(bytes: [u8; LEAD], offset: u8) -> Kinds {
    let left = u64::from(u32::from_be_bytes(bytes)) << 8;
    // Where bits of the byte after these belong to the character, it may be any of a few.
    let characters = (0..256).step_by(64).flat_map(|byte| {
        let bits = (left | byte) << skipped(offset) >> 10 & 63;
        let character = BASE64[bits as usize];
        [character, url_safe(character)]
    });
    Kinds::of(characters.chain(*b"\r\n\\"))
}

fn in_every_case(lead: [u8; LEAD]) -> Vec<[u8; LEAD]> {
    let mut leads = vec![lead.map(|byte| byte.to_ascii_lowercase())];
    for index in 0..LEAD {
        let mut upper = leads.clone();
        upper.iter_mut().for_each(|lead| lead[index].make_ascii_uppercase());
        leads.extend(upper);
    }
    leads
}

/// As written, in capitals, in small letters, and with a capital. Each case has base64 of its own, and nobody mixes
/// cases before encoding but to hide, for which there are better ways.
fn in_usual_cases(lead: [u8; LEAD]) -> Vec<[u8; LEAD]> {
    let (upper, lower) =
        (lead.map(|byte| byte.to_ascii_uppercase()), lead.map(|byte| byte.to_ascii_lowercase()));
    let mut capital = lower;
    capital[0] = upper[0];
    vec![lead, upper, lower, capital]
}

/// The first four characters of base64 and base64url that these bytes determine wholly, so many bytes into a group.
fn base64_leads(bytes: [u8; LEAD], offset: u8) -> Vec<[u8; LEAD]> {
    // Two bits of an offset of one byte belong to a character shared with the byte before, and so on.
    let bits = u32::from_be_bytes(bytes) << skipped(offset);
    let standard = [26, 20, 14, 8].map(|shift| BASE64[(bits >> shift & 63) as usize]);
    let url = standard.map(url_safe);
    if url == standard { vec![standard] } else { vec![standard, url] }
}

fn skipped(offset: u8) -> u32 {
    [0, 4, 2][usize::from(offset)]
}

fn url_safe(character: u8) -> u8 {
    match character {
        b'+' => b'-',
        b'/' => b'_',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    #[test]
    fn base64_leads_stand_in_the_base64_of_text_at_each_alignment() {
        for offset in 0..3 {
            let encoded = STANDARD.encode(format!("{}sk-ant-api", "x".repeat(offset)));
            let leads = base64_leads(*b"sk-a", offset as u8);
            let place = [0, 2, 3][offset];
            assert_eq!(&encoded.as_bytes()[place..place + 4], &leads[0], "{offset}");
        }
    }

    #[test]
    fn a_lead_is_found_wherever_it_stands_and_in_any_case() {
        let rest = Rest::of(b"n", true);
        let entry = Entry { target: 7, view: Way::Text, rest };
        let beginning = Beginning { lead: *b"sk-a", then: Kinds::of(*b"n"), rest };
        let leads = Leads::new(starts_of(beginning, true, 7));
        for (before, after) in (0..200).flat_map(|before| [(before, 0), (before, 1), (before, 90)]) {
            let text = format!("{}sK-an{}", ".".repeat(before), "-".repeat(after));
            for from in 0..=before {
                let find = |limit| leads.find(text.as_bytes(), from, limit, &mut Sieve::from(from));
                assert_eq!(find(text.len()), Some(before), "{before} {from}");
                assert_eq!(find(before), None);
                assert_eq!(find(before + 1), Some(before));
            }
        }
        assert_eq!(leads.entries(Lead::of(*b"SK-A")), &[(Lead::of(*b"SK-A"), entry)]);
        assert_eq!(leads.entries(Lead::of(*b"sk-b")), &[]);
    }
}
