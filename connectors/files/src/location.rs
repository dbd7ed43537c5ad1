//! Where files lie: a store and a path in it.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;

/// A folder or a file, on this machine or in Azure storage. Finding it does no I/O.
#[derive(Clone)]
pub struct Location {
    pub store: Arc<dyn ObjectStore>,
    pub root: Path,
    /// As the job file writes it: for people.
    pub place: String,
}

impl Location {
    /// `path`: a local path, or a `file://`, `az://` or `abfss://` URL, with the account's settings in `AZURE_…` variables.
    pub fn of(path: &str) -> Result<Location, String> {
        if path.contains("://") {
            let url = url::Url::parse(path).map_err(|e| format!("{path}: {e}"))?;
            let (store, root) = storage::open(&url, &[])?;
            return Ok(Location { store, root, place: path.to_string() });
        }
        let full = std::path::absolute(path).map_err(|e| format!("{path}: {e}"))?;
        let root = Path::from_absolute_path(&full).map_err(|e| format!("{path}: {e}"))?;
        Ok(Location { store: Arc::new(LocalFileSystem::new()), root, place: path.to_string() })
    }

    /// The path on this machine's disk, if that is where it is.
    pub fn local(&self) -> Option<std::path::PathBuf> {
        match self.place.split_once("://") {
            None => std::path::absolute(&self.place).ok(),
            Some(("file", _)) => url::Url::parse(&self.place).ok()?.to_file_path().ok(),
            Some(_) => None,
        }
    }
}
