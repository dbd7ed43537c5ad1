//! What a table shows: its commits, one after the other, where their files are still there.

use async_trait::async_trait;
use engine::shown::{Shown, Take};

use crate::reader::TableReader;

pub struct DeltaShown {
    pub path: String,
    pub storage: Vec<(String, String)>,
}

#[async_trait]
impl Shown for DeltaShown {
    /// Files that were joined and deleted since took the times of their rows with them: then all rows come without one.
    async fn read(&self, take: &mut Take<'_>) -> Result<(), String> {
        let reader = TableReader::at(&self.path, &self.storage).map_err(|e| e.to_string())?;
        let commits = reader.commits().await.map_err(|e| format!("{}: {e}", self.path))?;
        match commits.first() {
            None => return Err(format!("{}: there is no table, or nothing was written to it", self.path)),
            Some(first) if first.version > 1 => {
                return Err(format!(
                    "{}: the table's log no longer holds its first commits; what it shows cannot be read from the rest",
                    self.path
                ));
            }
            Some(_) => {}
        }
        let files = commits.iter().flat_map(|commit| commit.files.iter().map(|file| (commit.timestamp, file)));
        let files: Vec<_> = files.collect();
        let mut all_there = true;
        for (_, file) in &files {
            all_there = all_there && reader.has(file).await.map_err(|e| format!("{file}: {e}"))?;
        }
        if !all_there {
            return reader.live_rows(None).await?.into_iter().try_for_each(|rows| take(None, rows));
        }
        for (time, file) in files {
            for rows in reader.rows(file, None).await.map_err(|e| format!("{file}: {e}"))? {
                take(Some(time), rows)?;
            }
        }
        Ok(())
    }
}
