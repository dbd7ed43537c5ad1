//! Columns that hold what a folder says about a record, and how they stand among those of the record itself.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, StringArray, TimestampNanosecondArray};
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use engine::connector::Origin;
use engine::source::{EventTimeBound, ReadRequest, SourceColumn};

use crate::file::File;

/// For people: what `METADATA FROM` may name.
const NAMES: &str = "path, file, size, timestamp (when the file was modified), offset";

#[derive(Clone, Copy)]
enum Kind {
    Path,
    File,
    Size,
    Modified,
    Offset,
}

/// One `METADATA FROM` column.
struct MetadataColumn {
    kind: Kind,
    field: FieldRef,
}

enum Place {
    Value(usize),
    Metadata(usize),
}

/// Which columns a reader decodes, and how they and the metadata make the rows that were asked for.
pub struct Layout {
    schema: SchemaRef,
    values: Vec<FieldRef>,
    metadata: Vec<MetadataColumn>,
    places: Vec<Place>,
    event_time: Option<EventTimeBound>,
}

impl Layout {
    pub fn of(request: &ReadRequest) -> Result<Layout, String> {
        let (mut values, mut metadata, mut places) = (vec![], vec![], vec![]);
        for SourceColumn { field, origin } in &request.columns {
            match origin {
                Origin::Value => {
                    places.push(Place::Value(values.len()));
                    values.push(field.clone());
                }
                Origin::Metadata(name) => {
                    places.push(Place::Metadata(metadata.len()));
                    metadata.push(MetadataColumn::of(name, field)?);
                }
            }
        }
        // A time that the folder itself tells is not a device's, and needs no bound.
        let event_time = request.event_time.and_then(|bound| match places[bound.column] {
            Place::Value(column) => Some(EventTimeBound { column, ..bound }),
            Place::Metadata(_) => None,
        });
        let schema = Arc::new(Schema::new(request.columns.iter().map(|c| c.field.clone()).collect::<Vec<_>>()));
        Ok(Layout { schema, values, metadata, places, event_time })
    }

    /// The columns that come from the records.
    pub fn values(&self) -> SchemaRef {
        Arc::new(Schema::new(self.values.clone()))
    }

    /// With the index of a column of [`Layout::values`].
    pub fn event_time(&self) -> Option<EventTimeBound> {
        self.event_time
    }

    /// The rows as they were asked for. `offsets`: where each row's record begins.
    pub fn assemble(&self, values: &RecordBatch, file: &File, offsets: &[i64]) -> Result<RecordBatch, ArrowError> {
        let rows = values.num_rows();
        let column = |place: &Place| match place {
            Place::Value(index) => values.column(*index).clone(),
            Place::Metadata(index) => self.metadata[*index].values(file, offsets),
        };
        let columns = self.places.iter().map(column).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
    }
}

/// Checks a declared column, or says what `METADATA FROM` may be.
pub fn check(name: &str, field: &FieldRef) -> Result<(), String> {
    MetadataColumn::of(name, field).map(|_| ())
}

impl MetadataColumn {
    fn of(name: &str, field: &FieldRef) -> Result<Self, String> {
        let kind = match name {
            "path" | "file.path" => Kind::Path,
            "file" | "file.name" => Kind::File,
            "size" | "file.size" => Kind::Size,
            "timestamp" | "file.modification-time" => Kind::Modified,
            "offset" => Kind::Offset,
            _ => return Err(format!("column {}: no metadata {name:?}; there are {NAMES}", field.name())),
        };
        let fits = matches!(
            (kind, field.data_type()),
            (Kind::Path | Kind::File, DataType::Utf8)
                | (Kind::Size | Kind::Offset | Kind::Modified, DataType::Int64)
                | (Kind::Modified, DataType::Timestamp(TimeUnit::Nanosecond, _))
        );
        if !fits {
            let text = format!("column {}: metadata {name:?} cannot have the type {}", field.name(), field.data_type());
            return Err(text);
        }
        Ok(MetadataColumn { kind, field: field.clone() })
    }

    fn values(&self, file: &File, offsets: &[i64]) -> ArrayRef {
        let rows = offsets.len();
        let text =
            |text: &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text, rows))) };
        let number = |n: i64| -> ArrayRef { Arc::new(Int64Array::from_value(n, rows)) };
        match (self.kind, self.field.data_type()) {
            (Kind::Path, _) => text(&file.path),
            (Kind::File, _) => text(&file.name),
            (Kind::Size, _) => number(file.meta.size as i64),
            (Kind::Offset, _) => Arc::new(Int64Array::from(offsets.to_vec())),
            (Kind::Modified, DataType::Int64) => number(file.meta.last_modified.timestamp_millis()),
            (Kind::Modified, data_type) => {
                let times = TimestampNanosecondArray::from_iter(std::iter::repeat_n(file.modified(), rows));
                Arc::new(times.with_data_type(data_type.clone()))
            }
        }
    }
}
