//! `millrace infer`: the CREATE TABLE of a topic or a file, guessed from its first messages.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field};
use clap::Args;
use engine::connector::{ColumnSpec, Connector, Options, Origin, TableSpec};
use engine::source::{ReadLimit, ReadRequest, ReadStatus, Source, SourceColumn, SourceError, Wake};
use formats::{infer, quoted};
use kafka::KafkaConnector;
use serde_json::value::RawValue;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::log::{complain, say};
use crate::run::duration;

#[derive(Args)]
pub struct Infer {
    /// A file of JSON objects, one a line or in an array
    #[arg(required_unless_present = "kafka", conflicts_with = "kafka")]
    file: Option<PathBuf>,
    /// A broker, host:port
    #[arg(long, requires = "topic")]
    kafka: Option<String>,
    /// The topic to read
    #[arg(long, requires = "kafka")]
    topic: Option<String>,
    /// A setting of the Kafka client, as in security.protocol=sasl_ssl; several are allowed
    #[arg(long, value_name = "NAME=VALUE", value_parser = property)]
    property: Vec<(String, String)>,
    /// The table's name
    #[arg(long, default_value = "events")]
    table: String,
    /// Messages to read
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    /// How long to wait for them
    #[arg(long = "for", default_value = "10 seconds", value_parser = duration)]
    wait: Duration,
}

fn property(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.trim_start_matches("properties.").to_string(), value.to_string()))
}

impl Infer {
    pub async fn execute(self) -> ExitCode {
        let read = match (&self.kafka, &self.file) {
            (Some(servers), _) => self.kafka_payloads(servers).await.map_err(|e| e.to_string()),
            (None, Some(file)) => from_file(file, self.limit),
            (None, None) => Err("name a file, or --kafka and --topic".to_string()),
        };
        match read.and_then(|samples| self.declaration(&samples)) {
            Ok(text) => {
                print!("{text}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                complain(&error);
                ExitCode::FAILURE
            }
        }
    }

    fn declaration(&self, samples: &[Vec<u8>]) -> Result<String, String> {
        let columns = infer(samples.iter().map(Vec::as_slice));
        if columns.is_empty() {
            return Err(match samples.len() {
                0 => "nothing was read: there are no messages, or they came too late (--for waits longer)".into(),
                n => format!("none of the {n} messages is a JSON object"),
            });
        }
        say(&format!("from {} message(s); NOT NULL is a column that each of them has", samples.len()));
        let column = |c: &formats::InferredColumn| {
            format!("  {} {}{}", quoted(&c.name), c.sql_type, if c.always { " NOT NULL" } else { "" })
        };
        let columns: Vec<_> = columns.iter().map(column).collect();
        let option = |(name, value): &(String, String)| format!("  {name} = '{}'", value.replace('\'', "''"));
        let options: Vec<_> = self.options().iter().map(option).collect();
        let name = quoted(&self.table);
        Ok(format!("CREATE TABLE {name} (\n{}\n) WITH (\n{}\n);\n", columns.join(",\n"), options.join(",\n")))
    }

    /// The options of the declaration. A secret becomes a variable.
    fn options(&self) -> Vec<(String, String)> {
        let of = |name: &str, value: &str| (name.to_string(), value.to_string());
        let mut options = match (&self.kafka, &self.topic, &self.file) {
            (Some(servers), Some(topic), _) => {
                vec![of("connector", "kafka"), of("bootstrap_servers", servers), of("topic", topic)]
            }
            (_, _, file) => {
                let path = file.as_ref().map(|f| f.display().to_string()).unwrap_or_default();
                vec![of("connector", "filesystem"), of("path", &path)]
            }
        };
        options.push(of("format", "json"));
        for (name, value) in &self.property {
            let is_secret = ["password", "secret", "token", "key"].iter().any(|word| name.contains(word));
            let variable = format!("${{{}}}", name.replace(['.', '-'], "_").to_ascii_uppercase());
            options.push((format!("'properties.{name}'"), if is_secret { variable } else { value.clone() }));
        }
        options
    }

    async fn kafka_payloads(&self, servers: &str) -> Result<Vec<Vec<u8>>, SourceError> {
        let mut options = BTreeMap::from([
            ("bootstrap_servers".to_string(), servers.to_string()),
            ("topic".to_string(), self.topic.clone().unwrap_or_default()),
            ("format".to_string(), "raw_bytes".to_string()),
            ("scan.bounded.mode".to_string(), "latest-offset".to_string()),
        ]);
        options.extend(self.property.iter().map(|(name, value)| (format!("properties.{name}"), value.clone())));
        let payload = Arc::new(Field::new("payload", DataType::Binary, true));
        let table = TableSpec {
            name: self.table.clone(),
            columns: vec![ColumnSpec { field: payload.clone(), origin: Origin::Value }],
            primary_key: vec![],
            partition_by: vec![],
            options: Options(options),
        };
        let source = KafkaConnector.source(&table).map_err(|problems| {
            let messages: Vec<_> = problems.into_iter().map(|p| p.message).collect();
            SourceError::failed(servers, messages.join("; "))
        })?;
        let request =
            ReadRequest { columns: vec![SourceColumn { field: payload, origin: Origin::Value }], event_time: None };
        read(&*source, &request, self.limit, Instant::now() + self.wait).await
    }
}

/// The first payloads of a bounded source, from all of its splits in turn.
async fn read(
    source: &dyn Source,
    request: &ReadRequest,
    limit: usize,
    deadline: Instant,
) -> Result<Vec<Vec<u8>>, SourceError> {
    let ring = Arc::new(Notify::new());
    let mut readers = vec![];
    for split in source.splits().await? {
        let start = source.resolve(&split, false).await?;
        let bell = ring.clone();
        readers.push(source.open(&split, &start, request, Wake::new(move || bell.notify_one())).await?);
    }
    let each = ReadLimit { records: limit.div_ceil(readers.len().max(1)).max(10), bytes: 4 << 20 };
    let mut samples = vec![];
    while !readers.is_empty() && samples.len() < limit && Instant::now() < deadline {
        let (mut got, mut open) = (false, vec![]);
        for mut reader in readers {
            let read = reader.read(each)?;
            if let Some(batch) = &read.batch {
                got = true;
                samples.extend(batch.column(0).as_binary::<i32>().iter().flatten().map(<[u8]>::to_vec));
            }
            if read.status != ReadStatus::Finished {
                open.push(reader);
            }
        }
        readers = open;
        if !got && !readers.is_empty() {
            // A reader whose end is stated by the broker alone does not ring for it.
            let _ = tokio::time::timeout(Duration::from_millis(100), ring.notified()).await;
        }
    }
    samples.truncate(limit);
    Ok(samples)
}

fn from_file(path: &std::path::Path, limit: usize) -> Result<Vec<Vec<u8>>, String> {
    let text = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let values = serde_json::Deserializer::from_slice(&text).into_iter::<Box<RawValue>>();
    let mut samples = vec![];
    for value in values.take(limit) {
        let value = value.map_err(|e| format!("{}: not JSON: {e}", path.display()))?;
        match serde_json::from_str::<Vec<Box<RawValue>>>(value.get()) {
            Ok(items) => samples.extend(items.iter().map(|item| item.get().as_bytes().to_vec())),
            Err(_) => samples.push(value.get().as_bytes().to_vec()),
        }
    }
    samples.truncate(limit);
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        infer: Infer,
    }

    #[test]
    fn a_declaration_holds_no_secret() {
        let line = ["infer", "--kafka", "host:9092", "--topic", "t", "--property", "sasl.password=hunter2"];
        let line = [&line[..], &["--property", "properties.sasl.mechanism=PLAIN"]].concat();
        let infer = Line::parse_from(line).infer;
        let text = infer.declaration(&[br#"{"id":"a","n":1}"#.to_vec(), br#"{"id":"b"}"#.to_vec()]).unwrap();
        let expected = "CREATE TABLE events (\n  id STRING NOT NULL,\n  n BIGINT\n) WITH (\n  connector = 'kafka',\n  \
                        bootstrap_servers = 'host:9092',\n  topic = 't',\n  format = 'json',\n  \
                        'properties.sasl.password' = '${SASL_PASSWORD}',\n  'properties.sasl.mechanism' = 'PLAIN'\n);\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_file_may_hold_lines_or_an_array() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{\"a\":1}\n{\"a\":2}\n").unwrap();
        assert_eq!(from_file(file.path(), 10).unwrap().len(), 2);
        std::fs::write(file.path(), "[{\"a\":1},\n {\"a\":2}, {\"a\":3}]").unwrap();
        assert_eq!(from_file(file.path(), 2).unwrap(), [br#"{"a":1}"#, br#"{"a":2}"#]);
        std::fs::write(file.path(), "id,name\n").unwrap();
        assert!(from_file(file.path(), 10).unwrap_err().contains("not JSON"));
    }
}
