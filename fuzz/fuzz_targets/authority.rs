//! Fuzzes `checks::authority`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::authority::check(data));
