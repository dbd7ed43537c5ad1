//! Files of every type, joined: by copying their row groups, and by encoding their rows again, which comes to the same.

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int32Array, ListBuilder,
    MapBuilder, StringBuilder, StructArray, TimestampMicrosecondArray,
};
use arrow::compute::concat_batches;
use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::compaction::{State, compact, put_in_place};
use crate::encoding::Encodings;
use crate::join::{Joined, LARGE_ENOUGH, LiveFile, join};
use crate::options::DeltaOptions;
use crate::parquet_file::ParquetFile;

/// Every row group is large enough, or none.
const ALL: u64 = 0;
const NONE: u64 = u64::MAX;

/// Files in memory.
struct Files {
    store: Arc<dyn ObjectStore>,
    live: Vec<LiveFile>,
}

impl Files {
    async fn of(contents: &[RecordBatch], encodings: Encodings) -> Self {
        let mut files = Files { store: Arc::new(InMemory::new()), live: vec![] };
        for rows in contents {
            files.add(rows, encodings).await;
        }
        files
    }

    async fn add(&mut self, rows: &RecordBatch, encodings: Encodings) {
        let mut file = ParquetFile::new(rows.schema(), encodings, rows).unwrap();
        file.write(rows).unwrap();
        let (body, _) = file.close().unwrap();
        let path = format!("part-{:06}.parquet", self.live.len());
        self.live.push(LiveFile {
            path: path.clone(),
            size: body.content_length() as u64,
            partition_values: BTreeMap::new(),
        });
        self.store.put(&Path::from(path), body).await.unwrap();
    }

    async fn joined(&self, encodings: Encodings, large_enough: u64) -> JoinedBytes {
        let path = "joined.parquet".to_string();
        let Joined { file, instead_of } =
            join(&self.store, &self.live, path, encodings, large_enough).await.unwrap().unwrap();
        assert_eq!(instead_of, self.live);
        let bytes = self.bytes(&file.path).await;
        assert_eq!(bytes.len() as u64, file.size);
        JoinedBytes { bytes, stats: file.stats, rows: file.rows }
    }

    async fn rows(&self) -> RecordBatch {
        let mut all = vec![];
        for file in &self.live {
            all.push(rows(&self.bytes(&file.path).await));
        }
        concat_batches(&all[0].schema(), &all).unwrap()
    }

    async fn bytes(&self, path: &str) -> Bytes {
        self.store.get(&Path::from(path)).await.unwrap().bytes().await.unwrap()
    }
}

struct JoinedBytes {
    bytes: Bytes,
    stats: String,
    rows: u64,
}

fn footer(bytes: &Bytes) -> ParquetMetaData {
    let reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Optional);
    reader.parse_and_finish(bytes).unwrap()
}

fn rows(bytes: &Bytes) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).unwrap();
    let schema = reader.schema().clone();
    concat_batches(&schema, &reader.build().unwrap().collect::<Result<Vec<_>, _>>().unwrap()).unwrap()
}

/// The bytes of each column chunk, and what the footer says of it but where it lies.
fn chunks(bytes: &Bytes) -> Vec<(Bytes, String)> {
    let metadata = footer(bytes);
    let mut chunks = vec![];
    for (at, group) in metadata.row_groups().iter().enumerate() {
        for (index, chunk) in group.columns().iter().enumerate() {
            let (start, length) = chunk.byte_range();
            let pages = &metadata.offset_index().unwrap()[at][index].page_locations;
            let pages: Vec<_> = pages.iter().map(|p| (p.offset as u64 - start, p.first_row_index)).collect();
            let said = format!(
                "{} {:?} {:?} {:?} {:?} {pages:?}",
                chunk.column_path(),
                chunk.compression(),
                chunk.encodings().collect::<Vec<_>>(),
                chunk.statistics(),
                (chunk.num_values(), chunk.page_encoding_stats_mask(), chunk.definition_level_histogram()),
            );
            chunks.push((bytes.slice(start as usize..(start + length) as usize), said));
        }
    }
    chunks
}

/// Columns of types whose bounds need care, and nested ones.
fn random_rows(random: &mut StdRng, count: usize) -> RecordBatch {
    let (may_be_nan, may_be_null) = (random.random_bool(0.2), random.random_bool(0.7));
    // Above it there is no text, so a longer one has no bound.
    let highest = if random.random_bool(0.05) { "\u{10ffff}" } else { "z" };
    let null = |random: &mut StdRng| may_be_null && random.random_bool(0.2);
    let double = |random: &mut StdRng| match random.random_range(0..20) {
        0 => -0.0,
        1 => 0.0,
        2 if may_be_nan => f64::NAN,
        3 if may_be_nan => f64::INFINITY,
        _ => random.random_range(-1e9..1e9),
    };
    let text = |random: &mut StdRng| {
        let long = ["a", "ü", highest][random.random_range(0..3)].repeat(random.random_range(0..100));
        format!("{}{long}{}", ["", "0", highest][random.random_range(0..3)], random.random_range(0..1000))
    };
    macro_rules! some {
        ($value:expr) => {
            (0..count).map(|_| (!null(random)).then(|| $value(random))).collect::<Vec<_>>()
        };
    }
    let texts: ArrayRef = Arc::new(StringArray::from(some!(text)));
    let numbers: ArrayRef = Arc::new(Int64Array::from(some!(|r: &mut StdRng| r.random::<i64>())));
    let doubles: ArrayRef = Arc::new(Float64Array::from(some!(double)));
    let floats: ArrayRef = Arc::new(Float32Array::from(some!(|r: &mut StdRng| double(r) as f32)));
    let times = some!(|r: &mut StdRng| r.random_range(-62_000_000_000_000_000i64..253_402_300_800_000_000));
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"));
    let days: ArrayRef = Arc::new(Date32Array::from(some!(|r: &mut StdRng| r.random_range(-800_000..3_000_000))));
    let flags: ArrayRef = Arc::new(BooleanArray::from(some!(|r: &mut StdRng| r.random_bool(0.9))));
    let big = some!(|r: &mut StdRng| r.random_range(-(10i128.pow(37))..10i128.pow(37)));
    let big: ArrayRef = Arc::new(Decimal128Array::from(big).with_precision_and_scale(38, 10).unwrap());
    let small = some!(|r: &mut StdRng| r.random_range(-99_999..99_999i128));
    let small: ArrayRef = Arc::new(Decimal128Array::from(small).with_precision_and_scale(9, 2).unwrap());
    let (mut list, mut map) =
        (ListBuilder::new(StringBuilder::new()), MapBuilder::new(None, StringBuilder::new(), StringBuilder::new()));
    for _ in 0..count {
        for _ in 0..random.random_range(0..3) {
            list.values().append_option((!null(random)).then(|| text(random)));
            map.keys().append_value(text(random));
            map.values().append_option((!null(random)).then(|| text(random)));
        }
        list.append(!null(random));
        map.append(true).unwrap();
    }
    let parts: Vec<(Arc<Field>, ArrayRef)> = vec![
        (
            Arc::new(Field::new("x", DataType::Int32, true)),
            Arc::new(Int32Array::from(some!(|r: &mut StdRng| r.random::<i32>()))),
        ),
        (Arc::new(Field::new("y", DataType::Float64, true)), Arc::new(Float64Array::from(some!(double)))),
    ];
    let columns: [(&str, ArrayRef); 12] = [
        ("text", texts),
        ("number", numbers),
        ("double", doubles),
        ("float", floats),
        ("at", times),
        ("day", days),
        ("flag", flags),
        ("big", big),
        ("small", small),
        ("list", Arc::new(list.finish())),
        ("map", Arc::new(map.finish())),
        ("inner", Arc::new(StructArray::from(parts))),
    ];
    let fields: Vec<Field> =
        columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

#[tokio::test]
async fn row_groups_that_are_large_enough_are_copied_byte_for_byte() {
    let mut random = StdRng::seed_from_u64(1);
    let contents = [random_rows(&mut random, 500), random_rows(&mut random, 3), random_rows(&mut random, 2000)];
    let files = Files::of(&contents, Encodings::default()).await;
    let mut of_sources = vec![];
    for file in &files.live {
        of_sources.extend(chunks(&files.bytes(&file.path).await));
    }
    let joined = files.joined(Encodings::default(), ALL).await;
    assert_eq!(chunks(&joined.bytes), of_sources);
    assert_eq!(rows(&joined.bytes), files.rows().await);
    assert_eq!(joined.rows, 2503);
}

#[tokio::test]
async fn small_row_groups_between_large_ones_are_encoded_together_and_the_rows_keep_their_order() {
    let mut random = StdRng::seed_from_u64(2);
    let contents = [1000, 5, 5, 5, 1000, 7, 1000].map(|count| random_rows(&mut random, count));
    let files = Files::of(&contents, Encodings::default()).await;
    let joined = files.joined(Encodings::default(), 20_000).await;
    let footer = footer(&joined.bytes);
    assert_eq!(footer.row_groups().iter().map(|g| g.num_rows()).collect::<Vec<_>>(), [1000, 15, 1000, 7, 1000]);
    assert_eq!(rows(&joined.bytes), files.rows().await);
    let (copied, of_source) = (chunks(&joined.bytes), chunks(&files.bytes(&files.live[4].path).await));
    assert_eq!(copied[2 * of_source.len()..][..of_source.len()], of_source);
}

#[tokio::test]
async fn whatever_the_rows_are_the_statistics_are_those_that_encoding_again_would_have_given() {
    let mut bounded = BTreeMap::<String, usize>::new();
    for seed in 0..60 {
        let mut random = StdRng::seed_from_u64(seed);
        let contents: Vec<RecordBatch> = (0..random.random_range(2..6))
            .map(|_| {
                let count = random.random_range(1..60);
                random_rows(&mut random, count)
            })
            .collect();
        let files = Files::of(&contents, Encodings::default()).await;
        let (copied, encoded) =
            (files.joined(Encodings::default(), ALL).await, files.joined(Encodings::default(), NONE).await);
        assert_eq!(footer(&copied.bytes).num_row_groups(), contents.len());
        assert_eq!(footer(&encoded.bytes).num_row_groups(), 1);
        assert_eq!(copied.stats, encoded.stats, "{seed}");
        assert_eq!(rows(&copied.bytes), rows(&encoded.bytes), "{seed}");
        let stats: Value = serde_json::from_str(&copied.stats).unwrap();
        for column in stats["minValues"].as_object().unwrap().keys() {
            *bounded.entry(column.clone()).or_default() += 1;
        }
    }
    for (column, always) in
        [("text", false), ("number", true), ("double", false), ("float", false), ("big", true), ("small", true)]
    {
        let times = bounded[column];
        assert!(if always { times == 60 } else { (5..60).contains(&times) }, "{column}: {times}");
    }
}

#[tokio::test]
async fn a_nan_in_one_copied_row_group_leaves_its_column_without_bounds() {
    let doubles = |values: &[f64]| {
        let column: ArrayRef = Arc::new(Float64Array::from(values.to_vec()));
        RecordBatch::try_from_iter([("d", column.clone()), ("e", column)]).unwrap()
    };
    let mut second = doubles(&[4.0, 5.0]);
    second = RecordBatch::try_new(
        second.schema(),
        vec![Arc::new(Float64Array::from(vec![f64::NAN, 3.0])), second.column(1).clone()],
    )
    .unwrap();
    let files = Files::of(&[doubles(&[1.0, 2.0]), second, doubles(&[6.0])], Encodings::default()).await;
    let stats: Value = serde_json::from_str(&files.joined(Encodings::default(), ALL).await.stats).unwrap();
    assert_eq!((&stats["minValues"], &stats["maxValues"]), (&json!({"e": 1.0}), &json!({"e": 6.0})));
    assert_eq!(stats["nullCount"], json!({"d": 0, "e": 0}));
}

#[tokio::test]
async fn a_table_for_old_readers_gets_no_row_group_with_encodings_that_they_do_not_know() {
    let mut random = StdRng::seed_from_u64(3);
    let plain = Encodings { plain: true, ..Encodings::default() };
    let mut files = Files::of(&[random_rows(&mut random, 300)], Encodings::default()).await;
    files.add(&random_rows(&mut random, 400), plain).await;
    let joined = files.joined(plain, ALL).await;
    let encodings = footer(&joined.bytes);
    let encodings = encodings.row_groups().iter().flat_map(|g| g.columns()).flat_map(|c| c.encodings());
    assert!(!encodings.map(|e| e.to_string()).any(|e| e.starts_with("DELTA")));
    let of_plain = chunks(&files.bytes(&files.live[1].path).await);
    assert_eq!(chunks(&joined.bytes)[of_plain.len()..], of_plain, "what they know is copied");
    assert_eq!(files.joined(Encodings::default(), ALL).await.rows, 700);
}

#[tokio::test]
async fn a_row_group_that_lacks_a_column_of_the_others_is_encoded_again_and_the_others_are_copied() {
    let mut random = StdRng::seed_from_u64(4);
    let (old, new) = (random_rows(&mut random, 50), random_rows(&mut random, 70));
    let without = |name: &str, rows: &RecordBatch| {
        let kept: Vec<usize> = (0..rows.num_columns()).filter(|i| rows.schema().field(*i).name() != name).collect();
        rows.project(&kept).unwrap()
    };
    let with_last = |rows: &RecordBatch, column: ArrayRef, nullable: bool| {
        let mut fields: Vec<Field> = rows.schema().fields().iter().map(|f| f.as_ref().clone()).collect();
        fields.push(Field::new("extra", column.data_type().clone(), nullable));
        let columns = rows.columns().iter().cloned().chain([column]).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    };
    let extra = |count: i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(0..count)) };
    let contents = [
        without("double", &old),
        // Not the order of the joined file's columns.
        without("inner", &with_last(&without("float", &old), extra(50), true)),
        with_last(&without("double", &new), extra(70), true),
    ];
    let files = Files::of(&contents, Encodings::default()).await;
    let (copied, encoded) =
        (files.joined(Encodings::default(), ALL).await, files.joined(Encodings::default(), NONE).await);
    assert_eq!(copied.stats, encoded.stats);
    assert_eq!(rows(&copied.bytes), rows(&encoded.bytes));
    assert_eq!(rows(&copied.bytes).column_by_name("extra").unwrap().null_count(), 50);
}

#[tokio::test]
async fn a_row_group_whose_column_cannot_be_null_is_not_copied_where_others_can() {
    let of = |nullable: bool, count: i64| {
        let schema = Schema::new(vec![Field::new("n", DataType::Int64, nullable)]);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int64Array::from_iter_values(0..count))]).unwrap()
    };
    let files = Files::of(&[of(false, 10), of(true, 20), of(false, 30)], Encodings::default()).await;
    let joined = files.joined(Encodings::default(), ALL).await;
    let groups = footer(&joined.bytes);
    assert_eq!(groups.row_groups().iter().map(|g| g.num_rows()).collect::<Vec<_>>(), [10, 20, 30]);
    let expected = concat_batches(&of(true, 0).schema(), [of(true, 10), of(true, 20), of(true, 30)].iter()).unwrap();
    assert_eq!(rows(&joined.bytes), expected);
}

#[tokio::test]
async fn a_source_that_is_shorter_than_its_footer_says_is_not_joined() {
    let mut random = StdRng::seed_from_u64(5);
    let files = Files::of(&[random_rows(&mut random, 100), random_rows(&mut random, 100)], Encodings::default()).await;
    let bytes = files.bytes(&files.live[1].path).await;
    let (body, end) = bytes.split_at(bytes.len() - 5000);
    let torn = [&body[..body.len() / 2], end].concat();
    files.store.put(&Path::from(files.live[1].path.as_str()), torn.into()).await.unwrap();
    let path = "joined.parquet".to_string();
    assert!(join(&files.store, &files.live, path.clone(), Encodings::default(), ALL).await.is_err());
    assert!(files.store.head(&Path::from(path)).await.is_err(), "nothing is left there");
}

/// All files of the table in one, every row group of them copied, in their place.
pub async fn join_by_copying(story: &Story) {
    let options = DeltaOptions::of_folder(&story.table());
    let state = State::read(&options).await.unwrap().unwrap();
    let mut files: Vec<LiveFile> = state.files.into_values().collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let path = format!("joined-{}.parquet", Names::of("w8").next());
    let joined = join(&state.store, &files, path, options.encodings, ALL).await.unwrap().unwrap();
    assert!(put_in_place(&options, &joined).await.unwrap());
    let bytes = std::fs::read(story.table().join(&joined.file.path)).unwrap().into();
    assert_eq!(footer(&bytes).num_row_groups(), files.len());
}

#[tokio::test]
async fn compaction_copies_files_whose_row_groups_are_large() {
    let story = Story::new().option("compaction", "false").option("parquet.compression", "none");
    let process = story.start("w1").await;
    let mut ids = vec![];
    for entry in 1..=4 {
        let texts: Vec<String> = (0..9).map(|row| format!("{entry}-{row}{}", "x".repeat(1 << 20))).collect();
        process.show(entry, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
        ids.extend(texts);
    }
    let options = DeltaOptions { target_file_size: 128 << 20, ..DeltaOptions::of_folder(&story.table()) };
    compact(&options, &Names::of("w9")).await.unwrap();
    let live = story.reader().live_files().await.unwrap();
    assert_eq!(live.len(), 1);
    let groups = footer(&std::fs::read(story.table().join(live.first().unwrap())).unwrap().into());
    assert_eq!(groups.num_row_groups(), 4, "none is as large as would be written, and all are large enough");
    let size = |group: &RowGroupMetaData| group.compressed_size() as u64;
    assert!(groups.row_groups().iter().all(|g| (LARGE_ENOUGH..2 * LARGE_ENOUGH).contains(&size(g))));
    ids.sort();
    assert!(story.ids_of_any_reader().await == ids);
}
