//! How messages are written: what the options of a table say of it, and what that means to those who read or write it.

use std::path::Path;

use arrow::datatypes::Fields;
use engine::connector::{ColumnSpec, OptionKind, OptionSpec, Options, Origin, Problem, Purpose, TableSpec};
use formats::{
    AvroFraming, AvroOptions, AvroTimes, AvroWriter, Compression, CsvOptions, CsvWriter, Decoding, Format, JsonOptions,
    ProtobufFraming, ProtobufOptions, UnknownFields,
};
use schema_registry::Registry;

use crate::messages::{Joined, Written};

/// What a table may say of its messages, wherever they lie.
pub fn options() -> Vec<OptionSpec> {
    const FORMATS: &[&[&str]] =
        &[&["json"], &["csv"], &["avro"], &["protobuf"], &["raw_string", "raw"], &["raw_bytes"]];
    const AVRO_FRAMES: &[&[&str]] = &[&["container"], &["confluent"], &["eventhubs"], &["single-object"], &["none"]];
    const PROTOBUF_FRAMES: &[&[&str]] = &[&["none"], &["delimited"], &["confluent"]];
    let mut options = vec![
        OptionSpec::new(
            "format",
            OptionKind::OneOf(FORMATS),
            "json, csv, avro, protobuf (to read), raw_string or raw_bytes",
        ),
        OptionSpec::new("json.lenient", OptionKind::Boolean, "numbers may stand in quotes"),
        OptionSpec::new(
            "json.unknown",
            OptionKind::OneOf(&[&["warn"], &["ignore"], &["dead-letter"]]),
            "fields that no column takes, of the other formats too: warn of them once (unless said), ignore them, \
             or reject the record",
        ),
        OptionSpec::new(
            "json.rows",
            OptionKind::OneOf(&[&["lines"], &["array"]]),
            "how rows stand in a message that is written: each on a line (unless said), or as an array, one row too",
        ),
        OptionSpec::new(
            "csv.header",
            OptionKind::Boolean,
            "the first record of each message names the fields; true unless said",
        ),
        OptionSpec::new("csv.field-delimiter", OptionKind::Text, "one character between fields; a comma unless said")
            .aliases(&["csv.delimiter"]),
        OptionSpec::new(
            "csv.null-literal",
            OptionKind::Text,
            "a field with this text is NULL; an empty field is, too, unless its column is text",
        ),
        OptionSpec::new(
            "avro.framing",
            OptionKind::OneOf(AVRO_FRAMES),
            "how a message says its schema: container, confluent, eventhubs, single-object, or none; unless said, as the \
             registry has it, none with avro.schema, and else container",
        ),
        OptionSpec::new(
            "avro.schema",
            OptionKind::Text,
            "the schema, or a file that holds it, where messages do not bring it; the schema that is written is the table's own",
        )
        .purpose(Purpose::Reading),
        OptionSpec::new("avro.name", OptionKind::Text, "for writing: the full name of the record (the table's name)"),
        OptionSpec::new(
            "avro.timestamps",
            OptionKind::OneOf(&[&["micros"], &["millis"], &["nanos"]]),
            "for writing: the precision of a TIMESTAMP, micros unless said; what is finer is cut off",
        ),
        OptionSpec::new(
            "protobuf.schema",
            OptionKind::Text,
            "a .proto file, or a set of descriptors (protoc --include_imports --descriptor_set_out)",
        ),
        OptionSpec::new("protobuf.message", OptionKind::Text, "the message's full name, if the file has several"),
        OptionSpec::new(
            "protobuf.framing",
            OptionKind::OneOf(PROTOBUF_FRAMES),
            "none (unless said), delimited: each message behind its length, or confluent",
        ),
        OptionSpec::new(
            "payload.compression",
            OptionKind::OneOf(&[&["none"], &["gzip"], &["deflate"]]),
            "how each payload is packed by itself; what is written is packed in batches, by properties.compression.type",
        )
        .purpose(Purpose::Reading),
        OptionSpec::new(
            "sink.rows_per_message",
            OptionKind::Integer,
            "rows with the same key, partition and headers that may be one message (1), up to 256 kB: json, csv and Avro \
             containers",
        ),
    ];
    options.extend(schema_registry::options());
    options
}

/// How messages are read, and the registry that knows their schemas.
pub fn read(
    table: &TableSpec,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<(Decoding, Option<Registry>), Vec<Problem>> {
    let options = &table.options;
    let format = format(options);
    let mut problems = misplaced(options, format);
    let registry = settle(Registry::of(options, environment), &mut problems).flatten();
    let compression = match options.get("payload.compression") {
        Some("gzip") => Compression::Gzip,
        Some("deflate") => Compression::Deflate,
        _ => Compression::None,
    };
    let mut decoding = Decoding { format, json: json(table), compression, ..Decoding::default() };
    match format {
        Format::Avro => {
            let framing = framing(options, registry.as_ref());
            problems.extend(without_registry(framing, registry.as_ref()));
            let schema = options.get("avro.schema").map(schema_text).transpose();
            if let Some(schema) = settle(schema.map_err(|problem| vec![problem]), &mut problems) {
                decoding.avro = AvroOptions { framing, schema, registry: None };
                if let Err(what) = decoding.avro.check(&values(&table.columns)) {
                    problems.push(Problem::option("avro.schema", what));
                }
            }
        }
        Format::Csv => decoding.csv = settle(csv(options), &mut problems).unwrap_or_default(),
        Format::Protobuf => match protobuf(options) {
            Ok(protobuf) => decoding.protobuf = Some(protobuf),
            Err(problem) => problems.push(problem),
        },
        _ => {}
    }
    if problems.is_empty() { Ok((decoding, registry)) } else { Err(problems) }
}

/// How rows are written, how many may be one message, and the registry that is to know their schema, by which name.
pub struct Writing {
    pub written: Written,
    pub together: usize,
    pub registered: Option<(Registry, String)>,
}

/// `topic`: what a schema is registered under unless the table says otherwise.
pub fn write(table: &TableSpec, environment: &dyn Fn(&str) -> Option<String>) -> Result<Writing, Vec<Problem>> {
    let options = &table.options;
    let format = format(options);
    let mut problems = misplaced(options, format);
    let registry = settle(Registry::of(options, environment), &mut problems).flatten();
    let mut registered = None;
    let written = match format {
        Format::Json if options.get("json.rows") == Some("array") => Some(Written::Json(Joined::Array)),
        Format::Json => Some(Written::Json(Joined::Lines)),
        Format::Csv => {
            let csv = settle(csv(options), &mut problems);
            csv.map(|csv| Written::Csv(CsvWriter::new(&values(&table.columns), &csv)))
        }
        Format::Avro => {
            let framing = framing(options, registry.as_ref());
            problems.extend(without_registry(framing, registry.as_ref()));
            if framing == AvroFraming::EventHubs && options.get("schema_registry.group").is_none() {
                let what = "a schema that is written lies in a group of the namespace: name it";
                problems.push(Problem::option("schema_registry.group", what));
            }
            if matches!(framing, AvroFraming::Confluent | AvroFraming::EventHubs) {
                let topic = options.get("topic").unwrap_or(&table.name);
                let usual =
                    if framing == AvroFraming::Confluent { format!("{topic}-value") } else { topic.to_string() };
                registered = registry.map(|registry| {
                    let subject = registry.subject().map_or(usual, String::from);
                    (registry, subject)
                });
            }
            settle(avro_writer(table, framing), &mut problems).map(Written::Avro)
        }
        Format::Protobuf => {
            problems.push(Problem::option("format", "Protocol Buffers are read and not written: write avro or json"));
            None
        }
        Format::RawString | Format::RawBytes => Some(Written::Raw(format)),
    };
    let together = options.integer("sink.rows_per_message").unwrap_or(1);
    let joins = match &written {
        Some(Written::Avro(writer)) => writer.joins(),
        Some(Written::Json(_) | Written::Csv(_)) | None => true,
        Some(Written::Raw(_)) => false,
    };
    match usize::try_from(together) {
        Ok(0) | Err(_) => problems.push(Problem::option("sink.rows_per_message", "1 or more")),
        Ok(2..) if !joins => {
            let what = "only rows of JSON, of CSV, and of Avro in containers, can be one message";
            problems.push(Problem::option("sink.rows_per_message", what));
        }
        Ok(_) => {}
    }
    match written {
        Some(written) if problems.is_empty() => Ok(Writing { written, together: together as usize, registered }),
        _ => Err(problems),
    }
}

/// How the messages of a table that is written are read back.
pub fn read_back(
    table: &TableSpec,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<(Decoding, Option<Registry>), Vec<Problem>> {
    let Writing { written, registered, .. } = write(table, environment)?;
    let registry = registered.map(|(registry, _)| registry);
    let json = JsonOptions { lenient: true, ..json(table) };
    let mut decoding = Decoding { format: format(&table.options), json, ..Decoding::default() };
    match written {
        Written::Avro(writer) => {
            let framing = framing(&table.options, registry.as_ref());
            // Messages that do not bring their schema have the table's.
            let schema = Some(writer.schema().to_string());
            decoding.avro = AvroOptions { framing, schema, registry: None };
        }
        Written::Csv(_) => decoding.csv = csv(&table.options)?,
        Written::Json(_) | Written::Raw(_) => {}
    }
    Ok((decoding, registry))
}

pub fn format(options: &Options) -> Format {
    match options.get("format") {
        Some("raw_string") => Format::RawString,
        Some("raw_bytes") => Format::RawBytes,
        Some("csv") => Format::Csv,
        Some("avro") => Format::Avro,
        Some("protobuf") => Format::Protobuf,
        _ => Format::Json,
    }
}

fn settle<T>(result: Result<T, Vec<Problem>>, problems: &mut Vec<Problem>) -> Option<T> {
    result.map_err(|more| problems.extend(more)).ok()
}

/// Options of another format than the table's.
fn misplaced(options: &Options, format: Format) -> Vec<Problem> {
    let of = |prefix: &str| options.with_prefix(prefix).map(|(name, _)| format!("{prefix}{name}")).collect::<Vec<_>>();
    let others =
        [("csv.", Format::Csv, "csv"), ("avro.", Format::Avro, "avro"), ("protobuf.", Format::Protobuf, "protobuf")];
    let others = others.iter().filter(|(_, of_format, _)| *of_format != format);
    let mut problems: Vec<Problem> = others
        .flat_map(|(prefix, _, word)| of(prefix).into_iter().map(move |name| (name, word)))
        .map(|(name, word)| Problem::option(name, format!("it is for 'format' = '{word}'")))
        .collect();
    if format != Format::Avro {
        let named = of("schema_registry.").into_iter();
        problems.extend(named.map(|name| Problem::option(name, "only schemas of Avro are looked for in a registry")));
    }
    problems
}

fn framing(options: &Options, registry: Option<&Registry>) -> AvroFraming {
    match options.get("avro.framing") {
        Some("container") => AvroFraming::Container,
        Some("confluent") => AvroFraming::Confluent,
        Some("eventhubs") => AvroFraming::EventHubs,
        Some("single-object") => AvroFraming::SingleObject,
        Some("none") => AvroFraming::Bare,
        _ => match registry {
            Some(registry) if registry.is_event_hubs() => AvroFraming::EventHubs,
            Some(_) => AvroFraming::Confluent,
            None if options.get("avro.schema").is_some() => AvroFraming::Bare,
            None => AvroFraming::Container,
        },
    }
}

fn without_registry(framing: AvroFraming, registry: Option<&Registry>) -> Option<Problem> {
    let what = match (framing, registry.map(Registry::is_event_hubs)) {
        (AvroFraming::Confluent, None | Some(true)) => "'confluent' needs schema_registry.url",
        (AvroFraming::EventHubs, None | Some(false)) => "'eventhubs' needs schema_registry.namespace",
        (AvroFraming::Container | AvroFraming::SingleObject | AvroFraming::Bare, Some(_)) => {
            "a registry is not asked: messages framed like this do not name a schema of it"
        }
        _ => return None,
    };
    Some(Problem::option("avro.framing", what))
}

fn csv(options: &Options) -> Result<CsvOptions, Vec<Problem>> {
    let (delimiter, null) = (options.get("csv.field-delimiter"), options.get("csv.null-literal"));
    CsvOptions::of(delimiter, options.get("csv.header") != Some("false"), null)
        .map_err(|what| vec![Problem::option("csv.field-delimiter", what)])
}

/// The schema itself, or what a file holds.
fn schema_text(given: &str) -> Result<String, Problem> {
    if given.trim_start().starts_with(['{', '[', '"']) {
        return Ok(given.to_string());
    }
    let unreadable = |e| Problem::option("avro.schema", format!("the file {given} cannot be read: {e}"));
    std::fs::read_to_string(given).map_err(unreadable)
}

fn protobuf(options: &Options) -> Result<ProtobufOptions, Problem> {
    let framing = match options.get("protobuf.framing") {
        Some("delimited") => ProtobufFraming::Delimited,
        Some("confluent") => ProtobufFraming::Confluent,
        _ => ProtobufFraming::Bare,
    };
    let Some(file) = options.get("protobuf.schema") else {
        return Err(Problem::option(
            "protobuf.schema",
            "'format' = 'protobuf' needs a file that says what messages hold",
        ));
    };
    let options = ProtobufOptions::of_file(Path::new(file), options.get("protobuf.message"), framing);
    options.map_err(|what| Problem::option("protobuf.schema", what))
}

fn avro_writer(table: &TableSpec, framing: AvroFraming) -> Result<AvroWriter, Vec<Problem>> {
    let times = match table.options.get("avro.timestamps") {
        Some("millis") => AvroTimes::Millis,
        Some("nanos") => AvroTimes::Nanos,
        _ => AvroTimes::Micros,
    };
    let name = table.options.get("avro.name").unwrap_or(&table.name);
    let problem = |(column, what): (String, String)| match column.as_str() {
        "" => Problem::option("avro.name", what),
        column => Problem::column(column, what),
    };
    AvroWriter::new(&values(&table.columns), name, times, framing)
        .map_err(|problems| problems.into_iter().map(problem).collect())
}

/// The columns that are the value.
fn values(columns: &[ColumnSpec]) -> Fields {
    columns.iter().filter(|column| column.origin == Origin::Value).map(|column| column.field.clone()).collect()
}

fn json(table: &TableSpec) -> JsonOptions {
    let unknown = match table.options.get("json.unknown") {
        Some("ignore") => UnknownFields::Ignore,
        Some("dead-letter") => UnknownFields::DeadLetter,
        _ => UnknownFields::Warn,
    };
    let declared = values(&table.columns).iter().map(|field| field.name().clone()).collect();
    JsonOptions { lenient: table.options.flag("json.lenient"), unknown, declared }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(options: &[(&str, &str)]) -> TableSpec {
        let options = options.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let field = arrow::datatypes::Field::new("n", arrow::datatypes::DataType::Int64, true);
        TableSpec {
            name: "numbers".into(),
            columns: vec![ColumnSpec { field: field.into(), origin: Origin::Value }],
            primary_key: vec![],
            partition_by: vec![],
            options: Options(options.collect()),
        }
    }

    fn problems(options: &[(&str, &str)]) -> [Vec<String>; 2] {
        let table = table(options);
        let said = |problems: Vec<Problem>| problems.into_iter().map(|problem| problem.message).collect();
        let (read, written) = (read(&table, &|_| None).err(), write(&table, &|_| None).err());
        [read, written].map(|problems| problems.map(said).unwrap_or_default())
    }

    #[test]
    fn what_csv_cannot_be_and_options_of_another_format_are_said_of_both_ways() {
        let allowed = [("format", "csv"), ("csv.field-delimiter", "\\t"), ("csv.header", "false")];
        assert!(problems(&allowed).iter().all(Vec::is_empty));
        for delimiter in ["", "::", "\"", "\n", "ä"] {
            let said = problems(&[("format", "csv"), ("csv.field-delimiter", delimiter)]);
            assert!(said.iter().all(|said| said.len() == 1 && said[0].contains("one ASCII character")), "{said:?}");
        }
        let said = problems(&[("format", "json"), ("csv.header", "true"), ("csv.null-literal", "-")]);
        assert!(said.iter().all(|said| said[..] == ["it is for 'format' = 'csv'"; 2]), "{said:?}");
    }
}
