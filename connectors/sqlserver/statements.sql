-- Made by the tests of src/statements.rs (UPDATE_EXPECT=1). Parsed in the tests by a parser of others.

-- a session begins
-- <https://learn.microsoft.com/sql/t-sql/statements/set-xact-abort-transact-sql>
-- <https://learn.microsoft.com/sql/t-sql/statements/set-nocount-transact-sql>
-- <https://learn.microsoft.com/sql/t-sql/statements/set-lock-timeout-transact-sql>
-- <https://learn.microsoft.com/sql/t-sql/statements/set-transaction-isolation-level-transact-sql>
SET XACT_ABORT ON;
SET NOCOUNT OFF;
SET LOCK_TIMEOUT 20000;
SET TRANSACTION ISOLATION LEVEL READ COMMITTED;

-- the columns of the table
-- <https://learn.microsoft.com/sql/relational-databases/system-catalog-views/sys-columns-transact-sql>
-- <https://learn.microsoft.com/sql/t-sql/functions/collationproperty-transact-sql>
SELECT [c].[name], COALESCE(TYPE_NAME([c].[system_type_id]), TYPE_NAME([c].[user_type_id])) AS [type], [c].[max_length], [c].[precision], [c].[scale], [c].[is_nullable], [c].[is_identity], [c].[is_computed], [c].[default_object_id], [c].[generated_always_type], [c].[collation_name], CAST(COLLATIONPROPERTY([c].[collation_name], 'CodePage') AS int) AS [code_page] FROM sys.columns AS [c] WHERE [c].[object_id] = OBJECT_ID(@P1, N'U') ORDER BY [c].[column_id]

-- the columns of the table or view
-- <https://learn.microsoft.com/sql/relational-databases/system-catalog-views/sys-columns-transact-sql>
-- <https://learn.microsoft.com/sql/t-sql/functions/collationproperty-transact-sql>
SELECT [c].[name], COALESCE(TYPE_NAME([c].[system_type_id]), TYPE_NAME([c].[user_type_id])) AS [type], [c].[max_length], [c].[precision], [c].[scale], [c].[is_nullable], [c].[is_identity], [c].[is_computed], [c].[default_object_id], [c].[generated_always_type], [c].[collation_name], CAST(COLLATIONPROPERTY([c].[collation_name], 'CodePage') AS int) AS [code_page] FROM sys.columns AS [c] WHERE [c].[object_id] = OBJECT_ID(@P1) ORDER BY [c].[column_id]

-- the indexes of the table
-- <https://learn.microsoft.com/sql/relational-databases/system-catalog-views/sys-indexes-transact-sql>
-- <https://learn.microsoft.com/sql/relational-databases/system-catalog-views/sys-index-columns-transact-sql>
SELECT [i].[index_id], [i].[type], [i].[is_unique], [i].[has_filter], [i].[is_disabled], [i].[ignore_dup_key], [c].[name] FROM sys.indexes AS [i] LEFT JOIN sys.index_columns AS [k] ON [k].[object_id] = [i].[object_id] AND [k].[index_id] = [i].[index_id] AND [k].[key_ordinal] > 0 LEFT JOIN sys.columns AS [c] ON [c].[object_id] = [k].[object_id] AND [c].[column_id] = [k].[column_id] WHERE [i].[object_id] = OBJECT_ID(@P1, N'U') ORDER BY [i].[index_id], [k].[key_ordinal]

-- how far locks grow
-- <https://learn.microsoft.com/sql/relational-databases/system-catalog-views/sys-tables-transact-sql>
-- <https://learn.microsoft.com/sql/relational-databases/system-catalog-views/sys-partitions-transact-sql>
SELECT [t].[lock_escalation] FROM sys.tables AS [t] WHERE [t].[object_id] = OBJECT_ID(@P1, N'U') AND EXISTS (SELECT 1 FROM sys.partitions AS [p] WHERE [p].[object_id] = [t].[object_id] AND [p].[index_id] < 2 AND [p].[partition_number] > 1)

-- what a person may do about it
-- <https://learn.microsoft.com/sql/t-sql/statements/alter-table-transact-sql>
ALTER TABLE [dbo].[raw ]] data] SET (LOCK_ESCALATION = AUTO);

-- the parameters of the procedure
-- <https://learn.microsoft.com/sql/relational-databases/system-catalog-views/sys-parameters-transact-sql>
-- <https://learn.microsoft.com/sql/relational-databases/system-catalog-views/sys-table-types-transact-sql>
SELECT [p].[name] AS [parameter], SCHEMA_NAME([y].[schema_id]) AS [schema], [y].[name] AS [of], [c].[name], COALESCE(TYPE_NAME([c].[system_type_id]), TYPE_NAME([c].[user_type_id])) AS [type], [c].[max_length], [c].[precision], [c].[scale], [c].[is_nullable], [c].[is_identity], [c].[is_computed], [c].[default_object_id], [c].[generated_always_type], [c].[collation_name], CAST(COLLATIONPROPERTY([c].[collation_name], 'CodePage') AS int) AS [code_page] FROM sys.parameters AS [p] INNER JOIN sys.table_types AS [y] ON [y].[user_type_id] = [p].[user_type_id] INNER JOIN sys.columns AS [c] ON [c].[object_id] = [y].[type_table_object_id] WHERE [p].[object_id] = OBJECT_ID(@P1, N'P') ORDER BY [p].[parameter_id], [c].[column_id]

-- is there such a procedure
-- <https://learn.microsoft.com/sql/t-sql/functions/object-id-transact-sql>
SELECT OBJECT_ID(@P1, N'P') AS [id]

-- is there such a table
-- <https://learn.microsoft.com/sql/t-sql/functions/object-id-transact-sql>
SELECT OBJECT_ID(@P1, N'U') AS [id]

-- the markers' table is made
-- <https://learn.microsoft.com/sql/t-sql/statements/create-table-transact-sql>
IF OBJECT_ID(N'[dbo].[millrace_commits]', N'U') IS NULL CREATE TABLE [dbo].[millrace_commits] ([job] nvarchar(64) COLLATE Latin1_General_100_BIN2 NOT NULL, [sink] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [writer] nvarchar(64) COLLATE Latin1_General_100_BIN2 NOT NULL, [lane] int NOT NULL, [entry] bigint NOT NULL, [updated_at] datetime2(7) NOT NULL, PRIMARY KEY ([job], [sink], [writer], [lane]));

-- a marker is added
-- <https://learn.microsoft.com/sql/t-sql/statements/insert-transact-sql>
INSERT INTO [dbo].[millrace_commits] ([job], [sink], [writer], [lane], [entry], [updated_at]) VALUES (@P1, @P2, @P3, @P4, 0, SYSUTCDATETIME())

-- a marker is looked at
-- <https://learn.microsoft.com/sql/t-sql/queries/select-transact-sql>
SELECT [entry] FROM [dbo].[millrace_commits] WHERE [job] = @P1 AND [sink] = @P2 AND [writer] = @P3 AND [lane] = @P4

-- a table is made
-- <https://learn.microsoft.com/sql/t-sql/statements/create-table-transact-sql>
IF OBJECT_ID(N'[dbo].[raw ]] data]', N'U') IS NULL CREATE TABLE [dbo].[raw ]] data] ([a] bigint NOT NULL, [b] nvarchar(max) NULL, PRIMARY KEY ([a]));

-- a table of columns is made
-- <https://learn.microsoft.com/sql/t-sql/statements/create-table-transact-sql>
-- <https://learn.microsoft.com/sql/t-sql/statements/create-columnstore-index-transact-sql>
IF OBJECT_ID(N'[dbo].[raw ]] data]', N'U') IS NULL CREATE TABLE [dbo].[raw ]] data] ([a] bigint NOT NULL, [b] nvarchar(max) NULL, INDEX [millrace_columns] CLUSTERED COLUMNSTORE, PRIMARY KEY NONCLUSTERED ([a]));

-- a session's own table
-- <https://learn.microsoft.com/sql/t-sql/statements/create-table-transact-sql>
CREATE TABLE #millrace ([entry] bigint NOT NULL, [row] int NOT NULL, [c0] uniqueidentifier NULL, [c1] varchar(10) COLLATE Latin1_General_100_CI_AS NULL, [c2] bigint NULL);

-- it is emptied
-- <https://learn.microsoft.com/sql/t-sql/statements/truncate-table-transact-sql>
TRUNCATE TABLE #millrace;

-- long values follow
-- <https://learn.microsoft.com/sql/t-sql/statements/create-index-transact-sql>
CREATE UNIQUE INDEX [millrace_row] ON #millrace ([row]);

-- a long value
-- <https://learn.microsoft.com/sql/t-sql/queries/update-transact-sql>
UPDATE #millrace SET [c1] = @P1 WHERE [row] = @P2

-- append
-- <https://learn.microsoft.com/sql/t-sql/language-elements/try-catch-transact-sql>
-- <https://learn.microsoft.com/sql/t-sql/language-elements/begin-transaction-transact-sql>
-- <https://learn.microsoft.com/sql/t-sql/queries/update-transact-sql>
-- <https://learn.microsoft.com/sql/t-sql/statements/insert-transact-sql>
IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION;
DECLARE @done bigint;
BEGIN TRY BEGIN TRANSACTION;
UPDATE [dbo].[millrace_commits] SET @done = [entry], [entry] = 42, [updated_at] = SYSUTCDATETIME() WHERE [job] = N'7f3a' AND [sink] = N'it''s' AND [writer] = N'w-1' AND [lane] = 0 AND [entry] < 42;
IF @done IS NOT NULL BEGIN INSERT INTO [dbo].[raw ]] data] ([EventId], [Type], [Version]]]) SELECT [c0], [c1], [c2] FROM #millrace WHERE [entry] > @done ORDER BY [row];
END;
COMMIT TRANSACTION;
END TRY BEGIN CATCH IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION;
THROW;
END CATCH;
SELECT @done AS [done];

-- append under a lock
-- <https://learn.microsoft.com/sql/t-sql/language-elements/try-catch-transact-sql>
-- <https://learn.microsoft.com/sql/t-sql/language-elements/begin-transaction-transact-sql>
-- <https://learn.microsoft.com/sql/t-sql/queries/update-transact-sql>
-- <https://learn.microsoft.com/sql/t-sql/statements/insert-transact-sql>
IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION;
DECLARE @done bigint;
BEGIN TRY BEGIN TRANSACTION;
UPDATE [dbo].[millrace_commits] SET @done = [entry], [entry] = 42, [updated_at] = SYSUTCDATETIME() WHERE [job] = N'7f3a' AND [sink] = N'it''s' AND [writer] = N'w-1' AND [lane] = 0 AND [entry] < 42;
IF @done IS NOT NULL BEGIN INSERT INTO [dbo].[raw ]] data] WITH (TABLOCK) ([EventId], [Type], [Version]]]) SELECT [c0], [c1], [c2] FROM #millrace WHERE [entry] > @done ORDER BY [row];
END;
COMMIT TRANSACTION;
END TRY BEGIN CATCH IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION;
THROW;
END CATCH;
SELECT @done AS [done];

-- insert
-- <https://learn.microsoft.com/sql/t-sql/language-elements/try-catch-transact-sql>
-- <https://learn.microsoft.com/sql/t-sql/queries/update-transact-sql>
-- <https://learn.microsoft.com/sql/t-sql/functions/row-number-transact-sql>
-- <https://learn.microsoft.com/sql/t-sql/queries/hints-transact-sql-table>
IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION;
DECLARE @done bigint;
BEGIN TRY BEGIN TRANSACTION;
UPDATE [dbo].[millrace_commits] SET @done = [entry], [entry] = 42, [updated_at] = SYSUTCDATETIME() WHERE [job] = N'7f3a' AND [sink] = N'it''s' AND [writer] = N'w-1' AND [lane] = 0 AND [entry] < 42;
IF @done IS NOT NULL BEGIN WITH [r] AS (SELECT *, ROW_NUMBER() OVER (PARTITION BY [c0], [c1] ORDER BY [row] ASC) AS [nth] FROM #millrace WHERE [entry] > @done) INSERT INTO [dbo].[raw ]] data] ([EventId], [Type], [Version]]]) SELECT [r].[c0], [r].[c1], [r].[c2] FROM [r] WHERE [r].[nth] = 1 AND NOT EXISTS (SELECT 1 FROM [dbo].[raw ]] data] AS [t] WITH (UPDLOCK, HOLDLOCK) WHERE [t].[EventId] = [r].[c0] AND [t].[Type] = [r].[c1]);
END;
COMMIT TRANSACTION;
END TRY BEGIN CATCH IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION;
THROW;
END CATCH;
SELECT @done AS [done];

-- upsert
-- <https://learn.microsoft.com/sql/t-sql/language-elements/try-catch-transact-sql>
-- <https://learn.microsoft.com/sql/t-sql/queries/update-transact-sql>
-- <https://learn.microsoft.com/sql/t-sql/functions/row-number-transact-sql>
-- <https://learn.microsoft.com/sql/t-sql/queries/hints-transact-sql-table>
IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION;
DECLARE @done bigint;
BEGIN TRY BEGIN TRANSACTION;
UPDATE [dbo].[millrace_commits] SET @done = [entry], [entry] = 42, [updated_at] = SYSUTCDATETIME() WHERE [job] = N'7f3a' AND [sink] = N'it''s' AND [writer] = N'w-1' AND [lane] = 0 AND [entry] < 42;
IF @done IS NOT NULL BEGIN WITH [r] AS (SELECT *, ROW_NUMBER() OVER (PARTITION BY [c0], [c1] ORDER BY [row] DESC) AS [nth] FROM #millrace WHERE [entry] > @done) UPDATE [t] SET [t].[Version]]] = [r].[c2] FROM [dbo].[raw ]] data] AS [t] WITH (UPDLOCK, HOLDLOCK) INNER JOIN [r] ON [t].[EventId] = [r].[c0] AND [t].[Type] = [r].[c1] WHERE [r].[nth] = 1;
WITH [r] AS (SELECT *, ROW_NUMBER() OVER (PARTITION BY [c0], [c1] ORDER BY [row] DESC) AS [nth] FROM #millrace WHERE [entry] > @done) INSERT INTO [dbo].[raw ]] data] ([EventId], [Type], [Version]]]) SELECT [r].[c0], [r].[c1], [r].[c2] FROM [r] WHERE [r].[nth] = 1 AND NOT EXISTS (SELECT 1 FROM [dbo].[raw ]] data] AS [t] WITH (UPDLOCK, HOLDLOCK) WHERE [t].[EventId] = [r].[c0] AND [t].[Type] = [r].[c1]);
END;
COMMIT TRANSACTION;
END TRY BEGIN CATCH IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION;
THROW;
END CATCH;
SELECT @done AS [done];

-- upsert by version
-- <https://learn.microsoft.com/sql/t-sql/language-elements/try-catch-transact-sql>
-- <https://learn.microsoft.com/sql/t-sql/queries/update-transact-sql>
-- <https://learn.microsoft.com/sql/t-sql/functions/row-number-transact-sql>
-- <https://learn.microsoft.com/sql/t-sql/queries/hints-transact-sql-table>
IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION;
DECLARE @done bigint;
BEGIN TRY BEGIN TRANSACTION;
UPDATE [dbo].[millrace_commits] SET @done = [entry], [entry] = 42, [updated_at] = SYSUTCDATETIME() WHERE [job] = N'7f3a' AND [sink] = N'it''s' AND [writer] = N'w-1' AND [lane] = 0 AND [entry] < 42;
IF @done IS NOT NULL BEGIN WITH [r] AS (SELECT *, ROW_NUMBER() OVER (PARTITION BY [c0], [c1] ORDER BY [c2] DESC, [row] ASC) AS [nth] FROM #millrace WHERE [entry] > @done) UPDATE [t] SET [t].[Version]]] = [r].[c2] FROM [dbo].[raw ]] data] AS [t] WITH (UPDLOCK, HOLDLOCK) INNER JOIN [r] ON [t].[EventId] = [r].[c0] AND [t].[Type] = [r].[c1] WHERE [r].[nth] = 1 AND ([t].[Version]]] IS NULL OR [r].[c2] > [t].[Version]]]);
WITH [r] AS (SELECT *, ROW_NUMBER() OVER (PARTITION BY [c0], [c1] ORDER BY [c2] DESC, [row] ASC) AS [nth] FROM #millrace WHERE [entry] > @done) INSERT INTO [dbo].[raw ]] data] ([EventId], [Type], [Version]]]) SELECT [r].[c0], [r].[c1], [r].[c2] FROM [r] WHERE [r].[nth] = 1 AND NOT EXISTS (SELECT 1 FROM [dbo].[raw ]] data] AS [t] WITH (UPDLOCK, HOLDLOCK) WHERE [t].[EventId] = [r].[c0] AND [t].[Type] = [r].[c1]);
END;
COMMIT TRANSACTION;
END TRY BEGIN CATCH IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION;
THROW;
END CATCH;
SELECT @done AS [done];

-- upsert of keys alone
-- <https://learn.microsoft.com/sql/t-sql/language-elements/try-catch-transact-sql>
-- <https://learn.microsoft.com/sql/t-sql/queries/update-transact-sql>
-- <https://learn.microsoft.com/sql/t-sql/functions/row-number-transact-sql>
-- <https://learn.microsoft.com/sql/t-sql/queries/hints-transact-sql-table>
IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION;
DECLARE @done bigint;
BEGIN TRY BEGIN TRANSACTION;
UPDATE [dbo].[millrace_commits] SET @done = [entry], [entry] = 42, [updated_at] = SYSUTCDATETIME() WHERE [job] = N'7f3a' AND [sink] = N'it''s' AND [writer] = N'w-1' AND [lane] = 0 AND [entry] < 42;
IF @done IS NOT NULL BEGIN  WITH [r] AS (SELECT *, ROW_NUMBER() OVER (PARTITION BY [c0], [c1] ORDER BY [row] DESC) AS [nth] FROM #millrace WHERE [entry] > @done) INSERT INTO [dbo].[raw ]] data] ([EventId], [Type]) SELECT [r].[c0], [r].[c1] FROM [r] WHERE [r].[nth] = 1 AND NOT EXISTS (SELECT 1 FROM [dbo].[raw ]] data] AS [t] WITH (UPDLOCK, HOLDLOCK) WHERE [t].[EventId] = [r].[c0] AND [t].[Type] = [r].[c1]);
END;
COMMIT TRANSACTION;
END TRY BEGIN CATCH IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION;
THROW;
END CATCH;
SELECT @done AS [done];

-- delete
-- <https://learn.microsoft.com/sql/t-sql/language-elements/try-catch-transact-sql>
-- <https://learn.microsoft.com/sql/t-sql/statements/delete-transact-sql>
IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION;
DECLARE @done bigint;
BEGIN TRY BEGIN TRANSACTION;
UPDATE [dbo].[millrace_commits] SET @done = [entry], [entry] = 42, [updated_at] = SYSUTCDATETIME() WHERE [job] = N'7f3a' AND [sink] = N'it''s' AND [writer] = N'w-1' AND [lane] = 0 AND [entry] < 42;
IF @done IS NOT NULL BEGIN DELETE [t] FROM [dbo].[raw ]] data] AS [t] WHERE EXISTS (SELECT 1 FROM #millrace AS [s] WHERE [entry] > @done AND [t].[EventId] = [s].[c0] AND [t].[Type] = [s].[c1]);
END;
COMMIT TRANSACTION;
END TRY BEGIN CATCH IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION;
THROW;
END CATCH;
SELECT @done AS [done];

-- by a procedure
-- <https://learn.microsoft.com/sql/t-sql/language-elements/try-catch-transact-sql>
-- <https://learn.microsoft.com/sql/relational-databases/tables/use-table-valued-parameters-database-engine>
IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION;
DECLARE @done bigint;
BEGIN TRY BEGIN TRANSACTION;
UPDATE [dbo].[millrace_commits] SET @done = [entry], [entry] = 42, [updated_at] = SYSUTCDATETIME() WHERE [job] = N'7f3a' AND [sink] = N'it''s' AND [writer] = N'w-1' AND [lane] = 0 AND [entry] < 42;
IF @done IS NOT NULL BEGIN DECLARE @rows [dbo].[payloadType];
INSERT INTO @rows ([EventId], [Type], [Version]]]) SELECT [c0], [c1], [c2] FROM #millrace WHERE [entry] > @done ORDER BY [row];
EXECUTE [dbo].[raw ]] data] @payload = @rows;
END;
COMMIT TRANSACTION;
END TRY BEGIN CATCH IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION;
THROW;
END CATCH;
SELECT @done AS [done];

-- some rows are tried
-- <https://learn.microsoft.com/sql/t-sql/language-elements/try-catch-transact-sql>
-- <https://learn.microsoft.com/sql/t-sql/language-elements/begin-transaction-transact-sql>
-- <https://learn.microsoft.com/sql/t-sql/queries/update-transact-sql>
-- <https://learn.microsoft.com/sql/t-sql/statements/insert-transact-sql>
IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION;
DECLARE @done bigint;
BEGIN TRY BEGIN TRANSACTION;
UPDATE [dbo].[millrace_commits] SET @done = [entry], [entry] = 42, [updated_at] = SYSUTCDATETIME() WHERE [job] = N'7f3a' AND [sink] = N'it''s' AND [writer] = N'w-1' AND [lane] = 0 AND [entry] < 42;
IF @done IS NOT NULL BEGIN INSERT INTO [dbo].[raw ]] data] ([EventId], [Type], [Version]]]) SELECT [c0], [c1], [c2] FROM #millrace WHERE [entry] > @done AND [row] BETWEEN 10 AND 19 AND [row] NOT IN (11, 12) ORDER BY [row];
END;
ROLLBACK TRANSACTION;
END TRY BEGIN CATCH IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION;
THROW;
END CATCH;

-- the table is read back
-- <https://learn.microsoft.com/sql/t-sql/queries/select-transact-sql>
SELECT [EventId], [Name] FROM [dbo].[raw ]] data] ORDER BY [Name];

-- rows of some keys
-- <https://learn.microsoft.com/sql/t-sql/functions/openjson-transact-sql>
-- <https://learn.microsoft.com/sql/t-sql/statements/collations>
SELECT [t].[EventId], [t].[Name], CAST([t].[Price] AS decimal(19,4)) AS [Price] FROM (SELECT DISTINCT [c0] FROM OPENJSON(@P1) WITH ([c0] uniqueidentifier '$[0]')) AS [k] INNER JOIN [dbo].[raw ]] data] AS [t] ON [t].[EventId] = [k].[c0];

-- rows of keys of two columns
-- <https://learn.microsoft.com/sql/t-sql/functions/openjson-transact-sql>
-- <https://learn.microsoft.com/sql/t-sql/statements/collations>
SELECT [t].[EventId], [t].[Name] FROM (SELECT DISTINCT [c0], CAST([c1] COLLATE SQL_Latin1_General_CP1_CI_AS AS varchar(20)) AS [c1] FROM OPENJSON(@P1) WITH ([c0] uniqueidentifier '$[0]', [c1] nvarchar(20) '$[1]')) AS [k] INNER JOIN [dbo].[raw ]] data] AS [t] ON [t].[EventId] = [k].[c0] AND [t].[Name] = [k].[c1];
