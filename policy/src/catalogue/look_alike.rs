//! Hosts that mean to be taken for a known one: its label under another suffix, one edit or one glyph away, or
//! its whole name in front of a stranger's.
//!
//! Asked for unknown hosts only. Every known label has its neighbours precomputed: two labels one edit apart share
//! a spelling once at most one character is taken out of each, so a look-up tries the label and its deletions.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::target::Host;

use super::names::edit_distance;
use super::pattern::{NameMap, NameSet};

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

/// The lists that keep honest names honest; `look-alikes.toml` says what each is for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exceptions {
    common: HashSet<String>,
    exact: HashSet<String>,
    everywhere: HashSet<String>,
    short: HashSet<String>,
    neighbours: HashSet<String>,
    namespaces: HashSet<String>,
    own: BTreeMap<String, Vec<String>>,
    honest: BTreeMap<String, Vec<String>>,
}

/// Known labels and all that is one edit from them.
#[derive(Clone, Debug)]
pub(super) struct Neighbourhood {
    exceptions: Exceptions,
    /// Known domains: those guarded and those honest by exception.
    domains: NameSet,
    /// The first known domain of each label.
    labels: NameMap<Box<str>>,
    /// Labels by themselves with at most one character taken out.
    deletions: NameMap<Vec<Box<str>>>,
    /// Labels by what they look like.
    skeletons: NameMap<Box<str>>,
    longest: usize,
}

impl Neighbourhood {
    /// Starts from the program's own lists.
    pub(super) fn read(text: &str) -> Neighbourhood {
        let exceptions: Exceptions = toml::from_str(text).expect("the program's own data, read by the tests");
        let honest = domains(&exceptions.honest);
        Neighbourhood {
            exceptions,
            domains: honest.into_iter().map(String::into_boxed_str).collect(),
            labels: NameMap::default(),
            deletions: NameMap::default(),
            skeletons: NameMap::default(),
            longest: 0,
        }
    }

    /// Guards the vendors' other domains: last, so that a label is named by the domain that serves something.
    pub(super) fn protect_own(&mut self) {
        domains(&self.exceptions.own).iter().for_each(|domain| self.protect(domain));
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
        if self.exceptions.exact.contains(label) {
            return;
        }
        for spelling in std::iter::once(label.to_owned()).chain(deletions(label)) {
            self.deletions.entry(spelling.into()).or_default().push(label.into());
        }
    }

    /// What the host imitates, if anything.
    pub(super) fn look_alike(&self, host: &Host) -> Option<LookAlike> {
        host.name()?;
        let domain = psl::domain_str(host.as_str())?;
        let (label, suffix) = domain.split_once('.')?;
        // On a network of one's own a resolver's search list makes `github.com.corp` of `github.com`.
        if self.domains.contains(domain) || self.exceptions.namespaces.contains(suffix) {
            return None;
        }
        let before = host.as_str().strip_suffix(suffix)?.trim_end_matches('.');
        self.imitated_label(label).or_else(|| self.embedded(before))
    }

    /// Judges the label that somebody registered, under a suffix that is not its owner's.
    fn imitated_label(&self, label: &str) -> Option<LookAlike> {
        if self.exceptions.neighbours.contains(label) {
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
        if let Some(known) = near(label) {
            return Some(known);
        }
        // Each character left out in turn, in one buffer: this is looked up for every request to an unknown host.
        let mut shorter = label.get(1..)?.to_owned();
        for at in 0..label.len() {
            if at > 0 {
                shorter.replace_range(at - 1..at, &label[at - 1..at]);
            }
            if let Some(known) = near(&shorter) {
                return Some(known);
            }
        }
        None
    }

    /// Whether the labels in front of the public suffix spell a known domain.
    fn embedded(&self, before: &str) -> Option<LookAlike> {
        let known = |text: &str| self.domains.get(text).map(|domain| found(domain, How::Embedded));
        let starts = before.match_indices('.').map(|(dot, _)| dot + 1);
        for rest in [0].into_iter().chain(starts).map(|start| &before[start..]) {
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

fn domains(grouped: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    grouped
        .iter()
        .flat_map(|(suffix, labels)| labels.iter().map(move |label| format!("{label}.{suffix}")))
        .collect()
}

fn found(domain: &str, how: How) -> LookAlike {
    LookAlike { of: domain.to_owned(), how }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Catalogue;

    fn judge(name: &str) -> Option<(String, How)> {
        let host = Host::parse(name.as_bytes()).unwrap_or_else(|e| panic!("`{name}`: {e}"));
        Catalogue::builtin().look_alike(&host).map(|found| (found.of, found.how))
    }

    #[test]
    fn imitations_are_named_with_what_they_imitate_and_how() {
        use How::{Embedded, Homoglyph, OneEdit, OtherSuffix};
        for (name, of, how) in [
            // the known label under another suffix
            ("anthropic.dev", "anthropic.com", OtherSuffix),
            ("api.anthropic.co", "anthropic.com", OtherSuffix),
            ("anthropic.co.uk", "anthropic.com", OtherSuffix),
            ("api.openai.net", "openai.com", OtherSuffix),
            ("github.co", "github.com", OtherSuffix),
            ("raw.github.example", "github.com", OtherSuffix),
            ("gitlab.test", "gitlab.com", OtherSuffix),
            ("huggingface.vercel.app", "huggingface.co", OtherSuffix),
            ("claude.example", "claude.ai", OtherSuffix),
            ("slack.zip", "slack.com", OtherSuffix),
            ("rubygems.dev", "rubygems.org", OtherSuffix),
            ("groq.io", "groq.com", OtherSuffix),
            ("docker.com.example", "docker.com", Embedded),
            // one edit
            ("antropic.com", "anthropic.com", OneEdit),
            ("anthropicc.com", "anthropic.com", OneEdit),
            ("api.anhtropic.com", "anthropic.com", OneEdit),
            ("anthrobic.com", "anthropic.com", OneEdit),
            ("opena.com", "openai.com", OneEdit),
            ("openaii.com", "openai.com", OneEdit),
            ("opneai.com", "openai.com", OneEdit),
            ("githhub.com", "github.com", OneEdit),
            ("githb.com", "github.com", OneEdit),
            ("gtihub.com", "github.com", OneEdit),
            ("guthub.com", "github.com", OneEdit),
            ("git-hub.example", "github.com", OneEdit),
            ("hugginface.co", "huggingface.co", OneEdit),
            ("deepseeek.com", "deepseek.com", OneEdit),
            ("npmjss.example", "npmjs.com", OneEdit),
            ("rubygem.example", "rubygems.org", OneEdit),
            ("microsft.com", "microsoft.com", OneEdit),
            ("paypa1.example", "paypal.com", Homoglyph),
            // drawn alike
            ("0penai.com", "openai.com", Homoglyph),
            ("api.0pena1.example", "openai.com", Homoglyph),
            ("g1thub.com", "github.com", Homoglyph),
            ("glthub.com", "github.com", Homoglyph),
            ("rnicrosoft.com", "microsoft.com", Homoglyph),
            ("rnistral.example", "mistral.ai", Homoglyph),
            ("s1ack.com", "slack.com", Homoglyph),
            ("d1sc0rd.com", "discord.com", Homoglyph),
            ("xn--penai-iye.example", "openai.com", Homoglyph),
            ("xn--n-8sbn9ak9k.com", "openai.com", Homoglyph),
            ("xn--gthub-n4a.com", "github.com", Homoglyph),
            ("xn--githb-bva.com", "github.com", Homoglyph),
            ("xn--80ak6aa92e.com", "apple.com", Homoglyph),
            ("xn--anthropi-mch.com", "anthropic.com", Homoglyph),
            // in front of a stranger's
            ("api.anthropic.com.evil.example", "anthropic.com", Embedded),
            ("github.com.evil.example", "github.com", Embedded),
            ("login.github.com.a.b.c.workers.dev", "github.com", Embedded),
            ("github-com.example", "github.com", Embedded),
            ("api-openai-com.evil.example", "openai.com", Embedded),
            ("www-anthropic-com.pages.dev", "anthropic.com", Embedded),
        ] {
            let (found, by) = judge(name).unwrap_or_else(|| panic!("`{name}` passes for honest"));
            let label = |domain: &str| domain.split('.').next().map(str::to_owned);
            assert_eq!((label(&found), by), (label(of), how), "`{name}`: {found}");
        }
    }

    #[test]
    fn honest_names_are_not_accused() {
        for (why, names) in [
            ("plain", "example.com www.example.org localhost 192.0.2.1 [::1] com co.uk github.io"),
            ("known ones", "api.anthropic.com github.com status.github.com anthropic.skilljar.com"),
            (
                "the owners' other domains",
                "www.githubstatus.com github.blog githubnext.com openai.fm www.amazon.de amazon.co.jp \
                 www.google.fr google.co.uk microsoft.de python.it ubuntu.fr openstreetmap.de slack.dev \
                 supabase.co kubernetes.dev stackoverflow.co telegram.me discord.gift",
            ),
            (
                "one's own pages and networks",
                "openai.github.io anthropics.github.io huggingface.github.io ollama.readthedocs.io \
                 host.docker.internal github.com.corp api.openai.com.default.svc.cluster.local gitlab.local \
                 gitlab.corp.example github.example.com docker-registry.example.com sentry-dev.example.com \
                 openai-proxy.example.com anthropic-eval.example.net my-github-mirror.example",
            ),
            (
                "neighbours in good faith",
                "openapi.example openal.org anthropics.com dockers.com server.com clang.org nestjs.com \
                 canvas.net sigma.com quantum.com tulip.io motion.dev strike.me black.com clause.example \
                 gender.com paypay.ne.jp nugget.com cradle.com xmake.io vlang.io scapy.net discard.example \
                 stack.com voices.com ngrok.com entry.com rapier.rs weber.com credit.com together.org fireworks.com linear.net \
                 render.net replicated.com element.org",
            ),
            (
                "long and strange",
                "a.b.c.d.e.f.g.h.i.j.k.example xn--mnchen-3ya.de xn--bcher-kva.example \
                 xn--fiqs8s.cn d111111abcdef8.cloudfront.example this-is-a-rather-long-label-of-nothing.com",
            ),
        ] {
            for name in names.split_whitespace() {
                assert_eq!(judge(name), None, "`{name}`: {why}");
            }
        }
    }

    #[test]
    fn domains_of_a_policy_file_are_guarded_too() {
        let spec = crate::catalogue::ServiceSpec {
            name: "house-model".into(),
            class: "model".into(),
            kind: "inference".into(),
            domains: [("example".to_owned(), vec!["housemodel".to_owned()])].into(),
            ..Default::default()
        };
        let catalogue = Catalogue::builtin().with_services(&[spec]).unwrap();
        let host = Host::parse(b"api.housemodell.test").unwrap();
        let found = catalogue.look_alike(&host).map(|found| found.of);
        assert_eq!(found.as_deref(), Some("housemodel.example"));
        assert_eq!(Catalogue::builtin().look_alike(&host), None);
    }
}
