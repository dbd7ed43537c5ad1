CREATE TABLE events (
  eventId STRING NOT NULL, deviceId STRING, value DOUBLE, n INT, tags ARRAY<STRING>, body JSON,
  createdAt TIMESTAMP, enqueuedAt TIMESTAMP METADATA FROM 'timestamp'
) WITH (connector = 'log', topic = 'streaming');
CREATE TABLE serving WITH (connector = 'store', path = 'out');
CREATE VIEW a AS SELECT * FROM b;
CREATE VIEW b AS SELECT * FROM a;
INSERT INTO serving SELECT * FROM a;
