//! Which columns a table may be partitioned by.

use arrow::datatypes::DataType;
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
        let there = if of_table.is_empty() { "not partitioned".into() } else { listed(of_table) };
        format!(
            "the table is {there}, and the job declares it {}; a table's partitioning cannot change",
            listed(declared)
        )
    })
}

fn listed(columns: &[String]) -> String {
    format!("partitioned by {}", columns.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
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
    fn the_declared_and_the_real_partitioning_are_both_named() {
        let names = |names: &[&str]| names.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        let said = difference(&names(&["day"]), &names(&["id", "type"])).unwrap();
        assert!(said.contains("is partitioned by id, type") && said.contains("declares it partitioned by day"));
        assert!(difference(&names(&["day"]), &[]).unwrap().contains("is not partitioned"));
        assert_eq!(difference(&names(&["a", "b"]), &names(&["b", "a"])), None);
        assert_eq!(difference(&[], &names(&["a"])), None);
    }
}
