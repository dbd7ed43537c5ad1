//! `connector = 'delta'`: its options, and the table that they describe.

use std::sync::Arc;
use std::time::Duration;

use engine::connector::{Connector, OptionKind, OptionSpec, Options, Problem, Purpose, TableSpec};
use engine::lookup::Lookup;
use engine::shown::Shown;
use engine::sink::Sink;
use parquet::basic::Compression;

use crate::encoding::Encodings;
use crate::lookup::DeltaLookup;
use crate::partitioning;
use crate::schema::{alike_but_for_case, delta_field};
use crate::shown::DeltaShown;
use crate::sink::DeltaSink;

/// Commits this far apart make files that readers can live with.
const SELDOM: Duration = Duration::from_secs(60);

/// Delta Lake tables, to be written.
pub struct DeltaConnector;

/// A checked Delta table.
#[derive(Clone)]
pub struct DeltaOptions {
    pub path: String,
    pub partition_by: Vec<String>,
    pub encodings: Encodings,
    pub target_file_size: usize,
    /// Small files are joined into files of the target size, beside the commits.
    pub compaction: bool,
    /// Columns of the job that the table does not have are added to it.
    pub add_columns: bool,
    pub storage: Vec<(String, String)>,
}

#[cfg(test)]
impl DeltaOptions {
    /// The table in a local folder, with every default.
    pub fn of_folder(folder: &std::path::Path) -> Self {
        DeltaOptions {
            path: folder.to_string_lossy().to_string(),
            partition_by: vec![],
            encodings: Encodings { compression: Compression::SNAPPY, ..Encodings::default() },
            target_file_size: 1 << 20,
            compaction: true,
            add_columns: false,
            storage: vec![],
        }
    }
}

impl Connector for DeltaConnector {
    fn name(&self) -> &'static str {
        "delta"
    }

    fn options(&self) -> Vec<OptionSpec> {
        let of_writing = [
            OptionSpec::new("partition_by", OptionKind::Text, "partition columns of a new table, separated by commas"),
            OptionSpec::new(
                "parquet.compression",
                OptionKind::OneOf(&[&["zstd"], &["snappy"], &["none", "uncompressed"]]),
                "default zstd",
            ),
            OptionSpec::new(
                "parquet.encodings",
                OptionKind::OneOf(&[&["auto"], &["plain"]]),
                "auto: what suits the first rows of a file; plain: only dictionaries, for readers that know no more. Default auto",
            ),
            OptionSpec::new(
                "target_file_size",
                OptionKind::Bytes,
                "at this size a file is closed, and to it small ones are joined; default 128 MiB",
            ),
            OptionSpec::new(
                "compaction",
                OptionKind::Boolean,
                "join small files beside the commits, and delete the small ones once the table's retention, at least a week, \
                 is over; default: where commit_interval is below a minute",
            ),
            OptionSpec::new(
                "schema_evolution",
                OptionKind::OneOf(&[&["none"], &["add"]]),
                "add: columns that the table does not have are added",
            ),
        ]
        .map(|option| option.purpose(Purpose::Writing));
        let path = OptionSpec::new("path", OptionKind::Text, "a folder, file://, abfss:// or az:// URL").required();
        let storage = OptionSpec::new("storage.*", OptionKind::Secret, "handed to the object store");
        [path].into_iter().chain(of_writing).chain([storage]).collect()
    }

    fn sink(&self, table: &TableSpec) -> Result<Arc<dyn Sink>, Vec<Problem>> {
        let options = &table.options;
        let mut problems: Vec<Problem> = table
            .columns
            .iter()
            .filter_map(|c| delta_field(&c.field).err().map(|what| Problem::column(c.field.name(), what)))
            .collect();
        let alike = alike_but_for_case(table.columns.iter().map(|c| &c.field));
        problems.extend(alike.into_iter().map(Problem::of));
        let mut partition_by = table.partition_by.clone();
        if let Some(columns) = options.get("partition_by") {
            let named = columns.split(',').map(|c| c.trim().to_string());
            partition_by.extend(named.filter(|c| !table.partition_by.contains(c)));
        }
        problems.extend(partitioning::problems(&table.columns, &partition_by));
        if !problems.is_empty() {
            return Err(problems);
        }
        let compression = match options.get("parquet.compression") {
            Some("snappy") => Compression::SNAPPY,
            Some("none") => Compression::UNCOMPRESSED,
            _ => Encodings::default().compression,
        };
        let encodings = Encodings { compression, plain: options.get("parquet.encodings") == Some("plain") };
        let seldom = options.duration("commit_interval").is_some_and(|interval| interval >= SELDOM);
        let compaction = options.get("compaction").map_or(!seldom, |_| options.flag("compaction"));
        Ok(Arc::new(DeltaSink::new(DeltaOptions {
            path: options.get("path").unwrap_or_default().to_string(),
            partition_by,
            encodings,
            compaction,
            target_file_size: options.bytes("target_file_size").unwrap_or(128 << 20) as usize,
            add_columns: options.get("schema_evolution") == Some("add"),
            storage: storage(options),
        })))
    }

    fn lookup(&self, table: &TableSpec) -> Result<Arc<dyn Lookup>, Vec<Problem>> {
        Ok(Arc::new(DeltaLookup::of(table)?))
    }

    fn shown(&self, table: &TableSpec) -> Result<Arc<dyn Shown>, Vec<Problem>> {
        let options = &table.options;
        Ok(Arc::new(DeltaShown {
            path: options.get("path").unwrap_or_default().to_string(),
            storage: storage(options),
            columns: table.columns.iter().map(|column| column.field.clone()).collect(),
        }))
    }
}

/// What is handed to the object store.
pub fn storage(options: &Options) -> Vec<(String, String)> {
    options.with_prefix("storage.").map(|(name, value)| (name.to_string(), value.to_string())).collect()
}
