//! Fuzzes `checks::frames`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::frames::check(data));
