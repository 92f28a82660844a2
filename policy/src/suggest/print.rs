//! A suggestion as a policy file: what is allowed with its evidence, what stays, and what was left out.

use std::fmt::{self, Display, Formatter, Write as _};

use super::{Evidence, LeftOut, Line, Suggestion};
use crate::document::Document;
use crate::document::advice::quoted;
use crate::document::print::{print_listed, print_tables};
use crate::report::Moment;
use crate::rule::{Hosts, LimitChanges, Origin, Rule};
use crate::verdict::{Action, Mode};

/// The name of the rule for what is only read.
const READ_ONLY: &str = "only read";

/// The file.
pub(super) fn text(document: &Document, suggestion: &Suggestion) -> String {
    let kept = kept(document, suggestion);
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write!(out, "{}", File { document: &kept, suggestion });
    out
}

/// What stays of the policy in force: all but what it allows.
fn kept(document: &Document, suggestion: &Suggestion) -> Document {
    let mut kept = document.clone();
    kept.mode = Mode::Enforce;
    kept.rules.retain(|rule| rule.action != Action::Allow);
    for class in crate::verdict::Class::ALL {
        let default = kept.defaults.of_mut(class);
        if *default == Action::Allow {
            *default = Action::Deny;
        }
    }
    let listed = |to: &crate::rule::Destination| format!("deny {}", quoted(&to.to_string()));
    for to in &suggestion.denied {
        if kept.rules.iter().all(|rule| *rule.name != *listed(to)) {
            kept.rules.push(Rule {
                name: listed(to).into(),
                action: Action::Deny,
                to: vec![to.clone()],
                methods: Vec::new(),
                paths: Vec::new(),
                agents: Vec::new(),
                observe: false,
                uploads: LimitChanges::default(),
                wide: false,
                why: None,
                listed: true,
                origin: Origin { file: "suggestion".into(), line: 1 },
            });
        }
    }
    kept
}

struct File<'a> {
    document: &'a Document,
    suggestion: &'a Suggestion,
}

impl Display for File<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let File { document, suggestion } = self;
        writeln!(f, "# Suggested by `outgate policy suggest` from {}.", Shown(&suggestion.evidence))?;
        writeln!(
            f,
            "# Read every line before you put it in force; `outgate policy replay` says what it would stop."
        )?;
        writeln!(f, "version = 1\nmode = \"enforce\"\n\nallow = [")?;
        for line in suggestion.lines.iter().filter(|line| !line.is_narrow()) {
            entry(f, line)?;
        }
        writeln!(f, "]")?;
        print_listed(document, Action::Ask, f)?;
        print_listed(document, Action::Deny, f)?;
        rules(f, document, suggestion)?;
        print_tables(document, f)?;
        left_out(f, suggestion)
    }
}

impl Line {
    fn is_narrow(&self) -> bool {
        !self.methods.is_empty() || !self.paths.is_empty()
    }

    /// Whether it goes into the one rule for what is only read.
    fn is_read_only(&self) -> bool {
        self.paths.is_empty() && self.methods == ["GET", "HEAD"]
    }
}

fn rules(f: &mut Formatter<'_>, document: &Document, suggestion: &Suggestion) -> fmt::Result {
    let mut names = Names(document.rules.iter().map(|rule| rule.name.to_string()).collect());
    let (reads, narrow): (Vec<&Line>, Vec<&Line>) =
        suggestion.lines.iter().filter(|line| line.is_narrow()).partition(|line| line.is_read_only());
    if !reads.is_empty() {
        let name = quoted(&names.unique(READ_ONLY));
        writeln!(f, "\n[[rule]]\nname = {name}\naction = \"allow\"\nmethods = [\"GET\", \"HEAD\"]\nto = [")?;
        reads.into_iter().try_for_each(|line| entry(f, line))?;
        writeln!(f, "]")?;
    }
    for line in narrow {
        let name = quoted(&names.unique(&format!("{} as seen", line.to)));
        writeln!(f)?;
        comment(f, "", line)?;
        writeln!(f, "[[rule]]\nname = {name}\naction = \"allow\"")?;
        writeln!(f, "to = [{}]", quoted(&line.to.to_string()))?;
        for (key, values) in [("methods", &line.methods), ("paths", &line.paths)] {
            if !values.is_empty() {
                let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
                writeln!(f, "{key} = [{}]", values.join(", "))?;
            }
        }
    }
    Ok(())
}

/// Names of rules: no two may be the same.
struct Names(Vec<String>);

impl Names {
    fn unique(&mut self, wanted: &str) -> String {
        let numbered = (2..).map(|number| format!("{wanted} {number}"));
        let mut candidates = std::iter::once(wanted.to_owned()).chain(numbered);
        let name = candidates.find(|name| !self.0.contains(name)).unwrap_or_default();
        self.0.push(name.clone());
        name
    }
}

fn entry(f: &mut Formatter<'_>, line: &Line) -> fmt::Result {
    comment(f, "  ", line)?;
    writeln!(f, "  {},", quoted(&line.to.to_string()))
}

fn comment(f: &mut Formatter<'_>, indent: &str, line: &Line) -> fmt::Result {
    writeln!(f, "{indent}# {}", Shown(&line.evidence))?;
    if !matches!(line.to.hosts, Hosts::One(_)) {
        let hosts: Vec<&str> = line.hosts.iter().map(|host| host.as_str()).collect();
        writeln!(f, "{indent}# seen: {}", hosts.join(", "))?;
    }
    if !line.risks.is_empty() {
        writeln!(f, "{indent}# mind: {}", plain(&line.risks.join("; ")))?;
    }
    Ok(())
}

fn left_out(f: &mut Formatter<'_>, suggestion: &Suggestion) -> fmt::Result {
    let Suggestion { left_out, refused, denied, overlooked, .. } = suggestion;
    let tell = |f: &mut Formatter<'_>, left: &LeftOut| {
        writeln!(f, "#   {}: {}; {}", plain(&left.what), plain(&left.words), Shown(&left.evidence))
    };
    if !left_out.is_empty() {
        writeln!(f, "\n# Left out, because somebody should look at it first:")?;
        left_out.iter().try_for_each(|left| tell(f, left))?;
    }
    if !denied.is_empty() {
        let hosts: Vec<String> = denied.iter().map(ToString::to_string).collect();
        writeln!(
            f,
            "# Denied above, because a service that was suggested would bring it along: {}",
            hosts.join(", ")
        )?;
    }
    if !refused.is_empty() {
        writeln!(
            f,
            "\n# Refused so far, because nothing allowed it. `outgate policy allow` adds what you want:"
        )?;
        refused.iter().try_for_each(|left| tell(f, left))?;
    }
    if *overlooked > 0 {
        writeln!(f, "\n# {overlooked} requests went to more destinations than are told apart here.")?;
    }
    Ok(())
}

/// Text of a record in a comment: in one line, nothing that steers a terminal.
fn plain(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

struct Shown<'a>(&'a Evidence);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Evidence { requests, request_bytes, sessions, agents, first, last } = self.0;
        let plural = |count: u64| if count == 1 { "" } else { "s" };
        write!(f, "{requests} request{}, {} sent", plural(*requests), Bytes(*request_bytes))?;
        match sessions {
            0 => {}
            count => write!(f, ", {count} session{}", plural(*count))?,
        }
        match agents.as_slice() {
            [] => {}
            few @ ([_] | [_, _] | [_, _, _]) => write!(f, " by {}", few.join(", "))?,
            [a, b, rest @ ..] => write!(f, " by {a}, {b} and {} more", rest.len())?,
        }
        match first.zip(*last) {
            Some((first, last)) if day(first) == day(last) => write!(f, ", on {}", day(first)),
            Some((first, last)) => write!(f, ", {} to {}", day(first), day(last)),
            None => Ok(()),
        }
    }
}

fn day(moment: Moment) -> String {
    crate::view::rfc3339(moment.0).chars().take("2026-11-21".len()).collect()
}

struct Bytes(u64);

impl Display for Bytes {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut units = UNITS.iter();
        let mut unit = units.next();
        while value >= 1023.95 {
            match units.next() {
                Some(next) => (value, unit) = (value / 1024.0, Some(next)),
                None => break,
            }
        }
        write!(f, "{value:.1} {}", unit.unwrap_or(&"KiB"))
    }
}
