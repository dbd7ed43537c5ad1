//! A data file, as the table's log has it.

use std::collections::HashMap;

use deltalake::kernel::DeletionVectorDescriptor;
use deltalake::{DeltaTable, DeltaTableError};
use futures::TryStreamExt;
use object_store::path::Path;

/// A file that the table consists of.
#[derive(Debug, Clone, PartialEq)]
pub struct TableFile {
    /// As the log says it, decoded.
    pub name: String,
    /// Within the table's store.
    pub path: Path,
    pub size: u64,
    pub partition_values: HashMap<String, Option<String>>,
    /// Which of its rows are deleted.
    pub deletion_vector: Option<DeletionVectorDescriptor>,
}

/// The files of an opened table, by their names.
pub async fn table_files(table: &DeltaTable) -> Result<Vec<TableFile>, DeltaTableError> {
    let listed = table.get_active_add_actions_by_predicate(None);
    let files = listed.map_ok(|file| TableFile {
        name: file.path().to_string(),
        path: file.object_store_path(),
        size: file.size().unsigned_abs(),
        partition_values: file.partition_values_map(),
        deletion_vector: file.deletion_vector_descriptor(),
    });
    let mut files: Vec<TableFile> = files.try_collect().await?;
    files.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(files)
}
