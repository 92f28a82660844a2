//! What a secret looks like: the detectors, how text is searched for them, and the exact values an operator knows.
//!
//! A detector is one line in a table (`models.rs`, `clouds.rs`, …): a public name, the shape of the credential in the
//! small pattern language of [`pattern`](self), and two examples that must match and two that must not. The shapes are
//! public facts: the prefix an issuer prints, the alphabet, the length, a checksum. Only shapes that stand for a
//! credential by themselves are here; anything that needs guessing is not.

mod checks;
mod class;
mod clouds;
mod cursor;
mod example;
mod fields;
mod forges;
mod keys;
mod known;
mod lead;
pub(crate) mod mask;
mod models;
mod pattern;
mod payments;
mod search;
mod services;

use std::fmt;
use std::sync::LazyLock;

pub(crate) use class::Class;
pub(crate) use cursor::{LOOK_BEHIND, View};
pub use known::{KnownValue, SHORTEST, Skipped};
pub use search::{Exempt, KnownId, Secrets, Source};
pub(crate) use search::{Hit, Search, Step};

/// One kind of credential that Outgate recognises, such as `github-token`.
///
/// Names are stable: policies, records and metrics use them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Detector(u16);

impl Detector {
    /// Every detector, in the order in which they are tried.
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        (0..RULES.len() as u16).map(Self)
    }

    /// The detector of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|detector| detector.name() == name)
    }

    /// The public name, in the form `vendor-kind`.
    pub fn name(self) -> &'static str {
        self.rule().name
    }

    /// Whether the detector serves redaction only: too many legitimate values look like it for it to stop a request.
    pub fn records_only(self) -> bool {
        self.rule().records_only
    }

    /// Two texts in which the detector finds a credential. They are made up, and made when asked for.
    pub fn examples(self) -> [String; 2] {
        self.rule().like.map(example::expand)
    }

    /// Two texts that come close and hold no credential of this kind.
    pub fn counterexamples(self) -> [String; 2] {
        self.rule().unlike.map(example::expand)
    }

    fn rule(self) -> &'static Rule {
        RULES[usize::from(self.0)]
    }
}

impl fmt::Display for Detector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Detector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The families in the order in which they are tried; within a family the more specific line stands first.
static RULES: LazyLock<Vec<&'static Rule>> = LazyLock::new(|| {
    [
        keys::RULES,
        fields::RULES,
        models::RULES,
        forges::RULES,
        clouds::RULES,
        services::RULES,
        payments::RULES,
    ]
    .into_iter()
    .flatten()
    .collect()
});

/// One line of a table.
struct Rule {
    name: &'static str,
    /// Shapes in the language of `pattern.rs`, any of which is the credential.
    patterns: &'static [&'static str],
    check: Check,
    records_only: bool,
    /// Templates (`example.rs`) that must match.
    like: [&'static str; 2],
    /// Templates that must not.
    unlike: [&'static str; 2],
}

/// What else must hold of a value that has the right shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// At least six different characters: `xxxxxxxx` in documentation is no credential.
    Varied,
    /// Lower case, upper case and a digit: for shapes that words joined together could have.
    Mixed,
    /// A lower-case or upper-case letter and a digit, for shapes within one case.
    LettersAndDigits,
    /// GitHub's and npm's six-character CRC-32 in base 62 at the end. See `checks.rs` for what a wrong one means.
    Crc32,
    /// A JSON Web Token whose payload names Supabase's all-powerful role.
    ServiceRole,
    /// A JSON Web Token: its first part decodes to an object with `alg`.
    WebToken,
    /// A password a person or machine made up, not a placeholder such as `password` or `${DB_PASSWORD}`.
    Password,
    /// The base64 of `user:password`.
    BasicPair,
}

impl Rule {
    const DEFAULT: Self = Self {
        name: "",
        patterns: &[],
        check: Check::Varied,
        records_only: false,
        like: [""; 2],
        unlike: [""; 2],
    };

    const fn check(mut self, check: Check) -> Self {
        self.check = check;
        self
    }

    const fn records_only(mut self, records_only: bool) -> Self {
        self.records_only = records_only;
        self
    }
}

/// Writes a table of [`Rule`]s, one line a detector.
macro_rules! detectors {
    ($($name:literal $([$field:ident $value:expr])* $($pattern:literal)|+ => $a:literal, $b:literal; not $c:literal, $d:literal)*) => {
        pub(super) const RULES: &[super::Rule] = &[$(super::Rule {
            name: $name,
            patterns: &[$($pattern),+],
            like: [$a, $b],
            unlike: [$c, $d],
            ..super::Rule::DEFAULT
        }$(.$field($value))*),*];
    };
}
use detectors;
