//! Each way in which rows are committed, with the marker.

mod client;

use client::*;
use tds_double::Server;
use tiberius::{IntoRow, ToSql};

const TARGET: &str = "CREATE TABLE [dbo].[measures] ([id] nvarchar(50) NOT NULL, [value] decimal(18,4) NULL, \
    [version] bigint NULL, PRIMARY KEY CLUSTERED ([id]));";
const STAGED: &str = "CREATE TABLE #millrace ([entry] bigint NOT NULL, [row] int NOT NULL, \
    [c0] nvarchar(50) COLLATE SQL_Latin1_General_CP1_CI_AS NULL, [c1] decimal(18,4) NULL, [c2] bigint NULL);";
const APPEND: &str = "INSERT INTO [dbo].[log] WITH (TABLOCK) ([id], [value], [version]) SELECT [c0], [c1], [c2] FROM #millrace \
    WHERE [entry] > @done ORDER BY [row];";
const FIRST: &str = "WITH [r] AS (SELECT *, ROW_NUMBER() OVER (PARTITION BY [c0] ORDER BY [row] ASC) AS [nth] FROM #millrace \
    WHERE [entry] > @done) ";
const LAST: &str = "WITH [r] AS (SELECT *, ROW_NUMBER() OVER (PARTITION BY [c0] ORDER BY [c2] DESC, [row] DESC) AS [nth] FROM #millrace \
    WHERE [entry] > @done) ";
const INSERT: &str = "INSERT INTO [dbo].[measures] ([id], [value], [version]) SELECT [r].[c0], [r].[c1], [r].[c2] FROM [r] \
    WHERE [r].[nth] = 1 AND NOT EXISTS (SELECT 1 FROM [dbo].[measures] AS [t] WITH (UPDLOCK, HOLDLOCK) WHERE [t].[id] = [r].[c0]);";
const UPDATE: &str = "UPDATE [t] SET [t].[value] = [r].[c1], [t].[version] = [r].[c2] FROM [dbo].[measures] AS [t] \
    WITH (UPDLOCK, HOLDLOCK) INNER JOIN [r] ON [t].[id] = [r].[c0] WHERE [r].[nth] = 1 \
    AND ([t].[version] IS NULL OR [r].[c2] > [t].[version]);";
const DELETE: &str = "DELETE [t] FROM [dbo].[measures] AS [t] WHERE EXISTS (SELECT 1 FROM #millrace AS [s] \
    WHERE [entry] > @done AND [t].[id] = [s].[c0]);";
const CALL: &str = "DECLARE @rows [dbo].[measures_type]; INSERT INTO @rows ([id], [value], [version]) SELECT [c0], [c1], [c2] \
    FROM #millrace WHERE [entry] > @done ORDER BY [row]; EXECUTE [dbo].[take_measures] @rows = @rows;";

async fn prepared() -> (Server, Session) {
    let server = server().await;
    server.run(TARGET);
    server.run(
        "CREATE TABLE [dbo].[log] ([id] nvarchar(50) NOT NULL, [value] decimal(18,4) NULL, [version] bigint NULL)",
    );
    let mut session = session(&server).await;
    run(&mut session, SETTINGS).await.unwrap();
    run(&mut session, MARKERS).await.unwrap();
    run(&mut session, MARKERS).await.unwrap();
    let add = "INSERT INTO [dbo].[millrace_markers] ([job], [sink], [writer], [lane], [entry], [updated_at]) \
               VALUES (@P1, @P2, @P3, @P4, 0, SYSUTCDATETIME())";
    let names: [&dyn ToSql; 4] = [&"it's", &"out", &"w", &0i32];
    assert_eq!(session.execute(add, &names).await.unwrap().total(), 1);
    run(&mut session, STAGED).await.unwrap();
    (server, session)
}

async fn stage(session: &mut Session, rows: &[(i64, &str, &str, i64)]) {
    run(session, "TRUNCATE TABLE #millrace;").await.unwrap();
    let mut load = session.bulk_insert("#millrace").await.unwrap();
    for (at, (entry, id, value, version)) in rows.iter().enumerate() {
        let digits: i128 = value.replace('.', "").parse().unwrap();
        let value = tiberius::numeric::Numeric::new_with_scale(digits, 4);
        load.send((*entry, at as i32, Some(*id), Some(value), Some(*version)).into_row()).await.unwrap();
    }
    assert_eq!(load.finalize().await.unwrap().total(), rows.len() as u64);
}

async fn commit(session: &mut Session, entry: u64, apply: &str) -> Option<i64> {
    number(session, &show(entry, apply)).await
}

fn rows(server: &Server, table: &str) -> Vec<String> {
    let found = server.query(&format!("SELECT [id], [value], [version] FROM {table} ORDER BY [id], [version]"));
    found
        .into_iter()
        .map(|row| row.into_iter().map(|v| v.unwrap_or("NULL".into())).collect::<Vec<_>>().join(" "))
        .collect()
}

#[tokio::test]
async fn appended_rows_come_with_the_marker_and_once() {
    let (server, mut session) = prepared().await;
    stage(&mut session, &[(1, "a", "1.2500", 1), (1, "A", "2.0000", 2), (2, "b", "3.0000", 3)]).await;
    assert_eq!(commit(&mut session, 2, APPEND).await, Some(0));
    assert_eq!(commit(&mut session, 2, APPEND).await, None, "it is there already");
    assert_eq!(rows(&server, "dbo.log"), ["a 1.2500 1", "A 2.0000 2", "b 3.0000 3"]);

    stage(&mut session, &[(2, "b", "3.0000", 3), (3, "c", "4.0000", 4)]).await;
    assert_eq!(commit(&mut session, 3, APPEND).await, Some(2), "the second entry's rows are there");
    assert_eq!(rows(&server, "dbo.log").len(), 4);
    let named: [&dyn ToSql; 4] = [&"it's", &"out", &"w", &0i32];
    let marker = "SELECT [entry] FROM [dbo].[millrace_markers] WHERE [job] = @P1 AND [sink] = @P2 AND [writer] = @P3 AND [lane] = @P4";
    let row = session.query(marker, &named).await.unwrap().into_row().await.unwrap().unwrap();
    assert_eq!(row.get::<i64, _>(0), Some(3));
    assert_eq!(server.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn of_each_key_the_first_row_stays() {
    let (server, mut session) = prepared().await;
    stage(&mut session, &[(1, "a", "1.0000", 9), (1, "A", "2.0000", 1), (1, "b", "3.0000", 1)]).await;
    assert_eq!(commit(&mut session, 1, &format!("{FIRST}{INSERT}")).await, Some(0));
    stage(&mut session, &[(2, "a ", "7.0000", 99), (2, "c", "8.0000", 1)]).await;
    assert_eq!(commit(&mut session, 2, &format!("{FIRST}{INSERT}")).await, Some(1));
    assert_eq!(rows(&server, "dbo.measures"), ["a 1.0000 9", "b 3.0000 1", "c 8.0000 1"]);
}

#[tokio::test]
async fn the_highest_version_stays() {
    let (server, mut session) = prepared().await;
    let upsert = format!("{LAST}{UPDATE}{LAST}{INSERT}");
    stage(&mut session, &[(1, "a", "5.0000", 5), (1, "a", "4.0000", 4)]).await;
    commit(&mut session, 1, &upsert).await;
    stage(&mut session, &[(2, "a", "3.0000", 3), (2, "b", "1.0000", 1)]).await;
    commit(&mut session, 2, &upsert).await;
    assert_eq!(rows(&server, "dbo.measures"), ["a 5.0000 5", "b 1.0000 1"]);
    stage(&mut session, &[(3, "A", "6.0000", 6)]).await;
    commit(&mut session, 3, &upsert).await;
    assert_eq!(rows(&server, "dbo.measures"), ["a 6.0000 6", "b 1.0000 1"]);
    stage(&mut session, &[(4, "b", "0.0000", 0)]).await;
    commit(&mut session, 4, DELETE).await;
    assert_eq!(rows(&server, "dbo.measures"), ["a 6.0000 6"]);
}

#[tokio::test]
async fn a_procedure_takes_the_rows_within_the_transaction() {
    let (server, mut session) = prepared().await;
    server.run("CREATE TYPE [dbo].[measures_type] AS TABLE ([id] nvarchar(50) NOT NULL, [value] decimal(18,4) NULL, [version] bigint NULL)");
    let body = "INSERT INTO [dbo].[measures] ([id], [value], [version]) SELECT [id], [value], [version] FROM @rows;";
    server.procedure("dbo.take_measures", "@rows", "dbo.measures_type", body);
    stage(&mut session, &[(1, "a", "1.0000", 1), (1, "b", "2.0000", 2)]).await;
    assert_eq!(commit(&mut session, 1, CALL).await, Some(0));
    assert_eq!(rows(&server, "dbo.measures"), ["a 1.0000 1", "b 2.0000 2"]);
    stage(&mut session, &[(2, "c", "1.0000", 1), (2, "a", "2.0000", 2)]).await;
    assert_eq!(refused(&mut session, &show(2, CALL)).await.0, 2627);
    assert_eq!(rows(&server, "dbo.measures").len(), 2, "what the procedure did is taken back");
    assert_eq!(server.query("SELECT [entry] FROM [dbo].[millrace_markers]"), [[Some("1".to_string())]]);
}

#[tokio::test]
async fn an_attempt_is_taken_back() {
    let (server, mut session) = prepared().await;
    stage(&mut session, &[(1, "a", "1.0000", 1), (1, "a", "2.0000", 2)]).await;
    let attempt = |rows: &str| {
        show(1, &format!("INSERT INTO [dbo].[measures] ([id]) SELECT [c0] FROM #millrace WHERE [entry] > @done AND [row] BETWEEN {rows} ORDER BY [row];"))
            .replace("COMMIT TRANSACTION; SELECT @done AS [done];", "ROLLBACK TRANSACTION;")
    };
    run(&mut session, &attempt("0 AND 0 AND [row] NOT IN (7, 8)")).await.unwrap();
    let (number, text) = refused(&mut session, &attempt("0 AND 1")).await;
    assert_eq!(number, 2627);
    assert!(
        text.contains("Cannot insert duplicate key in object 'dbo.measures'. The duplicate key value is (a)."),
        "{text}"
    );
    assert_eq!(number_of(&mut session, "SELECT @@TRANCOUNT AS [open]").await, 0);
    assert_eq!(rows(&server, "dbo.measures").len(), 0);
    assert_eq!(server.violations(), Vec::<String>::new());
}

async fn number_of(session: &mut Session, query: &str) -> i64 {
    number(session, query).await.unwrap()
}

#[tokio::test]
async fn the_catalog_answers_what_the_sink_asks() {
    let (server, mut session) = prepared().await;
    server.run("CREATE SCHEMA [a ]]b]");
    server.run("CREATE TABLE [a ]]b].[wéird] ([x] int NOT NULL IDENTITY(1,1), [y] AS ([x] + 1), [n] nvarchar(10) NOT NULL DEFAULT N'', \
                [d] decimal(9,3) NULL, [m] varchar(max) NULL, INDEX [cs] CLUSTERED COLUMNSTORE, PRIMARY KEY NONCLUSTERED ([x] DESC))");
    server.run("CREATE UNIQUE NONCLUSTERED INDEX [f] ON [a ]]b].[wéird] ([n], [d] DESC) WHERE [d] IS NOT NULL");
    let columns = "SELECT [c].[name], COALESCE(TYPE_NAME([c].[system_type_id]), TYPE_NAME([c].[user_type_id])) AS [type], \
        [c].[max_length], [c].[precision], [c].[scale], [c].[is_nullable], [c].[is_identity], [c].[is_computed], \
        [c].[default_object_id], [c].[generated_always_type], [c].[collation_name] \
        FROM sys.columns AS [c] WHERE [c].[object_id] = OBJECT_ID(@P1, N'U') ORDER BY [c].[column_id]";
    let found = session.query(columns, &[&"[a ]]b].[wéird]"]).await.unwrap().into_first_result().await.unwrap();
    let shown: Vec<String> = found
        .iter()
        .map(|row| {
            format!(
                "{} {} {} {} {} {} {} {} {}",
                row.get::<&str, _>("name").unwrap(),
                row.get::<&str, _>("type").unwrap(),
                row.get::<i16, _>("max_length").unwrap(),
                row.get::<u8, _>("precision").unwrap(),
                row.get::<u8, _>("scale").unwrap(),
                row.get::<bool, _>("is_nullable").unwrap(),
                row.get::<bool, _>("is_identity").unwrap(),
                row.get::<bool, _>("is_computed").unwrap(),
                row.get::<i32, _>("default_object_id").unwrap() != 0,
            )
        })
        .collect();
    let expected = [
        "x int 4 10 0 false true false false",
        "y int 4 10 0 true false true false",
        "n nvarchar 20 0 0 false false false true",
        "d decimal 5 9 3 true false false false",
        "m varchar -1 0 0 true false false false",
    ];
    assert_eq!(shown, expected);
    let indexes = "SELECT [i].[index_id], [i].[type], [i].[is_unique], [i].[has_filter], [i].[is_disabled], [c].[name] \
        FROM sys.indexes AS [i] \
        LEFT JOIN sys.index_columns AS [k] ON [k].[object_id] = [i].[object_id] AND [k].[index_id] = [i].[index_id] AND [k].[key_ordinal] > 0 \
        LEFT JOIN sys.columns AS [c] ON [c].[object_id] = [k].[object_id] AND [c].[column_id] = [k].[column_id] \
        WHERE [i].[object_id] = OBJECT_ID(@P1, N'U') ORDER BY [i].[index_id], [k].[key_ordinal]";
    let found = session.query(indexes, &[&"[a ]]b].[wéird]"]).await.unwrap().into_first_result().await.unwrap();
    let shown: Vec<(u8, bool, bool, Option<&str>)> = found
        .iter()
        .map(|row| {
            (row.get("type").unwrap(), row.get("is_unique").unwrap(), row.get("has_filter").unwrap(), row.get("name"))
        })
        .collect();
    let expected =
        [(5, false, false, None), (2, true, false, Some("x")), (2, true, true, Some("n")), (2, true, true, Some("d"))];
    assert_eq!(shown, expected);
    server.run("CREATE TYPE [a ]]b].[t t] AS TABLE ([a] int NOT NULL, [b] nvarchar(7))");
    server.procedure("[a ]]b].[p]", "@Rows", "[a ]]b].[t t]", "DELETE FROM dbo.log");
    let parameters = "SELECT [p].[name] AS [parameter], SCHEMA_NAME([y].[schema_id]) AS [schema], [y].[name] AS [of], [c].[name], \
        COALESCE(TYPE_NAME([c].[system_type_id]), TYPE_NAME([c].[user_type_id])) AS [type], [c].[max_length] \
        FROM sys.parameters AS [p] INNER JOIN sys.table_types AS [y] ON [y].[user_type_id] = [p].[user_type_id] \
        INNER JOIN sys.columns AS [c] ON [c].[object_id] = [y].[type_table_object_id] \
        WHERE [p].[object_id] = OBJECT_ID(@P1, N'P') ORDER BY [p].[parameter_id], [c].[column_id]";
    let found = session.query(parameters, &[&"[a ]]b].[p]"]).await.unwrap().into_first_result().await.unwrap();
    let texts = |row: &tiberius::Row| {
        ["parameter", "schema", "of", "name", "type"].map(|c| row.get::<&str, _>(c).unwrap().to_string())
    };
    assert_eq!(
        found.iter().map(texts).collect::<Vec<_>>(),
        [["@Rows", "a ]b", "t t", "a", "int"], ["@Rows", "a ]b", "t t", "b", "nvarchar"]]
    );
    let row = session
        .query("SELECT OBJECT_ID(@P1, N'P') AS [id]", &[&"dbo.nothing"])
        .await
        .unwrap()
        .into_row()
        .await
        .unwrap()
        .unwrap();
    assert_eq!(row.get::<i32, _>("id"), None);
    assert_eq!(server.violations(), Vec::<String>::new());
}
