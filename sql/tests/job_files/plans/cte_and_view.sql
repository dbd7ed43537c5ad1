CREATE TABLE events (
  eventId STRING NOT NULL, deviceId STRING, value DOUBLE, n INT, ts BIGINT, tags ARRAY<STRING>, body JSON,
  complexData STRUCT<moreData1 DOUBLE, moreData2 DOUBLE>, attributes MAP<STRING, STRING>,
  createdAt TIMESTAMP, enqueuedAt TIMESTAMP METADATA FROM 'timestamp', partitionId INT METADATA FROM 'partition'
) WITH (connector = 'log', topic = 'streaming');
CREATE TABLE serving WITH (connector = 'store', path = 'out');
CREATE VIEW later AS SELECT * FROM earlier WHERE value > 2;
CREATE VIEW earlier AS SELECT eventId, value FROM events WHERE value > 1;
INSERT INTO serving WITH c AS (SELECT * FROM later) SELECT eventId FROM C;
