//! What the files say, united as each is read, and judged when all are.

use std::collections::HashMap;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::advice::{nearest, quoted};
use super::reader::{Page, Span, Take, plain};
use super::scalar::{parse_window, print_size};
use super::service::{all_texts, service_spec};
use super::{Approval, ByClass, DEFAULT_LIMITS, Document, KnownFrom, KnownSource, Mistake, effective_limits};
use crate::address::{AddressEntry, AddressRules};
use crate::catalogue::{Catalogue, ServiceSpec};
use crate::rule::{AgentPattern, Destination, Hosts, LimitChanges, Origin, PathPattern, Rule};
use crate::target::Host;
use crate::verdict::{Action, Class, Mode, SecretAction, UploadLimits};

/// All that was said so far. A scalar that no file gives is `None`.
#[derive(Default)]
pub(super) struct Draft {
    mode: Option<Mode>,
    rules: Vec<Rule>,
    defaults: ByClass<Option<Action>>,
    uploads: LimitChanges,
    class_uploads: ByClass<LimitChanges>,
    window: Option<u32>,
    window_block_agent: Option<u64>,
    secrets: Option<SecretAction>,
    class_secrets: ByClass<Option<SecretAction>>,
    known: Vec<KnownSource>,
    passthrough: Vec<Destination>,
    addresses: Vec<AddressEntry>,
    services: Vec<(ServiceSpec, ServicePlaces)>,
    approved: Vec<Approval>,
    /// Names of the catalogue, with where they are used.
    names: Vec<(Arc<str>, Origin)>,
}

/// Where the texts of one `[[service]]` stand, for the catalogue's own judgement of them.
struct ServicePlaces {
    table: Origin,
    texts: HashMap<String, Origin>,
}

impl Draft {
    /// Takes one file in.
    pub(super) fn take(&mut self, page: &mut Page<'_>, file: &DeTable<'_>) {
        self.mode = stricter(self.mode, word(file, "mode", mode), |mode| *mode == Mode::Enforce);
        for action in [Action::Allow, Action::Ask, Action::Deny] {
            for (text, span) in file.texts(action.as_str()) {
                self.take_listed(page, action, text, &span);
            }
        }
        for (table, span) in file.tables("rule") {
            self.take_rule(page, table, &span);
        }
        if let Some(table) = file.table("defaults") {
            for class in Class::ALL {
                let default = self.defaults.of_mut(class);
                *default = (*default).max(word(table, class.as_str(), action));
            }
        }
        if let Some(table) = file.table("uploads") {
            self.take_uploads(table);
        }
        if let Some(table) = file.table("secrets") {
            self.take_secrets(page, table);
        }
        if let Some(table) = file.table("tls") {
            let entries = self.destinations(page, table, "passthrough", false);
            self.passthrough.extend(entries);
        }
        if let Some(table) = file.table("addresses") {
            for (text, span) in table.texts("allow") {
                match AddressEntry::parse(text) {
                    Ok(entry) => self.addresses.push(entry),
                    Err(message) => page.mistake(&span, text, &message),
                }
            }
        }
        for (table, span) in file.tables("service") {
            self.take_service(page, table, &span);
        }
        for (table, span) in file.tables("approved") {
            self.take_approved(page, table, &span);
        }
    }

    fn take_listed(&mut self, page: &mut Page<'_>, action: Action, text: &str, span: &Span) {
        let Some(destination) = self.destination(page, text, span, false) else { return };
        self.rules.push(Rule {
            name: format!("{action} {}", quoted(&destination.to_string())).into(),
            action,
            to: vec![destination],
            methods: Vec::new(),
            paths: Vec::new(),
            agents: Vec::new(),
            observe: false,
            uploads: LimitChanges::default(),
            wide: false,
            why: None,
            listed: true,
            origin: page.origin(span),
        });
    }

    fn take_rule(&mut self, page: &mut Page<'_>, table: &DeTable<'_>, span: &Span) {
        let wide = table.flag("wide");
        let to = self.destinations(page, table, "to", wide);
        let methods = parsed(page, table, "methods", parse_method);
        let paths = parsed(page, table, "paths", PathPattern::parse);
        let agents = parsed(page, table, "agents", AgentPattern::parse);
        for key in ["to", "methods", "paths", "agents"] {
            refuse_empty_list(page, table, key);
        }
        let Some(action) = word(table, "action", action) else { return };
        if let (Action::Deny, Some(value)) = (action, table.get("uploads")) {
            page.report(
                &value.span(),
                "`uploads` has no meaning in a rule that denies: leave it out".to_owned(),
            );
        }
        let mut rule = Rule {
            name: Arc::from(""),
            action,
            to: sorted(to),
            methods: sorted(methods),
            paths: sorted(paths),
            agents: sorted(agents),
            observe: table.flag("observe"),
            uploads: table.table("uploads").map(limit_changes).unwrap_or_default(),
            wide,
            why: table.text("why").map(|(text, _)| text.into()),
            listed: false,
            origin: page.origin(span),
        };
        match table.text("name") {
            Some((name, _)) => rule.name = name.into(),
            None => rule.name = described(&rule).into(),
        }
        self.rules.push(rule);
    }

    fn take_uploads(&mut self, table: &DeTable<'_>) {
        self.uploads.unite(&limit_changes(table));
        // A longer window counts more, so it is the stricter.
        let window = table.text("window").and_then(|(text, _)| parse_window(text).ok());
        self.window = self.window.max(window);
        self.window_block_agent =
            [self.window_block_agent, table.size("window_block_agent")].into_iter().flatten().min();
        for class in Class::ALL {
            if let Some(changes) = table.table(class.as_str()).map(limit_changes) {
                self.class_uploads.of_mut(class).unite(&changes);
            }
        }
    }

    fn take_secrets(&mut self, page: &mut Page<'_>, table: &DeTable<'_>) {
        self.secrets = self.secrets.max(word(table, "action", secret_action));
        for class in Class::ALL {
            let given = table.table(class.as_str()).and_then(|table| word(table, "action", secret_action));
            let action = self.class_secrets.of_mut(class);
            *action = (*action).max(given);
        }
        let entries = table.get("known").and_then(|value| value.get_ref().as_array());
        for entry in entries.into_iter().flatten() {
            let span = entry.span();
            match entry.get_ref() {
                DeValue::String(text) => self.take_known(page, text, &span, Vec::new()),
                DeValue::Table(table) => {
                    let to = self.destinations(page, table, "to", false);
                    if let Some((text, span)) = table.text("from") {
                        self.take_known(page, text, &span, to);
                    }
                }
                _ => {}
            }
        }
    }

    fn take_known(&mut self, page: &mut Page<'_>, text: &str, span: &Span, to: Vec<Destination>) {
        match parse_known(text) {
            Ok(from) => self.known.push(KnownSource { from, to: sorted(to), origin: page.origin(span) }),
            Err(message) => page.mistake(span, text, &message),
        }
    }

    fn take_service(&mut self, page: &mut Page<'_>, table: &DeTable<'_>, span: &Span) {
        let spec = service_spec(page, table);
        let texts = all_texts(table).into_iter().map(|(text, span)| (text, page.origin(&span))).collect();
        self.services.push((spec, ServicePlaces { table: page.origin(span), texts }));
    }

    fn take_approved(&mut self, page: &mut Page<'_>, table: &DeTable<'_>, span: &Span) {
        let host = table.text("host").and_then(|(text, span)| {
            let destination = self.destination(page, text, &span, false)?;
            match destination.hosts {
                Hosts::One(host) => Some((host, destination.port)),
                _ => {
                    page.mistake(
                        &span,
                        text,
                        "is not one host: an answer is about the host that was asked about",
                    );
                    None
                }
            }
        });
        let agent = table.text("agent").and_then(|(text, span)| match text.parse() {
            Ok(agent) => Some(agent),
            Err(_) => {
                page.mistake(&span, text, "is not one agent: an answer is about the agent that asked");
                None
            }
        });
        if let (Some((host, port)), Some(agent), Some((rule, _))) = (host, agent, table.text("rule")) {
            let by = table.text("by").map(|(text, _)| text.into());
            let at = table.get("at").map(|value| plain(value.get_ref()).into());
            self.approved.push(Approval {
                host,
                port,
                agent,
                rule: rule.into(),
                by,
                at,
                origin: page.origin(span),
            });
        }
    }

    fn destinations(
        &mut self,
        page: &mut Page<'_>,
        table: &DeTable<'_>,
        key: &str,
        wide: bool,
    ) -> Vec<Destination> {
        let texts = table.texts(key).into_iter();
        texts.filter_map(|(text, span)| self.destination(page, text, &span, wide)).collect()
    }

    fn destination(
        &mut self,
        page: &mut Page<'_>,
        text: &str,
        span: &Span,
        wide: bool,
    ) -> Option<Destination> {
        let destination = match Destination::parse(text) {
            Ok(destination) => destination,
            Err(message) => {
                page.mistake(span, text, &message);
                return None;
            }
        };
        if let (false, Some(suffix)) = (wide, destination.open_to_everyone()) {
            let whose = if suffix == "*" {
                "matches every name there is".to_owned()
            } else {
                format!("matches names that anyone can register under `{suffix}`")
            };
            page.mistake(
                span,
                text,
                &format!("{whose}: name a domain, or set `wide = true` in a `[[rule]]`"),
            );
        }
        if let Hosts::Named(name) = &destination.hosts {
            self.names.push((name.clone(), page.origin(span)));
        }
        Some(destination)
    }

    /// Judges what only all files together show, and fills in what none says.
    pub(super) fn finish(mut self, catalogue: &Catalogue, mistakes: &mut Vec<Mistake>) -> Option<Document> {
        let catalogue = self.extended(catalogue, mistakes)?;
        for (name, Origin { file, line }) in &self.names {
            if let Err(unknown) = catalogue.select(name) {
                mistakes.push(Mistake::new(file.clone(), *line, unknown.to_string()));
            }
        }
        self.rules.sort_by(|a, b| {
            (&a.name, &a.origin.file, a.origin.line).cmp(&(&b.name, &b.origin.file, b.origin.line))
        });
        // The same rule may stand in several files; two rules of one name may not, for answers name the rule.
        self.rules.dedup_by(|later, earlier| later.says_the_same(earlier));
        for pair in self.rules.windows(2).filter(|pair| pair[0].name == pair[1].name) {
            let (Origin { file, line }, other) = (&pair[1].origin, &pair[0].origin);
            let message =
                format!("`{}` names two rules: the other is at {}:{}", pair[1].name, other.file, other.line);
            mistakes.push(Mistake::new(file.clone(), *line, message));
        }
        self.known.sort_by(|a, b| (&a.from, &a.origin.file, &a.to).cmp(&(&b.from, &b.origin.file, &b.to)));
        self.known.dedup_by(|a, b| (&a.from, &a.origin.file, &a.to) == (&b.from, &b.origin.file, &b.to));
        self.approved.sort_by(|a, b| approval_key(a).cmp(&approval_key(b)));
        self.approved.dedup_by(|a, b| approval_key(a) == approval_key(b));
        let general = self.general_limits();
        Some(Document {
            mode: self.mode.unwrap_or(Mode::Enforce),
            warnings: self.warnings(),
            defaults: self.defaults.map(|default| default.unwrap_or(Action::Deny)),
            uploads: self.class_uploads.map(|changes| effective_limits(&general, changes)),
            secrets: self.class_secrets.map(|class| class.or(self.secrets).unwrap_or(SecretAction::Block)),
            rules: self.rules,
            known: self.known,
            passthrough: sorted(self.passthrough),
            addresses: AddressRules::new(self.addresses),
            services: self.services.into_iter().map(|(spec, _)| spec).collect(),
            approved: self.approved,
            catalogue,
        })
    }

    fn extended(&self, catalogue: &Catalogue, mistakes: &mut Vec<Mistake>) -> Option<Catalogue> {
        let specs: Vec<ServiceSpec> = self.services.iter().map(|(spec, _)| spec.clone()).collect();
        let problems = match catalogue.with_services(&specs) {
            Ok(extended) => return Some(extended),
            Err(problems) => problems,
        };
        let reported = mistakes.len();
        for problem in problems {
            let places = self.services.iter().filter(|(spec, _)| spec.name == problem.service);
            let text_at = places.clone().find_map(|(_, places)| places.texts.get(&problem.text));
            let table_at = places.clone().map(|(_, places)| &places.table).next();
            let Some(Origin { file, line }) = text_at.or(table_at).cloned() else { continue };
            // A word that is none was reported when the shape was checked.
            if mistakes[..reported].iter().any(|mistake| mistake.file == file && mistake.line == line) {
                continue;
            }
            let missing = problem.text.is_empty() && matches!(problem.field, "class" | "kind");
            let message = if missing {
                format!("the new service `{}` needs `{}`", problem.service, problem.field)
            } else {
                problem.message
            };
            mistakes.push(Mistake::new(file, line, message));
        }
        None
    }

    fn general_limits(&self) -> UploadLimits {
        let mut limits = DEFAULT_LIMITS;
        self.uploads.replace(&mut limits);
        limits.window_seconds = self.window.unwrap_or(limits.window_seconds);
        limits.window_block_agent = self.window_block_agent.unwrap_or(limits.window_block_agent);
        limits
    }

    /// A rule that went away leaves its answers behind: they do no harm, but no good either.
    fn warnings(&self) -> Vec<Mistake> {
        let asking = || self.rules.iter().filter(|rule| rule.action == Action::Ask).map(|rule| &*rule.name);
        let stale = self.approved.iter().filter(|approval| !asking().any(|name| name == &*approval.rule));
        let warn = |approval: &Approval| {
            let Origin { file, line } = approval.origin.clone();
            let near = nearest(&approval.rule, asking()).map(|near| format!("; did you mean `{near}`?"));
            let message = format!(
                "`{}` is no rule that asks, so this answers nothing{}",
                approval.rule,
                near.unwrap_or_default()
            );
            Mistake::new(file, line, message)
        };
        stale.map(warn).collect()
    }
}

fn stricter<T: Copy>(a: Option<T>, b: Option<T>, strict: impl Fn(&T) -> bool) -> Option<T> {
    [a, b].into_iter().flatten().find(|value| strict(value)).or(a).or(b)
}

fn word<T>(table: &DeTable<'_>, key: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
    table.text(key).and_then(|(text, _)| parse(text))
}

fn mode(text: &str) -> Option<Mode> {
    [Mode::Enforce, Mode::Observe].into_iter().find(|mode| mode.as_str() == text)
}

fn action(text: &str) -> Option<Action> {
    Action::ALL.into_iter().find(|action| action.as_str() == text)
}

fn secret_action(text: &str) -> Option<SecretAction> {
    [SecretAction::Alert, SecretAction::Mask, SecretAction::Block]
        .into_iter()
        .find(|action| action.as_str() == text)
}

/// The strings of a list, each read; what cannot be is reported.
pub(super) fn parsed<T>(
    page: &mut Page<'_>,
    table: &DeTable<'_>,
    key: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Vec<T> {
    let mut values = Vec::new();
    for (text, span) in table.texts(key) {
        match parse(text) {
            Ok(value) => values.push(value),
            Err(message) => page.mistake(&span, text, &message),
        }
    }
    values
}

fn sorted<T: Ord>(mut items: Vec<T>) -> Vec<T> {
    items.sort();
    items.dedup();
    items
}

/// An empty list would read as "nothing" to one person and as "anything" to another.
fn refuse_empty_list(page: &mut Page<'_>, table: &DeTable<'_>, key: &str) {
    let Some(value) = table.get(key) else { return };
    if value.get_ref().as_array().is_some_and(|entries| entries.is_empty()) {
        let advice = if key == "to" { "name a destination" } else { "leave it out where all are meant" };
        page.report(&value.span(), format!("`{key} = []` matches nothing: {advice}"));
    }
}

/// A method is a token (RFC 9110, section 9.1) and those in use are in upper case.
fn parse_method(text: &str) -> Result<Arc<str>, String> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if text == "*" {
        return Err("is not a method: leave `methods` out where all are meant".to_owned());
    }
    if text.is_empty() || !text.bytes().all(token) {
        return Err("is not a method such as `GET`".to_owned());
    }
    let upper = text.to_ascii_uppercase();
    if upper == text {
        Ok(text.into())
    } else {
        Err(format!("is not in upper case, as methods are: write `{upper}`"))
    }
}

fn parse_known(text: &str) -> Result<KnownFrom, String> {
    let variable = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    match text.split_once(':') {
        Some(("dotenv", path)) if !path.is_empty() => Ok(KnownFrom::Dotenv(path.into())),
        Some(("file", path)) if !path.is_empty() => Ok(KnownFrom::File(path.into())),
        Some(("env", name)) if !name.is_empty() && variable(name) => Ok(KnownFrom::Env(name.into())),
        _ => {
            Err("is not a source of known values: write `dotenv:PATH`, `file:PATH` or `env:NAME`".to_owned())
        }
    }
}

fn limit_changes(table: &DeTable<'_>) -> LimitChanges {
    LimitChanges {
        request_alert: table.size("request_alert"),
        request_block: table.size("request_block"),
        window_alert: table.size("window_alert"),
        window_block: table.size("window_block"),
    }
}

/// The name of a rule that was given none: what it says, so that equal names are equal rules.
fn described(rule: &Rule) -> String {
    fn part<T>(name: &str, items: &[T], text: impl Fn(&T) -> String) -> String {
        let items: Vec<String> = items.iter().map(|item| quoted(&text(item))).collect();
        if items.is_empty() { String::new() } else { format!("{name}{}", items.join(", ")) }
    }
    let limits = [
        ("request_alert", rule.uploads.request_alert),
        ("request_block", rule.uploads.request_block),
        ("window_alert", rule.uploads.window_alert),
        ("window_block", rule.uploads.window_block),
    ];
    let limits: String = limits
        .into_iter()
        .filter_map(|(name, limit)| limit.map(|limit| format!(" {name} {}", print_size(limit))))
        .collect();
    format!(
        "{}{}{}{}{}{}{limits}",
        rule.action,
        part(" ", &rule.to, Destination::to_string),
        part(" methods ", &rule.methods, |method| method.to_string()),
        part(" paths ", &rule.paths, PathPattern::to_string),
        part(" agents ", &rule.agents, |agent| agent.as_str().to_owned()),
        if rule.observe { " observe" } else { "" },
    )
}

fn approval_key(approval: &Approval) -> (&Host, Option<u16>, &str, &str) {
    (&approval.host, approval.port, approval.agent.as_str(), &approval.rule)
}
