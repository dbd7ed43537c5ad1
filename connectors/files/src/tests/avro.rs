//! Avro files. Those in `avro/` were written by fastavro (`avro/write.py`), 200 orders in each of the codecs and 40 small ones.

use std::fs;
use std::path::PathBuf;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Date32Type, Decimal128Type, Fields, Float64Type, Int64Type, TimestampNanosecondType};
use arrow_avro::writer::AvroWriter;

use super::reading::{ids, survives_crashes};
use super::*;

const FORMAT: [(&str, &str); 1] = [("format", "avro")];
/// 2026-11-22, in nanoseconds since 1970.
const START: i64 = 1_795_305_600_000_000_000;
const MARKER: &[u8] = b"0123456789abcdef";

fn written_by_fastavro(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests/avro").join(name)
}

/// A table of all that an order in the files holds, except what no type of SQL can take.
fn orders(path: &Path) -> TableSpec {
    let line = Fields::from(vec![
        Field::new("count", DataType::Int64, true),
        Field::new("sku", DataType::Utf8, true),
        Field::new("price", DataType::Float64, true),
    ]);
    let tag = vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)];
    let tag = Arc::new(Field::new("entries", DataType::Struct(tag.into()), false));
    let columns = [
        ("kind", DataType::Utf8),
        ("returned", DataType::Utf8),
        ("at", instant()),
        ("seen", instant()),
        ("day", DataType::Date32),
        ("price", DataType::Decimal128(12, 3)),
        ("key", DataType::Utf8),
        ("digest", DataType::Binary),
        ("weight", DataType::Float64),
        ("lines", DataType::List(Arc::new(Field::new("item", DataType::Struct(line.clone()), true)))),
        ("tags", DataType::Map(tag, false)),
        ("gift", DataType::Struct(line)),
        ("nothing", DataType::Int64),
        ("later", DataType::Utf8),
    ];
    let mut orders = table(path, &FORMAT);
    orders.columns.truncate(2);
    let value = |(name, data_type)| ColumnSpec { field: field(name, data_type, true), origin: Origin::Value };
    orders.columns.extend(columns.map(value));
    orders
}

#[tokio::test]
async fn all_that_another_writer_wrote_is_read_in_each_codec() {
    for codec in ["null.avro", "deflate.avro", "snappy.avro", "zstandard.avro"] {
        let read = &Reading::of(&orders(&written_by_fastavro(codec))).all().await[codec];
        assert_eq!((&read.ids, &read.numbers, &read.rejected), (&ids(0..200), &(0..200).collect(), &vec![]), "{codec}");
        let all = concat_batches(&read.batches[0].schema(), &read.batches).unwrap();
        let column = |name: &str| all.column_by_name(name).unwrap();
        let text = |name: &str, row| column(name).as_string::<i32>().value(row).to_string();
        assert_eq!(
            (text("kind", 7), text("returned", 7), text("returned", 8)),
            ("web".into(), "store".into(), "web".into())
        );
        assert_eq!(column("at").as_primitive::<TimestampNanosecondType>().value(7), START + 7_000);
        let seen = column("seen").as_primitive::<TimestampNanosecondType>();
        assert_eq!((seen.value(7), seen.is_null(9)), (START + 7_000_000_000, true));
        assert_eq!(column("day").as_primitive::<Date32Type>().value(7), 20_779 + 7);
        let price = column("price").as_primitive::<Decimal128Type>();
        assert_eq!((price.value(7), price.value(199), price.is_null(5)), (-930, 990, true));
        assert_eq!(text("key", 199), "00000000-0000-0000-0000-0000000000c7");
        assert_eq!(column("digest").as_binary::<i32>().value(7), [7, 1, 2, 3]);
        assert_eq!(column("weight").as_primitive::<Float64Type>().value(7), 3.5);
        let lines = column("lines").as_list::<i32>();
        assert_eq!((lines.value(6).len(), lines.value(8).len()), (0, 2));
        let (of_8, gift) = (lines.value(8), column("gift").as_struct());
        assert_eq!(of_8.as_struct().column(0).as_primitive::<Int64Type>().values(), &[0, 1]);
        assert_eq!(of_8.as_struct().column(1).as_string::<i32>().value(1), "sku 1");
        assert_eq!(of_8.as_struct().column(2).null_count(), 2, "no line has a price");
        let tags = column("tags").as_map().value(8);
        assert_eq!(tags.column(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["tag 0", "tag 1"]);
        assert_eq!(tags.column(1).as_string::<i32>().iter().collect::<Vec<_>>(), [Some("ä"), None]);
        assert_eq!((gift.column(0).as_primitive::<Int64Type>().value(7), gift.is_null(8)), (7, true));
        assert_eq!((column("nothing").null_count(), column("later").null_count()), (200, 200));
    }
}

#[tokio::test]
async fn after_a_crash_reading_goes_on_at_the_row_that_the_log_says() {
    let folder = tempfile::tempdir().unwrap();
    for codec in ["null.avro", "deflate.avro", "snappy.avro", "zstandard.avro"] {
        fs::copy(written_by_fastavro(codec), folder.path().join(codec)).unwrap();
        survives_crashes(folder.path(), &FORMAT, codec, 200).await;
    }
    avro(&folder.path().join("large.avro"), 0..20_000, 9_000);
    let mut large = Reading::of(&table(folder.path(), &FORMAT)).first("large.avro").await;
    for (from, rows) in [(0, 20_000), (4095, 15_905), (9_000, 11_000), (19_999, 1), (20_000, 0)] {
        large.from.offset = from;
        let reading = Reading::of(&table(folder.path(), &FORMAT));
        reading.source.splits().await.unwrap();
        let read = reading.read("large.avro", &large, usize::MAX).await.unwrap();
        assert_eq!((read.ids.len(), read.ids), (rows, ids(from..20_000)), "from {from}");
        assert!(read.batches.iter().all(|b| b.num_rows() <= 4096), "a long block is handed on in pieces");
    }
}

/// Orders, so many in a block, and a column that nobody reads.
fn avro(path: &Path, numbers: std::ops::Range<i64>, in_a_block: usize) {
    let id: ArrayRef = Arc::new(StringArray::from_iter_values(numbers.clone().map(|n| format!("o{n}"))));
    let heavy: ArrayRef = Arc::new(StringArray::from_iter_values(numbers.clone().map(|n| "x".repeat(n as usize % 50))));
    let n: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers));
    let all = RecordBatch::try_from_iter([("heavy", heavy), ("n", n), ("id", id)]).unwrap();
    let mut writer = AvroWriter::new(fs::File::create(path).unwrap(), all.schema().as_ref().clone()).unwrap();
    for first in (0..all.num_rows()).step_by(in_a_block) {
        writer.write(&all.slice(first, in_a_block.min(all.num_rows() - first))).unwrap();
    }
    writer.finish().unwrap();
}

/// What reading such a file comes to.
async fn read(bytes: &[u8]) -> Result<Brought, String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.avro"), bytes).unwrap();
    let reading = Reading::of(&table(folder.path(), &FORMAT));
    let start = reading.first("a.avro").await;
    let read = reading.read("a.avro", &start, usize::MAX).await.map_err(|e| e.to_string())?;
    assert!(read.finished);
    Ok(read)
}

#[tokio::test]
async fn a_file_that_is_cut_off_is_named_wherever_that_is() {
    let whole = fs::read(written_by_fastavro("small.avro")).unwrap();
    let ends: Vec<usize> = (16..=whole.len()).filter(|end| whole[..*end].ends_with(MARKER)).collect();
    assert!(ends.len() > 4, "the file has blocks: {ends:?}");
    for length in 0..whole.len() {
        match read(&whole[..length]).await {
            // Nothing in such a file says that more was to come.
            Ok(read) => assert!(ends.contains(&length) && read.ids.len() < 40, "{length} bytes"),
            Err(error) => {
                assert!(!ends.contains(&length) && error.contains("a.avro of"), "{length} bytes: {error}");
                assert!(error.contains("not a readable Avro file: ") && error.contains("cut off"), "{length}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn no_damage_changes_how_many_rows_there_are_in_silence() {
    let whole = fs::read(written_by_fastavro("small.avro")).unwrap();
    let mut refused = 0;
    for at in 0..whole.len() {
        for bit in [0x01, 0x02, 0x10, 0x80] {
            let mut damaged = whole.clone();
            damaged[at] ^= bit;
            match read(&damaged).await {
                Ok(read) => assert_eq!(read.ids.len() + read.rejected.len(), 40, "bit {bit:#x} of byte {at}"),
                Err(error) => {
                    assert!(error.contains("a.avro of"), "bit {bit:#x} of byte {at}: {error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > whole.len(), "{refused} of {} are found", 4 * whole.len());
}

#[tokio::test]
async fn a_damaged_block_is_named_with_its_place() {
    let whole = fs::read(written_by_fastavro("snappy.avro")).unwrap();
    let first = whole.windows(16).position(|w| w == MARKER).unwrap() + 16;
    let second = first + whole[first..].windows(16).position(|w| w == MARKER).unwrap() + 16;
    let mut damaged = whole.clone();
    damaged[second - 18] ^= 1;
    let error = read(&damaged).await.unwrap_err();
    let expected = format!("not a readable Avro file: the block at byte {first}: its checksum does not hold");
    assert!(error.ends_with(&expected), "{error}");
    damaged = whole.clone();
    damaged[second - 1] ^= 1;
    let error = read(&damaged).await.unwrap_err();
    assert!(error.ends_with(&format!("the block at byte {first} does not end with the file's marker")), "{error}");
    let error = read(b"{\"id\": \"o1\"}\n").await.unwrap_err();
    assert!(error.contains("not a readable Avro file: its header: "), "{error}");
    let codec = whole.windows(6).position(|w| w == b"snappy").unwrap();
    damaged = whole.clone();
    damaged.splice(codec - 1..codec + 6, *b"\x0abzip2");
    let error = read(&damaged).await.unwrap_err();
    assert!(error.contains("the codec bzip2 is not read; null, deflate, snappy and zstandard are"), "{error}");
}

#[tokio::test]
async fn a_file_without_rows_has_an_end() {
    let whole = fs::read(written_by_fastavro("small.avro")).unwrap();
    let header = whole.windows(16).position(|w| w == MARKER).unwrap() + 16;
    assert_eq!(read(&whole[..header]).await.unwrap().ids, [""; 0]);
}

#[tokio::test]
async fn types_that_do_not_fit_are_refused_by_name() {
    let mut wrong = table(&written_by_fastavro("null.avro"), &FORMAT);
    wrong.columns[1].field = field("either", DataType::Int64, true);
    wrong.columns.push(ColumnSpec { field: field("at", DataType::Int64, true), origin: Origin::Value });
    wrong.columns.push(ColumnSpec { field: field("nothing", DataType::Int64, false), origin: Origin::Value });
    let reading = Reading::of(&wrong);
    let start = reading.first("null.avro").await;
    let error = reading.read("null.avro", &start, 1).await.unwrap_err().to_string();
    assert!(error.contains("either is Union(") && error.contains("and declared Int64"), "{error}");
    assert!(error.contains("at is Timestamp(µs, \"UTC\") in the file, and declared Int64"), "{error}");
    assert!(error.contains("nothing is NOT NULL and the file has no such column"), "{error}");
}

#[tokio::test]
async fn an_order_without_its_key_is_a_dead_letter() {
    let mut strict = table(&written_by_fastavro("deflate.avro"), &FORMAT);
    strict.columns.push(ColumnSpec { field: field("seen", instant(), false), origin: Origin::Value });
    let read = &Reading::of(&strict).all().await["deflate.avro"];
    assert_eq!((read.ids.len(), read.rejected.len()), (133, 67));
    let second = &read.rejected[1];
    assert_eq!((second.code, second.offset), ("missing", Some(3)));
    assert_eq!(second.payload, b"{\"n\":3,\"id\":\"o3\"}\n");
    assert_eq!(second.error, "deflate.avro: seen is null and NOT NULL");
}

#[tokio::test]
async fn rows_are_counted_though_none_of_their_columns_is_read() {
    let mut bare = table(&written_by_fastavro("zstandard.avro"), &FORMAT);
    bare.columns.retain(|c| matches!(&c.origin, Origin::Metadata(_)));
    let reading = Reading::of(&bare);
    let start = reading.first("zstandard.avro").await;
    let mut reader = reading.open("zstandard.avro", &start).await.unwrap();
    let (mut offsets, begun) = (vec![], Instant::now());
    loop {
        assert!(begun.elapsed() < PATIENCE);
        let read = reader.read(ReadLimit { records: 1000, bytes: 1 << 20 }).unwrap();
        let at = |batch: &RecordBatch| batch.column(1).as_primitive::<Int64Type>().values().to_vec();
        offsets.extend(read.batch.as_ref().map(at).unwrap_or_default());
        match read.status {
            ReadStatus::Finished => break,
            ReadStatus::Pending => tokio::time::sleep(Duration::from_millis(1)).await,
            _ => {}
        }
    }
    assert_eq!(offsets, (0..200).collect::<Vec<_>>());
}

#[test]
fn avro_is_read_and_not_written() {
    let problems = FilesystemConnector.sink(&table(Path::new("/tmp"), &FORMAT)).err().unwrap();
    assert_eq!(problems[0].message, "'avro' can be read and not written; write 'json' or 'parquet'");
}
