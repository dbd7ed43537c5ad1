//! What the fuzzers found worth keeping (`./fuzz`), once more with each build: whatever bytes come, nothing breaks.

use std::path::Path;

use arbitrary::{Arbitrary, Unstructured};

#[path = "../fuzz/targets/avro.rs"]
mod avro;
#[path = "../fuzz/targets/csv.rs"]
mod csv;
#[path = "../fuzz/targets/decoder.rs"]
mod decoder;
#[path = "../fuzz/targets/json.rs"]
mod json;
#[path = "../fuzz/targets/protobuf.rs"]
mod protobuf;

/// Each input of a target's corpus, as the fuzzer cuts it up.
fn each(target: &str, check: impl Fn(Unstructured<'_>)) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let inputs: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|input| std::fs::read(input.unwrap().path()).unwrap()).collect();
    assert!(inputs.len() > 100, "{} of {}", inputs.len(), folder.display());
    inputs.iter().for_each(|input| check(Unstructured::new(input)));
}

fn cut<'a, Input: Arbitrary<'a>>(bytes: Unstructured<'a>) -> Input {
    Input::arbitrary_take_rest(bytes).unwrap()
}

#[test]
fn json_of_any_bytes_breaks_nothing() {
    each("decoder", |bytes| decoder::check(cut(bytes)));
}

#[test]
fn json_that_serde_json_reads_is_read_the_same() {
    each("json", |bytes| json::check(cut(bytes)));
}

#[test]
fn csv_of_any_bytes_is_read_the_same_however_it_is_cut() {
    each("csv", |bytes| csv::check(cut(bytes)));
}

#[test]
fn avro_of_any_bytes_breaks_nothing() {
    each("avro", |bytes| avro::check(cut(bytes)));
}

#[test]
fn protobuf_of_any_bytes_breaks_nothing() {
    each("protobuf", |bytes| protobuf::check(cut(bytes)));
}
