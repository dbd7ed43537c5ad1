//! Where the parts of a large file are gathered until it is whole: a part may be tried again, and nobody sees the file before.
//!
//! `object_store`'s own upload in parts cannot try one again: what it was handed and could not send is lost, and with it the file.

use std::fs::{File, OpenOptions, create_dir_all, remove_file, rename};
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::path::PathBuf;

use async_trait::async_trait;
use engine::sink::SinkError;
use object_store::local::LocalFileSystem;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{MultipartId, PutPayload, PutResult, Result};

use crate::options::DeltaOptions;
use crate::store::table_url;

/// Bytes of each part but the last.
pub const PART: usize = 8 << 20;

/// Where the parts of a table's files are brought.
#[derive(Clone)]
pub struct Parts {
    pub store: storage::Parts,
    /// The table's folder in the store.
    pub folder: Path,
}

impl Parts {
    /// `None` if the store can only take files whole.
    pub fn of(options: &DeltaOptions) -> std::result::Result<Option<Self>, SinkError> {
        let url = table_url(&options.path)?;
        let failed = |e: &dyn std::fmt::Display| SinkError::failed(&options.path, e);
        if let Ok(folder) = url.to_file_path() {
            let store = LocalFileSystem::new_with_prefix(folder).map_err(|e| failed(&e))?;
            return Ok(Some(Parts { store: std::sync::Arc::new(OnDisk(store)), folder: Path::default() }));
        }
        let opened = storage::open_parts(&url, &options.storage).map_err(|e| failed(&e))?;
        Ok(opened.map(|(store, folder)| Parts { store, folder }))
    }

    /// A file of the table, as the store knows it.
    pub fn locate(&self, path: &str) -> Path {
        self.folder.parts().chain(Path::from(path).parts()).collect()
    }
}

/// A file that grows beside the place where it will be, under a name that listings leave out.
struct OnDisk(LocalFileSystem);

impl OnDisk {
    /// The parts of a file, as one file. Its name is the writer's own, so only one is ever made.
    fn gathered(&self, path: &Path) -> Result<PathBuf> {
        let mut name = self.0.path_to_filesystem(path)?.into_os_string();
        name.push("#1");
        Ok(name.into())
    }
}

#[async_trait]
impl MultipartStore for OnDisk {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        let gathered = self.gathered(path)?;
        blocking(path, move || match File::create(&gathered) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                gathered.parent().map_or(Ok(()), create_dir_all)?;
                File::create(&gathered).map(|_| ())
            }
            created => created.map(|_| ()),
        })
        .await?;
        Ok(MultipartId::new())
    }

    async fn put_part(&self, path: &Path, _: &MultipartId, index: usize, data: PutPayload) -> Result<PartId> {
        let gathered = self.gathered(path)?;
        blocking(path, move || {
            // Never created anew: a file that was given up stays away.
            let mut file = OpenOptions::new().write(true).open(gathered)?;
            file.seek(SeekFrom::Start((index * PART) as u64))?;
            data.iter().try_for_each(|bytes| file.write_all(bytes))
        })
        .await?;
        Ok(PartId { content_id: String::new() })
    }

    async fn complete_multipart(&self, path: &Path, _: &MultipartId, _: Vec<PartId>) -> Result<PutResult> {
        let (gathered, whole) = (self.gathered(path)?, self.0.path_to_filesystem(path)?);
        blocking(path, move || rename(gathered, whole)).await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn abort_multipart(&self, path: &Path, _: &MultipartId) -> Result<()> {
        let gathered = self.gathered(path)?;
        blocking(path, move || remove_file(gathered)).await
    }
}

async fn blocking(path: &Path, work: impl FnOnce() -> std::io::Result<()> + Send + 'static) -> Result<()> {
    let done = tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other);
    done.flatten().map_err(|error| match error.kind() {
        ErrorKind::NotFound => object_store::Error::NotFound { path: path.to_string(), source: Box::new(error) },
        _ => object_store::Error::Generic { store: "disk", source: Box::new(error) },
    })
}
