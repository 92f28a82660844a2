//! The exact values that a policy names, read from where it says. What was known once stays known while the gateway runs.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::Path;

use policy::decide::Policy;
use policy::document::{KnownFrom, KnownSource};
use policy::secret::{KnownValue, Secrets};

use crate::config::Environment;
use crate::reading;

/// Values of one source that are kept after they have gone from it; the oldest stay.
const KEPT: usize = 10_000;

/// The values of each source, the oldest first. An agent that may write its `.env` must not be able to make a secret
/// unknown by taking it out of there before it sends it.
#[derive(Clone, Debug, Default)]
pub struct Known(BTreeMap<String, Vec<KnownValue>>);

/// What was read.
pub(super) struct Values {
    pub(super) secrets: Secrets,
    /// For each value the number of its source in the policy.
    pub(super) sources: Vec<usize>,
    pub(super) known: Known,
}

/// Values that cannot be read are warned about, not fatal: a policy must not stop working because a variable is
/// unset, and says at start which values it does not look for.
pub(super) fn read(
    rules: &Policy,
    before: &Known,
    environment: Environment<'_>,
    warnings: &mut Vec<String>,
) -> Values {
    let (mut values, mut sources, mut known) = (Vec::new(), Vec::new(), Known::default());
    for (number, source) in rules.known_sources().iter().enumerate() {
        let beside = Path::new(&*source.origin.file).parent().unwrap_or(Path::new("."));
        let fresh = fresh(source, beside, environment, warnings);
        let name = name(&source.from, beside);
        let mut all = before.gone(&name, &fresh);
        if !all.is_empty() {
            warnings.push(format!(
                "{}: `{}` holds less than before; values that have gone from it: {}; they are looked for until the \
                 policy names it no more or the gateway starts anew",
                place(source),
                source.from,
                all.len()
            ));
        }
        all.extend(fresh);
        sources.extend(all.iter().map(|_| number));
        values.extend(all.iter().cloned());
        known.0.insert(name, all);
    }
    Values { secrets: Secrets::new(values), sources, known }
}

impl Known {
    /// What was known of a source and is not among what it holds now.
    fn gone(&self, source: &str, now: &[KnownValue]) -> Vec<KnownValue> {
        let now: HashSet<&KnownValue> = now.iter().collect();
        let before = self.0.get(source).into_iter().flatten();
        before.filter(|value| !now.contains(value)).take(KEPT).cloned().collect()
    }
}

fn place(source: &KnownSource) -> String {
    format!("{}:{}", source.origin.file, source.origin.line)
}

/// What tells a source from others, whatever policy names it.
fn name(from: &KnownFrom, beside: &Path) -> String {
    match from {
        KnownFrom::Env(_) => from.to_string(),
        KnownFrom::File(path) => format!("file:{}", beside.join(&**path).display()),
        KnownFrom::Dotenv(path) => format!("dotenv:{}", beside.join(&**path).display()),
    }
}

/// The values that a source holds now.
fn fresh(
    source: &KnownSource,
    beside: &Path,
    environment: Environment<'_>,
    warnings: &mut Vec<String>,
) -> Vec<KnownValue> {
    let pairs = pairs(&source.from, beside, environment).unwrap_or_else(|error| {
        warnings.push(format!("{}: `{}` cannot be read: {error}", place(source), source.from));
        Vec::new()
    });
    let mut values = Vec::new();
    for (name, value) in pairs {
        match KnownValue::new(name.as_str(), value.as_bytes()) {
            Ok(value) => values.push(value),
            Err(skipped) => {
                warnings.push(format!("{}: `{name}` is not looked for: {skipped}", place(source)))
            }
        }
    }
    values
}

fn pairs(from: &KnownFrom, beside: &Path, environment: Environment<'_>) -> io::Result<Vec<(String, String)>> {
    match from {
        KnownFrom::Env(name) => {
            let value = environment(name).ok_or_else(|| io::Error::other("the variable is not set"))?;
            Ok(vec![(from.to_string(), value)])
        }
        KnownFrom::File(path) => {
            let text = reading::text(&beside.join(&**path))?;
            Ok(vec![(from.to_string(), text.trim_end_matches(['\r', '\n']).to_owned())])
        }
        KnownFrom::Dotenv(path) => {
            let text = reading::text(&beside.join(&**path))?;
            Ok(dotenv(&text).map(|(name, value)| (format!("{from}/{name}"), value)).collect())
        }
    }
}

/// `NAME=value` lines, as dotenv libraries read them: comments, `export`, and quotes around the value.
fn dotenv(text: &str) -> impl Iterator<Item = (String, String)> + '_ {
    text.lines().filter_map(|line| {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = line.split_once('=')?;
        let plain =
            !name.is_empty() && name.trim_end().bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        plain.then(|| (name.trim_end().to_owned(), unquote(value.trim())))
    })
}

fn unquote(value: &str) -> String {
    for quote in ['"', '\''] {
        if let Some(inner) = value.strip_prefix(quote).and_then(|rest| rest.split_once(quote)) {
            return inner.0.to_owned();
        }
    }
    value.split_once(" #").map_or(value, |(value, _)| value.trim_end()).to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use policy::catalogue::Catalogue;
    use policy::document::Source;

    use super::*;

    fn policy(folder: &Path, known: &str) -> Policy {
        let text = format!("version = 1\n[secrets]\nknown = [{known}]\n");
        let name = folder.join("policy.toml").display().to_string();
        Policy::parse(&[Source { name: &name, text: &text }], Catalogue::builtin()).unwrap()
    }

    #[test]
    fn a_value_stays_known_until_the_policy_does_not_name_its_source() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(".env");
        let file = path.as_path();
        let names = policy(root.path(), "\"dotenv:.env\"");
        let step = |rules: &Policy, before: &Known| {
            let mut warnings = Vec::new();
            let values = read(rules, before, &|_| None, &mut warnings);
            let known: Vec<KnownValue> = values.known.0.values().flatten().cloned().collect();
            assert_eq!(values.sources.len(), known.len());
            (values.known, known.len(), warnings.join("\n"))
        };
        let gone =
            |count: usize| format!("; values that have gone from it: {count}; they are looked for until");
        fs::write(file, "A=first-value-1\nB=other-value-2\n").unwrap();
        let (known, count, said) = step(&names, &Known::default());
        assert_eq!((count, said.as_str()), (2, ""));
        fs::write(file, "C=first-value-1\n").unwrap();
        let (known, count, said) = step(&names, &known);
        assert_eq!(count, 2, "what has another name now is the same value");
        assert!(said.contains("`dotenv:.env` holds less than before") && said.contains(&gone(1)), "{said}");
        fs::remove_file(file).unwrap();
        let (known, count, said) = step(&names, &known);
        assert!(count == 2 && said.contains("cannot be read") && said.contains(&gone(2)), "{said}");
        fs::write(file, "A=first-value-1\nB=other-value-2\nD=a-third-value-3").unwrap();
        let (known, count, said) = step(&names, &known);
        assert_eq!((count, said.as_str()), (3, ""), "all of it is back");
        let (forgotten, count, _) = step(&policy(root.path(), ""), &known);
        assert_eq!(count, 0, "the policy names it no more");
        fs::write(file, "").unwrap();
        assert_eq!(step(&names, &forgotten).1, 0);
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_oldest_stays() {
        let root = tempfile::tempdir().unwrap();
        let rules = policy(root.path(), "\"dotenv:.env\"");
        let mut known = Known::default();
        let first = KnownValue::new("first", b"the-first-value-0").unwrap();
        let flood = |round: usize| (0..KEPT).map(move |n| format!("N{n}=flood-value-{round}-{n}\n"));
        for text in
            ["A=the-first-value-0\n".to_owned(), flood(1).collect(), flood(2).collect(), String::new()]
        {
            fs::write(root.path().join(".env"), text).unwrap();
            known = read(&rules, &known, &|_| None, &mut Vec::new()).known;
        }
        let kept = known.0.values().next().unwrap();
        assert_eq!((kept.len(), kept.first()), (KEPT, Some(&first)));
    }

    #[test]
    fn dotenv_lines_are_read_as_libraries_read_them() {
        let text =
            "# c\nA=1\nexport B = two words # note\nC=\"quoted # not a note\"\nD='single'\nnot a line\n=x\n";
        let pairs: Vec<_> = dotenv(text).collect();
        let expected = [("A", "1"), ("B", "two words"), ("C", "quoted # not a note"), ("D", "single")];
        assert_eq!(pairs, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
