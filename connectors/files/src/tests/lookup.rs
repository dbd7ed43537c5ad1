//! Files in which rows are looked up.

use std::fs;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use engine::lookup::{Loaded, Lookup, LookupError, LookupRequest};

use super::*;

/// 2026-11-29T12:00:00Z.
const NOON: i64 = 1_795_953_600_000_000_000;
const HOUR: i64 = 3_600_000_000_000;

struct Looking {
    lookup: Arc<dyn Lookup>,
    request: LookupRequest,
}

impl Looking {
    fn of(path: &Path, options: &[(&str, &str)]) -> Self {
        let table = table(path, options);
        let lookup = FilesystemConnector.lookup(&table).unwrap_or_else(|problems| panic!("{problems:?}"));
        let columns = table.columns.iter().map(|c| SourceColumn { field: c.field.clone(), origin: c.origin.clone() });
        let request = LookupRequest { columns: columns.collect(), keys: vec![], timeout: PATIENCE };
        Looking { lookup, request }
    }

    async fn load(&self, seen: Option<&str>, now: i64) -> Result<Loaded, LookupError> {
        self.lookup.load(&self.request, seen, now).await
    }

    /// The numbers of the rows, and the version; `None` if nothing has changed.
    async fn numbers(&self, seen: Option<&str>, now: i64) -> Option<(Vec<i64>, String)> {
        match self.load(seen, now).await.unwrap() {
            Loaded::Unchanged => None,
            Loaded::Rows { version, rows } => {
                let numbers = rows.iter().flat_map(|b| b.column(1).as_primitive::<Int64Type>().values().to_vec());
                Some((numbers.collect(), version.unwrap()))
            }
        }
    }
}

#[tokio::test]
async fn a_folder_is_loaded_whole_and_again_only_when_it_has_changed() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.csv"), "id,n\nx,1\ny,2\n").unwrap();
    fs::write(folder.path().join(".hidden.csv"), "id,n\nz,9\n").unwrap();
    let looking = Looking::of(folder.path(), &[("format", "csv")]);
    let (numbers, version) = looking.numbers(None, NOON).await.unwrap();
    assert_eq!(numbers, [1, 2]);
    assert!(looking.numbers(Some(&version), NOON + HOUR).await.is_none());
    fs::write(folder.path().join("b.csv"), "id,n\nz,3\n").unwrap();
    let (numbers, version) = looking.numbers(Some(&version), NOON).await.unwrap();
    assert_eq!(numbers, [1, 2, 3]);
    fs::write(folder.path().join("a.csv"), "id,n\nx,10\n").unwrap();
    assert_eq!(looking.numbers(Some(&version), NOON).await.unwrap().0, [10, 3]);
}

#[tokio::test]
async fn a_json_file_may_be_lines_or_one_array_over_many() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("orders.json");
    for text in [
        "{\"id\": \"x\", \"n\": 1}\n{\"id\": \"y\", \"n\": 2}\n",
        "[\n  {\"id\": \"x\",\n   \"n\": 1},\n  {\"id\": \"y\", \"n\": 2}\n]\n",
        "\u{feff}[{\"id\": \"x\", \"n\": 1}, {\"id\": \"y\", \"n\": 2}]",
    ] {
        fs::write(&file, text).unwrap();
        let (numbers, _) = Looking::of(&file, &[]).numbers(None, NOON).await.unwrap();
        assert_eq!(numbers, [1, 2], "{text}");
    }
}

#[tokio::test]
async fn a_record_that_cannot_be_read_refuses_the_whole_and_says_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("orders.json");
    fs::write(&file, "{\"id\": \"x\", \"n\": 1}\n{\"id\": \"y\", \"n\": \"two\"}\n").unwrap();
    let looking = Looking::of(&file, &[]);
    let at_start = looking.load(None, NOON).await.unwrap_err();
    assert!(matches!(at_start, LookupError::Failed { .. }), "a job does not start on it");
    let said = at_start.to_string();
    assert!(said.contains("file orders.json: at 20: ") && said.contains("two"), "{said}");
    let later = looking.load(Some("something older"), NOON).await.unwrap_err();
    assert!(matches!(later, LookupError::Retry { .. }), "a job that runs keeps what it has");
}

#[tokio::test]
async fn a_table_that_is_nowhere_is_said_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let error =
        Looking::of(&folder.path().join("odrers.csv"), &[("format", "csv")]).load(None, NOON).await.unwrap_err();
    assert!(error.to_string().contains("odrers.csv: there is no such file, and no folder with files"), "{error}");
    assert!(matches!(error, LookupError::Failed { .. }));
}

#[tokio::test]
async fn of_dated_files_the_newest_that_has_come_holds_and_never_an_older_one_again() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, n: i64| {
        let path = folder.path().join("ref").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("id,n\nx,{n}\n")).unwrap();
    };
    let pattern = folder.path().join("ref/{date}/{time}/orders.csv");
    let options = [("format", "csv"), ("path.date-format", "YYYY-MM-DD"), ("path.time-format", "HH-mm")];
    let looking = Looking::of(&pattern, &options);
    let nothing = looking.load(None, NOON).await.unwrap_err();
    assert!(matches!(&nothing, LookupError::Retry { what, .. } if what.contains("no file yet")), "{nothing}");
    write("2026-11-28/23-30/orders.csv", 1);
    write("2026-11-29/11-59/orders.csv", 2);
    write("2026-11-29/12-30/orders.csv", 3);
    write("2026-11-29/11-59/notes.csv", 99);
    let (numbers, before) = looking.numbers(None, NOON).await.unwrap();
    assert_eq!(numbers, [2], "what is for half past twelve has not come");
    assert!(looking.numbers(Some(&before), NOON + HOUR / 4).await.is_none());
    let (numbers, after) = looking.numbers(Some(&before), NOON + HOUR).await.unwrap();
    assert_eq!(numbers, [3]);
    fs::remove_dir_all(folder.path().join("ref/2026-11-29/12-30")).unwrap();
    assert!(looking.numbers(Some(&after), NOON + HOUR).await.is_none(), "what was newest still holds");
}

#[tokio::test]
async fn a_pattern_of_names_holds_beside_a_date_and_a_folder_in_which_nothing_fits_is_no_table() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("2026-11-28")).unwrap();
    fs::write(folder.path().join("2026-11-28/orders.csv"), "id,n\nx,1\n").unwrap();
    fs::write(folder.path().join("2026-11-28/manifest.json"), "{}").unwrap();
    let options = [("format", "csv"), ("path.date-format", "YYYY-MM-DD"), ("source.regex-pattern", "\\.csv$")];
    let dated = Looking::of(&folder.path().join("{date}"), &options);
    assert_eq!(dated.numbers(None, NOON).await.unwrap().0, [1]);
    let nothing = Looking::of(folder.path(), &[("format", "csv"), ("source.regex-pattern", "\\.cvs$")]);
    assert!(matches!(nothing.load(None, NOON).await, Err(LookupError::Failed { .. })));
}

#[test]
fn a_format_of_dates_is_refused_where_the_path_has_none() {
    let folder = tempfile::tempdir().unwrap();
    let problems = FilesystemConnector.lookup(&table(folder.path(), &[("path.time-format", "HH")])).err().unwrap();
    assert!(problems[0].message.contains("no {date}"), "{problems:?}");
}
