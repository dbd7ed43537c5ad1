//! What the first records say about the columns: which fields came, and which no column takes.

use std::collections::{BTreeMap, BTreeSet};

/// Rows after which a decoder has seen enough.
pub const OBSERVED_ROWS: u64 = 10_000;
/// Different unknown fields that are told apart; records whose keys are data would otherwise fill the memory.
const UNKNOWN_FIELDS: usize = 100;
/// Characters of a sample.
const SAMPLE: usize = 60;

/// Counted since the last question.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    pub rows: u64,
    /// For each column: rows in which its field came, null or not.
    pub columns: BTreeMap<String, u64>,
    /// Fields that no column of the table takes: rows that have one, and one value as JSON text.
    pub unknown: BTreeMap<String, (u64, String)>,
}

#[derive(Default)]
struct Counted {
    rows: u64,
    /// By column of the batch.
    came: Vec<u64>,
    unknown: BTreeMap<String, (u64, String)>,
}

/// Meets the fields of outermost records that are not decoded.
pub struct Watch {
    /// The columns of the table, those among them that nobody reads included.
    declared: BTreeSet<String>,
    /// Where unknown fields are counted; not where they only reject their record.
    counted: Option<Counted>,
    /// The current record's first unknown field.
    pub unknown: Option<String>,
}

impl Watch {
    pub fn new(declared: &[String], columns: usize, counts: bool) -> Self {
        let counted = counts.then(|| Counted { came: vec![0; columns], ..Counted::default() });
        Watch { declared: declared.iter().cloned().collect(), counted, unknown: None }
    }

    /// `name` is none of the columns that are read.
    pub fn meet(&mut self, name: &str, value: &str) {
        if self.declared.contains(name) {
            return;
        }
        if self.unknown.is_none() {
            self.unknown = Some(name.to_string());
        }
        let Some(counted) = &mut self.counted else { return };
        if let Some(field) = counted.unknown.get_mut(name) {
            field.0 += 1;
        } else if counted.unknown.len() < UNKNOWN_FIELDS {
            let sample = value.chars().take(SAMPLE).collect();
            counted.unknown.insert(name.to_string(), (1, sample));
        }
    }

    /// A record is over; for each column, whether its field came.
    pub fn record(&mut self, came: impl Iterator<Item = bool>) {
        if let Some(counted) = &mut self.counted {
            counted.rows += 1;
            counted.came.iter_mut().zip(came).for_each(|(count, came)| *count += u64::from(came));
        }
    }

    /// What was counted since the last call; `None` if nothing was.
    pub fn take<'a>(&mut self, columns: impl Iterator<Item = &'a str>) -> Option<Observed> {
        let counted = self.counted.as_mut().filter(|c| c.rows > 0)?;
        let fresh = Counted { came: vec![0; counted.came.len()], ..Counted::default() };
        let Counted { rows, came, unknown } = std::mem::replace(counted, fresh);
        Some(Observed { rows, columns: columns.map(String::from).zip(came).collect(), unknown })
    }
}
