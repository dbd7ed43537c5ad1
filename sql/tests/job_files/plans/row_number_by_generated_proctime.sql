CREATE TABLE events (
  eventId STRING NOT NULL, deviceId STRING, value DOUBLE, n INT, pt AS PROCTIME(), ts BIGINT, tags ARRAY<STRING>, body JSON,
  complexData STRUCT<moreData1 DOUBLE, moreData2 DOUBLE>, attributes MAP<STRING, STRING>,
  createdAt TIMESTAMP, enqueuedAt TIMESTAMP METADATA FROM 'timestamp', partitionId INT METADATA FROM 'partition'
) WITH (connector = 'log', topic = 'streaming', 'deduplicate.within' = '5 minutes', 'deduplicate.late' = 'dead-letter');
CREATE TABLE serving WITH (connector = 'store', path = 'out');
INSERT INTO serving SELECT eventId, value FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY eventId, deviceId ORDER BY pt) AS rn FROM events
) WHERE rn = 1;
