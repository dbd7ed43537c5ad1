//! Folders as sources.

use std::fs;
use std::io::Write;

use arrow::array::{ArrayRef, AsArray, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{Int64Type, TimestampNanosecondType};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use super::*;

fn lines(numbers: std::ops::Range<i64>) -> String {
    numbers.map(|n| format!("{{\"id\": \"o{n}\", \"n\": {n}}}\n")).collect()
}

pub(super) fn ids(numbers: std::ops::Range<i64>) -> Vec<String> {
    numbers.map(|n| format!("o{n}")).collect()
}

#[tokio::test]
async fn every_visible_file_of_a_folder_is_a_split_and_hidden_ones_are_not() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("2026/_staging")).unwrap();
    fs::write(folder.path().join("b.jsonl"), lines(0..3)).unwrap();
    fs::write(folder.path().join("2026/a.jsonl"), lines(3..5)).unwrap();
    fs::write(folder.path().join("2026/_staging/c.jsonl"), "not whole yet").unwrap();
    fs::write(folder.path().join(".hidden"), "not whole yet").unwrap();
    let all = Reading::of(&table(folder.path(), &[])).all().await;
    assert_eq!(all.keys().collect::<Vec<_>>(), ["2026/a.jsonl", "b.jsonl"]);
    assert_eq!(all["b.jsonl"].ids, ids(0..3));
    assert_eq!(all["2026/a.jsonl"].ids, ids(3..5));
    let batch = &all["2026/a.jsonl"].batches[0];
    assert_eq!(batch.column(2).as_string::<i32>().value(0), "2026/a.jsonl");
    assert_eq!(batch.column(3).as_primitive::<Int64Type>().values(), &[0, 21]);
    assert!(batch.column(4).as_primitive::<TimestampNanosecondType>().value(0) > 1_600_000_000_000_000_000);
}

#[tokio::test]
async fn a_path_may_be_one_file_and_a_path_that_is_nothing_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("orders.json");
    fs::write(&file, lines(0..2)).unwrap();
    assert_eq!(Reading::of(&table(&file, &[])).all().await["orders.json"].ids, ids(0..2));
    let nothing = Reading::of(&table(&folder.path().join("odrers.json"), &[]));
    let error = nothing.source.splits().await.unwrap_err().to_string();
    assert!(error.contains("odrers.json: there is no such file or folder"), "{error}");
    fs::create_dir(folder.path().join("empty")).unwrap();
    assert!(Reading::of(&table(&folder.path().join("empty"), &[])).all().await.is_empty());
}

/// The same rows however often the process dies, and wherever.
pub(super) async fn survives_crashes(folder: &Path, options: &[(&str, &str)], split: &str, rows: i64) {
    for step in [1, 7, 100, 333] {
        let mut start = Reading::of(&table(folder, options)).first(split).await;
        let (mut seen, mut finished) = (vec![], false);
        while !finished {
            // A new process: nothing but the recorded position is left of the one before.
            let process = Reading::of(&table(folder, options));
            process.source.splits().await.unwrap();
            process.source.verify(split, &start.from).await.unwrap();
            let brought = process.read(split, &start, step).await.unwrap();
            assert_eq!(brought.rejected, [], "a resumed reader cuts no record");
            seen.extend(brought.ids);
            start.from = brought.position.unwrap();
            finished = brought.finished || (step == 1 && seen.len() > 20);
        }
        let expected = if step == 1 { seen.len() as i64 } else { rows };
        assert_eq!(seen, ids(0..expected), "{split} in steps of {step}");
    }
}

impl Reading {
    pub(super) async fn first(&self, split: &str) -> Start {
        self.source.splits().await.unwrap();
        self.start(split).await
    }
}

#[tokio::test]
async fn after_a_crash_reading_goes_on_exactly_where_the_log_says() {
    let folder = tempfile::tempdir().unwrap();
    let rows = 1000;
    fs::write(folder.path().join("a.jsonl"), lines(0..rows)).unwrap();
    let csv: String = (0..rows).map(|n| format!("{n},\"o{n}\"\r\n")).collect();
    fs::write(folder.path().join("a.csv"), format!("n,id\r\n{csv}")).unwrap();
    let packed = |name: &str| fs::File::create(folder.path().join(name)).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(packed("a.jsonl.gz"), flate2::Compression::fast());
    gzip.write_all(lines(0..rows).as_bytes()).unwrap();
    gzip.finish().unwrap();
    // Two members, as tools that append write them.
    let (first, second) = (
        zstd::encode_all(lines(0..400).as_bytes(), 1).unwrap(),
        zstd::encode_all(lines(400..rows).as_bytes(), 1).unwrap(),
    );
    packed("b.jsonl.zst").write_all(&[first, second].concat()).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(packed("c.csv.gz"), flate2::Compression::fast());
    gzip.write_all(format!("n,id\r\n{csv}").as_bytes()).unwrap();
    gzip.finish().unwrap();
    parquet(&folder.path().join("a.parquet"), 0..rows as i32);
    for (split, format) in [
        ("a.jsonl", "json"),
        ("a.csv", "csv"),
        ("a.jsonl.gz", "json"),
        ("b.jsonl.zst", "json"),
        ("c.csv.gz", "csv"),
        ("a.parquet", "parquet"),
    ] {
        survives_crashes(folder.path(), &[("format", format)], split, rows).await;
    }
}

fn parquet(path: &Path, numbers: std::ops::Range<i32>) {
    let id: ArrayRef = Arc::new(StringArray::from_iter_values(numbers.clone().map(|n| format!("o{n}"))));
    let n: ArrayRef = Arc::new(Int32Array::from_iter_values(numbers.clone()));
    let heavy: ArrayRef = Arc::new(StringArray::from_iter_values(numbers.map(|n| "x".repeat(n as usize % 50))));
    let batch = RecordBatch::try_from_iter([("heavy", heavy), ("n", n), ("id", id)]).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(300)).build();
    let file = fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[tokio::test]
async fn a_bad_line_is_a_dead_letter_with_its_file_and_place_and_its_neighbours_are_rows() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.jsonl"), "{\"id\":\"o0\"}\n\n{\"id\":7}\n{\"id\":\"o1\"}\njunk").unwrap();
    let all = Reading::of(&table(folder.path(), &[])).all().await;
    let brought = &all["a.jsonl"];
    assert_eq!(brought.ids, ids(0..2));
    let said: Vec<_> = brought.rejected.iter().map(|r| (r.code, r.offset, r.payload.as_slice())).collect();
    assert_eq!(said, [("wrong-type", Some(13), b"{\"id\":7}".as_slice()), ("not-json", Some(34), b"junk".as_slice())]);
    assert!(brought.rejected[0].error.starts_with("a.jsonl: id: found a number"), "{}", brought.rejected[0].error);
    assert!(brought.rejected[0].headers.as_ref().unwrap().contains("a.jsonl"));
}

#[tokio::test]
async fn a_bad_csv_record_is_a_dead_letter_and_no_null() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.csv"), "id;n\no0;1\no1;one\no2;\n").unwrap();
    let options = [("format", "csv"), ("csv.field-delimiter", ";")];
    let all = Reading::of(&table(folder.path(), &options)).all().await;
    assert_eq!((all["a.csv"].ids.as_slice(), &all["a.csv"].numbers), (&["o0".to_string(), "o2".into()][..], &vec![1]));
    assert_eq!((all["a.csv"].rejected[0].code, all["a.csv"].rejected[0].offset), ("wrong-type", Some(10)));
}

#[tokio::test]
async fn a_parquet_row_without_its_key_is_a_dead_letter() {
    let folder = tempfile::tempdir().unwrap();
    let id: ArrayRef = Arc::new(StringArray::from(vec![Some("o0"), None, Some("o2")]));
    let batch = RecordBatch::try_from_iter([("id", id)]).unwrap();
    let file = fs::File::create(folder.path().join("a.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let all = Reading::of(&table(folder.path(), &[("format", "parquet")])).all().await;
    assert_eq!(all["a.parquet"].ids, ["o0", "o2"]);
    let [rejected] = &all["a.parquet"].rejected[..] else { panic!("one row is bad") };
    assert_eq!((rejected.code, rejected.offset), ("missing", Some(1)));
    assert_eq!(all["a.parquet"].batches[0].column(3).as_primitive::<Int64Type>().values(), &[0, 2]);
}

#[tokio::test]
async fn a_parquet_file_of_other_types_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let id: ArrayRef = Arc::new(Int32Array::from(vec![1]));
    let batch = RecordBatch::try_from_iter([("id", id)]).unwrap();
    let file = fs::File::create(folder.path().join("a.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let reading = Reading::of(&table(folder.path(), &[("format", "parquet")]));
    let start = reading.first("a.parquet").await;
    let error = reading.read("a.parquet", &start, 1).await.unwrap_err().to_string();
    assert!(error.contains("a.parquet") && error.contains("id is Int32 in the file, and declared Utf8"), "{error}");
}

#[tokio::test]
async fn a_file_that_changed_went_or_shrank_under_the_job_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.jsonl");
    fs::write(&file, lines(0..10)).unwrap();
    let start = Reading::of(&table(folder.path(), &[])).first("a.jsonl").await;
    let at = Position { offset: 100, ..start.from };
    let verify = || async {
        let process = Reading::of(&table(folder.path(), &[]));
        process.source.splits().await.unwrap();
        process.source.verify("a.jsonl", &at).await.map_err(|e| e.to_string())
    };
    assert_eq!(verify().await, Ok(()));
    fs::write(&file, lines(0..2)).unwrap();
    let error = verify().await.unwrap_err();
    assert!(error.contains("the job stands at byte 100, but the file is only 42 bytes long"), "{error}");
    fs::write(&file, lines(5..30)).unwrap();
    let error = verify().await.unwrap_err();
    assert!(error.contains("it was 210 bytes of") && error.contains("A file must not change"), "{error}");
    fs::remove_file(&file).unwrap();
    assert!(verify().await.unwrap_err().contains("it is gone"));
}

#[tokio::test]
async fn a_watched_folder_brings_what_comes_later() {
    let folder = tempfile::tempdir().unwrap();
    let reading = Reading::of(&table(folder.path(), &[("source.monitor-interval", "1 s")]));
    assert_eq!(reading.source.discovery_interval(), Some(Duration::from_secs(1)));
    assert!(reading.source.splits().await.unwrap().is_empty());
    fs::write(folder.path().join("a.jsonl"), lines(0..3)).unwrap();
    assert_eq!(reading.source.splits().await.unwrap(), ["a.jsonl"]);
    let start = reading.source.resolve("a.jsonl", true).await.unwrap();
    let brought = reading.read("a.jsonl", &start, usize::MAX).await.unwrap();
    assert_eq!((brought.ids, brought.finished), (ids(0..3), true));
}

#[tokio::test]
async fn of_many_files_few_are_open() {
    let folder = tempfile::tempdir().unwrap();
    for n in 0..100 {
        fs::write(folder.path().join(format!("{n:03}.jsonl")), lines(n..n + 1)).unwrap();
    }
    let reading = Reading::of(&table(folder.path(), &[]));
    let mut readers = vec![];
    for split in reading.source.splits().await.unwrap() {
        readers.push(reading.open(&split, &reading.start(&split).await).await.unwrap());
    }
    // All that can be open have their bytes; nobody has taken any yet.
    let (mut open, begun) = (0, Instant::now());
    let mut one = ReadLimit { records: 0, bytes: 0 };
    while open < 16 {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
        open = readers.iter_mut().filter_map(|r| r.read(one).ok()).filter(|r| r.status == ReadStatus::More).count();
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let open = readers.iter_mut().filter_map(|r| r.read(one).ok()).filter(|r| r.status == ReadStatus::More).count();
    assert_eq!(open, 16, "of 100 files that wait");
    one = ReadLimit { records: 10, bytes: 1 << 20 };
    let mut done = 0;
    while done < 100 {
        assert!(begun.elapsed() < PATIENCE, "{done} files are read");
        tokio::time::sleep(Duration::from_millis(1)).await;
        done = readers.iter_mut().map(|r| r.read(one).unwrap()).filter(|r| r.status == ReadStatus::Finished).count();
    }
}

#[tokio::test]
async fn a_packed_file_that_is_cut_off_is_named_and_ends_nothing_in_silence() {
    let folder = tempfile::tempdir().unwrap();
    for (name, whole) in [
        ("a.jsonl.zst", zstd::encode_all(lines(0..1000).as_bytes(), 1).unwrap()),
        ("a.jsonl.gz", {
            let mut gzip = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
            gzip.write_all(lines(0..1000).as_bytes()).unwrap();
            gzip.finish().unwrap()
        }),
    ] {
        fs::write(folder.path().join(name), &whole[..whole.len() / 2]).unwrap();
        let reading = Reading::of(&table(folder.path(), &[]));
        let start = reading.first(name).await;
        let error = reading.read(name, &start, usize::MAX).await.unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("cut off"), "{error}");
    }
}

#[test]
fn options_that_say_nothing_are_problems_and_all_are_said_at_once() {
    let folder = Path::new("/tmp");
    let mut wrong = table(
        folder,
        &[("format", "csv"), ("csv.field-delimiter", "||"), ("json.lenient", "true"), ("source.regex-pattern", "(")],
    );
    wrong.columns[2].origin = Origin::Metadata("partition".into());
    let problems = FilesystemConnector.source(&wrong).err().unwrap();
    let said: Vec<_> = problems.iter().filter_map(|p| p.option.clone().or(p.column.clone())).collect();
    assert_eq!(said, ["file", "csv.field-delimiter", "source.regex-pattern", "json.lenient"], "{problems:?}");
}
