//! The types of columns, which of ours go into them, and which of ours they go into.

use std::fmt;

use arrow::datatypes::{DataType, Field, TimeUnit};
use engine::connector::is_json;

/// Characters of a column that is stored as UTF-16, or bytes of any other; `None`: as many as there are.
pub type Length = Option<usize>;

/// How a text is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Utf16,
    Utf8,
    /// By the code page of the column's collation, which the client knows.
    CodePage,
}

/// A column's type. <https://learn.microsoft.com/sql/t-sql/data-types/data-types-transact-sql>
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SqlType {
    Bit,
    /// The number of bytes; one byte has no sign.
    Integer(u8),
    Real,
    Float,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Money,
    SmallMoney,
    Date,
    Time,
    DateTime2,
    DateTimeOffset,
    /// `datetime` and `smalldatetime`: coarser, and with fewer years.
    OldDateTime,
    Text {
        encoding: Encoding,
        length: Length,
    },
    Binary(Length),
    UniqueIdentifier,
    /// `xml` and `json`: text that the server reads.
    Document,
    /// Nothing of ours goes into it.
    Other(String),
}

impl SqlType {
    /// Of a column in the server's catalog. `bytes`: −1 for as many as there are.
    pub fn of(name: &str, bytes: i16, precision: u8, scale: u8, collation: Option<&str>) -> Self {
        let utf8 = collation.is_some_and(|name| name.to_ascii_uppercase().ends_with("_UTF8"));
        let length = usize::try_from(bytes).ok();
        match name.to_ascii_lowercase().as_str() {
            "bit" => SqlType::Bit,
            "tinyint" => SqlType::Integer(1),
            "smallint" => SqlType::Integer(2),
            "int" => SqlType::Integer(4),
            "bigint" => SqlType::Integer(8),
            "real" => SqlType::Real,
            "float" => SqlType::Float,
            "decimal" | "numeric" => SqlType::Decimal { precision, scale },
            "money" => SqlType::Money,
            "smallmoney" => SqlType::SmallMoney,
            "date" => SqlType::Date,
            "time" => SqlType::Time,
            "datetime2" => SqlType::DateTime2,
            "datetimeoffset" => SqlType::DateTimeOffset,
            "datetime" | "smalldatetime" => SqlType::OldDateTime,
            "char" | "varchar" => {
                SqlType::Text { encoding: if utf8 { Encoding::Utf8 } else { Encoding::CodePage }, length }
            }
            "nchar" | "nvarchar" => SqlType::Text { encoding: Encoding::Utf16, length: length.map(|bytes| bytes / 2) },
            "binary" | "varbinary" => SqlType::Binary(length),
            "uniqueidentifier" => SqlType::UniqueIdentifier,
            "xml" | "json" => SqlType::Document,
            other => SqlType::Other(other.into()),
        }
    }

    /// The type in which a value of such a column is staged: one that the bulk protocol carries whole, and that the server turns into
    /// the column's own without loss, or refuses.
    pub fn staged(&self) -> String {
        match self {
            SqlType::Bit => "bit".into(),
            SqlType::Integer(bytes) => match bytes {
                1 => "tinyint",
                2 => "smallint",
                4 => "int",
                _ => "bigint",
            }
            .into(),
            SqlType::Real => "real".into(),
            SqlType::Float => "float".into(),
            SqlType::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
            SqlType::Money | SqlType::SmallMoney => "decimal(19,4)".into(),
            SqlType::Date => "date".into(),
            SqlType::Time => "time(7)".into(),
            SqlType::DateTime2 | SqlType::OldDateTime => "datetime2(7)".into(),
            SqlType::DateTimeOffset => "datetimeoffset(7)".into(),
            SqlType::Text { encoding: Encoding::CodePage, length: Some(n) } => format!("varchar({n})"),
            SqlType::Text { encoding: Encoding::CodePage, length: None } => "varchar(max)".into(),
            // The client says the length of such a column in bytes where the server reads characters: up to half of what is allowed,
            // that is merely too much. It knows no UTF-8, which the server makes of it.
            SqlType::Text { length: Some(n), .. } if *n <= 2000 => format!("nvarchar({n})"),
            SqlType::Text { .. } | SqlType::Document => "nvarchar(max)".into(),
            SqlType::Binary(Some(n)) => format!("varbinary({n})"),
            SqlType::Binary(None) => "varbinary(max)".into(),
            SqlType::UniqueIdentifier => "uniqueidentifier".into(),
            SqlType::Other(name) => name.clone(),
        }
    }

    /// Whether values of a column of ours go into it as they are, or what stands against it.
    pub fn takes(&self, field: &Field) -> Result<(), String> {
        let of = field.data_type();
        let fits = match (of, self) {
            (DataType::Boolean, SqlType::Bit) => true,
            (_, SqlType::Integer(_) | SqlType::Money | SqlType::SmallMoney) if of.is_integer() => true,
            (_, SqlType::Decimal { .. }) if of.is_integer() => true,
            // Up to 32 bits, each integer is a double.
            (_, SqlType::Float) if of.is_integer() => of.primitive_width() <= Some(4),
            (DataType::Float32, SqlType::Real | SqlType::Float) | (DataType::Float64, SqlType::Float) => true,
            (DataType::Decimal128(_, ours), SqlType::Decimal { scale, .. }) => *ours <= *scale as i8,
            (DataType::Decimal128(_, ours), SqlType::Money | SqlType::SmallMoney) => *ours <= 4,
            (_, SqlType::Text { .. } | SqlType::Document) => is_text(of) || is_document(of),
            (_, SqlType::UniqueIdentifier) => is_text(of) && !is_json(field),
            (_, SqlType::Binary(_)) => {
                matches!(
                    of,
                    DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_)
                )
            }
            (DataType::Timestamp(..), SqlType::DateTime2 | SqlType::DateTimeOffset | SqlType::OldDateTime) => true,
            (DataType::Date32 | DataType::Date64, SqlType::Date) => true,
            (DataType::Time32(_) | DataType::Time64(_), SqlType::Time) => true,
            _ => false,
        };
        if fits { Ok(()) } else { Err(format!("it is {} here and {self} there", ours(of))) }
    }

    /// Whether a column of ours holds every value of it, or what stands against that.
    pub fn fills(&self, field: &Field) -> Result<(), String> {
        let of = field.data_type();
        let fits = match (of, self) {
            (DataType::Boolean, SqlType::Bit) => true,
            (_, SqlType::Integer(_) | SqlType::Decimal { .. }) if of.is_integer() => {
                let (least, most) = range(of);
                let fits = self.range().is_some_and(|(lowest, highest)| lowest >= least && highest <= most);
                fits || self.is_made_for(field)
            }
            (DataType::Decimal128(precision, ours), _) => self.digits().is_some_and(|(whole, scale)| {
                *ours >= scale as i8 && i16::from(*precision) - i16::from(*ours) >= i16::from(whole)
            }),
            (DataType::Float64, SqlType::Float | SqlType::Real) => true,
            // Integers of so many bits are themselves as floating points.
            (DataType::Float64, SqlType::Integer(bytes)) => *bytes <= 4,
            (DataType::Float32, SqlType::Real) => true,
            (DataType::Float32, SqlType::Integer(bytes)) => *bytes <= 2,
            (DataType::Utf8, SqlType::UniqueIdentifier | SqlType::Time) => !is_json(field),
            (DataType::Utf8, SqlType::Text { .. } | SqlType::Document) => true,
            (_, SqlType::Text { .. } | SqlType::Document) => is_document(of),
            (DataType::Binary, SqlType::Binary(_)) => true,
            (
                DataType::Timestamp(TimeUnit::Nanosecond, _),
                SqlType::DateTime2 | SqlType::DateTimeOffset | SqlType::OldDateTime,
            ) => true,
            (DataType::Date32, SqlType::Date) => true,
            _ => false,
        };
        if fits { Ok(()) } else { Err(format!("it is {self} there and {} here", ours(of))) }
    }

    /// Whether the values of two rows are the same exactly if the server says so; and it can be asked for one.
    pub fn can_be_key(&self) -> bool {
        !matches!(
            self,
            SqlType::Real | SqlType::Float | SqlType::Time | SqlType::Binary(_) | SqlType::Document | SqlType::Other(_)
        )
    }

    /// The least and the greatest value, of a type without fractions.
    pub fn range(&self) -> Option<(i128, i128)> {
        match self {
            SqlType::Integer(1) => Some(range(&DataType::UInt8)),
            SqlType::Integer(2) => Some(range(&DataType::Int16)),
            SqlType::Integer(4) => Some(range(&DataType::Int32)),
            SqlType::Integer(_) => Some(range(&DataType::Int64)),
            SqlType::Decimal { precision, scale: 0 } => {
                let most = 10_i128.pow(u32::from(*precision).min(38)) - 1;
                Some((-most, most))
            }
            _ => None,
        }
    }

    /// Digits before the point, and behind it.
    pub fn digits(&self) -> Option<(u8, u8)> {
        Some(match self {
            SqlType::Integer(1) => (3, 0),
            SqlType::Integer(2) => (5, 0),
            SqlType::Integer(4) => (10, 0),
            SqlType::Integer(_) => (19, 0),
            SqlType::Decimal { precision, scale } => (precision.saturating_sub(*scale), *scale),
            SqlType::Money => (15, 4),
            SqlType::SmallMoney => (6, 4),
            _ => return None,
        })
    }

    /// Whether a table that is made here has it for such a column: what is in it came from one, and is checked one by one.
    fn is_made_for(&self, field: &Field) -> bool {
        let whole = |of: &str| match of {
            "tinyint" => SqlType::Integer(1),
            "smallint" => SqlType::Integer(2),
            "int" => SqlType::Integer(4),
            "bigint" => SqlType::Integer(8),
            _ => SqlType::Decimal { precision: 20, scale: 0 },
        };
        SqlType::new_column(field, false).is_some_and(|made| whole(&made) == *self)
    }

    /// The type of a new table's column for one of ours, and `None` where there is none. `key`: of an index, so not of any length.
    pub fn new_column(field: &Field, key: bool) -> Option<String> {
        Some(match field.data_type() {
            DataType::Boolean => "bit".into(),
            DataType::UInt8 => "tinyint".into(),
            DataType::Int8 | DataType::Int16 => "smallint".into(),
            DataType::UInt16 | DataType::Int32 => "int".into(),
            DataType::UInt32 | DataType::Int64 => "bigint".into(),
            DataType::UInt64 => "decimal(20,0)".into(),
            DataType::Float32 => "real".into(),
            DataType::Float64 => "float".into(),
            DataType::Decimal128(precision, scale) if *scale >= 0 => format!("decimal({precision},{scale})"),
            DataType::Timestamp(..) => "datetime2(7)".into(),
            DataType::Date32 | DataType::Date64 => "date".into(),
            DataType::Time32(_) | DataType::Time64(_) => "time(7)".into(),
            // Two keys that differ by case are two.
            of if is_text(of) && key => "nvarchar(400) COLLATE Latin1_General_100_BIN2".into(),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView if key => "varbinary(800)".into(),
            of if is_text(of) || is_document(of) => "nvarchar(max)".into(),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "varbinary(max)".into(),
            _ => return None,
        })
    }
}

impl fmt::Display for SqlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SqlType::Money => f.write_str("money"),
            SqlType::SmallMoney => f.write_str("smallmoney"),
            SqlType::Document => f.write_str("xml or json"),
            SqlType::OldDateTime => f.write_str("datetime"),
            SqlType::Text { encoding: Encoding::Utf16, length: Some(n) } => write!(f, "nvarchar({n})"),
            SqlType::Text { encoding: Encoding::Utf8, length } => {
                write!(f, "varchar({})", length.map_or("max".to_string(), |n| n.to_string()))
            }
            other => f.write_str(&other.staged()),
        }
    }
}

pub fn is_text(of: &DataType) -> bool {
    matches!(of, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Whether it is written as JSON.
pub fn is_document(of: &DataType) -> bool {
    use DataType::*;
    matches!(of, Struct(_) | List(_) | LargeList(_) | FixedSizeList(..) | ListView(_) | LargeListView(_) | Map(..))
}

/// The least and the greatest integer of a type of ours.
pub fn range(of: &DataType) -> (i128, i128) {
    match of {
        DataType::Int8 => (i8::MIN.into(), i8::MAX.into()),
        DataType::Int16 => (i16::MIN.into(), i16::MAX.into()),
        DataType::Int32 => (i32::MIN.into(), i32::MAX.into()),
        DataType::UInt8 => (0, u8::MAX.into()),
        DataType::UInt16 => (0, u16::MAX.into()),
        DataType::UInt32 => (0, u32::MAX.into()),
        DataType::UInt64 => (0, u64::MAX.into()),
        _ => (i64::MIN.into(), i64::MAX.into()),
    }
}

/// What a job file calls a type.
fn ours(of: &DataType) -> String {
    match of {
        DataType::Float64 => "DOUBLE".into(),
        DataType::Float32 => "REAL".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::Int32 => "INT".into(),
        DataType::Int16 => "SMALLINT".into(),
        DataType::Int8 => "TINYINT".into(),
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Timestamp(..) => "TIMESTAMP".into(),
        DataType::Date32 | DataType::Date64 => "DATE".into(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "BYTES".into(),
        text if is_text(text) => "TEXT".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;

    use super::*;

    fn takes(of: DataType, sql: SqlType) -> bool {
        sql.takes(&Field::new("c", of, true)).is_ok()
    }

    #[test]
    fn a_column_takes_what_it_can_hold_and_nothing_that_would_be_altered() {
        let decimal = |precision, scale| SqlType::Decimal { precision, scale };
        assert!(takes(DataType::Float64, SqlType::Float) && !takes(DataType::Float64, SqlType::Real));
        assert!(!takes(DataType::Float64, decimal(18, 0)), "the seed's own defect");
        assert!(
            takes(DataType::Decimal128(10, 2), decimal(18, 4)) && !takes(DataType::Decimal128(10, 2), decimal(18, 0))
        );
        assert!(takes(DataType::Int64, decimal(18, 0)) && !takes(DataType::Int64, SqlType::Float));
        assert!(takes(DataType::Timestamp(TimeUnit::Nanosecond, None), SqlType::DateTimeOffset));
        assert!(takes(DataType::Utf8, SqlType::UniqueIdentifier) && !takes(DataType::Utf8, SqlType::DateTime2));
        assert!(takes(
            DataType::Struct(vec![Field::new("a", DataType::Int64, true)].into()),
            SqlType::of("nvarchar", -1, 0, 0, None)
        ));
        assert!(!takes(DataType::Int64, SqlType::of("hierarchyid", 892, 0, 0, None)));
        let said = decimal(18, 0).takes(&Field::new("value", DataType::Float64, true)).unwrap_err();
        assert_eq!(said, "it is DOUBLE here and decimal(18,0) there");
    }

    #[test]
    fn a_column_is_filled_from_what_it_can_hold_all_of() {
        let fills = |sql: SqlType, of: DataType| sql.fills(&Field::new("c", of, true)).is_ok();
        let decimal = |precision, scale| SqlType::Decimal { precision, scale };
        let instant = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
        for (sql, of) in [
            (SqlType::Integer(4), DataType::Int64),
            (SqlType::Integer(1), DataType::Int16),
            (SqlType::Integer(1), DataType::UInt8),
            (decimal(18, 0), DataType::Int64),
            (decimal(20, 0), DataType::UInt64),
            (SqlType::Integer(2), DataType::Int8),
            (SqlType::Money, DataType::Decimal128(19, 4)),
            (SqlType::Integer(8), DataType::Decimal128(19, 0)),
            (decimal(10, 2), DataType::Decimal128(12, 4)),
            (SqlType::Real, DataType::Float64),
            (SqlType::UniqueIdentifier, DataType::Utf8),
            (SqlType::Time, DataType::Utf8),
            (SqlType::OldDateTime, instant.clone()),
            (
                SqlType::of("nvarchar", -1, 0, 0, None),
                DataType::Struct(vec![Field::new("a", DataType::Utf8, true)].into()),
            ),
        ] {
            assert!(fills(sql.clone(), of.clone()), "{sql} {of}");
        }
        for (sql, of) in [
            (SqlType::Integer(8), DataType::Int32),
            (SqlType::Integer(4), DataType::UInt64),
            (decimal(19, 0), DataType::Int64),
            (decimal(10, 2), DataType::Int64),
            (SqlType::Money, DataType::Decimal128(10, 2)),
            (SqlType::Money, DataType::Float64),
            (SqlType::Integer(8), DataType::Float64),
            (SqlType::Float, DataType::Float32),
            (SqlType::Date, instant),
            (SqlType::DateTime2, DataType::Utf8),
            (SqlType::Other("geography".into()), DataType::Utf8),
        ] {
            assert!(!fills(sql.clone(), of.clone()), "{sql} {of}");
        }
        let said = SqlType::Money.fills(&Field::new("value", DataType::Float64, true)).unwrap_err();
        assert_eq!(said, "it is money there and DOUBLE here");
    }

    #[test]
    fn lengths_are_characters_or_bytes() {
        let of = |name, bytes, collation| SqlType::of(name, bytes, 0, 0, collation);
        let text = |encoding, length| SqlType::Text { encoding, length };
        assert_eq!(of("nvarchar", 200, None), text(Encoding::Utf16, Some(100)));
        assert_eq!(of("varchar", 200, Some("SQL_Latin1_General_CP1_CI_AS")), text(Encoding::CodePage, Some(200)));
        assert_eq!(of("varchar", -1, Some("Latin1_General_100_CI_AS_SC_UTF8")), text(Encoding::Utf8, None));
        assert_eq!(of("varbinary", -1, None), SqlType::Binary(None));
        assert_eq!(text(Encoding::Utf8, Some(10)).staged(), "nvarchar(10)", "the client would send it in a code page");
    }
}
