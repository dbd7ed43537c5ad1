#![no_main]

#[path = "../targets/avro.rs"]
mod avro;

libfuzzer_sys::fuzz_target!(|input: avro::Input| avro::check(input));
