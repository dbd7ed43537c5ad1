//! Connectors that know their options and do nothing: `log` can be read, `store` can be written.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use engine::connector::{Connector, OptionKind, OptionSpec, Origin, Problem, Purpose, TableSpec};
use engine::lookup::{Loaded, Lookup, LookupError, LookupRequest};
use engine::sink::{Committable, Committed, Sink, SinkContext, SinkError, SinkWriter};
use engine::source::{Position, ReadRequest, Source, SourceError, SplitReader, Start, Wake};

pub fn registry() -> Vec<Arc<dyn Connector>> {
    vec![Arc::new(Log), Arc::new(Store)]
}

pub fn dead_letter() -> Arc<dyn Sink> {
    Arc::new(Folder("dead-letter".into()))
}

struct Log;

impl Connector for Log {
    fn name(&self) -> &'static str {
        "log"
    }

    fn options(&self) -> Vec<OptionSpec> {
        vec![
            OptionSpec::new("topic", OptionKind::Text, "the topic").required(),
            OptionSpec::new("servers", OptionKind::Text, "host:port").aliases(&["properties.bootstrap.servers"]),
            OptionSpec::new("format", OptionKind::OneOf(&[&["json"], &["raw"]]), "json or raw"),
            OptionSpec::new("source.discovery", OptionKind::Duration, "how often to look for new partitions"),
            OptionSpec::new("secret", OptionKind::Secret, "a password"),
            OptionSpec::new("unpacked", OptionKind::Boolean, "whether messages are packed").purpose(Purpose::Reading),
        ]
    }

    fn source(&self, table: &TableSpec) -> Result<Arc<dyn Source>, Vec<Problem>> {
        const METADATA: [&str; 4] = ["timestamp", "partition", "offset", "key"];
        let topic = table.options.get("topic").unwrap_or_default();
        let mut problems = vec![];
        if topic == "forbidden" {
            problems.push(Problem::option("topic", "this topic cannot be read"));
        }
        for column in &table.columns {
            if let Origin::Metadata(name) = &column.origin
                && !METADATA.contains(&name.as_str())
            {
                problems.push(Problem::column(column.field.name(), format!("there is no metadata '{name}'")));
            }
        }
        if problems.is_empty() { Ok(Arc::new(Topic(topic.into()))) } else { Err(problems) }
    }
}

struct Topic(String);

#[async_trait]
impl Source for Topic {
    fn describe(&self) -> String {
        format!("log '{}'", self.0)
    }
    async fn splits(&self) -> Result<Vec<String>, SourceError> {
        Ok(vec![])
    }
    fn discovery_interval(&self) -> Option<Duration> {
        None
    }
    async fn resolve(&self, _: &str, _: bool) -> Result<Start, SourceError> {
        Err(SourceError::failed(&self.0, "is only looked at"))
    }
    async fn verify(&self, _: &str, _: &Position) -> Result<(), SourceError> {
        Ok(())
    }
    async fn open(&self, _: &str, _: &Start, _: &ReadRequest, _: Wake) -> Result<Box<dyn SplitReader>, SourceError> {
        Err(SourceError::failed(&self.0, "is only looked at"))
    }
}

struct Store;

impl Connector for Store {
    fn name(&self) -> &'static str {
        "store"
    }
    fn options(&self) -> Vec<OptionSpec> {
        vec![
            OptionSpec::new("path", OptionKind::Text, "a folder").required(),
            OptionSpec::new("file_size", OptionKind::Bytes, "how large a file becomes").purpose(Purpose::Writing),
            OptionSpec::new("date_format", OptionKind::Text, "of the folder's name").purpose(Purpose::Lookups),
        ]
    }
    fn sink(&self, table: &TableSpec) -> Result<Arc<dyn Sink>, Vec<Problem>> {
        Ok(Arc::new(Folder(table.options.get("path").unwrap_or_default().into())))
    }
    fn lookup(&self, table: &TableSpec) -> Result<Arc<dyn Lookup>, Vec<Problem>> {
        Ok(Arc::new(Folder(table.options.get("path").unwrap_or_default().into())))
    }
}

struct Folder(String);

#[async_trait]
impl Lookup for Folder {
    fn describe(&self) -> String {
        format!("store '{}'", self.0)
    }
    fn by_key(&self) -> bool {
        true
    }
    async fn load(&self, _: &LookupRequest, _: Option<&str>, _: i64) -> Result<Loaded, LookupError> {
        Err(LookupError::failed(&self.0, "is only looked at"))
    }
}

#[async_trait]
impl Sink for Folder {
    fn describe(&self) -> String {
        format!("store '{}'", self.0)
    }
    fn guarantee(&self) -> String {
        "exactly once".into()
    }
    async fn open(&self, _: &SinkContext, _: bool) -> Result<(), SinkError> {
        Ok(())
    }
    fn writer(&self, _: &SinkContext) -> Result<Box<dyn SinkWriter>, SinkError> {
        Err(SinkError::failed(&self.0, "is only looked at"))
    }
    async fn commit(&self, _: &SinkContext, _: &[Committable]) -> Result<Committed, SinkError> {
        Ok(Committed::Done)
    }
}
