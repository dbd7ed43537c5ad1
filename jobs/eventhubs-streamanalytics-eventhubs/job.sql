-- Event Hubs to Event Hubs, each event once: there the partition in which it came is its key.
-- Replaces the Stream Analytics query "simple" of the solution eventhubs-streamanalytics-eventhubs.

CREATE TABLE events (
  eventId              STRING NOT NULL,
  complexData          JSON,
  value                DOUBLE,
  type                 STRING,
  deviceId             STRING,
  deviceSequenceNumber BIGINT,
  createdAt            TIMESTAMP,
  enqueuedAt           TIMESTAMP METADATA FROM 'timestamp',
  PartitionId          BIGINT METADATA FROM 'partition'
) WITH (
  connector              = 'eventhubs',
  connection_string      = '${EVENTHUB}',
  topic                  = '${TOPIC:-streaming}',
  format                 = 'json',
  'deduplicate.key'      = 'eventId',
  'deduplicate.within'   = '10 minutes'
);

-- Arrays of objects, as Stream Analytics writes them: readers of its output need no change.
-- The policy of this connection string needs Send, and Listen: after a crash the hub is read back.
CREATE TABLE output (
  id                   STRING NOT NULL,
  deviceId             STRING,
  deviceSequenceNumber BIGINT,
  type                 STRING,
  complexData          JSON,
  value                DOUBLE,
  eventId              STRING NOT NULL,
  PartitionId          BIGINT,
  createdAt            TIMESTAMP,
  enqueuedAt           TIMESTAMP,
  processedAt          TIMESTAMP,
  processedAt2         TIMESTAMP,
  partitionKey         STRING METADATA FROM 'key'
) WITH (
  connector         = 'eventhubs',
  connection_string = '${OUTPUT_EVENTHUB}',
  topic             = '${OUTPUT_TOPIC:-streaming}',
  format            = 'json',
  'json.rows'       = 'array',
  'sink.rows_per_message' = '100'
);

INSERT INTO output
SELECT eventId AS id, deviceId, deviceSequenceNumber, type, complexData, value, eventId, PartitionId, createdAt, enqueuedAt,
       now() AS processedAt, now() AS processedAt2, CAST(PartitionId AS STRING) AS partitionKey
FROM events;
