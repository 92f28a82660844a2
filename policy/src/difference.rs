//! What one policy says otherwise than another, and which way: looser or tighter.
//!
//! Policies are compared by what they mean, not by how they are written: order, files and comments do not matter, nor
//! whether a destination stands in a list or in a rule that says nothing else.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::decide::Policy;
use crate::document::Document;
use crate::rule::{Destination, LimitChanges, Origin, Rule};
use crate::verdict::{Action, Class, Mode, UploadLimits};

mod coverage;

use coverage::covers;

/// Which way a change goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Something passes, or is dialled or not looked into, that was not.
    Looser,
    /// Something is stopped or asked about that was not.
    Tighter,
    /// That depends on the request.
    Depends,
    /// It is said in other words, and was said before.
    Moved,
}

impl Effect {
    /// The word shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Effect::Looser => "looser",
            Effect::Tighter => "tighter",
            Effect::Depends => "depends",
            Effect::Moved => "moved",
        }
    }

    fn other_way(self) -> Effect {
        match self {
            Effect::Looser => Effect::Tighter,
            Effect::Tighter => Effect::Looser,
            same @ (Effect::Depends | Effect::Moved) => same,
        }
    }
}

/// One thing that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Which way.
    pub effect: Effect,
    /// What kind of thing: `destination`, `rule`, `mode`, `default`, `upload`, `secret`, `known`, `passthrough`,
    /// `address`, `service`, `approved`.
    pub what: &'static str,
    /// Which.
    pub name: String,
    /// What it was; `None` where it was not there.
    pub from: Option<String>,
    /// What it is; `None` where it is gone.
    pub to: Option<String>,
}

/// Everything that `after` says otherwise than `before`.
pub fn between(before: &Policy, after: &Policy) -> Vec<Change> {
    let (before, after) = (before.document(), after.document());
    let mut changes = Changes(Vec::new());
    changes.mode(before.mode, after.mode);
    for class in Class::ALL {
        let of = |document: &Document| *document.defaults.of(class);
        changes.ordered("default", class.as_str(), of(before), of(after), Action::as_str);
    }
    changes.destinations(before, after);
    changes.rules(before, after);
    changes.limits(before, after);
    for class in Class::ALL {
        let of = |document: &Document| *document.secrets.of(class);
        changes.ordered("secret", class.as_str(), of(before), of(after), |action| action.as_str());
    }
    let known = |document: &Document| {
        let text = |source: &crate::document::KnownSource| match source.to.is_empty() {
            true => source.from.to_string(),
            false => format!("{} to {}", source.from, listed(&source.to)),
        };
        document.known.iter().map(text).collect::<BTreeSet<_>>()
    };
    changes.set("known", &known(before), &known(after), Effect::Tighter);
    let passthrough = |document: &Document| texts(&document.passthrough);
    changes.set("passthrough", &passthrough(before), &passthrough(after), Effect::Looser);
    let addresses = |document: &Document| texts(document.addresses.entries());
    changes.set("address", &addresses(before), &addresses(after), Effect::Looser);
    changes.services(before, after);
    let approved = |document: &Document| {
        let text = |approval: &crate::document::Approval| {
            let port = approval.port.map(|port| format!(":{port}")).unwrap_or_default();
            format!("{}{port} for {} by {}", approval.host, approval.agent, approval.rule)
        };
        document.approved.iter().map(text).collect::<BTreeSet<_>>()
    };
    changes.set("approved", &approved(before), &approved(after), Effect::Looser);
    changes.0
}

struct Changes(Vec<Change>);

impl Changes {
    fn push(
        &mut self,
        effect: Effect,
        what: &'static str,
        name: &str,
        from: Option<String>,
        to: Option<String>,
    ) {
        self.0.push(Change { effect, what, name: name.to_owned(), from, to });
    }

    fn mode(&mut self, before: Mode, after: Mode) {
        if before != after {
            let effect = if after == Mode::Enforce { Effect::Tighter } else { Effect::Looser };
            let word = |mode: Mode| Some(mode.as_str().to_owned());
            self.push(effect, "mode", "mode", word(before), word(after));
        }
    }

    /// Values of which the greater is the stricter.
    fn ordered<T: Ord + Copy>(
        &mut self,
        what: &'static str,
        name: &str,
        before: T,
        after: T,
        word: impl Fn(T) -> &'static str,
    ) {
        if before != after {
            let effect = if after > before { Effect::Tighter } else { Effect::Looser };
            self.push(effect, what, name, Some(word(before).to_owned()), Some(word(after).to_owned()));
        }
    }

    /// Members that come and go; `added` is what one more means.
    fn set(
        &mut self,
        what: &'static str,
        before: &BTreeSet<String>,
        after: &BTreeSet<String>,
        added: Effect,
    ) {
        for gone in before.difference(after) {
            self.push(added.other_way(), what, gone, Some(gone.clone()), None);
        }
        for new in after.difference(before) {
            self.push(added, what, new, None, Some(new.clone()));
        }
    }

    fn destinations(&mut self, earlier: &Document, later: &Document) {
        let (before, after) = (plain(earlier), plain(later));
        let all: BTreeSet<&Destination> = before.keys().chain(after.keys()).collect();
        for destination in all {
            let (old, new) = (before.get(destination).copied(), after.get(destination).copied());
            let effect = match (old, new) {
                (old, new) if old == new => continue,
                (Some(old), Some(new)) if new > old => Effect::Tighter,
                (Some(_), Some(_)) => Effect::Looser,
                (None, Some(new)) if covers(earlier, &entry(destination, new), &later.catalogue) => {
                    Effect::Moved
                }
                (Some(old), None) if covers(later, &entry(destination, old), &earlier.catalogue) => {
                    Effect::Moved
                }
                (None, Some(new)) => presence(new),
                (Some(old), None) => presence(old).other_way(),
                (None, None) => continue,
            };
            let word = |action: Option<Action>| action.map(|action| action.as_str().to_owned());
            self.push(effect, "destination", &destination.to_string(), word(old), word(new));
        }
    }

    fn rules(&mut self, earlier: &Document, later: &Document) {
        let conditional = |document: &Document| -> BTreeMap<String, Rule> {
            let rules = document.rules.iter().filter(|rule| !is_plain(rule));
            rules.map(|rule| (rule.name.to_string(), rule.clone())).collect()
        };
        let (before, after) = (conditional(earlier), conditional(later));
        let all: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for name in all {
            let (old, new) = (before.get(name), after.get(name));
            let effect = match (old, new) {
                (Some(old), Some(new)) if old.says_the_same(new) => continue,
                (Some(old), Some(new)) => {
                    let was = covers(earlier, new, &later.catalogue);
                    let stays = covers(later, old, &earlier.catalogue);
                    changed_within(old, new, was, stays)
                }
                (Some(old), None) if covers(later, old, &earlier.catalogue) => Effect::Moved,
                (None, Some(new)) if covers(earlier, new, &later.catalogue) => Effect::Moved,
                (Some(old), None) => rule_presence(old).other_way(),
                (None, Some(new)) => rule_presence(new),
                (None, None) => continue,
            };
            self.push(effect, "rule", name, old.map(described), new.map(described));
        }
    }

    fn limits(&mut self, before: &Document, after: &Document) {
        let (old, new) = (before.uploads.of(Class::Unknown), after.uploads.of(Class::Unknown));
        // What is the same in every class. A longer window counts more.
        self.limit("window", old.window_seconds.into(), new.window_seconds.into(), Effect::Tighter, "s");
        self.limit("window_block_agent", old.window_block_agent, new.window_block_agent, Effect::Looser, "B");
        for class in Class::ALL {
            let (old, new) = (before.uploads.of(class), after.uploads.of(class));
            for ((name, old), (_, new)) in each_limit(old).into_iter().zip(each_limit(new)) {
                self.limit(&format!("{class} {name}"), old, new, Effect::Looser, "B");
            }
        }
    }

    /// A number; `greater` is what a greater one means.
    fn limit(&mut self, name: &str, old: u64, new: u64, greater: Effect, unit: &str) {
        if old != new {
            let effect = if new > old { greater } else { greater.other_way() };
            self.push(effect, "upload", name, Some(format!("{old} {unit}")), Some(format!("{new} {unit}")));
        }
    }

    fn services(&mut self, before: &Document, after: &Document) {
        let named = |document: &Document| -> BTreeMap<String, String> {
            let text = |service| serde_json::to_string(service).unwrap_or_default();
            document.services.iter().map(|service| (service.name.clone(), text(service))).collect()
        };
        let (before, after) = (named(before), named(after));
        let all: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for name in all {
            let (old, new) = (before.get(name), after.get(name));
            if old != new {
                self.push(Effect::Depends, "service", name, old.cloned(), new.cloned());
            }
        }
    }
}

/// Whether a rule says only what is done with its destinations, as an entry of a list does.
fn is_plain(rule: &Rule) -> bool {
    rule.is_unconditional() && rule.agents.is_empty() && !rule.observe && rule.uploads.is_empty()
}

/// The strictest action of each destination, of those that nothing else is said of.
fn plain(document: &Document) -> BTreeMap<Destination, Action> {
    let mut all = BTreeMap::new();
    for rule in document.rules.iter().filter(|rule| is_plain(rule)) {
        for to in &rule.to {
            let action = all.entry(to.clone()).or_insert(rule.action);
            *action = (*action).max(rule.action);
        }
    }
    all
}

/// What it means that something is named which was not.
fn presence(action: Action) -> Effect {
    match action {
        Action::Allow => Effect::Looser,
        // Tighter than allowing, looser than denying.
        Action::Ask => Effect::Depends,
        Action::Deny => Effect::Tighter,
    }
}

fn rule_presence(rule: &Rule) -> Effect {
    if rule.observe { Effect::Depends } else { presence(rule.action) }
}

/// An entry of a list, as a rule.
fn entry(to: &Destination, action: Action) -> Rule {
    Rule {
        name: "".into(),
        action,
        to: vec![to.clone()],
        methods: Vec::new(),
        paths: Vec::new(),
        agents: Vec::new(),
        observe: false,
        uploads: LimitChanges::default(),
        wide: true,
        why: None,
        listed: true,
        origin: Origin { file: "".into(), line: 1 },
    }
}

/// Which way a rule went, where the earlier policy said all of the new one (`was`) or the later says all of the old one
/// (`stays`).
fn changed_within(old: &Rule, new: &Rule, was: bool, stays: bool) -> Effect {
    let more = if old.action == Action::Allow { Effect::Looser } else { Effect::Tighter };
    match (was, stays) {
        _ if old.action != new.action || old.action == Action::Ask => changed(old, new),
        (true, true) => Effect::Moved,
        (true, false) => more.other_way(),
        (false, true) => more,
        (false, false) => changed(old, new),
    }
}

/// Which way a rule went, if all of it went one way.
fn changed(old: &Rule, new: &Rule) -> Effect {
    if old.observe != new.observe || old.action == Action::Ask && new.action == Action::Ask {
        return Effect::Depends;
    }
    if old.action != new.action {
        let same = new.to == old.to
            && (&new.methods, &new.paths, &new.agents) == (&old.methods, &old.paths, &old.agents)
            && new.uploads == old.uploads;
        let effect = if new.action > old.action { Effect::Tighter } else { Effect::Looser };
        return if same { effect } else { Effect::Depends };
    }
    // More that it is about.
    let more = if old.action == Action::Allow { Effect::Looser } else { Effect::Tighter };
    let mut ways = BTreeSet::new();
    ways.extend(reach(&old.to, &new.to, false));
    ways.extend(reach(&old.methods, &new.methods, true));
    ways.extend(reach(&old.paths, &new.paths, true));
    ways.extend(reach(&old.agents, &new.agents, true));
    let mut effects: BTreeSet<Effect> = ways
        .into_iter()
        .map(|wider: Option<bool>| match wider {
            Some(true) => more,
            Some(false) => more.other_way(),
            None => Effect::Depends,
        })
        .collect();
    effects.extend(limits_changed(&old.uploads, &new.uploads));
    match effects.into_iter().collect::<Vec<_>>().as_slice() {
        [one] => *one,
        _ => Effect::Depends,
    }
}

/// Whether a list reaches further: `Some(Some(true))` if it does, `Some(None)` if it reaches elsewhere, `None` if it is
/// the same. An empty list may mean all.
fn reach<T: PartialEq>(old: &[T], new: &[T], empty_is_all: bool) -> Option<Option<bool>> {
    let within = |a: &[T], b: &[T]| {
        (empty_is_all && b.is_empty())
            || (!(empty_is_all && a.is_empty()) && a.iter().all(|item| b.contains(item)))
    };
    match (within(old, new), within(new, old)) {
        (true, true) => None,
        (true, false) => Some(Some(true)),
        (false, true) => Some(Some(false)),
        (false, false) => Some(None),
    }
}

fn limits_changed(old: &LimitChanges, new: &LimitChanges) -> Option<Effect> {
    let all = |limits: &LimitChanges| {
        [limits.request_alert, limits.request_block, limits.window_alert, limits.window_block]
    };
    let ways: BTreeSet<Effect> = all(old)
        .into_iter()
        .zip(all(new))
        .filter(|(old, new)| old != new)
        .map(|pair| match pair {
            (Some(old), Some(new)) if new > old => Effect::Looser,
            (Some(_), Some(_)) => Effect::Tighter,
            // Against the limit of the class, which may be either.
            _ => Effect::Depends,
        })
        .collect();
    match ways.into_iter().collect::<Vec<_>>().as_slice() {
        [] => None,
        [one] => Some(*one),
        _ => Some(Effect::Depends),
    }
}

fn described(rule: &Rule) -> String {
    let mut text = format!("{} {}", rule.action, listed(&rule.to));
    let mut say = |word: &str, items: String| {
        if !items.is_empty() {
            text.push_str(&format!(" {word} {items}"));
        }
    };
    say("methods", rule.methods.join(", "));
    say("paths", listed(&rule.paths));
    say("agents", rule.agents.iter().map(|agent| agent.as_str()).collect::<Vec<_>>().join(", "));
    for (name, limit) in [
        ("request_alert", rule.uploads.request_alert),
        ("request_block", rule.uploads.request_block),
        ("window_alert", rule.uploads.window_alert),
        ("window_block", rule.uploads.window_block),
    ] {
        say(name, limit.map(|limit| format!("{limit} B")).unwrap_or_default());
    }
    say("observed", if rule.observe { "only".to_owned() } else { String::new() });
    text
}

fn each_limit(limits: &UploadLimits) -> [(&'static str, u64); 4] {
    [
        ("request_alert", limits.request_alert),
        ("request_block", limits.request_block),
        ("window_alert", limits.window_alert),
        ("window_block", limits.window_block),
    ]
}

fn listed<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

fn texts<T: ToString>(items: &[T]) -> BTreeSet<String> {
    items.iter().map(T::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Catalogue;
    use crate::document::Source;

    fn policy(text: &str) -> Policy {
        let source = Source { name: "policy.toml", text: &format!("version = 1\n{text}") };
        Policy::parse(&[source], Catalogue::builtin())
            .unwrap_or_else(|mistakes| panic!("{text}: {mistakes:?}"))
    }

    fn told(before: &str, after: &str) -> Vec<String> {
        let changes = between(&policy(before), &policy(after));
        let side = |side: &Option<String>| side.clone().unwrap_or_else(|| "-".to_owned());
        let tell = |change: &Change| {
            let Change { effect, what, name, from, to } = change;
            format!("{} {what} {name}: {} > {}", effect.as_str(), side(from), side(to))
        };
        changes.iter().map(tell).collect()
    }

    #[test]
    fn each_change_is_told_with_its_way_and_the_other_way_round() {
        let rule =
            |more: &str| format!("[[rule]]\nname = \"r\"\naction = \"allow\"\nto = [\"a.test\"]\n{more}");
        let deny =
            |more: &str| format!("[[rule]]\nname = \"r\"\naction = \"deny\"\nto = [\"a.test\"]\n{more}");
        for (before, after, expected) in [
            ("", "allow = [\"a.test\"]", "looser destination a.test: - > allow"),
            ("", "deny = [\"a.test\"]", "tighter destination a.test: - > deny"),
            ("", "ask = [\"a.test\"]", "depends destination a.test: - > ask"),
            ("allow = [\"a.test\"]", "ask = [\"a.test\"]", "tighter destination a.test: allow > ask"),
            ("mode = \"observe\"", "", "tighter mode mode: observe > enforce"),
            ("", "[defaults]\ntool = \"ask\"", "looser default tool: deny > ask"),
            ("", "[secrets.model]\naction = \"mask\"", "looser secret model: block > mask"),
            (
                "",
                "[uploads.model]\nrequest_block = \"1 MiB\"",
                "tighter upload model request_block: 33554432 B > 1048576 B",
            ),
            ("", "[uploads]\nwindow = \"20m\"", "tighter upload window: 600 s > 1200 s"),
            ("", "[tls]\npassthrough = [\"a.test\"]", "looser passthrough a.test: - > a.test"),
            ("", "[addresses]\nallow = [\"10.0.0.0/8\"]", "looser address 10.0.0.0/8: - > 10.0.0.0/8"),
            ("", "[secrets]\nknown = [\"env:X\"]", "tighter known env:X: - > env:X"),
            (
                &rule("methods = [\"GET\"]"),
                &rule("methods = [\"GET\", \"POST\"]"),
                "looser rule r: allow a.test methods GET > allow a.test methods GET, POST",
            ),
            (
                &rule("methods = [\"GET\"]\npaths = [\"/a\"]"),
                &rule("methods = [\"GET\"]"),
                "looser rule r: allow a.test methods GET paths /a > allow a.test methods GET",
            ),
            (
                &deny("methods = [\"GET\"]"),
                &deny("methods = [\"GET\", \"POST\"]"),
                "tighter rule r: deny a.test methods GET > deny a.test methods GET, POST",
            ),
            (
                &rule("uploads = { request_block = \"1 KiB\" }"),
                &rule("uploads = { request_block = \"2 KiB\" }"),
                "looser rule r: allow a.test request_block 1024 B > allow a.test request_block 2048 B",
            ),
            (
                &rule("methods = [\"GET\"]"),
                &rule("methods = [\"POST\"]"),
                "depends rule r: allow a.test methods GET > allow a.test methods POST",
            ),
        ] {
            assert_eq!(told(before, after), [expected], "`{before}` to `{after}`");
            let back = told(after, before);
            assert_eq!(back.len(), 1, "`{after}` to `{before}`: {back:?}");
            let way = |line: &str| line.split(' ').next().unwrap().to_owned();
            let turned = match way(expected).as_str() {
                "looser" => "tighter",
                "tighter" => "looser",
                other => other,
            }
            .to_owned();
            assert_eq!(way(&back[0]), turned, "`{after}` to `{before}`: {back:?}");
        }
    }

    #[test]
    fn what_was_said_before_in_other_words_is_moved() {
        let rule = |name: &str, action: &str, more: &str| {
            format!("[[rule]]\nname = \"{name}\"\naction = \"{action}\"\n{more}\n")
        };
        let reads = "methods = [\"GET\", \"HEAD\"]";
        for (before, after, expected) in [
            // A kind, and of it what was used.
            (
                "allow = [\"@registries\"]".to_owned(),
                "allow = [\"@npm\"]".to_owned(),
                &["moved destination @npm: - > allow", "tighter destination @registries: allow > -"][..],
            ),
            (
                "allow = [\"@npm\"]".to_owned(),
                "allow = [\"@registries\"]".to_owned(),
                &["moved destination @npm: allow > -", "looser destination @registries: - > allow"],
            ),
            (
                "allow = [\"*.a.test\", \"@github\"]".to_owned(),
                "allow = [\"b.a.test\", \"a.test\", \"api.github.com\"]".to_owned(),
                &[
                    "looser destination a.test: - > allow",
                    "moved destination api.github.com: - > allow",
                    "moved destination b.a.test: - > allow",
                    "tighter destination *.a.test: allow > -",
                    "tighter destination @github: allow > -",
                ],
            ),
            // From a list into a rule that only reads.
            (
                "allow = [\"a.test\"]".to_owned(),
                rule("r", "allow", &format!("to = [\"a.test\"]\n{reads}")),
                &[
                    "tighter destination a.test: allow > -",
                    "moved rule r: - > allow a.test methods GET, HEAD",
                ],
            ),
            // A rule under another name.
            (
                rule("r", "allow", &format!("to = [\"a.test\"]\n{reads}")),
                rule("s", "allow", &format!("to = [\"a.test\"]\n{reads}")),
                &[
                    "moved rule r: allow a.test methods GET, HEAD > -",
                    "moved rule s: - > allow a.test methods GET, HEAD",
                ],
            ),
            // Another port is another destination.
            (
                "allow = [\"@registries\"]".to_owned(),
                "allow = [\"@registries\", \"@npm:8443\"]".to_owned(),
                &["looser destination @npm:8443: - > allow"],
            ),
            (
                "[defaults]\nunknown = \"allow\"".to_owned(),
                "allow = [\"a.test\"]\n[defaults]\nunknown = \"allow\"".to_owned(),
                &["moved destination a.test: - > allow"],
            ),
            (
                "deny = [\"*.a.test\"]".to_owned(),
                "deny = [\"*.a.test\", \"b.a.test:8443\"]".to_owned(),
                &["moved destination b.a.test:8443: - > deny"],
            ),
        ] {
            let mut told = told(&before, &after);
            let mut expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
            told.sort();
            expected.sort();
            assert_eq!(told, expected, "`{before}` to `{after}`");
        }
    }

    #[test]
    fn how_a_policy_is_written_is_no_difference() {
        let one = "allow = [\"b.test\", \"a.test\"]\ndeny = [\"c.test\"]";
        let other = "deny = [\"c.test\"]\n[[rule]]\nname = \"both\"\naction = \"allow\"\nto = [\"a.test\", \"B.test\"]";
        assert_eq!(told(one, other), Vec::<String>::new());
    }
}
