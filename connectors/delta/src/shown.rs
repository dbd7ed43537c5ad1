//! What readers of a table see: the rows of the files that it consists of now.

use arrow::datatypes::FieldRef;
use async_trait::async_trait;
use engine::shown::{Shown, Take};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;

use crate::commit_times::CommitTimes;
use crate::declared::Declared;
use crate::file_rows::{FileRows, Unread};
use crate::store::{log_versions, missing_folder, open, read_entry, table_at};
use crate::table_file::table_files;

/// Entries of the log that are asked for at once.
const READS: usize = 16;

pub struct DeltaShown {
    pub path: String,
    pub storage: Vec<(String, String)>,
    pub columns: Vec<FieldRef>,
}

#[async_trait]
impl Shown for DeltaShown {
    /// Rows became visible with the commit that added them, as far as the log still tells.
    async fn read(&self, take: &mut Take<'_>) -> Result<(), String> {
        let failed = |what: &dyn std::fmt::Display| format!("{}: {what}", self.path);
        let nothing = || failed(&"there is no table, or nothing was written to it");
        if missing_folder(&self.path).map_err(|e| e.to_string())? {
            return Err(nothing());
        }
        let mut table = table_at(&self.path, &self.storage).map_err(|e| e.to_string())?;
        let opened = open(&mut table, &self.path).await.map_err(|e| e.to_string())?.ok_or_else(nothing)?;
        let declared = Declared::of(&opened, &self.optional_columns()).map_err(|what| failed(&what))?;
        let files = table_files(&table).await.map_err(|e| failed(&e))?;
        let times = commit_times(&*table.log_store().object_store(None), opened.version).await;
        let times = times.map_err(|what| failed(&what))?;
        for file in &files {
            let unread = |(Unread::Away(what) | Unread::Unfit(what))| failed(&format!("{}: {what}", file.path));
            let mut rows = FileRows::open(&table, file, &declared).await.map_err(unread)?;
            while let Some(stretch) = rows.next().await.map_err(unread)? {
                for (places, since) in times.of(&file.name, stretch.places()) {
                    take(since, stretch.seen(places).map_err(unread)?)?;
                }
            }
        }
        Ok(())
    }
}

impl DeltaShown {
    /// Others may have written what the job never writes.
    fn optional_columns(&self) -> Vec<FieldRef> {
        self.columns.iter().map(|column| column.as_ref().clone().with_nullable(true).into()).collect()
    }
}

/// Of the versions up to this one whose entries are still there.
async fn commit_times(store: &dyn ObjectStore, newest: u64) -> Result<CommitTimes, String> {
    let mut times = CommitTimes::default();
    let versions = log_versions(store).await.map_err(|e| e.to_string())?;
    let versions = versions.into_iter().filter(|version| *version <= newest);
    let mut entries = stream::iter(versions).map(|version| read_entry(store, version)).buffered(READS);
    while let Some(actions) = entries.try_next().await.map_err(|e| e.to_string())? {
        times.next(&actions.unwrap_or_default())?;
    }
    Ok(times)
}
