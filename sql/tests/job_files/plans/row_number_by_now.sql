CREATE TABLE events (
  eventId STRING NOT NULL, deviceId STRING, value DOUBLE, n INT, ts BIGINT, tags ARRAY<STRING>, body JSON,
  complexData STRUCT<moreData1 DOUBLE, moreData2 DOUBLE>, attributes MAP<STRING, STRING>,
  createdAt TIMESTAMP, enqueuedAt TIMESTAMP METADATA FROM 'timestamp', partitionId INT METADATA FROM 'partition'
) WITH (connector = 'log', topic = 'streaming');
CREATE TABLE serving WITH (connector = 'store', path = 'out');
SET table.exec.state.ttl = '1 h';
INSERT INTO serving
SELECT eventId, value FROM (
  SELECT eventId, value, ROW_NUMBER() OVER (PARTITION BY eventId ORDER BY PROCTIME() ASC) AS rn FROM events
) WHERE rn <= 1;
