//! What the server refuses, in its own numbers and words.

mod client;

use client::*;
use tds_double::Server;
use tiberius::IntoRow;

async fn prepared() -> Server {
    let server = server().await;
    server.run(
        "CREATE TABLE dbo.t ([id] int NOT NULL CONSTRAINT [PK_t] PRIMARY KEY, [u] nvarchar(10) NULL CONSTRAINT [UQ_t] UNIQUE, \
         [v] tinyint NULL, [s] smallint NULL, [w] varchar(3) NULL, [d] decimal(5,2) NULL, [j] nvarchar(max) NULL, \
         [g] uniqueidentifier NULL, [at] datetime2(7) NULL, [old] datetime NULL, [i] int NULL, \
         CONSTRAINT [CK_t] CHECK (ISJSON([j]) = 1 OR [j] IS NULL), CHECK ([v] < 200 AND LEN([w]) > 1))",
    );
    server.run("CREATE UNIQUE INDEX [IX_t] ON dbo.t ([s] DESC, [v]) WHERE [s] IS NOT NULL");
    server
}

#[tokio::test]
async fn each_constraint_has_its_error() {
    let server = prepared().await;
    server.run("INSERT INTO dbo.t ([id], [u], [v], [s]) VALUES (1, N'a', 1, 1)");
    let said = |t_sql: &str| server.try_run(t_sql).map_err(|error| (error.number, error.class, error.message));
    let cases: &[(&str, u32, u8, &str)] = &[
        (
            "INSERT INTO dbo.t ([id]) VALUES (1)",
            2627,
            14,
            "Violation of PRIMARY KEY constraint 'PK_t'. Cannot insert duplicate key in object 'dbo.t'. The duplicate key value is (1).",
        ),
        (
            "INSERT INTO dbo.t ([id], [u]) VALUES (2, N'A ')",
            2627,
            14,
            "Violation of UNIQUE KEY constraint 'UQ_t'. Cannot insert duplicate key in object 'dbo.t'. The duplicate key value is (A ).",
        ),
        (
            "INSERT INTO dbo.t ([id], [u], [s], [v]) VALUES (2, N'b', 1, 1)",
            2601,
            14,
            "Cannot insert duplicate key row in object 'dbo.t' with unique index 'IX_t'. The duplicate key value is (1, 1).",
        ),
        (
            "INSERT INTO dbo.t ([id], [u], [j]) VALUES (2, N'b', N'{no}')",
            547,
            16,
            "The INSERT statement conflicted with the CHECK constraint \"CK_t\". The conflict occurred in database \"streaming\", table \"dbo.t\".",
        ),
        (
            "INSERT INTO dbo.t ([id]) VALUES (NULL)",
            515,
            16,
            "Cannot insert the value NULL into column 'id', table 'streaming.dbo.t'; column does not allow nulls. INSERT fails.",
        ),
        (
            "UPDATE dbo.t SET [id] = NULL",
            515,
            16,
            "Cannot insert the value NULL into column 'id', table 'streaming.dbo.t'; column does not allow nulls. UPDATE fails.",
        ),
        (
            "INSERT INTO dbo.t ([id], [w]) VALUES (2, 'abcd')",
            2628,
            16,
            "String or binary data would be truncated in table 'streaming.dbo.t', column 'w'. Truncated value: 'abc'.",
        ),
        (
            "INSERT INTO dbo.t ([id], [v]) VALUES (2, 256)",
            220,
            16,
            "Arithmetic overflow error for data type tinyint, value = 256.",
        ),
        (
            "INSERT INTO dbo.t ([id], [d]) VALUES (2, 1000)",
            8115,
            16,
            "Arithmetic overflow error converting int to data type numeric.",
        ),
        (
            "INSERT INTO dbo.t ([id], [d]) VALUES (2, 1000.00)",
            8115,
            16,
            "Arithmetic overflow error converting numeric to data type numeric.",
        ),
        (
            "INSERT INTO dbo.t ([id], [at]) VALUES (2, N'yesterday')",
            241,
            16,
            "Conversion failed when converting date and/or time from character string.",
        ),
        (
            "INSERT INTO dbo.t ([id], [old]) VALUES (2, CAST('1700-01-01' AS datetime2))",
            242,
            16,
            "The conversion of a datetime2 data type to a datetime data type resulted in an out-of-range value.",
        ),
        (
            "INSERT INTO dbo.t ([id], [i]) VALUES (2, N'x')",
            245,
            16,
            "Conversion failed when converting the nvarchar value 'x' to data type int.",
        ),
        ("INSERT INTO dbo.t ([id], [d]) VALUES (2, N'x')", 8114, 16, "Error converting data type nvarchar to numeric."),
        (
            "INSERT INTO dbo.t ([id], [g]) VALUES (2, N'x')",
            8169,
            16,
            "Conversion failed when converting from a character string to uniqueidentifier.",
        ),
        ("SELECT * FROM dbo.missing", 208, 16, "Invalid object name 'dbo.missing'."),
        ("SELECT [nothing] FROM dbo.t", 207, 16, "Invalid column name 'nothing'."),
        ("SELECT [x].[id] FROM dbo.t", 4104, 16, "The multi-part identifier \"x.id\" could not be bound."),
        ("SELEC 1", 102, 15, "Incorrect syntax near 'SELEC'."),
        ("MERGE INTO dbo.t USING x ON 1 = 1", 102, 15, "Incorrect syntax near 'MERGE'."),
        ("CREATE TABLE dbo.T ([a] int)", 2714, 16, "There is already an object named 'T' in the database."),
        ("EXECUTE dbo.nobody", 2812, 16, "Could not find stored procedure 'dbo.nobody'."),
        ("COMMIT TRANSACTION", 3902, 16, "The COMMIT TRANSACTION request has no corresponding BEGIN TRANSACTION."),
        ("ROLLBACK", 3903, 16, "The ROLLBACK TRANSACTION request has no corresponding BEGIN TRANSACTION."),
        ("SELECT @nobody AS [x]", 137, 15, "Must declare the scalar variable \"@nobody\"."),
        (
            "INSERT INTO dbo.t ([id], [at]) VALUES (2, 5)",
            206,
            16,
            "Operand type clash: int is incompatible with datetime2",
        ),
        ("SELECT 1 / 0 AS [x]", 8134, 16, "Divide by zero error encountered."),
        ("SELECT 2147483647 + 1 AS [x]", 8115, 16, "Arithmetic overflow error converting expression to data type int."),
    ];
    for (t_sql, number, class, message) in cases {
        assert_eq!(said(t_sql), Err((*number, *class, message.to_string())), "{t_sql}");
    }
    assert_eq!(server.query("SELECT COUNT(*) AS [n] FROM dbo.t"), [[Some("1".to_string())]]);
    assert!(said("INSERT INTO dbo.t ([id], [w]) VALUES (2, 'abc   ')").is_ok(), "spaces at the end are cut in silence");
    assert_eq!(
        said("INSERT INTO dbo.t ([id]) VALUES (3)").map_err(|e| e.0),
        Err(2627),
        "two NULLs are the same in a unique constraint"
    );
}

#[tokio::test]
async fn an_error_of_a_row_takes_its_statement_back_and_no_more_unless_all_is_to_be() {
    let server = prepared().await;
    let mut session = session(&server).await;
    let batch = "BEGIN TRANSACTION; INSERT INTO dbo.t ([id], [u]) VALUES (1, N'a'); \
                 INSERT INTO dbo.t ([id], [u]) VALUES (2, N'b'), (1, N'c'); INSERT INTO dbo.t ([id], [u]) VALUES (3, N'd'); COMMIT TRANSACTION;";
    run(&mut session, "SET XACT_ABORT ON").await.unwrap();
    assert_eq!(refused(&mut session, batch).await.0, 2627);
    assert_eq!(number(&mut session, "SELECT COUNT(*) AS [n] FROM dbo.t").await, Some(0));
    assert_eq!(number(&mut session, "SELECT @@TRANCOUNT AS [n]").await, Some(0));
    run(&mut session, "SET XACT_ABORT OFF").await.unwrap();
    assert_eq!(refused(&mut session, batch).await.0, 2627);
    assert_eq!(number(&mut session, "SELECT COUNT(*) AS [n] FROM dbo.t").await, Some(2));
    assert_eq!(number(&mut session, "SELECT @@TRANCOUNT AS [n]").await, Some(0));
    assert_eq!(server.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn a_session_that_goes_leaves_no_transaction_and_no_table() {
    let server = prepared().await;
    let mut gone = session(&server).await;
    run(&mut gone, "CREATE TABLE #mine ([a] int); BEGIN TRANSACTION; INSERT INTO dbo.t ([id]) VALUES (1)")
        .await
        .unwrap();
    let mut other = session(&server).await;
    assert_eq!(refused(&mut other, "SELECT * FROM #mine").await.0, 208);
    assert_eq!(number(&mut other, "SELECT COUNT(*) AS [n] FROM dbo.t").await, Some(0));
    drop(gone);
    run(&mut other, "INSERT INTO dbo.t ([id]) VALUES (2)").await.unwrap();
    assert_eq!(number(&mut other, "SELECT [id] FROM dbo.t").await, Some(2));
}

#[tokio::test]
async fn a_writer_waits_for_another_as_long_as_it_is_told_to() {
    let server = prepared().await;
    let (mut one, mut two) = (session(&server).await, session(&server).await);
    run(&mut one, "BEGIN TRANSACTION; INSERT INTO dbo.t ([id], [u]) VALUES (1, N'a')").await.unwrap();
    run(&mut two, "SET LOCK_TIMEOUT 50").await.unwrap();
    let late = "INSERT INTO dbo.t ([id], [u]) VALUES (2, N'b')";
    assert_eq!(refused(&mut two, late).await, (1222, "Lock request time out period exceeded.".to_string()));
    run(&mut two, "SET LOCK_TIMEOUT -1").await.unwrap();
    let waiting = tokio::spawn(async move { run(&mut two, late).await.map(|_| ()) });
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    run(&mut one, "COMMIT TRANSACTION").await.unwrap();
    waiting.await.unwrap().unwrap();
    assert_eq!(number(&mut one, "SELECT COUNT(*) AS [n] FROM dbo.t").await, Some(2));
}

#[tokio::test]
async fn a_bulk_load_keeps_the_rules() {
    let server = server().await;
    server.run("CREATE TABLE dbo.b ([id] int NOT NULL PRIMARY KEY, [name] nvarchar(4) NULL, [c] int NOT NULL DEFAULT 5, CHECK ([id] > 0))");
    let mut session = session(&server).await;
    let mut load = session.bulk_insert("dbo.b").await.unwrap();
    for id in [1, 2, 1] {
        load.send((id, Some("ab"), 1).into_row()).await.unwrap();
    }
    let refused = load.finalize().await.unwrap_err();
    assert_eq!(refused.code(), Some(2627));
    let mut load = session.bulk_insert_columns("dbo.b", &["id", "name"]).await.unwrap();
    load.send((-1, Some("ab")).into_row()).await.unwrap();
    assert_eq!(load.finalize().await.unwrap().total(), 1, "checks are not made unless they are asked for");
    assert_eq!(server.query("SELECT [id], [c] FROM dbo.b"), [[Some("-1".to_string()), Some("5".to_string())]]);
    assert_eq!(server.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn counts_come_for_each_statement() {
    let server = prepared().await;
    let mut session = session(&server).await;
    let batch = "INSERT INTO dbo.t ([id], [u]) VALUES (1, N'a'), (2, N'b'); UPDATE dbo.t SET [i] = 1; DELETE FROM dbo.t WHERE [id] = 1";
    let done = session.execute(batch, &[]).await.unwrap();
    assert_eq!(done.rows_affected(), [2, 2, 1]);
    run(&mut session, "SET NOCOUNT ON").await.unwrap();
    assert_eq!(session.execute("UPDATE dbo.t SET [i] = 1", &[]).await.unwrap().total(), 0);
}

#[tokio::test]
async fn a_statement_that_waits_is_not_run_for_a_session_that_is_gone() {
    let server = prepared().await;
    let (mut one, mut two) = (session(&server).await, session(&server).await);
    run(&mut one, "BEGIN TRANSACTION; INSERT INTO dbo.t ([id], [u]) VALUES (1, N'a')").await.unwrap();
    let waiting = run(&mut two, "INSERT INTO dbo.t ([id], [u]) VALUES (2, N'b')");
    assert!(tokio::time::timeout(std::time::Duration::from_millis(100), waiting).await.is_err());
    drop(two);
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    run(&mut one, "COMMIT TRANSACTION").await.unwrap();
    run(&mut one, "INSERT INTO dbo.t ([id], [u]) VALUES (3, N'c')").await.unwrap();
    assert_eq!(number(&mut one, "SELECT COUNT(*) AS [n] FROM dbo.t").await, Some(2));
    assert_eq!(server.violations(), Vec::<String>::new());
}
