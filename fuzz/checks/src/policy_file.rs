//! Policy files: a policy that means the same once printed and read again, or mistakes that can be found.

use policy::Policy;
use policy::catalogue::Catalogue;
use policy::document::{Mistake, Source};

/// What parts the files of one input.
const PART: &str = "\n# next file\n";

/// Takes the text of one policy file, or of two.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let files: Vec<&str> = text.splitn(2, PART).collect();
    let names = ["policy.toml", "more.toml"];
    let sources: Vec<Source<'_>> =
        names.iter().zip(&files).map(|(name, text)| Source { name, text }).collect();
    match Policy::parse(&sources, Catalogue::builtin()) {
        Ok(policy) => reads_back(&policy),
        Err(mistakes) => {
            assert!(!mistakes.is_empty(), "refused without a reason");
            mistakes.iter().for_each(|mistake| is_in(mistake, &sources));
        }
    }
}

fn reads_back(policy: &Policy) {
    let printed = policy.document().to_string();
    let source = Source { name: "printed.toml", text: &printed };
    let again = match Policy::parse(&[source], Catalogue::builtin()) {
        Ok(again) => again,
        Err(mistakes) => panic!("what was printed is refused: {mistakes:?}\n{printed}"),
    };
    assert_eq!(again.document().to_string(), printed, "another policy is read than was printed");
    assert_eq!(again.digest(), policy.digest());
}

fn is_in(mistake: &Mistake, sources: &[Source<'_>]) {
    let source = sources.iter().find(|source| *source.name == *mistake.file).expect("a file of the input");
    let lines = source.text.split('\n').count() as u32;
    assert!((1..=lines).contains(&mistake.line), "{mistake}, of {lines} lines");
    assert!(
        !mistake.message.is_empty() && !mistake.message.contains(char::is_control),
        "{:?}",
        mistake.message
    );
}
