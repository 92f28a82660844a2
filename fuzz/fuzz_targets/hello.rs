//! Fuzzes `checks::hello`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::hello::check(data));
