//! Which columns a table may be partitioned by, and how their values stand in the log and in the names of folders.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::util::display::FormatOptions;
use engine::connector::{ColumnSpec, Problem};

/// What is wrong with the declared partition columns of a table with these columns.
pub fn problems(columns: &[ColumnSpec], partition_by: &[String]) -> Vec<Problem> {
    let type_of = |name: &str| columns.iter().find(|c| c.field.name() == name).map(|c| c.field.data_type());
    let mut problems: Vec<String> = partition_by.iter().filter_map(|name| unfit(name, type_of(name))).collect();
    if problems.is_empty() && !columns.is_empty() && columns.iter().all(|c| partition_by.contains(c.field.name())) {
        problems.push("the table would be partitioned by all of its columns, and its files would have none".into());
    }
    problems.into_iter().map(|what| Problem::option("partition_by", what)).collect()
}

fn unfit(name: &str, data_type: Option<&DataType>) -> Option<String> {
    match data_type {
        None => Some(format!("the table has no column {name}")),
        Some(DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_)) => {
            Some(format!("column {name} is binary, and its values cannot name a folder"))
        }
        Some(nested) if nested.is_nested() => {
            Some(format!("column {name} is nested; partition by a column with one value a row"))
        }
        Some(_) => None,
    }
}

/// How a declaration differs from the partitioning that the table has; none declared takes any.
pub fn difference(declared: &[String], of_table: &[String]) -> Option<String> {
    let same = declared.len() == of_table.len() && declared.iter().all(|c| of_table.contains(c));
    (!declared.is_empty() && !same).then(|| {
        format!(
            "the table is {}, and the job declares it {}; a table's partitioning cannot change",
            listed(of_table),
            listed(declared)
        )
    })
}

/// The values of a partition column as the log has them (protocol: "Partition Value Serialization"). An instant has a
/// `Z`: without it some readers take it for a time of their own zone. An empty text is how the log writes NULL.
pub fn value_texts(column: &ArrayRef) -> Result<StringArray, ArrowError> {
    let format = FormatOptions::new()
        .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.6f"))
        .with_timestamp_tz_format(Some("%Y-%m-%dT%H:%M:%S%.6fZ"));
    let texts = cast_with_options(column, &DataType::Utf8, &CastOptions { safe: false, format_options: format })?;
    Ok(texts.as_string::<i32>().iter().map(|text| text.filter(|text| !text.is_empty())).collect())
}

/// Characters of a value that its folder's name keeps: file systems take names of 255 bytes.
const FOLDER_NAME: usize = 100;

/// The folder of a partition, for people: readers go by the values that stand in the log.
pub fn folder(values: &BTreeMap<String, Option<String>>) -> String {
    let value = |value: &Option<String>| value.as_deref().map_or("__HIVE_DEFAULT_PARTITION__".into(), plain);
    values.iter().map(|(name, of_name)| format!("{}={}/", plain(name), value(of_name))).collect()
}

fn plain(text: &str) -> String {
    let fit = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    text.chars().take(FOLDER_NAME).map(fit).collect()
}

/// A partitioning in words.
pub fn listed(columns: &[String]) -> String {
    if columns.is_empty() { "not partitioned".into() } else { format!("partitioned by {}", columns.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{BooleanArray, Date32Array, Decimal128Array, TimestampMicrosecondArray};
    use arrow::datatypes::Field;
    use engine::connector::Origin;
    use std::sync::Arc;

    fn said(partition_by: &[&str]) -> Vec<String> {
        let item = Field::new("item", DataType::Int64, true);
        let columns = [
            ("day", DataType::Date32),
            ("raw", DataType::Binary),
            ("list", DataType::List(Arc::new(item))),
            ("n", DataType::Int64),
        ];
        let columns = columns.map(|(name, data_type)| ColumnSpec {
            field: Arc::new(Field::new(name, data_type, true)),
            origin: Origin::Value,
        });
        let columns = if partition_by.contains(&"raw") { &columns[..] } else { &columns[..1] };
        let names: Vec<String> = partition_by.iter().map(|s| s.to_string()).collect();
        problems(columns, &names).into_iter().map(|p| p.message).collect()
    }

    #[test]
    fn every_unfit_column_is_named() {
        let said = said(&["raw", "list", "missing", "n"]);
        assert_eq!(said.len(), 3);
        assert!(said[0].contains("raw is binary") && said[1].contains("list is nested"));
        assert!(said[2].contains("no column missing"));
    }

    #[test]
    fn a_table_keeps_a_column_for_its_files() {
        assert!(said(&["day"])[0].contains("all of its columns"));
        assert!(said(&[]).is_empty());
    }

    #[test]
    fn values_stand_in_the_log_as_the_protocol_writes_them() {
        let texts = |column: ArrayRef| -> Vec<Option<String>> {
            value_texts(&column).unwrap().iter().map(|text| text.map(String::from)).collect()
        };
        let times = TimestampMicrosecondArray::from(vec![Some(1_700_000_000_000_001), None]);
        assert_eq!(texts(Arc::new(times.clone())), [Some("2023-11-14 22:13:20.000001".into()), None]);
        let instants = times.with_timezone("UTC");
        assert_eq!(texts(Arc::new(instants)), [Some("2023-11-14T22:13:20.000001Z".into()), None]);
        assert_eq!(texts(Arc::new(StringArray::from(vec!["a/b", ""]))), [Some("a/b".into()), None]);
        assert_eq!(texts(Arc::new(Date32Array::from(vec![0]))), [Some("1970-01-01".into())]);
        assert_eq!(texts(Arc::new(BooleanArray::from(vec![true]))), [Some("true".into())]);
        let decimals = Decimal128Array::from(vec![-150]).with_precision_and_scale(9, 2).unwrap();
        assert_eq!(texts(Arc::new(decimals)), [Some("-1.50".into())]);
    }

    #[test]
    fn a_folders_name_is_plain_and_no_longer_than_a_file_system_takes() {
        let of = |value: Option<String>| folder(&[("day of".to_string(), value)].into());
        assert_eq!(of(Some("../a b".into())), "day_of=.._a_b/");
        assert_eq!(of(None), "day_of=__HIVE_DEFAULT_PARTITION__/");
        assert_eq!(of(Some("x".repeat(1000))).len(), "day_of=/".len() + FOLDER_NAME);
    }

    #[test]
    fn the_declared_and_the_real_partitioning_are_both_named() {
        let names = |names: &[&str]| names.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        let said = difference(&names(&["day"]), &names(&["id", "type"])).unwrap();
        assert!(said.contains("is partitioned by id, type") && said.contains("declares it partitioned by day"));
        assert!(difference(&names(&["day"]), &[]).unwrap().contains("is not partitioned"));
        assert_eq!(difference(&names(&["a", "b"]), &names(&["b", "a"])), None);
        assert_eq!(difference(&[], &names(&["a"])), None);
    }
}
