//! Keys on disk: what does not fit in memory, and still has to be known.
//!
//! ```text
//! memory:  filter | pages: first hash, place, checksum       4 KiB of keys -> 24 bytes, and 12 bits a key
//! disk:    [page][page][page] …                              sections, each its keys in the order of their hashes
//! ```
//!
//! One file holds what one time bucket could not keep in memory, section by section, and goes as a whole when the bucket
//! falls. A file has no name from its birth on, so whatever way the process ends, its disk space is free again. It
//! is never the only copy: its keys are in the checkpoints or wait in memory for the next one. So there is no format to
//! keep stable, and nothing is flushed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use xxhash_rust::xxh3::xxh3_64;

use super::filter::Filter;
use super::texts::unpack;
use crate::key::Key;

/// What one look-up reads. A key that is longer makes its page as long as it must be.
const PAGE: usize = 4096;

/// The disk does not keep what it was given. The job stops: without these keys it would let copies through.
#[derive(Debug, thiserror::Error)]
pub enum SpillError {
    #[error(
        "deduplication cannot put keys on disk in {}: {error}. Make room there, or raise 'deduplicate.memory'. Nothing is lost: the job goes on from its last checkpoint when it is started again", .folder.display()
    )]
    Write { folder: PathBuf, error: io::Error },
    #[error(
        "deduplication cannot read back the keys that it put on disk in {}: {what}. Nothing is lost: the job goes on from its last checkpoint when it is started again", .folder.display()
    )]
    Read { folder: PathBuf, what: String },
}

/// The files of one worker's share.
pub struct Spill {
    folder: PathBuf,
    /// By time bucket. A file lives as long as a section of it is in use.
    files: BTreeMap<i64, Weak<SpillFile>>,
}

pub struct SpillFile {
    file: File,
    folder: PathBuf,
    end: AtomicU64,
}

impl Spill {
    pub fn new(folder: PathBuf) -> Self {
        Spill { folder, files: BTreeMap::new() }
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.files.values().filter_map(Weak::upgrade).map(|file| file.end.load(Relaxed)).sum()
    }

    /// The file of a time bucket.
    pub fn file(&mut self, bucket: i64) -> Result<Arc<SpillFile>, SpillError> {
        if let Some(file) = self.files.get(&bucket).and_then(Weak::upgrade) {
            return Ok(file);
        }
        self.files.retain(|_, file| file.strong_count() > 0);
        let file = Arc::new(SpillFile::create(&self.folder)?);
        self.files.insert(bucket, Arc::downgrade(&file));
        Ok(file)
    }
}

impl SpillFile {
    fn create(folder: &Path) -> Result<Self, SpillError> {
        let made = std::fs::create_dir_all(folder).and_then(|()| tempfile::tempfile_in(folder));
        let file = made.map_err(|error| SpillError::Write { folder: folder.to_path_buf(), error })?;
        Ok(SpillFile { file, folder: folder.to_path_buf(), end: AtomicU64::new(0) })
    }

    /// Writes behind what is there; returns where that is.
    fn append(&self, bytes: &[u8]) -> Result<u64, SpillError> {
        let at = self.end.load(Relaxed);
        let failed = |error| SpillError::Write { folder: self.folder.clone(), error };
        self.file.write_all_at(bytes, at).map_err(failed)?;
        self.end.store(at + bytes.len() as u64, Relaxed);
        Ok(at)
    }

    fn read(&self, page: &Page, into: &mut Vec<u8>) -> Result<(), SpillError> {
        let failed = |what: String| SpillError::Read { folder: self.folder.clone(), what };
        into.resize(page.length as usize, 0);
        self.file.read_exact_at(into, page.at).map_err(|e| failed(format!("at byte {}: {e}", page.at)))?;
        if checksum(into) != page.checksum {
            return Err(failed(format!("the {} bytes at {} are not those that were written", page.length, page.at)));
        }
        Ok(())
    }

    #[cfg(test)]
    pub fn handle(&self) -> &File {
        &self.file
    }
}

/// A set of keys of one kind (ids, or other keys) in a file.
pub struct Section {
    file: Arc<SpillFile>,
    filter: Filter,
    pages: Box<[Page]>,
    keys: usize,
}

struct Page {
    /// The hash of its first key.
    first: u64,
    at: u64,
    length: u32,
    checksum: u32,
}

impl Section {
    /// Writes keys that come in the order of their hashes.
    pub fn write(file: Arc<SpillFile>, keys: &[(u64, Key<'_>)]) -> Result<Section, SpillError> {
        let mut filter = Filter::with_capacity(keys.len());
        let mut pages: Vec<Page> = vec![];
        let mut bytes = vec![];
        let mut begun = 0;
        for (hash, key) in keys {
            if pages.is_empty() || bytes.len() - begun + stored_length(key) > PAGE {
                begun = bytes.len();
                pages.push(Page { first: *hash, at: begun as u64, length: 0, checksum: 0 });
            }
            append(&mut bytes, key);
            filter.insert(*hash);
        }
        let base = file.append(&bytes)?;
        let ends: Vec<u64> = pages.iter().skip(1).map(|p| p.at).chain([bytes.len() as u64]).collect();
        for (page, end) in pages.iter_mut().zip(ends) {
            page.length = (end - page.at) as u32;
            page.checksum = checksum(&bytes[page.at as usize..end as usize]);
            page.at += base;
        }
        Ok(Section { file, filter, pages: pages.into_boxed_slice(), keys: keys.len() })
    }

    pub fn len(&self) -> usize {
        self.keys
    }

    /// The bytes of memory that it takes.
    pub fn memory(&self) -> usize {
        self.filter.bytes() + self.pages.len() * size_of::<Page>() + size_of::<Section>()
    }

    /// Whether the key is in it. The filter spares most the disk, but only the key itself on a page makes a yes.
    pub fn contains(&self, hash: u64, key: &Key<'_>, space: &mut Vec<u8>) -> Result<bool, SpillError> {
        if !self.filter.may_contain(hash) {
            return Ok(false);
        }
        // Keys of one hash may begin at the end of the page before the first that begins with it.
        let from = self.pages.partition_point(|p| p.first < hash).saturating_sub(1);
        for page in self.pages[from..].iter().take_while(|p| p.first <= hash) {
            self.file.read(page, space)?;
            if holds(space, key) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn stored_length(key: &Key<'_>) -> usize {
    match key {
        Key::Uuid(_) => size_of::<u128>(),
        Key::Bytes(bytes) => size_of::<u32>() + bytes.len(),
    }
}

fn append(page: &mut Vec<u8>, key: &Key<'_>) {
    match key {
        Key::Uuid(id) => page.extend_from_slice(&id.to_le_bytes()),
        Key::Bytes(bytes) => {
            page.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            page.extend_from_slice(bytes);
        }
    }
}

fn holds(page: &[u8], key: &Key<'_>) -> bool {
    match key {
        Key::Uuid(id) => page.as_chunks().0.contains(&id.to_le_bytes()),
        Key::Bytes(wanted) => unpack(page).any(|bytes| bytes == *wanted),
    }
}

fn checksum(page: &[u8]) -> u32 {
    xxh3_64(page) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(folder: &Path, keys: &mut [(u64, Key<'_>)]) -> Section {
        keys.sort_unstable_by_key(|(hash, _)| *hash);
        Section::write(Spill::new(folder.to_path_buf()).file(0).unwrap(), keys).unwrap()
    }

    fn ids(count: u128) -> Vec<(u64, Key<'static>)> {
        (0..count).map(|id| (xxh3_64(&id.to_le_bytes()), Key::Uuid(id))).collect()
    }

    fn asked(section: &Section, hash: u64, key: Key<'_>) -> Result<bool, SpillError> {
        section.contains(hash, &key, &mut vec![])
    }

    #[test]
    fn what_was_written_is_found_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let section = section(folder.path(), &mut ids(10_000));
        for (id, (hash, key)) in ids(20_000).into_iter().enumerate() {
            assert_eq!(asked(&section, hash, key).unwrap(), id < 10_000, "{id}");
        }
    }

    #[test]
    fn keys_of_one_hash_are_told_apart_across_pages() {
        let folder = tempfile::tempdir().unwrap();
        let texts: Vec<Vec<u8>> = (0..300).map(|i| format!("{i:0>100}").into_bytes()).collect();
        // 40 texts fill a page: the hash 7 runs over several, and begins in the midst of one.
        let hash = |i: usize| if i < 50 { 6 } else { 7 };
        let mut keys: Vec<_> = texts.iter().enumerate().map(|(i, t)| (hash(i), Key::Bytes(t))).collect();
        let section = section(folder.path(), &mut keys);
        assert!(texts.iter().enumerate().all(|(i, t)| asked(&section, hash(i), Key::Bytes(t)).unwrap()));
        assert!(!asked(&section, 7, Key::Bytes(b"another")).unwrap());
    }

    #[test]
    fn a_key_longer_than_a_page_is_kept_whole() {
        let folder = tempfile::tempdir().unwrap();
        let long = vec![b'x'; 3 * PAGE];
        let section =
            section(folder.path(), &mut [(1, Key::Bytes(b"a")), (2, Key::Bytes(&long)), (3, Key::Bytes(b"b"))]);
        assert!(asked(&section, 2, Key::Bytes(&long)).unwrap());
        assert!(!asked(&section, 2, Key::Bytes(&long[1..])).unwrap());
        assert!(asked(&section, 3, Key::Bytes(b"b")).unwrap());
    }

    #[test]
    fn a_file_that_changed_or_ends_early_is_an_error_and_no_verdict() {
        let folder = tempfile::tempdir().unwrap();
        let section = section(folder.path(), &mut ids(1000));
        let (hash, key) = ids(1)[0];
        section.file.handle().write_all_at(b"!", 100).unwrap();
        let damaged =
            ids(1000).into_iter().find_map(|(hash, key)| asked(&section, hash, key).err()).unwrap().to_string();
        assert!(damaged.contains("are not those that were written"), "{damaged}");
        assert!(damaged.contains(&folder.path().display().to_string()), "{damaged}");
        section.file.handle().set_len(10).unwrap();
        let short = asked(&section, hash, key).unwrap_err().to_string();
        assert!(short.contains("cannot read back") && short.contains("checkpoint"), "{short}");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let taken = folder.path().join("taken");
        std::fs::write(&taken, "a file, not a folder").unwrap();
        let error = Spill::new(taken.clone()).file(0).err().unwrap().to_string();
        assert!(error.contains(&taken.display().to_string()) && error.contains("deduplicate.memory"), "{error}");
    }

    #[test]
    fn a_file_leaves_no_name_behind_and_goes_with_its_last_section() {
        let folder = tempfile::tempdir().unwrap();
        let mut spill = Spill::new(folder.path().to_path_buf());
        let file = spill.file(5).unwrap();
        let one = Section::write(file.clone(), &ids(10)).unwrap();
        let other = Section::write(file, &ids(1000)).unwrap();
        assert_eq!(spill.bytes(), 1010 * 16);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "no name");
        drop(one);
        assert_eq!(spill.bytes(), 1010 * 16);
        drop(other);
        assert_eq!(spill.bytes(), 0);
    }
}
