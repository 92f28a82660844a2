//! The public suffix list, compiled once.
//!
//! The `psl` crate is generic and inlined throughout: whoever calls it compiles 2.5 MB of generated matching anew,
//! two minutes at each change. These functions are not generic, so that the list is compiled here and only here.
//! Names must be canonical: the list is case-sensitive and takes addresses for names.

pub use psl::{Domain, Type};

/// The registrable domain of a name, `None` for a public suffix itself.
#[inline(never)]
pub fn domain(name: &[u8]) -> Option<Domain<'_>> {
    psl::domain(name)
}

/// As [`domain`], as text.
pub fn domain_str(name: &str) -> Option<&str> {
    std::str::from_utf8(domain(name.as_bytes())?.as_bytes()).ok()
}

/// Whether a name lies under a suffix that a company runs for its customers (the list's private section): its neighbours
/// there are strangers.
pub fn is_shared(name: &str) -> bool {
    domain(name.as_bytes()).is_some_and(|domain| domain.suffix().typ() == Some(Type::Private))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_under_a_companys_suffix_are_shared() {
        for (name, shared) in [
            ("someone.github.io", true),
            ("a.pages.dev", true),
            ("www.example.co.uk", false),
            ("a.test", false),
        ] {
            assert_eq!(is_shared(name), shared, "{name}");
        }
    }

    #[test]
    fn registrable_domains_end_where_the_list_says() {
        for (name, registrable) in [
            ("www.example.com", Some("example.com")),
            ("a.b.example.co.uk", Some("example.co.uk")),
            ("someone.github.io", Some("someone.github.io")),
            ("github.io", None),
            ("com", None),
        ] {
            assert_eq!(domain_str(name), registrable, "{name}");
        }
    }
}
