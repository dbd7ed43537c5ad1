//! How the columns of a file are encoded: chosen from its first rows.

use std::collections::HashSet;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type, SchemaRef};
use parquet::arrow::ArrowSchemaConverter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::Result;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

/// What the table's options say of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Encodings {
    /// Of all columns that are worth it.
    pub compression: Compression,
    /// Only the encodings that the first version of Parquet has: for readers that know no others.
    pub plain: bool,
}

impl Default for Encodings {
    fn default() -> Self {
        Encodings { compression: Compression::ZSTD(ZstdLevel::default()), plain: false }
    }
}

/// How the name of a file's writer begins, in its footer.
pub const WRITTEN_BY: &str = "millrace version ";
/// Encoded bytes after which a row group is closed: readers and compactions hold one in memory, more than once while it
/// is on its way. Smaller ones cost a reader of few columns a request each.
pub const ROW_GROUP: usize = 16 << 20;
/// Values that are looked at.
const SAMPLE: usize = 4096;
/// Fewer bytes tell nothing.
const SMALLEST_SAMPLE: usize = 1024;
/// The part of a column that a codec has to save to be worth its time, and each reader's: a twelfth. Measured doubles are what
/// this is for: their last bits are noise, of which zstd saves 6 %, for a third of the time that it takes to write a row.
const WORTHWHILE: usize = 12;

/// Whether all that these encodings stand for is known to readers of the table.
pub fn are_allowed(mut encodings: impl Iterator<Item = Encoding>, by: Encodings) -> bool {
    use Encoding::{PLAIN, PLAIN_DICTIONARY, RLE, RLE_DICTIONARY};
    !by.plain || encodings.all(|encoding| matches!(encoding, PLAIN | PLAIN_DICTIONARY | RLE | RLE_DICTIONARY))
}

/// `first`: the file's first rows.
pub fn properties(schema: &SchemaRef, encodings: Encodings, first: &RecordBatch) -> Result<WriterProperties> {
    let stored = ArrowSchemaConverter::new().with_coerce_types(true).convert(schema)?;
    let mut properties = WriterProperties::builder()
        .set_compression(encodings.compression)
        // Dictionaries cost three to five times the encoding where nearly every value is another.
        .set_dictionary_enabled(false)
        // The names that the format gives to the parts of lists and maps: some readers go by them.
        .set_coerce_types(true)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_max_row_group_bytes(Some(ROW_GROUP))
        .set_created_by(format!("{WRITTEN_BY}{}", env!("CARGO_PKG_VERSION")));
    let mut leaves = vec![];
    first.columns().iter().for_each(|column| collect_leaves(column, &mut leaves));
    for (column, values) in stored.columns().iter().zip(&leaves) {
        properties = choose(properties, column.path(), values, encodings);
    }
    Ok(properties.build())
}

fn choose(
    properties: WriterPropertiesBuilder,
    path: &ColumnPath,
    values: &ArrayRef,
    encodings: Encodings,
) -> WriterPropertiesBuilder {
    let encoded = |properties: WriterPropertiesBuilder, encoding| match encodings.plain {
        true => properties,
        false => properties.set_column_encoding(path.clone(), encoding),
    };
    match values.data_type() {
        DataType::Utf8 if repeats(values.as_ref()) => properties.set_column_dictionary_enabled(path.clone(), true),
        // Text that is not mixed with its lengths compresses better, and in a third of the time.
        DataType::Utf8 | DataType::Binary => encoded(properties, Encoding::DELTA_LENGTH_BYTE_ARRAY),
        DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Date32
        | DataType::Timestamp(..) => encoded(properties, Encoding::DELTA_BINARY_PACKED),
        DataType::Float32 | DataType::Float64 if !is_worth_compressing(values.as_ref(), encodings.compression) => {
            properties.set_column_compression(path.clone(), Compression::UNCOMPRESSED)
        }
        _ => properties,
    }
}

/// The columns that Parquet stores, in its order: what is nested is taken apart.
fn collect_leaves(column: &ArrayRef, leaves: &mut Vec<ArrayRef>) {
    // What a part of a list or map holds lies among what the whole holds.
    let within = |offsets: &[i32], values: &ArrayRef| {
        let (from, to) = (offsets[0] as usize, offsets[offsets.len() - 1] as usize);
        values.slice(from, to - from)
    };
    match column.data_type() {
        DataType::Struct(_) => column.as_struct().columns().iter().for_each(|part| collect_leaves(part, leaves)),
        DataType::List(_) => {
            let list = column.as_list::<i32>();
            collect_leaves(&within(list.value_offsets(), list.values()), leaves);
        }
        DataType::Map(..) => {
            let map = column.as_map();
            collect_leaves(&within(map.value_offsets(), map.keys()), leaves);
            collect_leaves(&within(map.value_offsets(), map.values()), leaves);
        }
        _ => leaves.push(column.clone()),
    }
}

/// Whether a text column has few values.
fn repeats(column: &dyn Array) -> bool {
    let sample: Vec<&str> = column.as_string::<i32>().iter().flatten().take(SAMPLE).collect();
    let distinct: HashSet<&str> = sample.iter().copied().collect();
    sample.len() >= 8 && distinct.len() * 2 <= sample.len()
}

fn is_worth_compressing(column: &dyn Array, compression: Compression) -> bool {
    let Compression::ZSTD(level) = compression else { return true };
    // What lies under a NULL is not stored.
    let sample: Vec<u8> = match column.data_type() {
        DataType::Float32 => {
            let values = column.as_primitive::<Float32Type>().iter().flatten();
            values.take(SAMPLE).flat_map(f32::to_le_bytes).collect()
        }
        _ => column.as_primitive::<Float64Type>().iter().flatten().take(SAMPLE).flat_map(f64::to_le_bytes).collect(),
    };
    if sample.len() < SMALLEST_SAMPLE {
        return true;
    }
    let compressed = zstd::bulk::compress(&sample, level.compression_level());
    compressed.map_or(true, |compressed| sample.len().saturating_sub(compressed.len()) * WORTHWHILE >= sample.len())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array, ListBuilder, StringArray, StringBuilder};
    use arrow::datatypes::Schema;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn chosen(column: ArrayRef, encodings: Encodings) -> WriterProperties {
        let batch = RecordBatch::try_from_iter([("a.b", column)]).unwrap();
        let schema = Arc::new(Schema::new(batch.schema().fields().clone()));
        properties(&schema, encodings, &batch).unwrap()
    }

    fn doubles(values: impl Iterator<Item = f64>) -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(values))
    }

    fn codec(properties: &WriterProperties) -> Compression {
        properties.compression(&ColumnPath::from("a.b"))
    }

    fn encoding(properties: &WriterProperties) -> Option<Encoding> {
        properties.encoding(&ColumnPath::from("a.b"))
    }

    #[test]
    fn doubles_are_compressed_only_where_it_saves_a_twelfth() {
        let default = Encodings::default();
        let mut random = StdRng::seed_from_u64(1);
        let mut measured = |count| doubles((0..count).map(|_| random.random_range(0.0..100.0)));
        assert_eq!(codec(&chosen(measured(1000), default)), Compression::UNCOMPRESSED);
        assert_eq!(codec(&chosen(measured(100), default)), default.compression, "too few to tell");
        assert_eq!(codec(&chosen(doubles((0..1000).map(|n| f64::from(n % 50))), default)), default.compression);
        let with_nulls: ArrayRef = Arc::new(
            measured(1500)
                .as_primitive::<Float64Type>()
                .iter()
                .enumerate()
                .map(|(n, v)| v.filter(|_| n % 3 > 0))
                .collect::<Float64Array>(),
        );
        assert_eq!(codec(&chosen(with_nulls, default)), Compression::UNCOMPRESSED);
        let snappy = Encodings { compression: Compression::SNAPPY, ..default };
        assert_eq!(codec(&chosen(measured(1000), snappy)), Compression::SNAPPY);
    }

    #[test]
    fn text_has_a_dictionary_where_it_repeats_and_else_its_lengths_apart() {
        let texts = |of: usize| -> ArrayRef {
            Arc::new(StringArray::from_iter_values((0..1000).map(|n| format!("device {}", n % of))))
        };
        let path = ColumnPath::from("a.b");
        let (few, many) = (chosen(texts(10), Encodings::default()), chosen(texts(1000), Encodings::default()));
        assert!(few.dictionary_enabled(&path) && encoding(&few).is_none());
        assert!(!many.dictionary_enabled(&path));
        assert_eq!(encoding(&many), Some(Encoding::DELTA_LENGTH_BYTE_ARRAY));
        let nothing: ArrayRef = Arc::new(StringArray::new_null(1000));
        assert!(!chosen(nothing, Encodings::default()).dictionary_enabled(&path), "nothing tells that it repeats");
    }

    #[test]
    fn numbers_are_kept_as_differences_unless_readers_are_old() {
        let numbers = || -> ArrayRef { Arc::new(Int64Array::from_iter_values(0..1000)) };
        assert_eq!(encoding(&chosen(numbers(), Encodings::default())), Some(Encoding::DELTA_BINARY_PACKED));
        let plain = Encodings { plain: true, ..Encodings::default() };
        assert_eq!(encoding(&chosen(numbers(), plain)), None);
    }

    #[test]
    fn what_is_nested_is_chosen_for_by_its_own_rows() {
        let mut list = ListBuilder::new(StringBuilder::new());
        for row in 0..2000 {
            // Those behind the first thousand repeat.
            list.values().append_value(format!("tag {}", if row < 1000 { row } else { row % 10 }));
            list.append(true);
        }
        let list: ArrayRef = Arc::new(list.finish());
        let path = ColumnPath::new(vec!["a.b".into(), "list".into(), "element".into()]);
        assert!(!chosen(list.slice(0, 1000), Encodings::default()).dictionary_enabled(&path));
        assert!(chosen(list.slice(1000, 1000), Encodings::default()).dictionary_enabled(&path));
    }
}
