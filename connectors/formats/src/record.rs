//! Objects of JSON into columns, one a field.

use std::collections::HashMap;

use arrow::datatypes::Fields;

use crate::column::Column;
use crate::observed::Watch;
use crate::reject::{Bad, bad};
use crate::scanner::{Lead, Scanner};

/// The fields of an object, the outermost or a nested one.
pub struct Record {
    pub columns: Vec<Column>,
    /// For each column, the record in which its field came last.
    seen: Vec<u64>,
    record: u64,
    shape: Shape,
    /// Meets fields that no column takes, of the outermost record and while somebody wants to know.
    pub watch: Option<Box<Watch>>,
}

/// Which field came after which in the records so far, and what stood before each.
#[derive(Default)]
struct Shape {
    fields: Vec<Field>,
    /// By name, those that begin a record apart from the others: a brace or a comma stands before them.
    by_name: [HashMap<String, usize>; 2],
    /// The field that began the last record.
    first: usize,
}

struct Field {
    name: String,
    lead: Lead,
    column: Option<usize>,
    /// The field that came after this one the last time.
    next: usize,
}

/// Fields beyond two for each column after which a shape is forgotten: records whose names are data would fill the memory.
const FIELDS: usize = 256;

impl Record {
    pub fn new(fields: &Fields, lenient: bool) -> Result<Record, String> {
        let columns = fields.iter().map(|f| Column::new(f, lenient)).collect::<Result<Vec<_>, _>>()?;
        Ok(Record { seen: vec![0; columns.len()], columns, record: 0, shape: Shape::default(), watch: None })
    }

    /// Takes an object, whose brace is next.
    pub fn read(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Bad> {
        self.record += 1;
        if self.shape.fields.len() > 2 * self.columns.len() + FIELDS {
            self.shape = Shape::default();
        }
        let (mut came, mut last, mut expected) = (0, None, self.shape.first);
        loop {
            // Mostly the field that came next the last time.
            let (at, field) = match self.shape.fields.get(expected) {
                Some(field) if scanner.try_lead(&field.lead) => (expected, field),
                _ => match self.search(scanner, last)? {
                    Some(found) => (found, &self.shape.fields[found]),
                    None => break,
                },
            };
            (last, expected) = (Some(at), field.next);
            let Some(index) = field.column else {
                let value = scanner.skip()?;
                if let Some(watch) = &mut self.watch {
                    watch.meet(&field.name, value);
                }
                continue;
            };
            if self.seen[index] == self.record {
                return Err(bad("not-json", format_args!("the field {} comes twice", field.name)));
            }
            self.seen[index] = self.record;
            came += 1;
            self.columns[index].read(scanner)?;
        }
        if let Some(watch) = &mut self.watch {
            watch.record(self.seen.iter().map(|seen| *seen == self.record));
        }
        if came < self.columns.len() {
            return self.push_missing();
        }
        Ok(())
    }

    /// Goes to the value of the next field, `last` being the one before, where it is not the one that was expected; `None` at the
    /// end of the object.
    fn search(&mut self, scanner: &mut Scanner<'_>, last: Option<usize>) -> Result<Option<usize>, Bad> {
        let Some((name, lead)) = scanner.lead(last.is_none())? else { return Ok(None) };
        let columns = &self.columns;
        let column_of = |name: &str| columns.iter().position(|column| column.field.name() == name);
        Ok(Some(self.shape.learn(last, &name, lead, column_of)))
    }

    fn push_missing(&mut self) -> Result<(), Bad> {
        let columns = self.columns.iter_mut().zip(&self.seen);
        columns.filter(|(_, seen)| **seen != self.record).try_for_each(|(column, _)| column.push_absent("missing"))
    }
}

impl Shape {
    /// The field `name` came after `last`, behind `lead`.
    fn learn(
        &mut self,
        last: Option<usize>,
        name: &str,
        lead: Lead,
        column_of: impl Fn(&str) -> Option<usize>,
    ) -> usize {
        let begins = usize::from(last.is_none());
        let field = match self.by_name[begins].get(name) {
            Some(known) => {
                self.fields[*known].lead = lead;
                *known
            }
            None => {
                let column = column_of(name);
                let known = self.fields.len();
                self.fields.push(Field { name: name.to_string(), lead, column, next: usize::MAX });
                self.by_name[begins].insert(name.to_string(), known);
                known
            }
        };
        match last {
            None => self.first = field,
            Some(last) => self.fields[last].next = field,
        }
        field
    }
}
