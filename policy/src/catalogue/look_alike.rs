//! Hosts that mean to be taken for a known one: its label under another suffix, one edit or one glyph away, or
//! its whole name in front of a stranger's.
//!
//! Asked for unknown hosts only. Every known label has its neighbours precomputed: two labels one edit apart share
//! a spelling once at most one character is taken out of each, so a look-up tries the label and its deletions.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::target::Host;

use super::names::edit_distance;
use super::registrable_domain;

/// Labels shorter than this have too many honest neighbours to be guarded against edits.
const EDITED_LENGTH: usize = 5;
/// Longest label that DNS carries (RFC 1035, section 2.3.4).
const LABEL_LIMIT: usize = 63;
/// Suffixes that a hyphen is taken for a dot before (`github-com.example`). Others are words people put into
/// honest names (`sentry-dev`, `fly-app`).
const HYPHENATED: [&str; 3] = ["com", "org", "net"];

/// An imitation, and of what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LookAlike {
    /// The known domain.
    pub of: String,
    /// By what means.
    pub how: How,
}

/// How a name imitates a known one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// The known label under a suffix that is not its owner's.
    OtherSuffix,
    /// One character inserted, left out, changed, or two exchanged.
    OneEdit,
    /// Characters that look the same: `0` and `o`, `rn` and `m`, Cyrillic and Latin.
    Homoglyph,
    /// The known domain, dots or hyphens and all, left of a stranger's.
    Embedded,
}

/// The lists that keep honest names honest.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exceptions {
    /// Known labels that are words: others hold them, and their neighbours, in good faith.
    common: HashSet<String>,
    /// Known labels that their owners hold under many suffixes.
    everywhere: HashSet<String>,
    /// Labels too short for edits that are nevertheless rare enough to guard under other suffixes.
    short: HashSet<String>,
    /// Labels that are one edit from a known one in good faith.
    honest: HashSet<String>,
    /// Public suffixes whose names are accounts at a host that gives the known names to their owners only.
    namespaces: HashSet<String>,
    /// Domains of known vendors that serve nothing in the catalogue.
    own: BTreeMap<String, Vec<String>>,
}

/// Known labels and all that is one edit from them.
#[derive(Clone, Debug)]
pub(super) struct Neighbourhood {
    exceptions: Exceptions,
    domains: HashSet<Box<str>>,
    /// The first known domain of each label.
    labels: HashMap<Box<str>, Box<str>>,
    /// Labels by themselves with at most one character taken out.
    deletions: HashMap<Box<str>, Vec<Box<str>>>,
    /// Labels by what they look like.
    skeletons: HashMap<Box<str>, Box<str>>,
    longest: usize,
}

impl Neighbourhood {
    /// Starts from the program's own lists.
    pub(super) fn read(text: &str) -> Neighbourhood {
        let exceptions: Exceptions = toml::from_str(text).expect("the program's own data, read by the tests");
        let own = exceptions.own.clone();
        let mut neighbourhood = Neighbourhood {
            exceptions,
            domains: HashSet::new(),
            labels: HashMap::new(),
            deletions: HashMap::new(),
            skeletons: HashMap::new(),
            longest: 0,
        };
        for (suffix, labels) in &own {
            labels.iter().for_each(|label| neighbourhood.protect(&format!("{label}.{suffix}")));
        }
        neighbourhood
    }

    /// Guards a registrable domain against imitation.
    pub(super) fn protect(&mut self, domain: &str) {
        let Some((label, _)) = domain.split_once('.') else { return };
        self.domains.insert(domain.into());
        let guarded = !self.exceptions.common.contains(label) && !label.starts_with("xn--");
        if !guarded || self.labels.contains_key(label) {
            return;
        }
        self.labels.insert(label.into(), domain.into());
        if label.len() < EDITED_LENGTH {
            return;
        }
        self.longest = self.longest.max(label.len());
        self.skeletons.insert(skeleton(label).into(), label.into());
        for spelling in std::iter::once(label.to_owned()).chain(deletions(label)) {
            self.deletions.entry(spelling.into()).or_default().push(label.into());
        }
    }

    /// What the host imitates, if anything.
    pub(super) fn look_alike(&self, host: &Host) -> Option<LookAlike> {
        host.name()?;
        let domain = registrable_domain(host);
        let (label, suffix) = domain.split_once('.')?;
        if self.domains.contains(domain) {
            return None;
        }
        self.imitated_label(label, suffix)
            .or_else(|| self.embedded(&host.as_str()[..host.as_str().len() - suffix.len()]))
    }

    fn imitated_label(&self, label: &str, suffix: &str) -> Option<LookAlike> {
        if self.exceptions.namespaces.contains(suffix) || self.exceptions.honest.contains(label) {
            return None;
        }
        if let Some(known) = self.labels.get(label) {
            let elsewhere = !self.exceptions.everywhere.contains(label)
                && (label.len() >= EDITED_LENGTH || self.exceptions.short.contains(label));
            return elsewhere.then(|| found(known, How::OtherSuffix));
        }
        let known = match label.strip_prefix("xn--") {
            Some(encoded) => self.skeletons.get(drawn_like(encoded)?.as_str()),
            None => self.skeletons.get(skeleton(label).as_str()),
        };
        if let Some(known) = known {
            return Some(found(&self.labels[known], How::Homoglyph));
        }
        self.one_edit_away(label).map(|known| found(&self.labels[known], How::OneEdit))
    }

    fn one_edit_away(&self, label: &str) -> Option<&str> {
        // A label one longer than the longest, or one shorter than the shortest, is the furthest there is.
        if label.len() + 1 < EDITED_LENGTH || label.len() > self.longest + 1 {
            return None;
        }
        let near = |spelling: &str| -> Option<&str> {
            let labels = self.deletions.get(spelling)?;
            labels.iter().find(|known| edit_distance(known, label) == 1).map(|known| &**known)
        };
        near(label).or_else(|| deletions(label).find_map(|spelling| near(&spelling)))
    }

    /// Whether labels in front of the public suffix (`before` ends in a dot) spell a known domain.
    fn embedded(&self, before: &str) -> Option<LookAlike> {
        let before = before.strip_suffix('.').unwrap_or(before);
        let known = |text: &str| self.domains.get(text).map(|domain| found(domain, How::Embedded));
        for (start, _) in label_starts(before) {
            let rest = &before[start..];
            // Known domains have a suffix of one label or of two (`co.uk`).
            let ends = rest.match_indices('.').map(|(dot, _)| dot).chain([rest.len()]).skip(1).take(2);
            if let Some(found) = ends.filter_map(|end| known(&rest[..end])).next() {
                return Some(found);
            }
        }
        before.split('.').find_map(|label| self.hyphenated(label))
    }

    fn hyphenated(&self, label: &str) -> Option<LookAlike> {
        let mut parts = label.split('-').peekable();
        while let Some(part) = parts.next() {
            let suffix = *parts.peek()?;
            let guarded = part.len() >= EDITED_LENGTH && self.labels.contains_key(part);
            if guarded
                && HYPHENATED.contains(&suffix)
                && let Some(domain) = self.domains.get(format!("{part}.{suffix}").as_str())
            {
                return Some(found(domain, How::Embedded));
            }
        }
        None
    }
}

fn found(domain: &str, how: How) -> LookAlike {
    LookAlike { of: domain.to_owned(), how }
}

fn label_starts(name: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut start = 0;
    name.split('.').map(move |label| {
        let at = start;
        start += label.len() + 1;
        (at, label)
    })
}

/// The label with each of its characters taken out in turn.
fn deletions(label: &str) -> impl Iterator<Item = String> + '_ {
    debug_assert!(label.is_ascii() && label.len() <= LABEL_LIMIT);
    (0..label.len()).map(|at| {
        let mut shorter = String::with_capacity(label.len());
        shorter.push_str(&label[..at]);
        shorter.push_str(&label[at + 1..]);
        shorter
    })
}

/// What a label looks like: characters that are easily taken for each other become one.
fn skeleton(label: &str) -> String {
    let mut drawn = String::with_capacity(label.len());
    for character in label.chars() {
        drawn.push(match character {
            '0' => 'o',
            '1' | 'i' => 'l',
            '5' => 's',
            '3' => 'e',
            '4' => 'a',
            other => other,
        });
        for (pair, glyph) in [("rn", 'm'), ("vv", 'w')] {
            if drawn.ends_with(pair) {
                drawn.truncate(drawn.len() - pair.len());
                drawn.push(glyph);
            }
        }
    }
    drawn
}

/// The skeleton of an international label, where all of it looks like Latin letters.
fn drawn_like(encoded: &str) -> Option<String> {
    let decoded = idna::punycode::decode_to_string(encoded)?;
    let latin: Option<String> = decoded.chars().map(latin_twin).collect();
    latin.map(|latin| skeleton(&latin))
}

/// The ASCII character that a lower-case character is drawn like, or nearly (an accent is easily missed).
fn latin_twin(character: char) -> Option<char> {
    Some(match character {
        'a'..='z' | '0'..='9' | '-' => character,
        'à'..='å' | 'ā' | 'ă' | 'ą' | 'ǎ' | 'ạ' | 'ả' | 'ɑ' | 'α' | 'а' => 'a',
        'ƅ' | 'ь' | 'ḅ' | 'в' => 'b',
        'ç' | 'ć' | 'ĉ' | 'ċ' | 'č' | 'с' | 'ϲ' => 'c',
        'ď' | 'đ' | 'ḍ' | 'ԁ' => 'd',
        'è'..='ë' | 'ē' | 'ĕ' | 'ė' | 'ę' | 'ě' | 'ẹ' | 'ẻ' | 'е' | 'є' | 'ε' => 'e',
        'ĝ' | 'ğ' | 'ġ' | 'ģ' | 'ɡ' | 'ǧ' | 'ց' => 'g',
        'ĥ' | 'ħ' | 'ḥ' | 'һ' | 'հ' | 'н' => 'h',
        'ì'..='ï' | 'ĩ' | 'ī' | 'ĭ' | 'į' | 'ı' | 'ị' | 'ɩ' | 'ι' | 'і' | 'ї' | 'ӏ' => 'i',
        'ĵ' | 'ј' | 'ϳ' => 'j',
        'ķ' | 'ĸ' | 'ḳ' | 'κ' | 'к' => 'k',
        'ĺ' | 'ļ' | 'ľ' | 'ŀ' | 'ł' | 'ḷ' => 'l',
        'ṃ' | 'м' => 'm',
        'ñ' | 'ń' | 'ņ' | 'ň' | 'ŋ' | 'ṇ' | 'η' | 'п' | 'ո' => 'n',
        'ò'..='ö' | 'ø' | 'ō' | 'ŏ' | 'ő' | 'ơ' | 'ọ' | 'ỏ' | 'ο' | 'о' | 'օ' | 'σ' => 'o',
        'ṗ' | 'ρ' | 'р' => 'p',
        'ԛ' => 'q',
        'ŕ' | 'ŗ' | 'ř' | 'ṛ' | 'г' => 'r',
        'ś' | 'ŝ' | 'ş' | 'š' | 'ș' | 'ṣ' | 'ѕ' => 's',
        'ţ' | 'ť' | 'ŧ' | 'ț' | 'ṭ' | 'т' | 'τ' => 't',
        'ù'..='ü' | 'ũ' | 'ū' | 'ŭ' | 'ů' | 'ű' | 'ų' | 'ư' | 'ụ' | 'υ' | 'ս' | 'μ' => 'u',
        'ṿ' | 'ν' | 'ѵ' => 'v',
        'ŵ' | 'ẁ' | 'ẃ' | 'ẅ' | 'ω' | 'ԝ' | 'ѡ' => 'w',
        'χ' | 'х' | 'ҳ' => 'x',
        'ý' | 'ÿ' | 'ŷ' | 'ỳ' | 'ỵ' | 'γ' | 'у' | 'ү' => 'y',
        'ź' | 'ż' | 'ž' | 'ẓ' | 'ƶ' => 'z',
        _ => return None,
    })
}
