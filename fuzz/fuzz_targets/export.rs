//! Fuzzes `checks::export`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::export::check(data));
