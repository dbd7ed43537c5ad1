CREATE TABLE events (
  eventId STRING NOT NULL, deviceId STRING, value DOUBLE, n INT, ts BIGINT, tags ARRAY<STRING>, body JSON,
  complexData STRUCT<moreData1 DOUBLE, moreData2 DOUBLE>, attributes MAP<STRING, STRING>,
  createdAt TIMESTAMP, enqueuedAt TIMESTAMP METADATA FROM 'timestamp', partitionId INT METADATA FROM 'partition',
  WATERMARK FOR createdAt AS createdAt - INTERVAL '5' SECOND
) WITH (connector = 'log', topic = 'streaming');
CREATE TABLE serving WITH (connector = 'store', path = 'out');
SET ttl = '1 h';
INSERT INTO serving
SELECT eventId, value FROM events QUALIFY ROW_NUMBER() OVER (PARTITION BY eventId ORDER BY createdAt) = 1;
