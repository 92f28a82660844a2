//! Fuzzes `checks::push`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::push::check(data));
