//! Random documents, right and wrong: the decoder agrees with a plain reading by `serde_json`, and whatever comes, good
//! records beside bad ones stay as they are. A failure names its seed.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use formats::{Decoder, Format, JsonOptions};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value, json};

mod plain_reading;
use plain_reading::{fits, is, schema};

/// A value that the column takes, or now and then any other.
fn value(random: &mut StdRng, data_type: &DataType, wild: f64) -> Value {
    if random.random_bool(wild) {
        return anything(random, 2);
    }
    if random.random_bool(0.1) {
        return Value::Null;
    }
    match data_type {
        DataType::Int64 => match random.random_range(0..4) {
            0 => json!(random.random::<i64>()),
            1 => json!(random.random_range(-1000..1000) as f64),
            _ => json!(random.random_range(-1000..1000)),
        },
        DataType::Float64 => json!(random.random_range(-1e6..1e6)),
        DataType::Boolean => json!(random.random_bool(0.5)),
        DataType::Timestamp(..) => {
            let nanoseconds = random.random_range(-1_000_000_000_000_000_000..4_000_000_000_000_000_000i64);
            let time = chrono::DateTime::from_timestamp_nanos(nanoseconds);
            json!(time.format("%Y-%m-%dT%H:%M:%S%.fZ").to_string())
        }
        DataType::Struct(fields) => {
            let mut map = Map::new();
            for field in fields.iter().filter(|_| random.random_bool(0.8)).collect::<Vec<_>>() {
                map.insert(field.name().clone(), value(random, field.data_type(), wild));
            }
            Value::Object(map)
        }
        DataType::List(item) => {
            let length = random.random_range(0..4);
            Value::Array((0..length).map(|_| value(random, item.data_type(), wild)).collect())
        }
        _ => json!(text(random)),
    }
}

fn text(random: &mut StdRng) -> String {
    let letters = ['a', 'Z', '7', ' ', '"', '\\', '\n', '\t', 'é', '雪', '😀', '{', ']', ','];
    (0..random.random_range(0..8)).map(|_| letters[random.random_range(0..letters.len())]).collect()
}

fn anything(random: &mut StdRng, depth: u32) -> Value {
    match random.random_range(0..if depth == 0 { 5 } else { 7 }) {
        0 => Value::Null,
        1 => json!(random.random_bool(0.5)),
        2 => json!(random.random::<i64>()),
        3 => json!(random.random_range(-1e300..1e300)),
        4 => json!(text(random)),
        5 => Value::Array((0..random.random_range(0..3)).map(|_| anything(random, depth - 1)).collect()),
        _ => {
            Value::Object((0..random.random_range(0..3)).map(|_| (text(random), anything(random, depth - 1))).collect())
        }
    }
}

/// A record, its fields in any order, some missing, some of nobody.
fn record(random: &mut StdRng, wild: f64) -> String {
    let mut fields: Vec<(String, Value)> = vec![];
    for field in schema().fields() {
        let present = if field.name() == "id" { 0.98 } else { 0.85 };
        if random.random_bool(present) {
            let data_type = if field.name() == "raw" { &DataType::Null } else { field.data_type() };
            let made = if data_type == &DataType::Null { anything(random, 2) } else { value(random, data_type, wild) };
            fields.push((field.name().clone(), made));
        }
    }
    if random.random_bool(0.3) {
        fields.push(("stranger".into(), anything(random, 2)));
    }
    fields.shuffle(random);
    let space = |random: &mut StdRng| *["", "", " ", "\t", "\n "].choose(random).unwrap_or(&"");
    let parts: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("{}{}:{}{value}", space(random), json!(name), space(random)))
        .collect();
    format!("{{{}{}}}", parts.join(","), space(random))
}

fn decoder(options: JsonOptions) -> Decoder {
    Decoder::new(schema(), Format::Json, options, None).expect("the types can be read")
}

fn finish(decoder: &mut Decoder, seed: u64) -> RecordBatch {
    decoder.finish().unwrap_or_else(|e| panic!("seed {seed}: the columns do not fit together: {e}"))
}

#[test]
fn every_record_is_taken_or_rejected_as_a_plain_reading_says_and_every_value_is_the_same() {
    let (mut taken, mut rejected) = (0, 0);
    for seed in 0..400 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut decoder = decoder(JsonOptions::default());
        let mut expected = vec![];
        for _ in 0..25 {
            let text = record(&mut random, 0.02);
            let plain: Value = serde_json::from_str(&text).expect("the generator writes JSON");
            let good = fits(&plain);
            match decoder.push(text.as_bytes(), None) {
                Ok(rows) => {
                    assert!(good && rows == 1, "seed {seed}: taken, and should not be: {text}");
                    expected.push(plain);
                    taken += 1;
                }
                Err(reject) => {
                    assert!(!good, "seed {seed}: rejected as {reject:?}: {text}");
                    rejected += 1;
                }
            }
        }
        let batch = finish(&mut decoder, seed);
        assert_eq!(batch.num_rows(), expected.len(), "seed {seed}");
        for (row, plain) in expected.iter().enumerate() {
            assert!(is(&batch, row, plain), "seed {seed}: {plain}");
        }
    }
    assert!(taken > 5000 && rejected > 500, "{taken} taken, {rejected} rejected: both have to happen");
}

#[test]
fn a_record_that_was_damaged_anywhere_leaves_its_neighbours_as_they_are() {
    for seed in 0..400 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut decoder = decoder(JsonOptions::default());
        let mut expected = 0;
        for n in 0..20 {
            decoder
                .push(format!(r#"{{"id":"good {n}","list":[{n},{n}],"nested":{{"x":{n}}}}}"#).as_bytes(), None)
                .unwrap_or_else(|e| panic!("seed {seed}: {e:?}"));
            let mut bytes = record(&mut random, 0.05).into_bytes();
            for _ in 0..random.random_range(0..3) {
                let at = random.random_range(0..bytes.len());
                match random.random_range(0..3) {
                    0 => bytes.truncate(at.max(1)),
                    1 => bytes[at] = random.random(),
                    _ => bytes.insert(at, *b"{}[]\",:0\\".choose(&mut random).unwrap_or(&b'0')),
                }
            }
            expected += 1 + decoder.push(&bytes, None).unwrap_or(0);
        }
        let batch = finish(&mut decoder, seed);
        assert_eq!(batch.num_rows(), expected, "seed {seed}");
        let ids = batch.column(0).as_string::<i32>();
        let good: Vec<usize> = (0..batch.num_rows()).filter(|row| ids.value(*row).starts_with("good ")).collect();
        assert_eq!(good.len(), 20, "seed {seed}");
        for (n, row) in good.into_iter().enumerate() {
            let list = batch.column(6).as_list::<i32>().value(row);
            assert_eq!(list.as_primitive::<Int64Type>().values(), &[n as i64; 2], "seed {seed}");
            let x = batch.column(5).as_struct().column(0).as_primitive::<Float64Type>().value(row);
            assert_eq!(x, n as f64, "seed {seed}");
        }
    }
}
