//! `cargo bench -p formats`: the decoder beside what one would write without it, in the same process, by turns. Ratios count;
//! the rates are of this machine at this moment. `cargo bench -p formats -- text` runs only the lines that say so.
#![allow(clippy::print_stdout, clippy::expect_used, reason = "a benchmark prints, and stops at what is wrong")]

mod reference;
mod seed;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit};
use formats::{Decoder, Format, JsonOptions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use seed::{Nested, Seed};

const EVENTS: usize = 20_000;
/// Rows of a batch, as the engine reads them.
const BATCH: usize = 8192;
/// Each subject takes its turn so often; the middle ratio is shown.
const TURNS: usize = 15;

fn main() {
    let (wide, narrow) = (events(wide_event), events(narrow_event));
    println!("{:<52} {:>12} {:>12} {:>7}", "", "reference/s", "millrace/s", "ratio");
    for (what, events) in [("wide", &wide), ("simulator's", &narrow)] {
        println!("{what} event, {} bytes", events.iter().map(Vec::len).sum::<usize>() / events.len());
        for (what, nested) in [
            ("  6 fields and 23 doubles / seed", Nested::Doubles),
            ("  6 fields / seed that ignores the rest", Nested::Ignored),
            ("  6 fields and the rest as text / seed with RawValue", Nested::Text),
        ] {
            let with_seed = || decode_with_seed(events, nested);
            compare(what, with_seed, || decode(events, event_fields(nested)));
        }
        let scan = || {
            black_box(events.iter().map(|event| reference::scan(event)).sum::<f64>());
        };
        compare("  6 fields and 23 doubles / scan and fast-float2", scan, || {
            decode(events, event_fields(Nested::Doubles))
        });
    }
    let flat = events(flat_event);
    println!("30 numbers, {} bytes", flat[0].len());
    let get = || {
        black_box(flat.iter().map(|event| reference::field(event, "field30")).sum::<f64>());
    };
    compare("  the last / sonic_rs::get", get, || decode(&flat, vec![Field::new("field30", DataType::Float64, true)]));
}

/// Lets both take their turns and prints the ratio in the middle.
fn compare(what: &str, reference: impl Fn(), subject: impl Fn()) {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if !wanted.is_empty() && !wanted.iter().any(|wanted| what.contains(wanted.as_str())) {
        return;
    }
    let seconds = |run: &dyn Fn()| {
        let begun = Instant::now();
        run();
        begun.elapsed().as_secs_f64()
    };
    let mut turns: Vec<(f64, f64)> = (0..TURNS).map(|_| (seconds(&reference), seconds(&subject))).collect();
    turns.sort_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
    let (reference, subject) = turns[TURNS / 2];
    let rate = |seconds: f64| EVENTS as f64 / seconds;
    println!("{what:<52} {:>12.0} {:>12.0} {:>6.2}x", rate(reference), rate(subject), reference / subject);
}

fn decode_with_seed(events: &[Vec<u8>], nested: Nested) {
    let mut seed = Seed::new(nested);
    for batch in events.chunks(BATCH) {
        batch.iter().for_each(|event| seed.push(event).expect("an event"));
        black_box(seed.finish());
    }
}

fn decode(events: &[Vec<u8>], fields: Vec<Field>) {
    let schema = Arc::new(Schema::new(fields));
    let mut decoder = Decoder::new(schema, Format::Json, JsonOptions::default(), None).expect("a decoder");
    for batch in events.chunks(BATCH) {
        for event in batch {
            decoder.push(event, None).expect("an event");
        }
        black_box(decoder.finish().expect("a batch"));
    }
}

fn event_fields(nested: Nested) -> Vec<Field> {
    let instant = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    let mut fields = vec![
        Field::new("eventId", DataType::Utf8, false),
        Field::new("value", DataType::Float64, true),
        Field::new("deviceId", DataType::Utf8, true),
        Field::new("deviceSequenceNumber", DataType::Int64, true),
        Field::new("type", DataType::Utf8, true),
        Field::new("createdAt", instant, true),
    ];
    match nested {
        Nested::Doubles => {
            let doubles: Fields =
                (1..=23).map(|n| Field::new(format!("moreData{n}"), DataType::Float64, true)).collect();
            fields.push(Field::new("complexData", DataType::Struct(doubles), true));
        }
        Nested::Text => {
            let json = [("ARROW:extension:name".to_string(), "arrow.json".to_string())];
            fields.push(Field::new("complexData", DataType::Utf8, true).with_metadata(json.into()));
        }
        Nested::Ignored => {}
    }
    fields
}

fn events(event: impl Fn(&mut StdRng, usize) -> String) -> Vec<Vec<u8>> {
    let mut random = StdRng::seed_from_u64(1);
    (0..EVENTS).map(|n| event(&mut random, n).into_bytes()).collect()
}

/// The event of the reference measurements: no white space, numbers of 15 to 17 digits.
fn wide_event(random: &mut StdRng, n: usize) -> String {
    let id = uuid::Uuid::from_u128(random.random());
    let more: Vec<String> = (1..=23).map(|n| format!("\"moreData{n}\":{}", random.random_range(0.0..100.0))).collect();
    format!(
        r#"{{"eventId":"{id}","complexData":{{{}}},"value":{},"deviceId":"contoso://device-id-{}","deviceSequenceNumber":{n},"type":"{}","createdAt":"2026-11-22T10:{:02}:{:02}.{:07}Z"}}"#,
        more.join(","),
        random.random_range(0.0..100.0),
        n % 1000,
        if n.is_multiple_of(2) { "CO2" } else { "TEMP" },
        n / 60 % 60,
        n % 60,
        random.random_range(0..10_000_000),
    )
}

/// The simulator's event: white space, and numbers of nine or ten digits.
fn narrow_event(random: &mut StdRng, n: usize) -> String {
    let id = uuid::Uuid::from_u128(random.random());
    let mut number = || format!("0.{}", random.random_range(1..i32::MAX));
    let more: Vec<String> = (1..=23).map(|n| format!("\"moreData{n}\": {}", number())).collect();
    format!(
        r#"{{ "eventId": "{id}", "value": {}, "deviceId": "contoso-device-id-{:06}", "deviceSequenceNumber": {n}, "type": "{}", "createdAt": "2026-11-22T10:{:02}:{:02}.{:07}Z", "complexData": {{ {} }} }}"#,
        number(),
        n % 1000,
        if n.is_multiple_of(2) { "CO2" } else { "TEMP" },
        n / 60 % 60,
        n % 60,
        n * 499 % 10_000_000,
        more.join(", "),
    )
}

fn flat_event(random: &mut StdRng, _: usize) -> String {
    let fields: Vec<String> = (1..=30).map(|n| format!("\"field{n}\":{}", random.random_range(0.0..100.0))).collect();
    format!("{{{}}}", fields.join(","))
}
