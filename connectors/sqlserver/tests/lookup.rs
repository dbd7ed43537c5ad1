//! Rows that are looked up in a table: against the double.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::*;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, TimeUnit};
use arrow::util::display::array_value_to_string;
use engine::connector::{ColumnSpec, Connector, Options, Origin, TableSpec, json_field};
use engine::lookup::{Fetched, Loaded, Lookup, LookupError, LookupRequest};
use engine::source::SourceColumn;
use sqlserver::SqlServerConnector;
use tds_double::{Accident, Server, Step};

async fn server(t_sql: &str) -> Server {
    let server = Server::start(tds_double::Options::default()).await;
    for batch in t_sql.split("GO ") {
        server.run(batch);
    }
    server
}

fn field(name: &str, of: DataType) -> FieldRef {
    Arc::new(Field::new(name, of, true))
}

fn lookup(server: &Server, table: &str, fields: &[FieldRef]) -> Arc<dyn Lookup> {
    let options = [("connection_string", server.connection_string()), ("table", table.to_string())];
    let spec = TableSpec {
        name: "devices".into(),
        columns: fields.iter().map(|f| ColumnSpec { field: f.clone(), origin: Origin::Value }).collect(),
        primary_key: vec![fields[0].name().clone()],
        partition_by: vec![],
        options: Options(options.into_iter().map(|(name, value)| (name.to_string(), value)).collect()),
    };
    SqlServerConnector.lookup(&spec).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn request(fields: &[FieldRef], keys: &[usize]) -> LookupRequest {
    LookupRequest {
        columns: fields.iter().map(|f| SourceColumn { field: f.clone(), origin: Origin::Value }).collect(),
        keys: keys.to_vec(),
        timeout: Duration::from_secs(30),
    }
}

fn keys(columns: Vec<(&FieldRef, ArrayRef)>) -> RecordBatch {
    let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().map(|(field, array)| (field.clone(), array)).unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

fn strings(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

/// Rows as text, in order.
fn texts(batches: &[RecordBatch]) -> Vec<String> {
    let mut found = vec![];
    for batch in batches {
        let value = |row: usize, column: &ArrayRef| match column.is_null(row) {
            true => "NULL".to_string(),
            false => array_value_to_string(column, row).unwrap(),
        };
        let row = |row: usize| batch.columns().iter().map(|c| value(row, c)).collect::<Vec<_>>().join(" ");
        found.extend((0..batch.num_rows()).map(row));
    }
    found.sort();
    found
}

/// What one column of keys finds.
async fn fetched(server: &Server, table: &str, fields: &[FieldRef], values: ArrayRef) -> Fetched {
    let (lookup, request) = (lookup(server, table, fields), request(fields, &[0]));
    lookup.open(&request).await.unwrap();
    let fetched = lookup.fetch(&request, &keys(vec![(&fields[0], values)])).await.unwrap();
    assert_eq!(server.violations(), Vec::<String>::new());
    fetched
}

#[tokio::test]
async fn rows_are_found_by_keys_of_the_usual_types() {
    let server = server(
        "CREATE TABLE dbo.numbers ([id] int NOT NULL PRIMARY KEY, [n] nvarchar(9) NULL); \
         INSERT INTO dbo.numbers VALUES (1, N'one'), (2, NULL), (3, N'жук'); \
         CREATE TABLE dbo.ids ([Id] uniqueidentifier NOT NULL PRIMARY KEY, [n] int NULL); \
         INSERT INTO dbo.ids VALUES ('6F9619FF-8B86-D011-B42D-00C04FC964FF', 1), ('00000000-0000-0000-0000-000000000000', 2); \
         CREATE TABLE dbo.codes ([code] varchar(10) COLLATE Latin1_General_100_CI_AS NOT NULL PRIMARY KEY, [n] int NULL); \
         INSERT INTO dbo.codes VALUES ('a''b', 1), ('Größe', 2), ('other', 3); \
         CREATE TABLE dbo.names ([name] nvarchar(10) COLLATE Latin1_General_100_BIN2 NOT NULL PRIMARY KEY, [n] int NULL); \
         INSERT INTO dbo.names VALUES (N'жук 🐞', 1), (N'b', 2); \
         CREATE TABLE dbo.padded ([code] char(6) NOT NULL PRIMARY KEY, [n] int NULL); \
         INSERT INTO dbo.padded VALUES ('ab', 1), ('abc', 2);",
    )
    .await;
    let text = || field("n", DataType::Utf8);
    let number = || field("n", DataType::Int32);

    let fields = [field("id", DataType::Int64), text()];
    let found = fetched(&server, "numbers", &fields, Arc::new(Int64Array::from(vec![3, 2, 77, 1 << 40]))).await;
    assert_eq!(texts(&found.rows), ["2 NULL", "3 жук"]);
    assert_eq!(found.refused, []);

    // The declared name differs by case.
    let fields = [field("id", DataType::Utf8), number()];
    let ids = ["6f9619ff-8b86-d011-b42d-00c04fc964ff", "no uuid", "00000000-0000-0000-0000-000000000001"];
    let found = fetched(&server, "ids", &fields, strings(&ids)).await;
    assert_eq!(texts(&found.rows), ["6f9619ff-8b86-d011-b42d-00c04fc964ff 1"]);

    let fields = [field("code", DataType::Utf8), number()];
    let codes = ["a'b", "Größe", "größe", "жук", "much too long for it", "none", "[\"]}"];
    let found = fetched(&server, "codes", &fields, strings(&codes)).await;
    assert_eq!(texts(&found.rows), ["Größe 2", "a'b 1"], "of keys that are one to the server, the row comes once");

    let fields = [field("name", DataType::Utf8), number()];
    let found = fetched(&server, "names", &fields, strings(&["жук 🐞", "B"])).await;
    assert_eq!(texts(&found.rows), ["жук 🐞 1"]);

    let fields = [field("code", DataType::Utf8), number()];
    let found = fetched(&server, "padded", &fields, strings(&["ab", "abcd"])).await;
    assert_eq!(texts(&found.rows), ["ab 1"], "the spaces of a fixed length are not part of the text");
}

#[tokio::test]
async fn a_statement_takes_any_number_of_keys_of_any_number_of_columns() {
    let server = server(
        "CREATE TABLE dbo.t ([site] varchar(5) NOT NULL, [day] date NOT NULL, [n] int NOT NULL, PRIMARY KEY ([site], [day])); \
         INSERT INTO dbo.t VALUES ('a', '2024-02-29', 1), ('a', '2024-03-01', 2), ('b', '2024-02-29', 3);",
    )
    .await;
    let fields = [field("n", DataType::Int32), field("day", DataType::Date32), field("site", DataType::Utf8)];
    let (lookup, request) = (lookup(&server, "dbo.t", &fields), request(&fields, &[2, 1]));
    lookup.open(&request).await.unwrap();
    let many = 5000;
    let sites: Vec<String> = (0..many).map(|at| if at % 2 == 0 { "a".into() } else { format!("s{at}") }).collect();
    let days: Vec<i32> = (0..many).map(|at| 19_782 + at / 2).collect();
    let keys =
        keys(vec![(&fields[2], Arc::new(StringArray::from(sites))), (&fields[1], Arc::new(Date32Array::from(days)))]);
    let before = server.batches().len();
    let found = lookup.fetch(&request, &keys).await.unwrap();
    assert_eq!(texts(&found.rows), ["1 2024-02-29 a", "2 2024-03-01 a"]);
    assert_eq!(server.batches().len(), before + 1, "one statement, and no new session");
}

#[tokio::test]
async fn every_type_is_read_exactly() {
    let server = server(
        "CREATE TABLE dbo.t ([id] bigint NOT NULL, [flag] bit NULL, [tiny] tinyint NULL, [real] real NULL, [double] float NULL, \
         [dec] decimal(38,10) NULL, [money] money NULL, [small] smallmoney NULL, [day] date NULL, [old] datetime NULL, \
         [minute] smalldatetime NULL, [at] datetime2(7) NULL, [off] datetimeoffset(3) NULL, [time] time(3) NULL, \
         [bytes] varbinary(20) NULL, [utf8] varchar(20) COLLATE Latin1_General_100_CI_AS_SC_UTF8 NULL, [doc] nvarchar(max) NULL, \
         [nested] nvarchar(max) NULL, [xml] xml NULL); \
         INSERT INTO dbo.t VALUES (9223372036854775807, 1, 255, 0.1, 0.1, -1234567890123456789012345678.0123456789, \
         -922337203685477.5808, 1.25, '9999-12-31', '2024-02-29T12:00:00.002', '2024-02-29 12:00:30', \
         '2024-02-29 23:59:59.9999999', '2024-03-01 01:59:59.5 +02:00', '23:59:59.9', 0x00FF01, N'жук 🐞', \
         N' {\"b\": 1.10, \"a\": 12345678901234567890123} ', N'{\"x\": 5, \"y\": [1, 2]}', '<a><b/></a>'); \
         INSERT INTO dbo.t ([id]) VALUES (-1);",
    )
    .await;
    let instant = || DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    let nested = DataType::Struct(
        vec![
            Field::new("x", DataType::Int64, true),
            Field::new("y", DataType::List(Arc::new(Field::new("item", DataType::Int32, true))), true),
        ]
        .into(),
    );
    let fields = [
        field("id", DataType::Int64),
        field("flag", DataType::Boolean),
        field("tiny", DataType::Int16),
        field("real", DataType::Float64),
        field("double", DataType::Float64),
        field("dec", DataType::Decimal128(38, 10)),
        field("money", DataType::Decimal128(20, 5)),
        field("small", DataType::Decimal128(19, 4)),
        field("day", DataType::Date32),
        field("old", instant()),
        field("minute", instant()),
        field("at", instant()),
        field("off", instant()),
        field("time", DataType::Utf8),
        field("bytes", DataType::Binary),
        field("utf8", DataType::Utf8),
        Arc::new(json_field("doc", true)),
        field("nested", nested),
        field("xml", DataType::Utf8),
    ];
    let whole = lookup(&server, "t", &fields).load(&request(&fields, &[]), None, 0).await.unwrap();
    let Loaded::Rows { version: None, rows } = whole else { panic!("it has no version") };
    let real = f64::from(0.1_f32);
    let expected = format!(
        "9223372036854775807 true 255 {real} 0.1 -1234567890123456789012345678.0123456789 -922337203685477.58080 1.2500 9999-12-31 \
         2024-02-29T12:00:00.003Z 2024-02-29T12:01:00Z 2024-02-29T23:59:59.999999900Z 2024-02-29T23:59:59.500Z 23:59:59.900 00ff01 \
         жук 🐞 {{\"b\": 1.10, \"a\": 12345678901234567890123}} {{x: 5, y: [1, 2]}} <a><b/></a>"
    );
    let nothing = format!("-1{}", " NULL".repeat(18));
    assert_eq!(texts(&rows), [nothing.as_str(), expected.as_str()]);

    // By each of the types that can be a key, too.
    for key in [0, 1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 15] {
        let (lookup, request) = (lookup(&server, "t", &fields), request(&fields, &[key]));
        lookup.open(&request).await.unwrap();
        let row = (0..2).find(|row| rows[0].column(0).as_primitive::<arrow::datatypes::Int64Type>().value(*row) > 0);
        let value = rows[0].column(key).slice(row.unwrap(), 1);
        let found = lookup.fetch(&request, &keys(vec![(&fields[key], value)])).await.unwrap();
        assert_eq!(texts(&found.rows), [expected.as_str()], "{}", fields[key].name());
    }
    assert_eq!(server.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn a_row_that_does_not_fit_is_refused_for_its_key_alone() {
    let server = server(
        "CREATE TABLE dbo.t ([id] int NOT NULL, [until] datetime2(0) NULL, [doc] nvarchar(50) NULL); \
         INSERT INTO dbo.t VALUES (1, '2024-02-29', N'{}'), (2, '9999-12-31', N'{}'), (3, '2024-02-29', N'no json'), \
         (4, NULL, N'{\"a\": \"text\"}'), (5, NULL, N'1, \"b\": 2');",
    )
    .await;
    let document = DataType::Struct(vec![Field::new("a", DataType::Int64, true)].into());
    let instant = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    let fields = [field("id", DataType::Int32), field("until", instant), field("doc", document)];
    let found = fetched(&server, "t", &fields, Arc::new(Int32Array::from(vec![5, 4, 3, 2, 1]))).await;
    assert_eq!(texts(&found.rows), ["1 2024-02-29T00:00:00Z {a: }"]);
    let mut refused = found.refused;
    refused.sort();
    let parts = [
        (0, "column doc: '1, \"b\": 2' is no JSON"),
        (1, "found the text \"text\""),
        (2, "column doc: 'no json' is no JSON"),
        (3, "column until: it is a time before 1677"),
    ];
    assert_eq!(refused.len(), parts.len(), "{refused:?}");
    for ((key, what), (of, part)) in refused.iter().zip(parts) {
        assert!(*key == of && what.contains(part), "{key}: {what}");
    }
    let said = lookup(&server, "t", &fields).load(&request(&fields, &[]), None, 0).await.unwrap_err();
    assert!(
        matches!(&said, LookupError::Failed { what, .. } if what.contains("the row with id = 2: column until")),
        "{said}"
    );
}

#[tokio::test]
async fn a_view_is_a_table_and_all_that_is_wrong_is_said_at_once() {
    let server = server(
        "CREATE TABLE dbo.t ([id] int NOT NULL, [name] nvarchar(9) NULL, [price] money NULL, [size] float NULL, [raw] varbinary(5) NULL); \
         INSERT INTO dbo.t VALUES (1, N'one', 1, 1, 0x00), (2, N'two', 2, 2, 0x00); \
         GO CREATE VIEW dbo.v AS SELECT [id], [name] AS [label] FROM dbo.t WHERE [id] > 1",
    )
    .await;
    let fields = [field("id", DataType::Int32), field("label", DataType::Utf8)];
    let found = fetched(&server, "[dbo].[v]", &fields, Arc::new(Int32Array::from(vec![1, 2]))).await;
    assert_eq!(texts(&found.rows), ["2 two"]);

    let failed = async |table: &str, fields: &[FieldRef], keys: &[usize]| match lookup(&server, table, fields)
        .open(&request(fields, keys))
        .await
    {
        Err(LookupError::Failed { place, what }) => format!("{place}: {what}"),
        other => panic!("{other:?}"),
    };
    let wrong = [
        field("id", DataType::Int16),
        field("label", DataType::Utf8),
        field("price", DataType::Float64),
        field("size", DataType::Float64),
        field("raw", DataType::Binary),
    ];
    let said = failed("t", &wrong, &[0, 3, 4]).await;
    for part in [
        "column id: it is int there and SMALLINT here",
        "there is no column label in [dbo].[t]",
        "column price: it is money there and DOUBLE here",
        "column size: rows are not told apart by float",
        "column raw: rows are not told apart by varbinary(5)",
        "table devices, [dbo].[t] in streaming",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(failed("nowhere", &fields, &[0]).await.contains("there is no table or view [dbo].[nowhere]"));
}

#[tokio::test]
async fn a_line_that_is_cut_between_two_requests_is_opened_again() {
    let server = server("CREATE TABLE dbo.t ([id] int NOT NULL); INSERT INTO dbo.t VALUES (1), (2);").await;
    let fields = [field("id", DataType::Int32)];
    let (lookup, request) = (lookup(&server, "t", &fields), request(&fields, &[0]));
    lookup.open(&request).await.unwrap();
    let one = keys(vec![(&fields[0], Arc::new(Int32Array::from(vec![1])))]);
    let fetch = async || lookup.fetch(&request, &one).await.map(|found| texts(&found.rows));
    // Three sessions, since three ask at once.
    let (first, second, third) = tokio::join!(fetch(), fetch(), fetch());
    assert!([first, second, third].into_iter().all(|found| found.unwrap() == ["1"]));

    server.close_all();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let cut = fetch().await;
    assert!(matches!(cut, Err(LookupError::Retry { .. })), "{cut:?}");
    assert_eq!(fetch().await.unwrap(), ["1"], "of the lines that were kept, none is tried any more");

    // What is wrong while a job runs may heal; a server that is gone is waited for.
    server.run("DROP TABLE dbo.t");
    let gone = fetch().await;
    assert!(matches!(&gone, Err(LookupError::Retry { what, .. }) if what.contains("Invalid object name")), "{gone:?}");
    server.run("CREATE TABLE dbo.t ([id] bigint NOT NULL, [more] int NULL)");
    let changed = fetch().await;
    assert!(matches!(&changed, Err(LookupError::Retry { what, .. }) if what.contains("bigint there")), "{changed:?}");
    server.accidents(|step| match step {
        Step::Login => Accident::Refuse { number: 40613, class: 17, message: "Not now.".into() },
        _ => Accident::None,
    });
    server.close_all();
    assert!(matches!(lookup.open(&request).await, Err(LookupError::Retry { .. })));
}

#[tokio::test]
async fn who_is_not_let_in_is_told_at_the_start() {
    let server = server("CREATE TABLE dbo.t ([id] int NOT NULL);").await;
    let fields = [field("id", DataType::Int32)];
    server.accidents(|step| match step {
        Step::Login => Accident::Refuse { number: 18456, class: 14, message: "Login failed.".into() },
        _ => Accident::None,
    });
    let said = lookup(&server, "t", &fields).open(&request(&fields, &[0])).await;
    assert!(matches!(&said, Err(LookupError::Failed { what, .. }) if what.contains("Login failed")), "{said:?}");
}
