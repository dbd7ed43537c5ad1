CREATE TABLE events (
  eventId STRING NOT NULL, deviceId STRING, value DOUBLE, n INT, ts BIGINT, tags ARRAY<STRING>, body JSON,
  complexData STRUCT<moreData1 DOUBLE, moreData2 DOUBLE>, attributes MAP<STRING, STRING>,
  createdAt TIMESTAMP, enqueuedAt TIMESTAMP METADATA FROM 'timestamp', partitionId INT METADATA FROM 'partition',
  WATERMARK FOR createdat AS createdAt - INTERVAL '5 seconds'
) WITH (connector = 'log', topic = 'streaming',
  'deduplicate.key' = 'eventId', 'deduplicate.within' = '1h', 'deduplicate.scope' = 'partition',
  'deduplicate.time' = 'event', 'deduplicate.late' = 'drop', 'deduplicate.memory' = '64 MiB');
CREATE TABLE serving WITH (connector = 'store', path = 'out');
INSERT INTO serving SELECT deviceId FROM events;
