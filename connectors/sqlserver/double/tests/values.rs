//! Values of all types, there and back.

mod client;

use std::borrow::Cow;

use client::*;
use tiberius::numeric::Numeric;
use tiberius::time::{Date, DateTime2, DateTimeOffset, Time};
use tiberius::{ColumnData, TokenRow, Uuid};

const COLUMNS: &str = "[bit] bit NULL, [tiny] tinyint NULL, [small] smallint NULL, [int] int NULL, [big] bigint NULL, [real] real NULL, \
    [float] float NULL, [dec] decimal(38,10) NULL, [day] date NULL, [time] time(7) NULL, [dt2] datetime2(7) NULL, \
    [dto] datetimeoffset(7) NULL, [vc] varchar(20) NULL, [nv] nvarchar(20) NULL, [nmax] nvarchar(max) NULL, [vb] varbinary(20) NULL, \
    [vmax] varbinary(max) NULL, [id] uniqueidentifier NULL";

fn full() -> TokenRow<'static> {
    let mut row = TokenRow::new();
    // 2024-02-29 is day 738944 since 0001-01-01.
    let day = Date::new(738_944);
    let evening = Time::new(863_999_999_999, 7);
    row.push(ColumnData::Bit(Some(true)));
    row.push(ColumnData::U8(Some(255)));
    row.push(ColumnData::I16(Some(i16::MIN)));
    row.push(ColumnData::I32(Some(i32::MIN)));
    row.push(ColumnData::I64(Some(i64::MIN)));
    row.push(ColumnData::F32(Some(0.1)));
    row.push(ColumnData::F64(Some(0.1)));
    row.push(ColumnData::Numeric(Some(Numeric::new_with_scale(
        -12_345_678_901_234_567_890_123_456_789_012_345_678,
        10,
    ))));
    row.push(ColumnData::Date(Some(day)));
    row.push(ColumnData::Time(Some(evening)));
    row.push(ColumnData::DateTime2(Some(DateTime2::new(day, evening))));
    row.push(ColumnData::DateTimeOffset(Some(DateTimeOffset::new(DateTime2::new(day, evening), 120))));
    row.push(ColumnData::String(Some(Cow::from("naïve €"))));
    row.push(ColumnData::String(Some(Cow::from("жук 🐞"))));
    row.push(ColumnData::String(Some(Cow::from("long ".repeat(5_000)))));
    row.push(ColumnData::Binary(Some(Cow::from(vec![0, 1, 255]))));
    row.push(ColumnData::Binary(Some(Cow::from(vec![7; 20_000]))));
    row.push(ColumnData::Guid(Some(Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff))));
    row
}

fn empty() -> TokenRow<'static> {
    let mut row = TokenRow::new();
    let nothing = [
        ColumnData::Bit(None),
        ColumnData::U8(None),
        ColumnData::I16(None),
        ColumnData::I32(None),
        ColumnData::I64(None),
        ColumnData::F32(None),
        ColumnData::F64(None),
        ColumnData::Numeric(None),
        ColumnData::Date(None),
        ColumnData::Time(None),
        ColumnData::DateTime2(None),
        ColumnData::DateTimeOffset(None),
        ColumnData::String(None),
        ColumnData::String(None),
        ColumnData::String(None),
        ColumnData::Binary(None),
        ColumnData::Binary(None),
        ColumnData::Guid(None),
    ];
    nothing.into_iter().for_each(|data| row.push(data));
    row
}

#[tokio::test]
async fn all_types_come_through_a_bulk_load_and_a_copy() {
    let server = server().await;
    server.run(&format!("CREATE TABLE dbo.kept ({COLUMNS})"));
    let mut session = session(&server).await;
    run(&mut session, &format!("CREATE TABLE #staged ({COLUMNS})")).await.unwrap();
    let mut load = session.bulk_insert("#staged").await.unwrap();
    load.send(full()).await.unwrap();
    load.send(empty()).await.unwrap();
    load.send(full()).await.unwrap();
    assert_eq!(load.finalize().await.unwrap().total(), 3);
    run(&mut session, "INSERT INTO dbo.kept SELECT * FROM #staged").await.unwrap();

    let rows = run(&mut session, "SELECT * FROM dbo.kept").await.unwrap();
    let said = |row: &tiberius::Row| format!("{:?}", row.cells().map(|(_, data)| data.clone()).collect::<Vec<_>>());
    let sent = |row: TokenRow<'static>| format!("{:?}", row.into_iter().collect::<Vec<_>>());
    assert_eq!(said(&rows[0]), sent(full()));
    assert_eq!(said(&rows[1]), sent(empty()));
    assert_eq!(said(&rows[2]), sent(full()));

    let shown = server
        .query("SELECT [dec], [day], [time], [dt2], [dto], [vc], [nv], [vb], [id], [real], [float] FROM dbo.kept");
    let shown: Vec<&str> = shown[0].iter().map(|value| value.as_deref().unwrap()).collect();
    let expected = [
        "-1234567890123456789012345678.9012345678",
        "2024-02-29",
        "23:59:59.9999999",
        "2024-02-29 23:59:59.9999999",
        "2024-03-01 01:59:59.9999999 +02:00",
        "naïve €",
        "жук 🐞",
        "0x0001FF",
        "00112233-4455-6677-8899-aabbccddeeff",
        "0.1",
        "0.1",
    ];
    assert_eq!(shown, expected);
    assert_eq!(server.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn older_types_and_fixed_ones_read_as_the_server_writes_them() {
    let server = server().await;
    server.run(
        "CREATE TABLE dbo.old ([m] money NOT NULL, [sm] smallmoney NULL, [dt] datetime NOT NULL, [sdt] smalldatetime NULL, \
         [c] char(4) NOT NULL, [nc] nchar(4) NULL, [b] binary(3) NULL, [x] xml NULL, [i] int NOT NULL, [n] bit NOT NULL, \
         [r] real NOT NULL, [t] time(3) NULL, [d] datetime2(0) NULL); \
         INSERT INTO dbo.old VALUES (-922337203685477.5808, 1.25, '2024-02-29T12:00:00.002', '2024-02-29 12:00:30', 'ab', N'é', 0x01, \
         '<a><b/></a>', 7, 1, 0.5, '23:59:59.9996', '2024-12-31 23:59:59.5')",
    );
    let shown = server.query("SELECT * FROM dbo.old");
    let shown: Vec<&str> = shown[0].iter().map(|value| value.as_deref().unwrap()).collect();
    let expected = [
        "-922337203685477.5808",
        "1.2500",
        "2024-02-29 12:00:00.003",
        "2024-02-29 12:01:00",
        "ab  ",
        "é   ",
        "0x010000",
        "<a><b/></a>",
        "7",
        "1",
        "0.5",
        "00:00:00.000",
        "2025-01-01 00:00:00",
    ];
    assert_eq!(shown, expected);
    let mut session = session(&server).await;
    let rows = run(&mut session, "SELECT [i], [n], [r], [c], [sm], [m] FROM dbo.old").await.unwrap();
    assert_eq!(rows[0].get::<i32, _>("i"), Some(7));
    assert_eq!(rows[0].get::<bool, _>("n"), Some(true));
    assert_eq!(rows[0].get::<f32, _>("r"), Some(0.5));
    assert_eq!(rows[0].get::<&str, _>("c"), Some("ab  "));
    run(&mut session, "SELECT [dt], [sdt], [x], [nc], [b] FROM dbo.old").await.unwrap();
}

#[tokio::test]
async fn texts_are_the_same_as_their_collation_has_it() {
    let server = server().await;
    server.run("CREATE TABLE dbo.words ([ci] nvarchar(20) NOT NULL, [bin] nvarchar(20) COLLATE Latin1_General_100_BIN2 NOT NULL)");
    server.run("INSERT INTO dbo.words VALUES (N'Straße', N'Straße'), (N'A', N'A'), (N'a', N'a')");
    let count = |condition: &str| {
        server.query(&format!("SELECT COUNT(*) AS [n] FROM dbo.words WHERE {condition}"))[0][0].clone().unwrap()
    };
    assert_eq!(count("[ci] = N'A  '"), "2");
    assert_eq!(count("[bin] = N'A  '"), "1");
    assert_eq!(count("[ci] = N'STRASSE'"), "0");
    assert_eq!(server.try_run("SELECT * FROM dbo.words WHERE [ci] = [bin]").unwrap_err().number, 468);
    server.run("CREATE UNIQUE INDEX [exact] ON dbo.words ([bin])");
    let refused = server.try_run("CREATE UNIQUE INDEX [loose] ON dbo.words ([ci])").unwrap_err();
    assert_eq!(refused.number, 1505);
}

#[tokio::test]
async fn numbers_of_any_kind_are_compared_by_value() {
    let server = server().await;
    server.run(
        "CREATE TABLE dbo.n ([d] decimal(20,4) NOT NULL, [b] bigint NOT NULL, [f] float NOT NULL, [m] money NOT NULL)",
    );
    server.run("INSERT INTO dbo.n VALUES (9.5, 9007199254740993, 9.5, 9.5), (10, 10, 10, 10)");
    let count = |condition: &str| {
        server.query(&format!("SELECT COUNT(*) AS [n] FROM dbo.n WHERE {condition}"))[0][0].clone().unwrap()
    };
    assert_eq!(count("[d] > 9"), "2");
    assert_eq!(count("[d] = 9.50"), "1");
    assert_eq!(count("[b] = 9007199254740993 AND [d] < [b]"), "1");
    assert_eq!(count("[d] = [m] AND [d] = [f]"), "2");
    assert_eq!(
        server.query("SELECT [d] FROM dbo.n ORDER BY [d] DESC"),
        [[Some("10.0000".to_string())], [Some("9.5000".to_string())]]
    );
    assert_eq!(
        server.query("SELECT SUM([d]) AS [s], [d] * 2 AS [p] FROM dbo.n WHERE [d] < 10"),
        [[Some("9.5000".to_string()), Some("19.0000".to_string())]]
    );
}
