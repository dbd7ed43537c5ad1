CREATE TABLE events (
  eventId STRING NOT NULL, deviceId STRING, value DOUBLE, n INT, ts BIGINT, tags ARRAY<STRING>, body JSON,
  complexData STRUCT<moreData1 DOUBLE, moreData2 DOUBLE>, attributes MAP<STRING, STRING>,
  createdAt TIMESTAMP, enqueuedAt TIMESTAMP METADATA FROM 'timestamp', partitionId INT METADATA FROM 'partition'
) WITH (connector = 'log', topic = 'streaming', type = 'source', event_time_field = 'createdAt', 'properties.bootstrap.servers' = '${HOSTS:-a:1,b:2}', format = 'json');
CREATE TABLE serving WITH (connector = 'store', path = 'out');
INSERT INTO serving SELECT eventId FROM events;
