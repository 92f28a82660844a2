//! Fuzzes `checks::policy_file`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::policy_file::check(data));
