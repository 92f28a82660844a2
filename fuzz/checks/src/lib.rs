//! What must hold of every parser that meets bytes of others, whatever the bytes are.
//!
//! Each module has one function `check`, which takes any bytes and panics where a promise is broken. The fuzz targets
//! call it with what a fuzzer makes up, the tests of this crate with the committed corpus and with variations of it.

pub mod authority;
pub mod decoders;
pub mod export;
pub mod frames;
pub mod head;
pub mod hello;
pub mod json;
pub mod names;
pub mod policy_file;
pub mod push;
pub mod record;
pub mod redactor;
pub mod scanner;

mod cuts;
mod planted;
mod sent;

/// A parser under test.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: that of its module, its fuzz target and its folder of the corpus.
    pub name: &'static str,
    /// Panics where a promise is broken.
    pub check: fn(&[u8]),
}

/// Every one.
pub const TARGETS: &[Target] = &[
    Target { name: "authority", check: authority::check },
    Target { name: "decoders", check: decoders::check },
    Target { name: "export", check: export::check },
    Target { name: "frames", check: frames::check },
    Target { name: "head", check: head::check },
    Target { name: "hello", check: hello::check },
    Target { name: "json", check: json::check },
    Target { name: "names", check: names::check },
    Target { name: "policy_file", check: policy_file::check },
    Target { name: "push", check: push::check },
    Target { name: "record", check: record::check },
    Target { name: "redactor", check: redactor::check },
    Target { name: "scanner", check: scanner::check },
];
