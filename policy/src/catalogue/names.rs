//! What may stand after `@` in a policy: services, their aliases and groups, kinds and classes.

use std::cmp::Reverse;
use std::fmt;

use super::{Catalogue, Class, Classified, Kind, Service, ServiceId};

/// The services that one name means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Everything of a class.
    Class(Class),
    /// These services.
    Services(ServiceSet),
}

impl Selection {
    /// Whether a destination is among what the name means.
    pub fn contains(&self, destination: &Classified<'_>) -> bool {
        match self {
            Selection::Class(class) => destination.class == *class,
            Selection::Services(set) => destination.service.is_some_and(|service| set.contains(service.id)),
        }
    }
}

/// A set of services of one catalogue, a bit for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceSet(Vec<u64>);

impl ServiceSet {
    /// Whether the service is in the set.
    pub fn contains(&self, id: ServiceId) -> bool {
        let (word, bit) = (usize::from(id.0 / 64), id.0 % 64);
        self.0.get(word).is_some_and(|bits| bits >> bit & 1 == 1)
    }

    /// Adds a service.
    pub fn insert(&mut self, id: ServiceId) {
        let (word, bit) = (usize::from(id.0 / 64), id.0 % 64);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << bit;
    }
}

impl FromIterator<ServiceId> for ServiceSet {
    fn from_iter<I: IntoIterator<Item = ServiceId>>(ids: I) -> ServiceSet {
        let mut set = ServiceSet::default();
        ids.into_iter().for_each(|id| set.insert(id));
        set
    }
}

/// A name after `@` that means nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownName {
    /// The name, without `@`.
    pub name: String,
    /// The known name most like it, if one is like it at all.
    pub nearest: Option<String>,
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`@{}` is no service, group, kind or class of the catalogue", self.name)?;
        match &self.nearest {
            Some(nearest) => write!(f, "; did you mean `@{nearest}`?"),
            None => f.write_str("; `outgate policy services` lists them"),
        }
    }
}

impl std::error::Error for UnknownName {}

impl Catalogue {
    /// What a name after `@` means (the `@` itself may be left out).
    ///
    /// # Errors
    /// Where it means nothing, with the nearest name that does.
    pub fn select(&self, name: &str) -> Result<Selection, UnknownName> {
        let name = name.strip_prefix('@').unwrap_or(name);
        if let Some(class) = class_named(name) {
            return Ok(Selection::Class(class));
        }
        if let Some(ids) = self.names.get(name) {
            return Ok(Selection::Services(ids.iter().copied().collect()));
        }
        if let Some(kind) = kind_named(name) {
            let of_kind = self.services.iter().filter(|service| service.kind == kind);
            return Ok(Selection::Services(of_kind.map(|service| service.id).collect()));
        }
        Err(UnknownName {
            name: name.to_owned(),
            nearest: nearest(name, self.known_names()).map(str::to_owned),
        })
    }

    /// The services that a name means, in the catalogue's order.
    ///
    /// # Errors
    /// As [`Catalogue::select`].
    pub fn named(&self, name: &str) -> Result<Vec<&Service>, UnknownName> {
        let selection = self.select(name)?;
        let services = self.services.iter();
        Ok(services
            .filter(|service| {
                selection.contains(&Classified { class: service.class, service: Some(service) })
            })
            .collect())
    }

    fn known_names(&self) -> impl Iterator<Item = &str> {
        let reserved = Kind::ALL.into_iter().map(|kind| -> &str { kind.plural() }).chain(["models", "tools"]);
        self.names.keys().map(String::as_str).chain(reserved)
    }
}

/// Whether a name is taken by a class or kind, so that no service may have it.
pub(super) fn is_reserved(name: &str) -> bool {
    class_named(name).is_some() || kind_named(name).is_some()
}

fn class_named(name: &str) -> Option<Class> {
    match name {
        "models" => Some(Class::Model),
        "tools" => Some(Class::Tool),
        _ => None,
    }
}

fn kind_named(name: &str) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| kind.plural() == name || kind.as_str() == name)
}

/// The candidate with the fewest edits to `name`: at most one for every three characters, or it is no help. Of
/// equals the one that begins most like it, since people get beginnings right.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (name.len() / 3).clamp(1, 3);
    candidates
        .map(|candidate| (edit_distance(name, candidate), Reverse(common_start(name, candidate)), candidate))
        .filter(|(distance, ..)| *distance <= limit)
        .min()
        .map(|(.., candidate)| candidate)
}

fn common_start(a: &str, b: &str) -> usize {
    a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count()
}

/// Inserted, deleted, substituted and transposed bytes between two names ("optimal string alignment").
pub(super) fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut before_last: Vec<usize> = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut row = vec![0; b.len() + 1];
    for i in 1..=a.len() {
        row[0] = i;
        for j in 1..=b.len() {
            let substituted = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = substituted.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        std::mem::swap(&mut before_last, &mut last);
        std::mem::swap(&mut last, &mut row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (a, b, distance) in [
            ("", "", 0),
            ("github", "github", 0),
            ("github", "gihtub", 1),
            ("github", "githb", 1),
            ("github", "githubb", 1),
            ("github", "g1thub", 1),
            ("github", "gitlab", 2),
            ("", "abc", 3),
        ] {
            assert_eq!(edit_distance(a, b), distance, "{a}, {b}");
            assert_eq!(edit_distance(b, a), distance, "{b}, {a}");
        }
    }

    #[test]
    fn a_name_means_a_service_an_alias_a_group_a_kind_or_a_class() {
        let catalogue = Catalogue::builtin();
        for name in ["anthropic", "openai", "gemini", "github", "python-packages"] {
            let found = catalogue.named(&format!("@{name}")).unwrap();
            assert_eq!(found.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), [name]);
        }
        assert_eq!(catalogue.named("@pypi").unwrap()[0].name, "python-packages");
        assert!(catalogue.named("@web-search").unwrap().len() > 5);
        assert!(catalogue.named("@forges").unwrap().iter().all(|s| s.kind == Kind::Forge));
        for kind in Kind::ALL {
            assert!(!catalogue.named(kind.plural()).unwrap().is_empty(), "@{}", kind.plural());
        }
        let models = catalogue.named("@models").unwrap().len();
        let tools = catalogue.named("@tools").unwrap().len();
        assert_eq!(models + tools, catalogue.services().len());
    }

    #[test]
    fn an_unknown_name_offers_the_nearest() {
        for (given, nearest) in [
            ("@antropic", Some("anthropic")),
            ("@githup", Some("github")),
            ("@registrys", Some("registries")),
            ("@model", Some("models")),
            ("@web-serach", Some("web-search")),
            ("@nothing-like-it-at-all", None),
        ] {
            let error = Catalogue::builtin().select(given).unwrap_err();
            assert_eq!(error.nearest.as_deref(), nearest, "{given}");
            assert!(error.to_string().starts_with(&format!("`{given}` is no service")), "{error}");
        }
    }
}
