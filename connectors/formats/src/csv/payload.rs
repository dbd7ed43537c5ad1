//! Messages of CSV.

use std::collections::BTreeSet;

use arrow::datatypes::Fields as Columns;

use super::CsvOptions;
use super::splitter::Splitter;
use crate::decoder::Appender;
use crate::record::Record;
use crate::reject::{Bad, bad};

/// Reads payloads of one table.
pub struct Csv {
    options: CsvOptions,
    splitter: Splitter,
    /// Of the columns that are read.
    names: Vec<String>,
    /// Of all columns of the table.
    declared: BTreeSet<String>,
    /// The header of the payload before, with its end: nearly always the next one's, too.
    header: Vec<u8>,
    fields: Fields,
}

/// What the fields of a record are.
#[derive(Default)]
struct Fields {
    count: usize,
    /// For each column, the field that holds it.
    places: Vec<Option<usize>>,
    /// Fields that are none of the columns.
    others: Vec<(usize, String)>,
}

impl Csv {
    /// `declared`: the columns of the table, in their order, also those that nobody reads.
    pub fn new(options: &CsvOptions, columns: &Columns, declared: &[String]) -> Csv {
        let names: Vec<String> = columns.iter().map(|column| column.name().clone()).collect();
        let mut csv = Csv {
            options: options.clone(),
            splitter: Splitter::new(options.delimiter),
            declared: declared.iter().chain(&names).cloned().collect(),
            names,
            header: vec![],
            fields: Fields::default(),
        };
        if !options.header {
            csv.fields = csv.named(declared);
        }
        csv
    }

    /// Reads each record of the payload into a row.
    pub fn read(&mut self, payload: &[u8], rows: &mut Appender<'_>) -> Result<(), Bad> {
        let payload = payload.strip_prefix(b"\xef\xbb\xbf").unwrap_or(payload);
        let mut rest = if self.options.header { self.behind_header(payload)? } else { payload };
        let mut number = 0;
        while let Some(length) = self.splitter.split(rest, true).filter(|length| *length > 0) {
            rest = &rest[length..];
            if self.splitter.count() > 0 {
                number += 1;
                let place = |mut bad: Bad| {
                    bad.error = format!("record {number}: {}", bad.error);
                    bad
                };
                self.whole().and_then(|()| rows.append(|record| self.fill(record))).map_err(place)?;
            }
        }
        // A header may stand alone, as an array of JSON may be empty.
        if number == 0 && !self.options.header {
            return Err(bad("not-csv", "there is no record"));
        }
        Ok(())
    }

    fn behind_header<'a>(&mut self, payload: &'a [u8]) -> Result<&'a [u8], Bad> {
        if !self.header.is_empty()
            && let Some(rest) = payload.strip_prefix(&self.header[..])
        {
            return Ok(rest);
        }
        self.header.clear();
        let length = self.splitter.split(payload, true).unwrap_or_default();
        let found: Option<Vec<String>> = self.splitter.texts().map(|text| text.map(String::from)).collect();
        let found = found.filter(|_| !self.splitter.is_open());
        let found = found.ok_or_else(|| bad("not-csv", "the header is not UTF-8, or its quotes are not closed"))?;
        self.check_header(&found)?;
        self.fields = self.named(&found);
        let (header, rest) = payload.split_at(length);
        if header.ends_with(b"\n") || header.ends_with(b"\r") {
            self.header = header.to_vec();
        }
        Ok(rest)
    }

    /// A first record that is none would be lost.
    fn check_header(&self, found: &[String]) -> Result<(), Bad> {
        let mut met = BTreeSet::new();
        if let Some(twice) = found.iter().find(|name| self.declared.contains(*name) && !met.insert(*name)) {
            return Err(bad("not-csv", format_args!("the header names the field {twice} twice")));
        }
        if met.is_empty() {
            let said: String = found.join(", ").chars().take(60).collect();
            let what = format!(
                "the first line names none of the table's columns: {said:?}. If messages have no header, say 'csv.header' = \
                 'false'"
            );
            return Err(bad("not-csv", what));
        }
        Ok(())
    }

    fn named(&self, found: &[String]) -> Fields {
        let other = |(_, name): &(usize, &String)| !self.declared.contains(*name);
        Fields {
            count: found.len(),
            places: self.names.iter().map(|name| found.iter().position(|found| found == name)).collect(),
            others: found.iter().enumerate().filter(other).map(|(place, name)| (place, name.clone())).collect(),
        }
    }

    /// Whether the record has as many fields as it should.
    fn whole(&self) -> Result<(), Bad> {
        let (count, expected) = (self.splitter.count(), self.fields.count);
        if self.splitter.is_open() {
            return Err(bad("not-csv", "the quotes of its last field are not closed"));
        }
        if count != expected {
            let whose = if self.options.header { "header" } else { "table" };
            return Err(bad("not-csv", format_args!("it has {count} fields, and the {whose} has {expected}")));
        }
        Ok(())
    }

    fn fill(&self, record: &mut Record) -> Result<(), Bad> {
        let null = self.options.null.as_deref();
        for (column, place) in record.columns.iter_mut().zip(&self.fields.places) {
            match place {
                Some(place) => column.push_field(Some(self.text(*place)?).filter(|text| null != Some(*text)))?,
                None => column.push_absent("missing")?,
            }
        }
        if let Some(watch) = &mut record.watch {
            for (place, name) in &self.fields.others {
                watch.meet(name, self.text(*place)?);
            }
            watch.record(self.fields.places.iter().map(Option::is_some));
        }
        Ok(())
    }

    fn text(&self, place: usize) -> Result<&str, Bad> {
        self.splitter.get(place).ok_or_else(|| bad("not-csv", format_args!("field {} is not UTF-8", place + 1)))
    }
}
