-- Event Hubs to Azure SQL, each event once. A copy or an error costs no batch (there either lost all of it).
-- Replaces the Functions app of the solution eventhubs-functions-azuresql.

CREATE TABLE events (
  eventId              STRING NOT NULL,
  complexData          JSON,
  value                DOUBLE,
  type                 STRING,
  deviceId             STRING,
  deviceSequenceNumber BIGINT,
  createdAt            TIMESTAMP,
  enqueuedAt           TIMESTAMP METADATA FROM 'timestamp'
) WITH (
  connector            = 'eventhubs',
  connection_string    = '${EVENTHUB}',
  topic                = '${TOPIC:-streaming}',
  format               = 'json',
  'deduplicate.key'    = 'eventId',
  'deduplicate.within' = '10 minutes'
);

-- Entra ID; with a SQL login instead: connection_string = '${AZURESQL}' in place of server and database. The table is that of
-- ../azuresql/provision.sql. A copy of an event that comes after the ten minutes meets its row and changes nothing.
CREATE TABLE serving (
  EventId STRING, PartitionId INT, Type STRING, DeviceId STRING, DeviceSequenceNumber BIGINT, CreatedAt TIMESTAMP, Value DOUBLE,
  ComplexData JSON, EnqueuedAt TIMESTAMP, ProcessedAt TIMESTAMP, PRIMARY KEY (EventId, PartitionId)
) PARTITIONED BY (PartitionId) WITH (
  connector = 'sqlserver',
  server    = '${AZURESQL_SERVER}',
  database  = '${AZURESQL_DATABASE:-streaming}',
  "table"   = '${AZURESQL_TABLE:-dbo.rawdata}',
  write     = 'insert',
  writers   = '${AZURESQL_WRITERS:-4}'
);

-- The partition of the table is made of the device, so that copies of an event meet; the event hub's own may differ between them.
INSERT INTO serving
SELECT eventId, CAST(strpos('0123456789abcdef', left(md5(deviceId), 1)) - 1 AS INT) AS PartitionId, type, deviceId,
       deviceSequenceNumber, createdAt, value, complexData, enqueuedAt, now() AS processedAt
FROM events;
