//! What the fuzzers found worth keeping (`./fuzz`), once more with each build: whatever bytes come, nothing breaks.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use arbitrary::{Arbitrary, Unstructured};
use flate2::read::GzDecoder;

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

/// Each input of a target's corpus (`fuzz/corpus.py` says how they are packed), as the fuzzer cuts it up.
fn each(target: &str, check: impl Fn(Unstructured<'_>)) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/corpus/{target}.gz"));
    let mut packed = vec![];
    GzDecoder::new(File::open(&file).unwrap()).read_to_end(&mut packed).unwrap();
    let (mut rest, mut inputs) = (&packed[..], 0);
    while let Some((length, behind)) = rest.split_first_chunk() {
        let (input, others) = behind.split_at(u32::from_le_bytes(*length) as usize);
        check(Unstructured::new(input));
        (rest, inputs) = (others, inputs + 1);
    }
    assert!(inputs > 100, "{inputs} of {}", file.display());
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
