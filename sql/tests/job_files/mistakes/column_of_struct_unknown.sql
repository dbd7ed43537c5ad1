CREATE TABLE events (
  eventId STRING NOT NULL, deviceId STRING, value DOUBLE, n STRUCT<inner1 INT, inner2 INT>, tags ARRAY<STRING>, body JSON,
  createdAt TIMESTAMP, enqueuedAt TIMESTAMP METADATA FROM 'timestamp'
) WITH (connector = 'log', topic = 'streaming');
CREATE TABLE serving WITH (connector = 'store', path = 'out');
INSERT INTO serving SELECT n.innr1 FROM events;
