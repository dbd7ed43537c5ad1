CREATE TABLE events (
  eventId STRING NOT NULL, deviceId STRING, value DOUBLE, n INT, eventTime AS to_timestamp_millis(ts), key TEXT AS (lower(deviceId)), ts BIGINT, tags ARRAY<STRING>, body JSON,
  complexData STRUCT<moreData1 DOUBLE, moreData2 DOUBLE>, attributes MAP<STRING, STRING>,
  createdAt TIMESTAMP, enqueuedAt TIMESTAMP METADATA FROM 'timestamp', partitionId INT METADATA FROM 'partition',
  WATERMARK FOR eventTime AS eventTime - INTERVAL '5' SECOND
) WITH (connector = 'log', topic = 'streaming',
  'deduplicate.key' = 'key', 'deduplicate.within' = '10 minutes');
CREATE TABLE serving WITH (connector = 'store', path = 'out');
INSERT INTO serving SELECT eventId FROM events;
