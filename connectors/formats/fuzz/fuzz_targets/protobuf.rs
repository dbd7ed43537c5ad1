#![no_main]

#[path = "../targets/protobuf.rs"]
mod protobuf;

libfuzzer_sys::fuzz_target!(|input: protobuf::Input| protobuf::check(input));
