//! What the first records of a table say about its declaration: columns that never came, fields that no column takes.

use std::collections::BTreeMap;

use serde::ser::{Serialize, SerializeStruct, Serializer};

/// Rows of a table after which its owner is told what was found.
pub const OBSERVED_ROWS: u64 = 10_000;

/// Counted over the first rows of a table, by whoever reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    pub rows: u64,
    /// For each column that is read: rows in which its field came, null or not.
    pub columns: BTreeMap<String, u64>,
    /// Fields that no column takes: rows that have one, and one value.
    pub unknown: BTreeMap<String, (u64, String)>,
}

impl Observed {
    pub fn merge(&mut self, other: Observed) {
        self.rows += other.rows;
        for (name, rows) in other.columns {
            *self.columns.entry(name).or_default() += rows;
        }
        for (name, (rows, sample)) in other.unknown {
            self.unknown.entry(name).or_insert((0, sample)).0 += rows;
        }
    }

    /// Columns whose field was in no record.
    pub fn never_came(&self) -> Vec<&str> {
        self.columns.iter().filter(|(_, rows)| **rows == 0).map(|(name, _)| name.as_str()).collect()
    }

    /// For the table's owner; `None` if columns and fields fit.
    pub fn findings(&self) -> Option<String> {
        let mut parts = vec![];
        let never = self.never_came();
        if !never.is_empty() {
            parts.push(format!("columns that never came: {}", never.join(", ")));
        }
        if !self.unknown.is_empty() {
            let field = |(name, (rows, sample)): (&String, &(u64, String))| {
                format!("{name} (in {:.1} % of the rows, for example {sample})", self.share(*rows) * 100.0)
            };
            let fields: Vec<_> = self.unknown.iter().map(field).collect();
            parts.push(format!("fields that no column takes: {}", fields.join(", ")));
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    fn share(&self, rows: u64) -> f64 {
        rows as f64 / self.rows.max(1) as f64
    }
}

impl Serialize for Observed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let unknown: BTreeMap<&str, serde_json::Value> = self
            .unknown
            .iter()
            .map(|(name, (rows, sample))| {
                (name.as_str(), serde_json::json!({"share": self.share(*rows), "sample": sample}))
            })
            .collect();
        let mut out = serializer.serialize_struct("Observed", 3)?;
        out.serialize_field("rows", &self.rows)?;
        out.serialize_field("never_came", &self.never_came())?;
        out.serialize_field("unknown", &unknown)?;
        out.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(rows: u64, came: u64, unknown: u64) -> Observed {
        Observed {
            rows,
            columns: [("id".to_string(), rows), ("eventID".to_string(), came)].into(),
            unknown: if unknown > 0 {
                [("eventId".to_string(), (unknown, "\"a\"".to_string()))].into()
            } else {
                [].into()
            },
        }
    }

    #[test]
    fn the_parts_of_a_table_make_one_finding() {
        let mut all = part(6000, 0, 3000);
        all.merge(part(4000, 0, 2000));
        let text = all.findings().unwrap();
        assert_eq!(
            text,
            "columns that never came: eventID; fields that no column takes: eventId (in 50.0 % of the rows, for example \"a\")"
        );
        let status = serde_json::to_value(&all).unwrap();
        assert_eq!(status["unknown"]["eventId"]["share"], 0.5);
        assert_eq!(status["never_came"], serde_json::json!(["eventID"]));
    }

    #[test]
    fn what_fits_is_not_talked_about() {
        assert_eq!(part(10, 3, 0).findings(), None);
    }
}
