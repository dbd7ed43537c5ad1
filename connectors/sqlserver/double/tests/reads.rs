//! Views, and rows that are made of JSON.

mod client;

use client::*;
use tds_double::Server;

fn texts(rows: Vec<Vec<Option<String>>>) -> Vec<String> {
    let text = |value: Option<String>| value.unwrap_or_else(|| "NULL".into());
    rows.into_iter().map(|row| row.into_iter().map(text).collect::<Vec<_>>().join(" ")).collect()
}

async fn prepared() -> Server {
    let server = server().await;
    server.run(
        "CREATE TABLE dbo.t ([id] int NOT NULL PRIMARY KEY, [name] varchar(5) COLLATE Latin1_General_100_CI_AS NULL); \
         INSERT INTO dbo.t VALUES (1, 'one'), (2, 'Two'), (3, NULL);",
    );
    server
}

#[tokio::test]
async fn a_view_is_read_and_described_as_a_table_is() {
    let server = prepared().await;
    server.run("CREATE VIEW dbo.v AS SELECT [t].[id] AS [number], [t].[name] FROM dbo.t AS [t] WHERE [t].[id] < 3");
    assert_eq!(texts(server.query("SELECT [v].[name] FROM dbo.v WHERE [number] = 2")), ["Two"]);
    let described = server.query(
        "SELECT [c].[name], TYPE_NAME([c].[system_type_id]), [c].[max_length], [c].[is_nullable], [c].[collation_name] \
         FROM sys.columns AS [c] WHERE [c].[object_id] = OBJECT_ID(N'dbo.v') ORDER BY [c].[column_id]",
    );
    assert_eq!(texts(described), ["number int 4 0 NULL", "name varchar 5 1 Latin1_General_100_CI_AS"]);
    assert_eq!(texts(server.query("SELECT OBJECT_ID(N'dbo.v', N'U') AS [id]")), ["NULL"]);
    let said = |t_sql: &str| server.try_run(t_sql).map_err(|error| error.to_string()).unwrap_err();
    assert!(said("SELECT 1 AS [x]; CREATE VIEW dbo.w AS SELECT 1 AS [x]").contains("must be the first statement"));
    assert!(said("CREATE VIEW dbo.v AS SELECT 1 AS [x]").contains("already"));
    assert!(said("CREATE VIEW dbo.w AS SELECT 1").contains("no column name"));
    assert!(said("INSERT INTO dbo.v ([number]) VALUES (5)").contains("Invalid object name"));
}

#[tokio::test]
async fn a_table_says_how_far_its_locks_grow() {
    let server = prepared().await;
    let locks = "SELECT [t].[lock_escalation] FROM sys.tables AS [t] WHERE [t].[object_id] = OBJECT_ID(N'dbo.t', N'U')";
    assert_eq!(texts(server.query(locks)), ["0"], "to the whole table, unless said");
    server.run("ALTER TABLE dbo.t SET (LOCK_ESCALATION = AUTO);");
    assert_eq!(texts(server.query(locks)), ["2"]);
    let said = |t_sql: &str| server.try_run(t_sql).map_err(|error| error.to_string()).unwrap_err();
    assert!(said("ALTER TABLE dbo.t SET (LOCK_ESCALATION = ROW);").contains("Incorrect syntax"));
    assert!(said("ALTER TABLE dbo.u SET (LOCK_ESCALATION = AUTO);").contains("Cannot find the object"));
}

#[tokio::test]
async fn json_is_rows_with_the_types_that_are_said() {
    let server = prepared().await;
    let read = |json: &str, columns: &str| {
        texts(server.query(&format!("SELECT * FROM OPENJSON(N'{json}') WITH ({columns}) AS [k]")))
    };
    let mixed = r#"[[1,"a",12345678901234567890.12,true],["2",null],[3,{"x":1},"0.5",false]]"#;
    let columns = "[a] int '$[0]', [b] nvarchar(5) '$[1]', [c] decimal(30,2) '$[2]', [d] bit '$[3]'";
    assert_eq!(
        read(mixed, columns),
        ["1 a 12345678901234567890.12 1", "2 NULL NULL NULL", "3 NULL 0.50 0"],
        "numbers keep their digits, and what is missing or no single value is NULL"
    );
    assert_eq!(read("[]", "[a] int '$[0]'"), [""; 0]);
    let said = |t_sql: &str| server.try_run(t_sql).map_err(|error| error.to_string()).unwrap_err();
    assert!(said("SELECT * FROM OPENJSON(N'no') WITH ([a] int '$[0]') AS [k]").contains("not properly formatted"));
    assert!(said("SELECT * FROM OPENJSON(N'[[\"x\"]]') WITH ([a] int '$[0]') AS [k]").contains("Conversion failed"));
}

#[tokio::test]
async fn what_a_collation_takes_for_the_same_is_distinct_once() {
    let server = prepared().await;
    let keys = r#"[["ONE"],["one"],["two "],["four"]]"#;
    let rows = server.query(&format!(
        "SELECT [t].[id] FROM (SELECT DISTINCT CAST([c] COLLATE Latin1_General_100_CI_AS AS varchar(5)) AS [c] \
         FROM OPENJSON(N'{keys}') WITH ([c] nvarchar(5) '$[0]')) AS [k] INNER JOIN dbo.t AS [t] ON [t].[name] = [k].[c] \
         ORDER BY [t].[id]"
    ));
    assert_eq!(texts(rows), ["1", "2"]);
}

#[tokio::test]
async fn times_are_counted_by_the_boundaries_between_them() {
    let server = prepared().await;
    server.run(
        "CREATE TABLE dbo.w ([from] datetime2(7) NOT NULL, [to] datetime2(7) NOT NULL); \
         INSERT INTO dbo.w VALUES ('2026-11-24T10:00:59.9999999', '2026-11-24T10:01:00.0000000'), \
           ('2026-11-24T10:00:01', '2026-11-24T10:00:03.0019999'), ('2026-11-24T10:00:02', '2026-11-24T09:59:59.5')",
    );
    let of_each = |what: &str| texts(server.query(&format!("SELECT {what} AS [x] FROM dbo.w ORDER BY [from] DESC")));
    assert_eq!(of_each("DATEDIFF(minute, [from], [to])"), ["1", "-1", "0"]);
    assert_eq!(of_each("DATEDIFF_BIG(millisecond, [from], [to])"), ["1", "-2500", "2001"]);
    assert_eq!(of_each("DATEADD(hour, -11, [to])")[0], "2026-11-23 23:01:00.0000000");
    // As one cuts a time to its minute: a number is a day since 1900.
    let minutes = "SELECT DATEADD(minute, DATEDIFF(minute, 0, [from]), 0) AS [minute], COUNT_BIG(*) AS [n], \
                   AVG(CAST(DATEDIFF(second, [from], [to]) AS float)) AS [mean] FROM dbo.w \
                   GROUP BY DATEADD(minute, DATEDIFF(minute, 0, [from]), 0) ORDER BY [minute]";
    assert_eq!(texts(server.query(minutes)), ["2026-11-24 10:00:00.000 3 0"]);
    let said = |t_sql: &str| {
        let error = server.try_run(t_sql).unwrap_err();
        (error.number, error.message)
    };
    assert_eq!(
        said("SELECT DATEADD(parsec, 1, 0) AS [x]"),
        (155, "'parsec' is not a recognized dateadd option.".into())
    );
    assert_eq!(said("SELECT DATEDIFF(millisecond, 0, [to]) AS [x] FROM dbo.w").0, 535);
    assert_eq!(
        said("SELECT DATEADD(day, 2147483647, [to]) AS [x] FROM dbo.w"),
        (517, "Adding a value to a 'datetime2' column caused an overflow.".into())
    );
    assert_eq!(said("SELECT DATEDIFF(day, N'x', 0) AS [x]").0, 8116);
    assert_eq!(said("SELECT DATEADD(day, 1) AS [x]"), (174, "The dateadd function requires 3 argument(s).".into()));
}
