//! What readers of a table see: the rows of the files that it consists of now.

use std::collections::BTreeSet;

use async_trait::async_trait;
use engine::shown::{Shown, Take};

use crate::reader::TableReader;
use crate::store::missing_folder;

pub struct DeltaShown {
    pub path: String,
    pub storage: Vec<(String, String)>,
}

#[async_trait]
impl Shown for DeltaShown {
    /// When rows became visible is known as long as the table consists of the files that commits added. Once files were
    /// joined, or rows deleted by others, all rows come without a time.
    async fn read(&self, take: &mut Take<'_>) -> Result<(), String> {
        let failed = |e: object_store::Error| format!("{}: {e}", self.path);
        let nothing = || format!("{}: there is no table, or nothing was written to it", self.path);
        if missing_folder(&self.path).map_err(|e| e.to_string())? {
            return Err(nothing());
        }
        let reader = TableReader::at(&self.path, &self.storage).map_err(|e| e.to_string())?;
        let contents = reader.contents().await.map_err(failed)?;
        match contents.first_version {
            None => return Err(nothing()),
            Some(0) => {}
            Some(first) => {
                let what = "what it shows cannot be told without them";
                return Err(format!(
                    "{}: the table's log begins at version {first}, older entries are gone; {what}",
                    self.path
                ));
            }
        }
        if let Some(file) = contents.with_deletion_vector {
            return Err(format!(
                "{}: rows of {file} were deleted by a deletion vector, which is not read back",
                self.path
            ));
        }
        let commits = reader.commits().await.map_err(failed)?;
        let added: BTreeSet<&String> = commits.iter().flat_map(|commit| &commit.files).collect();
        if !added.iter().copied().eq(&contents.live) {
            return reader.live_rows(None).await?.into_iter().try_for_each(|rows| take(None, rows));
        }
        for commit in &commits {
            for file in &commit.files {
                for rows in reader.rows(file, None).await.map_err(|e| format!("{file}: {e}"))? {
                    take(Some(commit.timestamp), rows)?;
                }
            }
        }
        Ok(())
    }
}
