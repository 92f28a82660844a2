//! Every check over the committed corpus, and over variations of it.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

use std::path::{Path, PathBuf};

use checks::TARGETS;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Variations of each target's corpus.
const VARIATIONS: u32 = 300;
/// Corpus files larger than this are run as they are and not varied, which would take long.
const VARIED: usize = 16 << 10;

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(name);
    let entries =
        std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("`{}`: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| (file.clone(), std::fs::read(&file).unwrap())).collect()
}

#[test]
fn what_was_found_before_stays_mended() {
    for target in TARGETS {
        let files = corpus(target.name);
        assert!(!files.is_empty(), "`{}` has no corpus", target.name);
        for (file, bytes) in files {
            let checked = std::panic::catch_unwind(|| (target.check)(&bytes));
            assert!(checked.is_ok(), "`{}` breaks a promise", file.display());
        }
    }
}

/// One change of some bytes.
#[derive(Clone, Debug)]
enum Change {
    Replace(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    /// Goes on with another file of the corpus.
    Splice(Index, Index, Index),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Change::Replace(at, byte)),
        (at(), prop::collection::vec(any::<u8>(), 1..6)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (at(), 1..20_usize).prop_map(|(at, length)| Change::Remove(at, length)),
        (at(), at(), at()).prop_map(|(at, file, from)| Change::Splice(at, file, from)),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change, files: &[Vec<u8>]) {
    let place = |at: &Index, bytes: &[u8]| at.index(bytes.len() + 1);
    match change {
        Change::Replace(at, byte) => {
            let at = place(at, bytes);
            bytes.splice(at..(at + 1).min(bytes.len()), [*byte]);
        }
        Change::Insert(at, more) => {
            let at = place(at, bytes);
            bytes.splice(at..at, more.iter().copied());
        }
        Change::Remove(at, length) => {
            let at = place(at, bytes);
            bytes.drain(at..(at + length).min(bytes.len()));
        }
        Change::Splice(at, file, from) => {
            let other = file.get(files);
            bytes.truncate(place(at, bytes));
            bytes.extend_from_slice(&other[place(from, other)..]);
        }
    }
}

/// The same variations each time: what is new is for the fuzzer to find, not for whoever changes something else.
fn rng() -> TestRng {
    TestRng::deterministic_rng(RngAlgorithm::ChaCha)
}

#[test]
fn variations_of_the_corpus_break_no_promise() {
    let config = Config { cases: VARIATIONS, failure_persistence: None, ..Config::default() };
    for target in TARGETS {
        let files: Vec<Vec<u8>> = corpus(target.name)
            .into_iter()
            .map(|(_, bytes)| bytes)
            .filter(|bytes| bytes.len() <= VARIED)
            .collect();
        let varied = (any::<Index>(), prop::collection::vec(change(), 0..6));
        let checked = TestRunner::new_with_rng(config.clone(), rng()).run(&varied, |(file, changes)| {
            let mut bytes = file.get(&files).clone();
            changes.iter().for_each(|change| apply(&mut bytes, change, &files));
            (target.check)(&bytes);
            Ok(())
        });
        checked.unwrap_or_else(|error| panic!("`{}`: {error}", target.name));
    }
}
