//! Tables that lie in partitions, and users who may do what they were granted.

mod client;

use client::*;
use tds_double::Server;
use tiberius::AuthMethod;

const FUNCTION: &str = "CREATE PARTITION FUNCTION [pf] (int) AS RANGE LEFT FOR VALUES (1, 10, 100)";
const SCHEME: &str = "CREATE PARTITION SCHEME [ps] AS PARTITION [pf] ALL TO ([PRIMARY])";

async fn divided() -> Server {
    let server = server().await;
    server.run(&format!("{FUNCTION}; {SCHEME};"));
    server
}

fn texts(rows: Vec<Vec<Option<String>>>) -> Vec<String> {
    let text = |value: Option<String>| value.unwrap_or_else(|| "NULL".into());
    rows.into_iter().map(|row| row.into_iter().map(text).collect::<Vec<_>>().join(" ")).collect()
}

/// Each statement with the number and the text that it fails with.
fn all_fail(server: &Server, cases: &[(&str, u32, &str)]) {
    for (t_sql, number, message) in cases {
        let said = server.try_run(t_sql).map_err(|error| (error.number, error.message));
        assert_eq!(said, Err((*number, message.to_string())), "{t_sql}");
    }
}

/// How many partitions each index of a table has, by the index's number.
fn partitions(server: &Server, table: &str) -> Vec<String> {
    texts(server.query(&format!(
        "SELECT [i].[index_id], [i].[type_desc], COUNT(*) AS [parts], MAX([p].[partition_number]) AS [last] FROM sys.indexes AS [i] \
         INNER JOIN sys.partitions AS [p] ON [p].[object_id] = [i].[object_id] AND [p].[index_id] = [i].[index_id] \
         WHERE [i].[object_id] = OBJECT_ID(N'{table}', N'U') GROUP BY [i].[index_id], [i].[type_desc] ORDER BY [i].[index_id]"
    )))
}

#[tokio::test]
async fn a_table_lies_where_it_is_put_and_its_indexes_with_it_unless_they_are_put_elsewhere() {
    let server = divided().await;
    server.run(
        "CREATE TABLE dbo.t ([id] int NOT NULL, [a] int NOT NULL, [b] int NULL, \
           CONSTRAINT [pk] PRIMARY KEY NONCLUSTERED ([id], [a]) WITH (DATA_COMPRESSION = PAGE)) ON [ps]([a]); \
         CREATE INDEX [ix] ON dbo.t ([b]) WITH (DATA_COMPRESSION = ROW); \
         CREATE UNIQUE INDEX [whole] ON dbo.t ([id]) ON [PRIMARY];",
    );
    assert_eq!(
        partitions(&server, "dbo.t"),
        ["0 HEAP 4 4", "2 NONCLUSTERED 4 4", "3 NONCLUSTERED 4 4", "4 NONCLUSTERED 1 1"]
    );
    server.run("CREATE CLUSTERED INDEX [ixc] ON dbo.t ([b] DESC) WITH (DATA_COMPRESSION = NONE) ON [ps]([a]);");
    assert_eq!(partitions(&server, "dbo.t")[0], "1 CLUSTERED 4 4");
    // The column that divides an index is one of its own, and of its key only if it was said to be.
    let columns = server.query(
        "SELECT [k].[index_id], [k].[index_column_id], [k].[column_id], [k].[key_ordinal], [k].[partition_ordinal] \
         FROM sys.index_columns AS [k] WHERE [k].[object_id] = OBJECT_ID(N'dbo.t', N'U') ORDER BY [k].[index_id], [k].[index_column_id]",
    );
    let expected = ["1 1 3 1 0", "1 2 2 0 1", "2 1 1 1 0", "2 2 2 2 1", "3 1 3 1 0", "3 2 2 0 1", "4 1 1 1 0"];
    assert_eq!(texts(columns), expected);
    server.run("INSERT INTO dbo.t VALUES (1, 1, 1), (2, 1000, NULL)");

    // A clustered index takes the table along.
    server.run(
        "CREATE TABLE dbo.moved ([a] int NOT NULL); CREATE CLUSTERED INDEX [ixc] ON dbo.moved ([a]) ON [ps]([a]);",
    );
    assert_eq!(partitions(&server, "dbo.moved"), ["1 CLUSTERED 4 4"]);
    server.run(
        "CREATE TABLE dbo.columns ([a] int NOT NULL, [b] nvarchar(max) NULL, \
           INDEX [cs] CLUSTERED COLUMNSTORE WITH (DATA_COMPRESSION = COLUMNSTORE_ARCHIVE), \
           CONSTRAINT [pk_columns] PRIMARY KEY NONCLUSTERED ([a]) WITH (DATA_COMPRESSION = PAGE)); \
         DROP TABLE dbo.t;",
    );
    assert_eq!(partitions(&server, "dbo.columns"), ["1 CLUSTERED COLUMNSTORE 1 1", "2 NONCLUSTERED 1 1"]);
    assert_eq!(partitions(&server, "dbo.t"), [""; 0]);
}

#[tokio::test]
async fn a_partition_function_has_boundaries_of_its_one_type() {
    let server = server().await;
    let function = |rest: &str| format!("CREATE PARTITION FUNCTION [f] {rest}");
    let equal = "Duplicate range boundary values are not allowed in partition function boundary values list. Partition boundary values at ordinal 2 and 3 are equal.";
    let not_int =
        "Could not implicitly convert range values type specified at ordinal 2 to partition function parameter type.";
    let cut = "Data truncated when converting range values to the partition function parameter type. The range value at ordinal 1 requires data truncation.";
    let cases = [
        (
            "(int, int) AS RANGE FOR VALUES (1)",
            7703,
            "Can not create RANGE partition function with multiple parameter types.",
        ),
        ("(xml) AS RANGE FOR VALUES (1)", 7704, "The type 'xml' is not valid for this operation."),
        ("(varchar(max)) AS RANGE FOR VALUES ('a')", 7704, "The type 'varchar' is not valid for this operation."),
        ("(number) AS RANGE FOR VALUES (1)", 7704, "The type 'number' is not valid for this operation."),
        ("(int) AS RANGE LEFT FOR VALUES (1, 'x')", 7705, not_int),
        ("(int) AS RANGE LEFT FOR VALUES (3, 1, '1')", 7708, equal),
        ("(varchar(2)) AS RANGE RIGHT FOR VALUES ('abc')", 7720, cut),
        ("(int) AS RANGE UP FOR VALUES (1)", 102, "Incorrect syntax near 'UP'."),
        ("(int) AS LIST (1)", 102, "Incorrect syntax near 'LIST'."),
    ];
    for (rest, number, message) in cases {
        all_fail(&server, &[(function(rest).as_str(), number, message)]);
    }
    let many: Vec<String> = (0..15_000).map(|n| n.to_string()).collect();
    let too_many = server.try_run(&function(&format!("(int) AS RANGE FOR VALUES ({})", many.join(", ")))).unwrap_err();
    assert_eq!(too_many.number, 7719);
    server.run(&function("(datetime2(7)) AS RANGE RIGHT FOR VALUES ()"));
    all_fail(
        &server,
        &[
            (
                "CREATE PARTITION FUNCTION F (int) AS RANGE FOR VALUES (1)",
                2714,
                "There is already an object named 'F' in the database.",
            ),
            ("CREATE PARTITION FUNCTION dbo.f (int) AS RANGE FOR VALUES (1)", 102, "Incorrect syntax near '.'."),
        ],
    );
}

#[tokio::test]
async fn a_partition_scheme_has_a_place_for_each_partition_of_its_function() {
    let server = divided().await;
    let fewer = "The associated partition function 'pf' generates more partitions than there are file groups mentioned in the scheme 's'.";
    let single = "Only a single filegroup can be specified while creating partition scheme using option ALL to specify all the filegroups.";
    all_fail(
        &server,
        &[
            ("CREATE PARTITION SCHEME s AS PARTITION nobody ALL TO ([PRIMARY])", 208, "Invalid object name 'nobody'."),
            ("CREATE PARTITION SCHEME s AS PARTITION pf ALL TO ([fast])", 208, "Invalid object name 'fast'."),
            ("CREATE PARTITION SCHEME s AS PARTITION pf ALL TO ([PRIMARY], [PRIMARY])", 7723, single),
            ("CREATE PARTITION SCHEME s AS PARTITION pf TO ([PRIMARY], [PRIMARY], [PRIMARY])", 7707, fewer),
            (
                "CREATE PARTITION SCHEME s AS PARTITION pf ALL TO (PRIMARY)",
                156,
                "Incorrect syntax near the keyword 'PRIMARY'.",
            ),
            (SCHEME, 2714, "There is already an object named 'ps' in the database."),
            ("CREATE PARTITION SCHEME s AS PARTITION ps ALL TO ([PRIMARY])", 208, "Invalid object name 'ps'."),
        ],
    );
    server.run("CREATE PARTITION SCHEME s AS PARTITION pf TO ([PRIMARY], [PRIMARY], [PRIMARY], [PRIMARY])");
    server.run("CREATE TABLE dbo.t ([a] int) ON s(a)");
    assert_eq!(partitions(&server, "dbo.t"), ["0 HEAP 4 4"]);
}

#[tokio::test]
async fn what_cannot_lie_where_it_is_put_is_refused() {
    let server = divided().await;
    server.run("CREATE TABLE dbo.t ([id] int NOT NULL, [a] int NOT NULL) ON [ps]([a])");
    let not_in_key = |index: &str| {
        format!(
            "Column 'a' is partitioning column of the index '{index}'. Partition columns for a unique index must be a subset of the index key."
        )
    };
    let other_type = |of: &str| {
        format!(
            "Partition column 'a' has data type {of} which is different from the partition function 'pf' parameter data type int."
        )
    };
    let one_column = "Partition function 'pf' uses 1 columns which does not match with the number of partition columns used to partition the table or index.";
    let twice =
        "Cannot use duplicate column names in the partition columns list. Column name 'a' appears more than once.";
    let no_column = "Column name 'b' does not exist in the target table or view.";
    let (key, index) = (not_in_key("pk"), not_in_key("u"));
    let (big, text) = (other_type("bigint"), other_type("varchar(10)"));
    all_fail(
        &server,
        &[
            ("CREATE TABLE dbo.u ([a] int) ON [nowhere]([a])", 1921, "Invalid partition scheme 'nowhere' specified."),
            ("CREATE TABLE dbo.u ([a] int) ON [pf]([a])", 1921, "Invalid partition scheme 'pf' specified."),
            ("CREATE TABLE dbo.u ([a] int) ON [nowhere]", 1921, "Invalid filegroup 'nowhere' specified."),
            ("CREATE TABLE #u ([a] int) ON [ps]([a])", 1921, "Invalid partition scheme 'ps' specified."),
            ("DECLARE @u TABLE ([a] int PRIMARY KEY ON [ps]([a]))", 1921, "Invalid partition scheme 'ps' specified."),
            ("CREATE TABLE dbo.u ([a] int) ON [ps]([b])", 1911, no_column),
            ("CREATE TABLE dbo.u ([a] int) ON [ps]", 2726, one_column),
            ("CREATE TABLE dbo.u ([a] int, [b] int) ON [ps]([a], [b])", 2726, one_column),
            ("CREATE TABLE dbo.u ([a] int) ON [ps]([a], [a])", 2703, twice),
            ("CREATE TABLE dbo.u ([a] bigint) ON [ps]([a])", 7726, &big),
            ("CREATE TABLE dbo.u ([a] varchar(10)) ON [ps]([a])", 7726, &text),
            (
                "CREATE TABLE dbo.u ([id] int NOT NULL CONSTRAINT [pk] PRIMARY KEY NONCLUSTERED, [a] int) ON [ps]([a])",
                1908,
                &key,
            ),
            (
                "CREATE TABLE dbo.u ([id] int NOT NULL, [a] int, CONSTRAINT [pk] PRIMARY KEY ([id]) ON [ps]([a]))",
                1908,
                &key,
            ),
            ("CREATE UNIQUE INDEX [u] ON dbo.t ([id])", 1908, &index),
            ("CREATE UNIQUE INDEX [u] ON dbo.t ([id]) ON [ps]([a])", 1908, &index),
            ("CREATE INDEX [u] ON dbo.t ([id]) ON [ps]([b])", 1911, no_column),
            (
                "CREATE INDEX [u] ON dbo.t ([id]) ON [nowhere]([a])",
                1921,
                "Invalid partition scheme 'nowhere' specified.",
            ),
        ],
    );
    assert_eq!(texts(server.query("SELECT [name] FROM sys.tables")), ["t"], "nothing of them is there");
    server.run("CREATE UNIQUE INDEX [u] ON dbo.t ([id]) ON [PRIMARY]");
}

#[tokio::test]
async fn an_index_is_compressed_in_ways_of_its_kind_and_has_no_options_that_are_unknown() {
    let server = server().await;
    server.run("CREATE TABLE dbo.t ([a] int NOT NULL)");
    let index = |rest: &str| format!("CREATE INDEX [i] ON dbo.t ([a]) WITH {rest}");
    let more_than_once = "The DATA_COMPRESSION option was specified more than once for the table, or for at least one of its partitions if the table is partitioned.";
    let of_type = "CREATE TYPE dbo.y AS TABLE ([a] int PRIMARY KEY WITH (DATA_COMPRESSION = PAGE))";
    all_fail(
        &server,
        &[
            (&index("(DATA_COMPRESSION = BEST)"), 102, "Incorrect syntax near 'BEST'."),
            (&index("(DATA_COMPRESSION = COLUMNSTORE)"), 102, "Incorrect syntax near 'COLUMNSTORE'."),
            (&index("(DATA_COMPRESSION = PAGE, DATA_COMPRESSION = ROW)"), 7711, more_than_once),
            (&index("(QUICKLY = ON)"), 155, "'QUICKLY' is not a recognized CREATE INDEX option."),
            (&index("()"), 155, "')' is not a recognized CREATE INDEX option."),
            (
                "CREATE CLUSTERED COLUMNSTORE INDEX [i] ON dbo.t WITH (DATA_COMPRESSION = PAGE)",
                102,
                "Incorrect syntax near 'PAGE'.",
            ),
            (
                "CREATE TABLE dbo.u ([a] int PRIMARY KEY WITH (QUICKLY = ON))",
                155,
                "'QUICKLY' is not a recognized CREATE TABLE option.",
            ),
            (of_type, 155, "'DATA_COMPRESSION' is not a recognized CREATE TYPE option."),
            ("CREATE TYPE dbo.y AS TABLE ([a] int PRIMARY KEY ON [PRIMARY])", 102, "Incorrect syntax near 'ON'."),
        ],
    );
    server.run(&index("(DATA_COMPRESSION = PAGE)"));
}

#[tokio::test]
async fn a_user_of_entra_id_does_what_was_granted_and_no_more() {
    let server = server().await;
    server.expect_token("a.long.token");
    let by_token = async || {
        let mut config = config(&server);
        config.authentication(AuthMethod::aad_token("a.long.token"));
        connect(config).await.expect("a session")
    };
    server.run("CREATE TABLE dbo.t ([a] int); CREATE TABLE dbo.hidden ([a] int); INSERT INTO dbo.t VALUES (1)");
    // Before there is a user, it is the administrator who comes with a token.
    run(&mut by_token().await, "CREATE TABLE dbo.u ([a] int)").await.unwrap();
    server.run("CREATE USER [millrace] FROM EXTERNAL PROVIDER");
    let mut user = by_token().await;
    let denied = |permission: &str, object: &str| {
        (
            229,
            format!(
                "The {permission} permission was denied on the object '{object}', database 'streaming', schema 'dbo'."
            ),
        )
    };
    let read = "SELECT [a] FROM dbo.t";
    assert_eq!(refused(&mut user, read).await, denied("SELECT", "t"));
    server.run("GRANT SELECT, INSERT ON dbo.t TO [millrace]");
    assert_eq!(number(&mut user, read).await, Some(1));
    run(&mut user, "INSERT INTO dbo.t VALUES (2)").await.unwrap();
    for (t_sql, permission, object) in [
        ("UPDATE dbo.t SET [a] = 3", "UPDATE", "t"),
        ("DELETE FROM dbo.t", "DELETE", "t"),
        ("INSERT INTO dbo.t SELECT [a] FROM dbo.hidden", "SELECT", "hidden"),
        ("INSERT INTO dbo.hidden VALUES (1)", "INSERT", "hidden"),
        ("INSERT BULK dbo.hidden ([a] int)", "INSERT", "hidden"),
        ("IF EXISTS (SELECT 1 FROM dbo.hidden) SELECT 1 AS [x]", "SELECT", "hidden"),
    ] {
        assert_eq!(refused(&mut user, t_sql).await, denied(permission, object), "{t_sql}");
    }
    assert_eq!(
        refused(&mut user, "CREATE TABLE dbo.v ([a] int)").await,
        (262, "CREATE TABLE permission denied in database 'streaming'.".into())
    );
    assert_eq!(refused(&mut user, "DROP TABLE dbo.t").await.0, 15247);
    assert_eq!(number(&mut user, "SELECT OBJECT_ID(N'dbo.hidden') AS [id]").await, None, "it is not seen");
    assert!(number(&mut user, "SELECT OBJECT_ID(N'dbo.t', N'U') AS [id]").await.is_some());
    // What is the session's own needs no right.
    run(&mut user, "CREATE TABLE #mine ([a] int); CREATE UNIQUE INDEX [i] ON #mine ([a]); INSERT INTO #mine SELECT [a] FROM dbo.t; TRUNCATE TABLE #mine;")
        .await
        .unwrap();
    // One who has a password owns the database.
    assert_eq!(number(&mut session(&server).await, "SELECT COUNT(*) AS [n] FROM dbo.hidden").await, Some(0));
    assert_eq!(server.violations(), Vec::<String>::new());
}

/// What views and procedures do is up to those who made them.
#[tokio::test]
async fn who_may_read_a_view_or_execute_a_procedure_needs_no_right_to_what_is_behind_it() {
    let server = server().await;
    server.expect_token("a.long.token");
    server.run("CREATE TABLE dbo.behind ([a] int); CREATE TYPE dbo.rows AS TABLE ([a] int); CREATE USER [millrace] FROM EXTERNAL PROVIDER");
    server.run("CREATE VIEW dbo.v AS SELECT [a] FROM dbo.behind");
    server.procedure("dbo.p", "@rows", "dbo.rows", "INSERT INTO dbo.behind SELECT [a] FROM @rows");
    let mut config = config(&server);
    config.authentication(AuthMethod::aad_token("a.long.token"));
    let mut user = connect(config).await.unwrap();
    let (read, call) = (
        "SELECT COUNT(*) AS [n] FROM dbo.v",
        "DECLARE @r dbo.rows; INSERT INTO @r VALUES (1); EXECUTE dbo.p @rows = @r",
    );
    assert!(refused(&mut user, read).await.1.contains("SELECT permission was denied on the object 'v'"));
    assert!(refused(&mut user, call).await.1.contains("EXECUTE permission was denied on the object 'p'"));
    server.run("GRANT SELECT ON dbo.v TO [millrace]; GRANT EXECUTE ON dbo.p TO [millrace]");
    run(&mut user, call).await.unwrap();
    assert_eq!(number(&mut user, read).await, Some(1));
    assert_eq!(refused(&mut user, "SELECT [a] FROM dbo.behind").await.0, 229);
}

#[tokio::test]
async fn only_what_there_is_is_granted_and_only_to_whom_there_is() {
    let server = server().await;
    server.run("CREATE TABLE dbo.t ([a] int); CREATE USER [one] FROM EXTERNAL PROVIDER; CREATE USER [two] FROM EXTERNAL PROVIDER");
    let not_there =
        |what: &str| format!("Cannot find the {what}, because it does not exist or you do not have permission.");
    let there = |name: &str| format!("User, group, or role '{name}' already exists in the current database.");
    let (object, user) = (not_there("object 'missing'"), not_there("user 'nobody'"));
    all_fail(
        &server,
        &[
            ("GRANT SELECT ON dbo.missing TO [one]", 15151, &object),
            ("GRANT SELECT ON dbo.t TO [one], [nobody]", 15151, &user),
            ("GRANT BLESSING ON dbo.t TO [one]", 102, "Incorrect syntax near 'BLESSING'."),
            (
                "GRANT EXECUTE ON dbo.t TO [one]",
                4606,
                "Granted or revoked privilege EXECUTE is not compatible with object.",
            ),
            ("GRANT SELECT TO [one]", 102, "Incorrect syntax near 'TO'."),
            ("CREATE USER [ONE] FROM EXTERNAL PROVIDER", 15023, &there("ONE")),
            ("CREATE USER [dbo] FROM EXTERNAL PROVIDER", 15023, &there("dbo")),
            ("CREATE USER [three] FROM LOGIN [three]", 102, "Incorrect syntax near 'LOGIN'."),
        ],
    );
    let granted = "SELECT [u].[name], [g].[permission_name], [g].[state] FROM sys.database_permissions AS [g] \
                   INNER JOIN sys.database_principals AS [u] ON [u].[principal_id] = [g].[grantee_principal_id] \
                   WHERE [g].[major_id] = OBJECT_ID(N'dbo.t') ORDER BY [u].[name], [g].[permission_name]";
    assert_eq!(texts(server.query(granted)), [""; 0], "none of them was granted in part");
    server.run("GRANT SELECT, INSERT ON dbo.t TO [one], [two]; GRANT SELECT ON dbo.t TO [one]");
    assert_eq!(texts(server.query(granted)), ["one INSERT G", "one SELECT G", "two INSERT G", "two SELECT G"]);
}

#[tokio::test]
async fn a_script_is_run_batch_by_batch() {
    let server = server().await;
    // A view is alone in its batch, and a variable ends with its own.
    server.run_script("CREATE TABLE dbo.t ([a] int);\nGO\nCREATE VIEW dbo.v AS SELECT [a] FROM dbo.t\n go \r\nDECLARE @x int; INSERT INTO dbo.t VALUES (1);\nGO\nDECLARE @x int;\nINSERT INTO dbo.t VALUES (2); -- no GO\n");
    assert_eq!(texts(server.query("SELECT [a] FROM dbo.v ORDER BY [a]")), ["1", "2"]);
}
