//! Fuzzes `checks::decoders`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::decoders::check(data));
