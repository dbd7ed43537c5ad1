//! Sinks: what is prepared is shown once, whoever asks and however often.

use std::fs;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, Schema};
use engine::sink::{Committable, Committed, Names, Sink, SinkContext};
use object_store::local::LocalFileSystem;
use parking_lot::Mutex;

use super::*;
use crate::{SingleFileConnector, StdoutConnector};

/// A process of the job whose folder is `state`.
fn process(state: &Path, writer: &str) -> SinkContext {
    SinkContext {
        log_id: "log".into(),
        sink: "orders".into(),
        writer: writer.into(),
        schema: Arc::new(Schema::new(vec![
            Field::new("id", DataType::Utf8, false),
            Field::new("n", DataType::Int64, true),
        ])),
        store: Arc::new(LocalFileSystem::new_with_prefix(state).unwrap()),
        staging: "staged/orders".into(),
        names: Names::of(writer),
        ownership: engine::sink::Ownership::undisputed(),
        metrics: Arc::default(),
        runtime: tokio::runtime::Handle::current(),
    }
}

fn rows(context: &SinkContext, numbers: std::ops::Range<i64>) -> RecordBatch {
    let id: ArrayRef = Arc::new(StringArray::from_iter_values(numbers.clone().map(|n| format!("o{n}"))));
    let n: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers));
    RecordBatch::try_new(context.schema.clone(), vec![id, n]).unwrap()
}

/// Writes and prepares some rows, as entry `entry` names them.
async fn prepared(sink: &dyn Sink, context: &SinkContext, entry: u64, numbers: std::ops::Range<i64>) -> Committable {
    let mut writer = sink.writer(context).unwrap();
    writer.write(&rows(context, numbers)).unwrap();
    let token = writer.prepare().await.unwrap().unwrap();
    Committable { entry, writer: context.writer.clone(), tokens: vec![token], excluded: vec![] }
}

fn table_at(path: &Path, options: &[(&str, &str)]) -> TableSpec {
    let mut table = table(path, options);
    table.columns.truncate(2);
    table
}

#[tokio::test]
async fn a_folder_shows_each_entry_once_and_its_files_can_be_read_back() {
    for format in ["json", "parquet"] {
        let folder = tempfile::tempdir().unwrap();
        let (out, context) = (folder.path().join("out"), process(folder.path(), "w1"));
        let table = table_at(&out, &[("format", format)]);
        let sink = FilesystemConnector.sink(&table).unwrap();
        sink.open(&context, false).await.unwrap();
        let first = prepared(&*sink, &context, 2, 0..3).await;
        let shown = || fs::read_dir(&out).unwrap().filter(|f| f.as_ref().unwrap().path().is_file()).count();
        assert_eq!(shown(), 0, "nothing is shown before its entry");
        assert_eq!(sink.commit(&context, std::slice::from_ref(&first)).await.unwrap(), Committed::Done);
        // A successor cannot know that it was shown, and asks again; then it goes on.
        let successor = process(folder.path(), "w2");
        let second = prepared(&*sink, &successor, 3, 3..5).await;
        assert_eq!(sink.commit(&successor, &[first, second]).await.unwrap(), Committed::Done);
        assert_eq!(shown(), 2);
        let all = Reading::of(&table).all().await;
        let ids: Vec<_> = all.values().flat_map(|b| b.ids.clone()).collect();
        assert_eq!(ids, ["o0", "o1", "o2", "o3", "o4"], "{format}");
    }
}

#[tokio::test]
async fn another_job_in_the_same_folder_hides_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (out, context) = (folder.path().join("out"), process(folder.path(), "w1"));
    let sink = FilesystemConnector.sink(&table_at(&out, &[])).unwrap();
    let other = SinkContext { log_id: "other".into(), ..process(folder.path(), "w2") };
    for (context, numbers) in [(&context, 0..1), (&other, 1..2)] {
        let entry = prepared(&*sink, context, 2, numbers).await;
        sink.commit(context, &[entry]).await.unwrap();
    }
    let all = Reading::of(&table_at(&out, &[])).all().await;
    assert_eq!(all.values().map(|b| b.ids.len()).sum::<usize>(), 2);
}

/// A NaN has no word in JSON, and would be read as NULL: its row goes to the dead letter, and its neighbours into the file.
#[tokio::test]
async fn a_row_that_json_has_no_word_for_is_told_before_its_neighbours_are_shown() {
    for (connector, to) in [(&FilesystemConnector as &dyn Connector, "out"), (&SingleFileConnector, "out.json")] {
        let folder = tempfile::tempdir().unwrap();
        let (out, mut context) = (folder.path().join(to), process(folder.path(), "w1"));
        context.schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Float64, true)]));
        let sink = connector.sink(&table_at(&out, &[])).unwrap();
        sink.open(&context, false).await.unwrap();
        let mut writer = sink.writer(&context).unwrap();
        let mut entry = async |entry, numbers: Vec<f64>| {
            for number in numbers.chunks(2) {
                let column: ArrayRef = Arc::new(Float64Array::from(number.to_vec()));
                writer.write(&RecordBatch::try_new(context.schema.clone(), vec![column]).unwrap()).unwrap();
            }
            let token = writer.prepare().await.unwrap().unwrap();
            Committable { entry, writer: "w1".into(), tokens: vec![token], excluded: vec![] }
        };
        let mut entries = [
            entry(2, vec![1.0, 2.0, f64::INFINITY, 3.0]).await,
            entry(3, vec![f64::NAN]).await,
            entry(4, vec![4.0]).await,
        ];
        for (place, row, said) in [(0, 2, "column x is inf"), (1, 0, "column x is NaN")] {
            let Committed::Rejected { entry, rows } = sink.commit(&context, &entries).await.unwrap() else {
                panic!("{said}: it was shown")
            };
            assert_eq!((entry, rows.len(), rows[0].token, rows[0].row), (entries[place].entry, 1, 0, row));
            assert!(rows[0].reason.starts_with(said) && rows[0].content.starts_with("{\"x\":\""), "{rows:?}");
            assert!(!lines_below(&out).contains("1.0"), "nothing is shown before it is recorded");
            entries[place].excluded.extend(rows);
        }
        for _ in 0..2 {
            assert_eq!(sink.commit(&context, &entries).await.unwrap(), Committed::Done);
        }
        let expected = "{\"x\":1.0}\n{\"x\":2.0}\n{\"x\":3.0}\n{\"x\":4.0}\n";
        assert_eq!(lines_below(&out), expected);
    }
}

/// All that stands in a file, or in the files of a folder.
fn lines_below(place: &Path) -> String {
    if !place.is_dir() {
        return fs::read_to_string(place).unwrap_or_default();
    }
    let mut files: Vec<_> = fs::read_dir(place).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.is_file());
    files.sort();
    files.iter().map(|file| fs::read_to_string(file).unwrap()).collect()
}

fn lines_of(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is whole");
    text.lines().map(String::from).collect()
}

#[tokio::test]
async fn a_single_file_shows_each_row_once_through_crashes_and_late_comers() {
    let folder = tempfile::tempdir().unwrap();
    let (file, first) = (folder.path().join("deep/out.json"), process(folder.path(), "w1"));
    let sink = SingleFileConnector.sink(&table_at(&file, &[])).unwrap();
    sink.open(&first, false).await.unwrap();
    let two = prepared(&*sink, &first, 2, 0..2).await;
    let three = prepared(&*sink, &first, 3, 2..4).await;
    sink.commit(&first, std::slice::from_ref(&two)).await.unwrap();
    // The first process wrote half of entry 3 and died: nothing is recorded.
    let half = b"{\"id\":\"o2\",\"n\":2}\n{\"id\"";
    let end = fs::metadata(&file).unwrap().len();
    crate::single_file::write_at(&file, half, end).unwrap();
    let second = process(folder.path(), "w2");
    sink.open(&second, false).await.unwrap();
    sink.commit(&second, std::slice::from_ref(&three)).await.unwrap();
    let four = prepared(&*sink, &second, 4, 4..5).await;
    sink.commit(&second, std::slice::from_ref(&four)).await.unwrap();
    // The first process was only asleep, and shows again what it had to show.
    sink.commit(&first, &[two, three, four]).await.unwrap();
    let expected: Vec<_> = (0..5).map(|n| format!("{{\"id\":\"o{n}\",\"n\":{n}}}")).collect();
    assert_eq!(lines_of(&file), expected);
    let staged =
        fs::read_dir(folder.path().join("staged/orders")).unwrap().filter(|f| f.as_ref().unwrap().path().is_file());
    assert_eq!(staged.count(), 0, "what is shown is not kept twice");
}

#[tokio::test]
async fn a_single_file_of_somebody_else_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let (file, context) = (folder.path().join("out.json"), process(folder.path(), "w1"));
    fs::write(&file, "precious\n").unwrap();
    let sink = SingleFileConnector.sink(&table_at(&file, &[])).unwrap();
    let error = sink.open(&context, false).await.unwrap_err().to_string();
    assert!(error.contains("holds 9 bytes that this job did not write"), "{error}");
    fs::remove_file(&file).unwrap();
    sink.open(&context, false).await.unwrap();
    let two = prepared(&*sink, &context, 2, 0..2).await;
    sink.commit(&context, &[two]).await.unwrap();
    fs::write(&file, "").unwrap();
    let error = sink.open(&context, false).await.unwrap_err().to_string();
    assert!(error.contains("holds 0 bytes, but up to entry 2 this job wrote 36"), "{error}");
}

#[tokio::test]
async fn standard_output_gets_rows_when_their_entry_is_committed() {
    let folder = tempfile::tempdir().unwrap();
    let printed = Arc::new(Mutex::new(Vec::<u8>::new()));
    let stdout = StdoutConnector { output: printed.clone() };
    let context = process(folder.path(), "w1");
    let text = || String::from_utf8(std::mem::take(&mut *printed.lock())).unwrap();
    let json = stdout.sink(&table_at(folder.path(), &[("format", "json")])).unwrap();
    let entry = prepared(&*json, &context, 2, 0..2).await;
    assert_eq!(text(), "", "nothing is shown before its entry");
    json.commit(&context, std::slice::from_ref(&entry)).await.unwrap();
    assert_eq!(text(), "{\"id\":\"o0\",\"n\":0}\n{\"id\":\"o1\",\"n\":1}\n");
    json.commit(&context, &[entry]).await.unwrap();
    assert_eq!(text(), "", "a second try in the same life prints nothing");
    let tables = stdout.sink(&table_at(folder.path(), &[])).unwrap();
    let entry = prepared(&*tables, &context, 3, 0..1).await;
    tables.commit(&context, &[entry]).await.unwrap();
    assert_eq!(text(), "+----+---+\n| id | n |\n+----+---+\n| o0 | 0 |\n+----+---+\n");
}

/// Takes half of what it is given, and then nothing any more.
struct BrokenPipe(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for BrokenPipe {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        let mut taken = self.0.lock();
        if !taken.is_empty() {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        taken.extend_from_slice(&text[..text.len() / 2]);
        Ok(text.len() / 2)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn rows_whose_printing_was_cut_off_are_printed_again_by_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    let table = table_at(folder.path(), &[("format", "json")]);
    let cut = Arc::new(Mutex::new(vec![]));
    let broken = StdoutConnector { output: Arc::new(Mutex::new(BrokenPipe(cut.clone()))) };
    let (context, sink) = (process(folder.path(), "w1"), broken.sink(&table).unwrap());
    let entry = prepared(&*sink, &context, 2, 0..2).await;
    assert!(sink.commit(&context, std::slice::from_ref(&entry)).await.is_err());
    assert!(!cut.lock().is_empty());
    let printed = Arc::new(Mutex::new(Vec::<u8>::new()));
    let successor = StdoutConnector { output: printed.clone() }.sink(&table).unwrap();
    successor.commit(&process(folder.path(), "w2"), &[entry]).await.unwrap();
    assert_eq!(printed.lock().as_slice(), b"{\"id\":\"o0\",\"n\":0}\n{\"id\":\"o1\",\"n\":1}\n");
}
