//! `cargo bench -p formats`: the decoder beside what one would write without it, in the same process, by turns. Ratios count;
//! the rates are of this machine at this moment. `cargo bench -p formats -- text` runs only the lines that say so. With
//! `--guard` it fails if a ratio is far below all that was ever seen: the floors are for slow code, not for slow moments.
#![allow(clippy::print_stdout, clippy::expect_used, reason = "a benchmark prints, and stops at what is wrong")]

mod binary;
mod reference;
mod seed;

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit};
use formats::{Decoder, Format, JsonOptions, fetch_ahead};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use seed::{Nested, Seed};

const EVENTS: usize = 20_000;
/// Rows of a batch, as the engine reads them.
const BATCH: usize = 8192;
/// Each subject takes its turn so often; the middle ratio is shown.
const TURNS: usize = 15;
/// A ratio that is too low is measured again so often: a slow moment passes, slow code does not.
const TRIES: usize = 4;

fn main() -> ExitCode {
    let (wide, narrow) = (events(wide_event), events(narrow_event));
    println!("{:<52} {:>12} {:>12} {:>7}", "", "reference/s", "millrace/s", "ratio");
    let mut held = true;
    for (what, events) in [("wide", &wide), ("simulator's", &narrow)] {
        println!("{what} event, {} bytes", events.iter().map(Vec::len).sum::<usize>() / events.len());
        for (what, nested, floor) in [
            ("  6 fields and 23 doubles / seed", Nested::Doubles, 1.25),
            ("  6 fields / seed that ignores the rest", Nested::Ignored, 1.6),
            ("  6 fields and the rest as text / seed with RawValue", Nested::Text, 1.1),
        ] {
            let with_seed = || decode_with_seed(events, nested);
            held &= compare(what, floor, with_seed, || decode(events, event_fields(nested)));
        }
        let scan = || {
            black_box(events.iter().map(|event| reference::scan(event)).sum::<f64>());
        };
        held &= compare("  6 fields and 23 doubles / scan and fast-float2", 0.6, scan, || {
            decode(events, event_fields(Nested::Doubles))
        });
    }
    let flat = events(flat_event);
    println!("30 numbers, {} bytes", flat[0].len());
    let get = || {
        black_box(flat.iter().map(|event| reference::field(event, "field30")).sum::<f64>());
    };
    let last = || decode(&flat, vec![Field::new("field30", DataType::Float64, true)]);
    held &= compare("  the last / sonic_rs::get", 1.2, get, last);
    let avro = binary::Avro::of(&wide);
    println!("wide event as Avro, {} bytes", avro.payloads.iter().map(Vec::len).sum::<usize>() / EVENTS);
    held &= compare("  Avro: all / arrow-avro, all", 0.0, || avro.decode_with_arrow_avro(), || avro.decode(29));
    held &= compare("  Avro: 6 fields / arrow-avro, all", 0.0, || avro.decode_with_arrow_avro(), || avro.decode(6));
    let protobuf = binary::Protobuf::of(EVENTS);
    println!("protobuf event, {} bytes", protobuf.payloads.iter().map(Vec::len).sum::<usize>() / EVENTS);
    held &=
        compare("  protobuf: all / prost, into builders", 0.0, || protobuf.decode_with_prost(), || protobuf.decode());
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Lets both take their turns and prints the ratio in the middle. Returns whether it is above the floor, if anyone asks.
fn compare(what: &str, floor: f64, reference: impl Fn(), subject: impl Fn()) -> bool {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (flags, wanted): (Vec<_>, Vec<_>) = arguments.iter().partition(|argument| argument.starts_with("--"));
    if !wanted.is_empty() && !wanted.iter().any(|wanted| what.contains(wanted.as_str())) {
        return true;
    }
    let guarded = flags.iter().any(|flag| *flag == "--guard");
    for _ in 0..TRIES {
        let (reference, subject) = middle(&reference, &subject);
        let ratio = reference / subject;
        let rate = |seconds: f64| EVENTS as f64 / seconds;
        println!("{what:<52} {:>12.0} {:>12.0} {ratio:>6.2}x", rate(reference), rate(subject));
        if !guarded || ratio >= floor {
            return true;
        }
    }
    println!("{what}: below {floor:.2}x, {TRIES} times");
    false
}

/// The seconds of the turn whose ratio lies in the middle.
fn middle(reference: &impl Fn(), subject: &impl Fn()) -> (f64, f64) {
    let seconds = |run: &dyn Fn()| {
        let begun = Instant::now();
        run();
        begun.elapsed().as_secs_f64()
    };
    let mut turns: Vec<(f64, f64)> = (0..TURNS).map(|_| (seconds(reference), seconds(subject))).collect();
    turns.sort_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
    turns[TURNS / 2]
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
        for (at, event) in batch.iter().enumerate() {
            // As readers do.
            batch.get(at + 1).into_iter().for_each(|next| fetch_ahead(next));
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
