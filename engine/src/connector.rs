//! What a front end knows of a connector: its name, its options, and how a table becomes a source or a sink.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, FieldRef};

use crate::lookup::Lookup;
use crate::shown::Shown;
use crate::sink::Sink;
use crate::source::Source;

/// Where a table's data lives: builds sources and sinks from checked tables. Building does no I/O.
pub trait Connector: Send + Sync {
    /// The word after `connector =`.
    fn name(&self) -> &'static str;
    /// Every option that a table of this connector may carry.
    fn options(&self) -> Vec<OptionSpec>;
    /// Builds the source, or says everything that is wrong with the table.
    fn source(&self, _: &TableSpec) -> Result<Arc<dyn Source>, Vec<Problem>> {
        Err(vec![Problem::of(format!("'{}' cannot be read; it is a sink only", self.name()))])
    }
    /// Builds the sink, or says everything that is wrong with the table. The table's columns are complete: a table
    /// that declares none has been given those of its query.
    fn sink(&self, _: &TableSpec) -> Result<Arc<dyn Sink>, Vec<Problem>> {
        Err(vec![Problem::of(format!("'{}' cannot be written; it is a source only", self.name()))])
    }
    /// Builds a table in which rows are looked up, or says everything that is wrong with it.
    fn lookup(&self, _: &TableSpec) -> Result<Arc<dyn Lookup>, Vec<Problem>> {
        Err(vec![Problem::of(format!("rows cannot be looked up in '{}'", self.name()))])
    }
    /// Opens what a table that is written shows, to be read back, or says everything that is wrong with it.
    fn shown(&self, _: &TableSpec) -> Result<Arc<dyn Shown>, Vec<Problem>> {
        Err(vec![Problem::of(format!("what '{}' shows cannot be read back", self.name()))])
    }
    /// What `METADATA FROM` may name in a table that is written: what the system keeps of a row beside its value. A name
    /// that ends in `.<name>` stands for any with that prefix.
    fn written_metadata(&self) -> &'static [&'static str] {
        &[]
    }
}

/// Something wrong with a table, said before anything is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The canonical name of the option that is wrong, if it is one.
    pub option: Option<String>,
    /// The column that is wrong, if it is one.
    pub column: Option<String>,
    pub message: String,
}

impl Problem {
    pub fn of(message: impl Into<String>) -> Self {
        Problem { option: None, column: None, message: message.into() }
    }
    pub fn option(name: impl Into<String>, message: impl Into<String>) -> Self {
        Problem { option: Some(name.into()), column: None, message: message.into() }
    }
    pub fn column(name: impl Into<String>, message: impl Into<String>) -> Self {
        Problem { option: None, column: Some(name.into()), message: message.into() }
    }
}

/// One option that a connector understands.
#[derive(Debug, Clone)]
pub struct OptionSpec {
    /// The canonical name. A name that ends in `.*` takes any option with that prefix, unchanged.
    pub name: &'static str,
    /// What other systems (Arroyo, Flink) call it.
    pub aliases: &'static [&'static str],
    pub kind: OptionKind,
    pub required: bool,
    pub purpose: Purpose,
    /// One line for `--help` and the docs.
    pub help: &'static str,
}

/// What an option is for. A front end refuses it of a table that a job uses for nothing of that.
///
/// Names that say it themselves (`source.offset`, `sink.delivery`) are for any purpose: as in Flink, one declaration of a
/// topic serves the job that writes it and the one that reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Any,
    /// As a stream or to look rows up.
    Reading,
    Streams,
    Lookups,
    Writing,
    /// What a stream knows nothing of.
    WritingAndLookups,
}

/// What a job uses a table for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    Read,
    LookedUp,
    Written,
}

impl Purpose {
    /// Whether an option says something of a table that is used so.
    pub fn serves(self, used: Use) -> bool {
        match self {
            Purpose::Any => true,
            Purpose::Reading => used != Use::Written,
            Purpose::Streams => used == Use::Read,
            Purpose::Lookups => used == Use::LookedUp,
            Purpose::Writing => used == Use::Written,
            Purpose::WritingAndLookups => used != Use::Read,
        }
    }

    /// For people; nothing if it is any.
    pub fn words(self) -> Option<&'static str> {
        match self {
            Purpose::Any => None,
            Purpose::Reading => Some("for reading"),
            Purpose::Streams => Some("for streams"),
            Purpose::Lookups => Some("for lookups"),
            Purpose::Writing => Some("for writing"),
            Purpose::WritingAndLookups => Some("for writing and for lookups"),
        }
    }
}

/// What an option's value must look like. Checked before the connector sees it.
#[derive(Debug, Clone)]
pub enum OptionKind {
    Text,
    /// Text that is never shown: in an error, a plan, a log or a page.
    Secret,
    Integer,
    Boolean,
    /// `'10 minutes'`, `'500 ms'`, `'1h'`, or a bare number of seconds.
    Duration,
    /// `'64 MiB'`, `'128mb'`, or a bare number of bytes.
    Bytes,
    /// One of these words; each may have other spellings, which become the first.
    OneOf(&'static [&'static [&'static str]]),
}

impl OptionSpec {
    pub const fn new(name: &'static str, kind: OptionKind, help: &'static str) -> Self {
        OptionSpec { name, aliases: &[], kind, required: false, purpose: Purpose::Any, help }
    }
    pub const fn purpose(mut self, purpose: Purpose) -> Self {
        self.purpose = purpose;
        self
    }
    pub const fn aliases(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }
}

/// A declared table, checked: option names are canonical, values have the form of their kind.
#[derive(Debug, Clone)]
pub struct TableSpec {
    pub name: String,
    pub columns: Vec<ColumnSpec>,
    pub primary_key: Vec<String>,
    pub partition_by: Vec<String>,
    pub options: Options,
}

/// A column of a table and where its value comes from.
#[derive(Debug, Clone)]
pub struct ColumnSpec {
    pub field: FieldRef,
    pub origin: Origin,
}

/// Where a source column's value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The record's own field of the column's name.
    Value,
    /// What the log says about the record: `timestamp`, `partition`, `offset`, `key`, `topic`, `headers.<name>`.
    Metadata(String),
}

/// Options by canonical name.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Options(pub BTreeMap<String, String>);

/// Values are left out, because some are secrets.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Options {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
    pub fn flag(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }
    /// The value of a checked [`OptionKind::Integer`].
    pub fn integer(&self, name: &str) -> Option<i64> {
        self.get(name).and_then(|v| v.parse().ok())
    }
    /// The value of a checked [`OptionKind::Duration`].
    pub fn duration(&self, name: &str) -> Option<Duration> {
        self.get(name).and_then(parse_duration)
    }
    /// The value of a checked [`OptionKind::Bytes`].
    pub fn bytes(&self, name: &str) -> Option<u64> {
        self.get(name).and_then(parse_bytes)
    }
    /// Options whose name starts with `prefix`, without it.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.iter().filter_map(move |(k, v)| k.strip_prefix(prefix).map(|k| (k, v.as_str())))
    }
}

/// `10 minutes`, `500ms`, `1 h`, `7 days`; a bare number is seconds.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_number(text)?;
    let seconds = match unit.as_str() {
        "ns" | "nanosecond" | "nanoseconds" => 1e-9,
        "us" | "µs" | "microsecond" | "microseconds" => 1e-6,
        "ms" | "millisecond" | "milliseconds" => 1e-3,
        "" | "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
        "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
        "h" | "hour" | "hours" => 3600.0,
        "d" | "day" | "days" => 86_400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * seconds).ok()
}

/// `64 MiB`, `128mb`, `1 GB`; a bare number is bytes. Units are powers of 1024.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text)?;
    let factor: u64 = match unit.as_str() {
        "" | "b" | "bytes" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return None,
    };
    Some((number * factor as f64) as u64)
}

fn split_number(text: &str) -> Option<(f64, String)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    Some((number, text[end..].trim().to_ascii_lowercase()))
}

/// Arrow's canonical extension name of a column that carries JSON text.
pub const JSON_EXTENSION: &str = "arrow.json";
const EXTENSION_KEY: &str = "ARROW:extension:name";

/// A `JSON` column: text, marked so that decoders keep it raw and encoders write it as a value and not in quotes.
pub fn json_field(name: &str, nullable: bool) -> Field {
    Field::new(name, DataType::Utf8, nullable)
        .with_metadata([(EXTENSION_KEY.to_string(), JSON_EXTENSION.to_string())].into())
}

/// Whether a column was made by [`json_field`].
pub fn is_json(field: &Field) -> bool {
    field.metadata().get(EXTENSION_KEY).is_some_and(|name| name == JSON_EXTENSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_read_as_people_write_them() {
        assert_eq!(parse_duration("10 minutes"), Some(Duration::from_secs(600)));
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("3"), Some(Duration::from_secs(3)));
        assert_eq!(parse_duration("3 fortnights"), None);
        assert_eq!(parse_bytes("64 MiB"), Some(64 << 20));
        assert_eq!(parse_bytes("many"), None);
    }
}
