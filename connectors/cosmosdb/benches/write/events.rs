//! Events as a job writes them.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use arrow::datatypes::{Field, Schema};
use engine::connector::json_field;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub const ROWS: usize = 20_000;
const DEVICES: usize = 100;

/// The event of the solutions: 23 numbers within, 977 bytes.
pub fn events(seed: u64) -> RecordBatch {
    let mut random = StdRng::seed_from_u64(seed);
    let texts =
        |of: &dyn Fn(usize) -> String| -> ArrayRef { Arc::new(StringArray::from_iter_values((0..ROWS).map(of))) };
    let complex: Vec<String> = (0..ROWS)
        .map(|_| {
            let fields = (0..23).map(|n| format!("\"moreData{n}\": {}", random.random_range(0.0..100.0)));
            format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
        })
        .collect();
    let time =
        TimestampNanosecondArray::from_iter_values((0..ROWS as i64).map(|n| 1_700_000_000_000_000_000 + n * 100));
    let columns: Vec<(Field, ArrayRef)> = vec![
        column("id", texts(&|n| format!("{seed:08x}-0000-4000-8000-{n:012x}"))),
        column("deviceId", texts(&|n| format!("contoso-device-id-{:06}", n % DEVICES))),
        column("type", texts(&|n| if n % 2 == 0 { "TEMP".into() } else { "CO2".into() })),
        column("value", Arc::new(Float64Array::from_iter_values((0..ROWS).map(|n| n as f64 / 3.0)))),
        column("deviceSequenceNumber", Arc::new(Int64Array::from_iter_values(0..ROWS as i64))),
        column("createdAt", Arc::new(time.with_timezone("UTC"))),
        (json_field("complexData", true), texts(&|n| complex[n].clone())),
    ];
    let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("a batch")
}

fn column(name: &str, array: ArrayRef) -> (Field, ArrayRef) {
    (Field::new(name, array.data_type().clone(), true), array)
}
