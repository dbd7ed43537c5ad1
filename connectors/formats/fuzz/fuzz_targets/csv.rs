#![no_main]

#[path = "../targets/csv.rs"]
mod csv;

libfuzzer_sys::fuzz_target!(|input: csv::Input| csv::check(input));
