CREATE TABLE events (
  eventId STRING NOT NULL, deviceId STRING, value DOUBLE, n INT, ts BIGINT, tags ARRAY<STRING>, body JSON,
  complexData STRUCT<moreData1 DOUBLE, moreData2 DOUBLE>, attributes MAP<STRING, STRING>,
  createdAt TIMESTAMP, enqueuedAt TIMESTAMP METADATA FROM 'timestamp', partitionId INT METADATA FROM 'partition'
) WITH (connector = 'log', topic = 'streaming');
CREATE TABLE serving WITH (connector = 'store', path = 'out');
CREATE TABLE wide (a BIGINT, b DOUBLE, c STRING, d TIMESTAMP, e STRING) WITH (connector = 'store', path = 'wide');
INSERT INTO wide SELECT n, n AS m, deviceId, createdAt, NULL FROM events;
INSERT INTO serving SELECT n / 2 AS half, value / 0 AS infinite, n % 2 AS odd FROM events;
