//! The prefilter: where, in raw bytes, could a secret begin?
//!
//! Everything that is looked for, in every encoding that four raw bytes can tell (text, three alignments of base64,
//! hex), is known by its first four bytes, its lead. A bitmap over a hash of the lead answers "nothing begins here" for
//! nearly every place without a branch, eight places at a time; the few others are looked up exactly.

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
        (self.0.wrapping_mul(0x9E37_79B1) >> (32 - HASH_BITS)) as usize
    }
}

/// 32 KiB of bitmap: it stays in the first-level cache and is sparse enough for ten thousand leads.
const HASH_BITS: u32 = 18;
const WORDS: usize = 1 << (HASH_BITS - 6);

/// A set of leads, each with the things that may begin with it.
pub(crate) struct Leads {
    bits: Box<[u64; WORDS]>,
    /// Sorted by lead, then in the order in which they are to be tried.
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
    pub(crate) fn new(mut entries: Vec<(Lead, Entry)>) -> Self {
        let bucket = |lead: Lead| lead.hash() >> (HASH_BITS - BUCKET_BITS);
        entries.sort_by_key(|(lead, entry)| (bucket(*lead), *lead, *entry));
        entries.dedup();
        let mut bits = Box::new([0; WORDS]);
        for (lead, _) in &entries {
            let hash = lead.hash();
            bits[hash >> 6] |= 1 << (hash & 63);
        }
        let buckets = (0..=1 << BUCKET_BITS)
            .map(|index| entries.partition_point(|(lead, _)| bucket(*lead) < index) as u32);
        Self { buckets: buckets.collect(), bits, entries }
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

    /// The first place in `from..limit` whose four bytes are a lead.
    pub(crate) fn find(&self, text: &[u8], from: usize, limit: usize) -> Option<usize> {
        let limit = limit.min(text.len().saturating_sub(LEAD - 1));
        let mut place = from;
        while place < limit {
            let Some(bytes) = text.get(place..).and_then(|rest| rest.first_chunk::<16>()) else {
                return (place..limit).find(|place| self.is_lead(text, *place));
            };
            let mut hits = self.eight(bytes);
            while hits != 0 {
                let found = place + hits.trailing_zeros() as usize;
                if found >= limit {
                    return None;
                }
                if self.is_lead(text, found) {
                    return Some(found);
                }
                hits &= hits - 1;
            }
            place += 8;
        }
        None
    }

    fn is_lead(&self, text: &[u8], place: usize) -> bool {
        lead_at(text, place).is_some_and(|lead| !self.entries(lead).is_empty())
    }

    /// One bit for each of the first eight places that may be a lead.
    #[inline]
    fn eight(&self, bytes: &[u8; 16]) -> u32 {
        let text = u128::from_le_bytes(*bytes);
        let (low, high) = (text as u64, (text >> 32) as u64);
        let mut hits = 0;
        for index in 0..4 {
            let first = Lead((low >> (8 * index)) as u32);
            let second = Lead((high >> (8 * index)) as u32);
            hits |= u32::from(self.may_hold(first)) << index;
            hits |= u32::from(self.may_hold(second)) << (index + 4);
        }
        hits
    }

    /// What may begin with this lead, in the order in which it is to be tried.
    pub(crate) fn entries(&self, lead: Lead) -> &[(Lead, Entry)] {
        if !self.may_hold(lead) {
            return &[];
        }
        let bucket = lead.hash() >> (HASH_BITS - BUCKET_BITS);
        let entries = &self.entries[self.buckets[bucket] as usize..self.buckets[bucket + 1] as usize];
        let start = entries.partition_point(|(other, _)| *other < lead);
        let length = entries[start..].iter().take_while(|(other, _)| *other == lead).count();
        &entries[start..start + length]
    }
}

/// The lead at a place, where four bytes are there.
pub(crate) fn lead_at(text: &[u8], place: usize) -> Option<Lead> {
    text.get(place..)?.first_chunk::<LEAD>().map(|bytes| Lead::of(*bytes))
}

/// The leads of something that begins with these bytes, as text and in base64, in any letter case where asked for.
pub(crate) fn leads_of(bytes: [u8; LEAD], any_case: bool, target: u32) -> Vec<(Lead, Entry)> {
    let (text, encoded) =
        if any_case { (in_every_case(bytes), in_usual_cases(bytes)) } else { (vec![bytes], vec![bytes]) };
    let mut leads: Vec<_> =
        text.into_iter().map(|lead| (Lead::of(lead), Entry { target, view: Way::Text })).collect();
    for offset in 0..3 {
        let view = Way::Base64(offset);
        let encoded = encoded.iter().flat_map(|bytes| base64_leads(*bytes, offset));
        leads.extend(encoded.map(|lead| (Lead::of(lead), Entry { target, view })));
    }
    leads
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
    let skipped = [0, 4, 2][usize::from(offset)];
    let bits = u32::from_be_bytes(bytes) << skipped;
    let standard = [26, 20, 14, 8].map(|shift| BASE64[(bits >> shift & 63) as usize]);
    let url = standard.map(|byte| match byte {
        b'+' => b'-',
        b'/' => b'_',
        other => other,
    });
    if url == standard { vec![standard] } else { vec![standard, url] }
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
        let entry = Entry { target: 7, view: Way::Text };
        let leads = Leads::new(leads_of(*b"sk-a", true, 7));
        for before in 0..40 {
            let text = format!("{}sK-at", ".".repeat(before));
            assert_eq!(leads.find(text.as_bytes(), 0, text.len()), Some(before));
            assert_eq!(leads.find(text.as_bytes(), 0, before), None);
        }
        assert_eq!(leads.entries(Lead::of(*b"SK-A")), &[(Lead::of(*b"SK-A"), entry)]);
        assert_eq!(leads.entries(Lead::of(*b"sk-b")), &[]);
    }
}
