-- Event Hubs (or any Kafka) to Delta, each event once.
-- Replaces the Databricks job of the solution eventhubs-databricks-delta.

CREATE TABLE events (
  eventId              STRING NOT NULL,
  complexData          JSON,
  value                DOUBLE,
  type                 STRING,
  deviceId             STRING,
  deviceSequenceNumber BIGINT,
  createdAt            TIMESTAMP,
  enqueuedAt           TIMESTAMP METADATA FROM 'timestamp',
  WATERMARK FOR createdAt AS createdAt - INTERVAL '5' SECOND
) WITH (
  connector              = 'kafka',
  bootstrap_servers      = '${KAFKA:-localhost:9092}',
  topic                  = '${TOPIC:-streaming}',
  format                 = 'json',
  'deduplicate.key'      = 'eventId',
  'deduplicate.within'   = '10 minutes'
);

CREATE TABLE serving WITH (
  connector = 'delta',
  path      = '${TABLE:-./demo-output/events}'
);

INSERT INTO serving
SELECT eventId, complexData, value, type, deviceId, deviceSequenceNumber, createdAt, enqueuedAt, now() AS processedAt
FROM events;
