#![no_main]

#[path = "../targets/decoder.rs"]
mod decoder;

libfuzzer_sys::fuzz_target!(|input: decoder::Input| decoder::check(input));
