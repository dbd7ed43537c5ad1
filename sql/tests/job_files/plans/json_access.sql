CREATE TABLE events (
  eventId STRING NOT NULL, deviceId STRING, value DOUBLE, n INT, ts BIGINT, tags ARRAY<STRING>, body JSON,
  complexData STRUCT<moreData1 DOUBLE, moreData2 DOUBLE>, attributes MAP<STRING, STRING>,
  createdAt TIMESTAMP, enqueuedAt TIMESTAMP METADATA FROM 'timestamp', partitionId INT METADATA FROM 'partition'
) WITH (connector = 'log', topic = 'streaming');
CREATE TABLE serving WITH (connector = 'store', path = 'out');
INSERT INTO serving SELECT body->>'a' AS a, body->'b'->'c' AS c, body FROM events;
