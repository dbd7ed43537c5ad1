//! A table that is read back.

use std::fs;

use arrow::array::Int64Array;
use parquet::arrow::ArrowWriter;

use super::*;

/// What one hand-over holds at most: what a request brings, and one row that was cut by its end.
const AT_ONCE: usize = 1 << 20;

/// The numbers of all rows, and how many came at once.
async fn read_back(table: &TableSpec) -> Result<(Vec<i64>, Vec<usize>), String> {
    let shown = FilesystemConnector.shown(table).unwrap_or_else(|problems| panic!("{problems:?}"));
    let (mut numbers, mut batches) = (vec![], vec![]);
    shown
        .read(&mut |_, rows| {
            batches.push(rows.num_rows());
            Ok(numbers.extend(rows.column_by_name("n").unwrap().as_primitive::<Int64Type>().values()))
        })
        .await?;
    Ok((numbers, batches))
}

fn of(path: &Path, format: &str) -> TableSpec {
    let columns = vec![field("n", DataType::Int64, true), field("text", DataType::Utf8, true)];
    let columns = columns.into_iter().map(|field| ColumnSpec { field, origin: Origin::Value }).collect();
    TableSpec { columns, ..table(path, &[("format", format)]) }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_whole_however_large_they_are_and_no_more_of_them_are_held_than_come_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let line = |n: i64, length: usize| format!("{{\"n\": {n}, \"text\": \"{}\"}}", "x".repeat(length));
    // Some are cut by the ends of requests, one is larger than they are, and the last one has no end.
    let lengths = (0..200).map(|n| if n == 77 { 3 * AT_ONCE } else { 30_000 + 7 * n });
    let text: Vec<String> = lengths.enumerate().map(|(n, length)| line(n as i64, length)).collect();
    fs::write(folder.path().join("a.jsonl"), text.join("\n")).unwrap();
    let (numbers, batches) = read_back(&of(folder.path(), "json")).await.unwrap();
    assert_eq!(numbers, (0..200).collect::<Vec<_>>());
    assert!(batches.iter().all(|rows| *rows <= AT_ONCE / 30_000 + 1), "{batches:?}");

    fs::write(folder.path().join("b.jsonl"), format!("{}\n{{\"n\": 7", line(200, 0))).unwrap();
    let said = read_back(&of(folder.path(), "json")).await.unwrap_err();
    assert!(said.contains("b.jsonl: ") && said.ends_with(": {\"n\": 7"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_parquet_are_not_held_either() {
    let folder = tempfile::tempdir().unwrap();
    let numbers: arrow::array::ArrayRef = Arc::new(Int64Array::from_iter_values(0..30_000));
    let rows = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
    let file = fs::File::create(folder.path().join("a.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    let (numbers, batches) = read_back(&of(folder.path(), "parquet")).await.unwrap();
    assert_eq!(numbers, (0..30_000).collect::<Vec<_>>());
    assert!(batches.iter().all(|rows| *rows <= crate::fetch::ROWS_AT_ONCE), "{batches:?}");

    fs::write(folder.path().join("b.parquet"), "PAR1 and no more").unwrap();
    let said = read_back(&of(folder.path(), "parquet")).await.unwrap_err();
    assert!(said.contains("b.parquet: not a readable Parquet file"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_grows_meanwhile_is_read_as_far_as_it_was() {
    use std::io::Write;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one.json");
    let lines = |from: usize, to: usize| {
        (from..to).map(|n| format!("{{\"n\": {n}, \"text\": \"{}\"}}\n", "x".repeat(100_000))).collect::<String>()
    };
    fs::write(&path, lines(0, 100)).unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    let shown = FilesystemConnector.shown(&of(&path, "json")).unwrap_or_else(|problems| panic!("{problems:?}"));
    let mut rows = 0;
    let mut take = |_: Option<i64>, batch: RecordBatch| {
        if rows == 0 {
            file.write_all(lines(100, 200).as_bytes()).unwrap();
        }
        Ok(rows += batch.num_rows())
    };
    shown.read(&mut take).await.unwrap();
    assert_eq!(rows, 100);
}
