CREATE TABLE events (
  eventId STRING NOT NULL, deviceId STRING, value DOUBLE, n INT, day AS CAST(createdAt AS DATE), twice BIGINT AS (n * 2) VIRTUAL, eventTime TIMESTAMP GENERATED ALWAYS AS (to_timestamp_millis(ts)) STORED, unused AS upper(deviceId), ts BIGINT, tags ARRAY<STRING>, body JSON,
  complexData STRUCT<moreData1 DOUBLE, moreData2 DOUBLE>, attributes MAP<STRING, STRING>,
  createdAt TIMESTAMP, enqueuedAt TIMESTAMP METADATA FROM 'timestamp', partitionId INT METADATA FROM 'partition'
) WITH (connector = 'log', topic = 'streaming');
CREATE TABLE serving WITH (connector = 'store', path = 'out');
INSERT INTO serving SELECT eventId, day, twice, eventTime FROM events WHERE twice > 4;
