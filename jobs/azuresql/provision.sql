-- The table of the Azure SQL solutions, and a user for the job. Run it once, as an administrator of the database.
--
-- What is other than in the solutions: EventId has no default, so a row without one is refused and the key means something; Value is a
-- float, so a value of 0.37 is not stored as 0; StoredAt is the server's own; there is no BatchId, and no procedure or staging table.

CREATE PARTITION FUNCTION [pf_af] (int) AS RANGE LEFT FOR VALUES (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16);
CREATE PARTITION SCHEME [ps_af] AS PARTITION [pf_af] ALL TO ([PRIMARY]);
GO

CREATE TABLE [dbo].[rawdata] (
  [EventId]              uniqueidentifier NOT NULL,
  [PartitionId]          int              NOT NULL,
  [Type]                 varchar(10)      NOT NULL,
  [DeviceId]             varchar(100)     NOT NULL,
  [DeviceSequenceNumber] bigint           NOT NULL,
  [CreatedAt]            datetime2(7)     NOT NULL,
  [Value]                float            NOT NULL,
  [ComplexData]          nvarchar(max)    NOT NULL CONSTRAINT [ck_rawdata_ComplexData] CHECK (ISJSON([ComplexData]) = 1),
  [EnqueuedAt]           datetime2(7)     NOT NULL,
  [ProcessedAt]          datetime2(7)     NOT NULL,
  [StoredAt]             datetime2(7)     NOT NULL CONSTRAINT [df_rawdata_StoredAt] DEFAULT SYSUTCDATETIME(),
  CONSTRAINT [pk_rawdata] PRIMARY KEY NONCLUSTERED ([EventId], [PartitionId]) WITH (DATA_COMPRESSION = PAGE) ON [ps_af]([PartitionId])
) ON [ps_af]([PartitionId]);
-- Locks grow to a partition and not to the table, or the writers of the others would wait.
ALTER TABLE [dbo].[rawdata] SET (LOCK_ESCALATION = AUTO);
CREATE CLUSTERED INDEX [ixc] ON [dbo].[rawdata] ([StoredAt] DESC) WITH (DATA_COMPRESSION = PAGE) ON [ps_af]([PartitionId]);
CREATE NONCLUSTERED INDEX [ix1] ON [dbo].[rawdata] ([DeviceId] ASC, [DeviceSequenceNumber] DESC) WITH (DATA_COMPRESSION = PAGE) ON [ps_af]([PartitionId]);
GO

-- The same in columns, for analysis: AZURESQL_TABLE=dbo.rawdata_cs AZURESQL_WRITERS=1. A row group is compressed at once where a
-- transaction brings 102,400 rows to one partition, so the table has one and the job one writer. It gathers rows for ten seconds (its
-- commit_interval, unless said), which is enough from 10,300 events/s on; with fewer, say a longer one. What is too little for a row
-- group waits uncompressed until the server has time.
CREATE TABLE [dbo].[rawdata_cs] (
  [EventId]              uniqueidentifier NOT NULL,
  [PartitionId]          int              NOT NULL,
  [Type]                 varchar(10)      NOT NULL,
  [DeviceId]             varchar(100)     NOT NULL,
  [DeviceSequenceNumber] bigint           NOT NULL,
  [CreatedAt]            datetime2(7)     NOT NULL,
  [Value]                float            NOT NULL,
  [ComplexData]          nvarchar(max)    NOT NULL CONSTRAINT [ck_rawdata_cs_ComplexData] CHECK (ISJSON([ComplexData]) = 1),
  [EnqueuedAt]           datetime2(7)     NOT NULL,
  [ProcessedAt]          datetime2(7)     NOT NULL,
  [StoredAt]             datetime2(7)     NOT NULL CONSTRAINT [df_rawdata_cs_StoredAt] DEFAULT SYSUTCDATETIME(),
  INDEX [ixccs] CLUSTERED COLUMNSTORE,
  CONSTRAINT [pk_rawdata_cs] PRIMARY KEY NONCLUSTERED ([EventId], [PartitionId]) WITH (DATA_COMPRESSION = PAGE)
);
CREATE NONCLUSTERED INDEX [ix1] ON [dbo].[rawdata_cs] ([DeviceId] ASC, [DeviceSequenceNumber] ASC) WITH (DATA_COMPRESSION = PAGE);
GO

-- The markers: the job makes this table itself where it may make tables.
CREATE TABLE [dbo].[millrace_commits] (
  [job]        nvarchar(64)  COLLATE Latin1_General_100_BIN2 NOT NULL,
  [sink]       nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [writer]     nvarchar(64)  COLLATE Latin1_General_100_BIN2 NOT NULL,
  [lane]       int           NOT NULL,
  [entry]      bigint        NOT NULL,
  [updated_at] datetime2(7)  NOT NULL,
  PRIMARY KEY ([job], [sink], [writer], [lane])
);
GO

-- The job's managed identity, with what it needs and no more.
CREATE USER [millrace] FROM EXTERNAL PROVIDER;
GRANT SELECT, INSERT ON [dbo].[rawdata] TO [millrace];
GRANT SELECT, INSERT ON [dbo].[rawdata_cs] TO [millrace];
GRANT SELECT, INSERT, UPDATE ON [dbo].[millrace_commits] TO [millrace];
