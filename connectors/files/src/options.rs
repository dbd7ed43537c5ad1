//! The options of `connector = 'filesystem'` and `connector = 'single_file'`.

use std::sync::Arc;
use std::time::Duration;

use engine::connector::{Connector, OptionKind, OptionSpec, Options, Origin, Problem, Purpose, TableSpec};
use engine::lookup::Lookup;
use engine::shown::Shown;
use engine::sink::Sink;
use engine::source::Source;
use formats::{CsvOptions, JsonOptions, UnknownFields};
use regex::Regex;

use crate::compression::Compression;
use crate::location::Location;
use crate::lookup::FilesLookup;
use crate::metadata;
use crate::path_pattern;
use crate::shown::FilesShown;
use crate::sink::{FilesSink, SinkFormat};
use crate::source::FilesSource;

/// Files in a folder, read or written.
pub struct FilesystemConnector;

/// A table that is read from files.
#[derive(Clone)]
pub struct FileTable {
    pub name: String,
    pub location: Location,
    pub format: FileFormat,
    /// `None`: what the name of each file says.
    pub compression: Option<Compression>,
    /// The fields of a record, in the order in which the table declares them.
    pub declared: Vec<String>,
    pub json: JsonOptions,
    /// How often to look for new files; `None`: the files found at start are all there are.
    pub monitor: Option<Duration>,
    /// Files whose name, relative to the path, does not match are passed over.
    pub pattern: Option<Regex>,
    /// A JSON file may be one array of records, over many lines. It is read as one record, so it must fit into memory.
    pub arrays: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum FileFormat {
    Json,
    Csv(CsvOptions),
    Parquet,
    Avro,
}

impl FileFormat {
    /// Whether its records follow each other as text, and not in rows of the format's own.
    pub fn is_text(&self) -> bool {
        matches!(self, FileFormat::Json | FileFormat::Csv(_))
    }
}

impl FileTable {
    pub fn compression_of(&self, name: &str) -> Compression {
        self.compression.unwrap_or_else(|| Compression::of_name(name))
    }
}

const FORMATS: OptionKind = OptionKind::OneOf(&[&["json"], &["csv"], &["parquet"], &["avro"]]);

impl Connector for FilesystemConnector {
    fn name(&self) -> &'static str {
        "filesystem"
    }

    fn options(&self) -> Vec<OptionSpec> {
        let mut options = vec![
            OptionSpec::new("path", OptionKind::Text, "a folder or a file: local, or a file://, abfss:// or az:// URL")
                .required(),
            OptionSpec::new("format", FORMATS, "json (one object a line), csv, parquet or avro"),
            OptionSpec::new(
                "source.monitor-interval",
                OptionKind::Duration,
                "look for new files so often; else read once. Of a lookup table, lookup.refresh says it",
            )
            .purpose(Purpose::Streams),
        ];
        let of_reading = [
            OptionSpec::new("source.regex-pattern", OptionKind::Text, "read only files whose relative name matches"),
            OptionSpec::new(
                "compression",
                OptionKind::OneOf(&[&["auto"], &["none"], &["gzip"], &["zstd"]]),
                "auto: by the extension .gz or .zst",
            )
            .aliases(&["compression_format"]),
            OptionSpec::new("json.lenient", OptionKind::Boolean, "numbers may stand in quotes"),
            OptionSpec::new(
                "json.unknown",
                OptionKind::OneOf(&[&["warn"], &["ignore"], &["dead-letter"]]),
                "fields that no column takes: warn of them once (unless said), ignore them, or reject the record",
            ),
            OptionSpec::new("csv.header", OptionKind::Boolean, "the first record names the fields; true unless said"),
            OptionSpec::new(
                "csv.field-delimiter",
                OptionKind::Text,
                "one character between fields; a comma unless said",
            )
            .aliases(&["csv.delimiter"]),
            OptionSpec::new("csv.null-literal", OptionKind::Text, "a field with this text is NULL"),
        ];
        options.extend(of_reading.map(|option| option.purpose(Purpose::Reading)));
        options.extend(path_pattern::options());
        options
    }

    fn source(&self, table: &TableSpec) -> Result<Arc<dyn Source>, Vec<Problem>> {
        Ok(Arc::new(FilesSource::new(read_table(table)?)))
    }

    fn sink(&self, table: &TableSpec) -> Result<Arc<dyn Sink>, Vec<Problem>> {
        let mut problems = vec![];
        let format = match table.options.get("format") {
            Some(format @ ("csv" | "avro")) => {
                let message = format!("'{format}' can be read and not written; write 'json' or 'parquet'");
                problems.push(Problem::option("format", message));
                SinkFormat::JsonLines
            }
            Some("parquet") => SinkFormat::Parquet,
            _ => SinkFormat::JsonLines,
        };
        let location = Location::of(table.options.get("path").unwrap_or_default());
        match location {
            Ok(location) if problems.is_empty() => Ok(Arc::new(FilesSink { location, format, limit: None })),
            Ok(_) => Err(problems),
            Err(error) => {
                problems.push(Problem::option("path", error));
                Err(problems)
            }
        }
    }

    fn lookup(&self, table: &TableSpec) -> Result<Arc<dyn Lookup>, Vec<Problem>> {
        Ok(Arc::new(FilesLookup::of(table)?))
    }

    fn shown(&self, table: &TableSpec) -> Result<Arc<dyn Shown>, Vec<Problem>> {
        let parquet = table.options.get("format") == Some("parquet");
        let format = if parquet { SinkFormat::Parquet } else { SinkFormat::JsonLines };
        shown(table, format)
    }
}

/// What a table shows that is written in a format.
pub fn shown(table: &TableSpec, format: SinkFormat) -> Result<Arc<dyn Shown>, Vec<Problem>> {
    let location = Location::of(table.options.get("path").unwrap_or_default());
    let location = location.map_err(|error| vec![Problem::option("path", error)])?;
    let columns = table.columns.iter().map(|column| column.field.clone()).collect();
    Ok(Arc::new(FilesShown { location, format, columns }))
}

/// Turns checked options into a table to read.
pub fn read_table(table: &TableSpec) -> Result<FileTable, Vec<Problem>> {
    let options = &table.options;
    let mut problems = vec![];
    for column in &table.columns {
        if let Origin::Metadata(name) = &column.origin
            && let Err(problem) = metadata::check(name, &column.field)
        {
            problems.push(Problem::column(column.field.name(), problem));
        }
    }
    let csv = csv(options).unwrap_or_else(|problem| {
        problems.push(problem);
        CsvOptions::default()
    });
    let pattern = options.get("source.regex-pattern").map(Regex::new).transpose().unwrap_or_else(|error| {
        problems.push(Problem::option("source.regex-pattern", error.to_string()));
        None
    });
    let format = match options.get("format") {
        Some("csv") => FileFormat::Csv(csv),
        Some("parquet") => FileFormat::Parquet,
        Some("avro") => FileFormat::Avro,
        _ => FileFormat::Json,
    };
    let of_format = |name: &str| match name.split_once('.') {
        Some(("csv", _)) => matches!(format, FileFormat::Csv(_)),
        Some(("json", _)) => format == FileFormat::Json,
        _ => true,
    };
    for name in options.0.keys().filter(|name| !of_format(name)) {
        let message = format!("{name} says nothing about the format '{}'", options.get("format").unwrap_or("json"));
        problems.push(Problem::option(name, message));
    }
    let location = Location::of(options.get("path").unwrap_or_default());
    match location {
        Ok(location) if problems.is_empty() => Ok(FileTable {
            name: table.name.clone(),
            location,
            format,
            compression: match options.get("compression") {
                Some("none") => Some(Compression::None),
                Some("gzip") => Some(Compression::Gzip),
                Some("zstd") => Some(Compression::Zstd),
                _ => None,
            },
            declared: fields(table),
            json: JsonOptions { declared: fields(table), ..json(options) },
            monitor: options.duration("source.monitor-interval"),
            pattern,
            arrays: false,
        }),
        Ok(_) => Err(problems),
        Err(error) => {
            problems.push(Problem::option("path", error));
            Err(problems)
        }
    }
}

fn fields(table: &TableSpec) -> Vec<String> {
    let own = table.columns.iter().filter(|c| c.origin == Origin::Value);
    own.map(|c| c.field.name().clone()).collect()
}

fn csv(options: &Options) -> Result<CsvOptions, Problem> {
    let (delimiter, null) = (options.get("csv.field-delimiter"), options.get("csv.null-literal"));
    CsvOptions::of(delimiter, options.get("csv.header") != Some("false"), null)
        .map_err(|what| Problem::option("csv.field-delimiter", what))
}

fn json(options: &Options) -> JsonOptions {
    let unknown = match options.get("json.unknown") {
        Some("ignore") => UnknownFields::Ignore,
        Some("dead-letter") => UnknownFields::DeadLetter,
        _ => UnknownFields::Warn,
    };
    JsonOptions { lenient: options.flag("json.lenient"), unknown, ..JsonOptions::default() }
}
