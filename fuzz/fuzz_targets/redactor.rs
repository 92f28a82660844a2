//! Fuzzes `checks::redactor`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::redactor::check(data));
