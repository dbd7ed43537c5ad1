//! What the sink's encoding is compared with: `deltalake`'s own writer, told what one would tell it.

use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use deltalake::parquet::basic::{Compression, ZstdLevel};
use deltalake::parquet::file::properties::WriterProperties;
use deltalake::writer::{DeltaWriter, RecordBatchWriter};
use url::Url;

/// Writes the rows into one file of a table's folder, and returns its bytes. Dictionaries are off: with them it takes three to
/// five times as long.
pub async fn write(folder: &Path, schema: &SchemaRef, batches: &[RecordBatch]) -> u64 {
    let url = Url::from_directory_path(folder).expect("a folder's URL");
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).expect("a level")))
        .set_dictionary_enabled(false)
        .build();
    let writer = RecordBatchWriter::try_new(url, schema.clone(), None, None).expect("a writer");
    let mut writer = writer.with_writer_properties(properties);
    for batch in batches {
        writer.write(batch.clone()).await.expect("a batch");
    }
    let added = writer.flush().await.expect("a file");
    added.iter().map(|file| file.size as u64).sum()
}
