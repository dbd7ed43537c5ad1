CREATE TABLE events (
  eventId STRING NOT NULL, deviceId STRING, value DOUBLE, n INT, tags ARRAY<STRING>, body JSON,
  createdAt TIMESTAMP, enqueuedAt TIMESTAMP METADATA FROM 'timestamp'
) WITH (connector = 'log', tpoic = 'streaming');
CREATE TABLE serving WITH (connector = 'store', pth = 'out');
SET paralelism = 2;
CREATE VIEW v AS SELECT a FROM events;
INSERT INTO serving SELECT x FROM v;
INSERT INTO nowhere SELECT 1 AS one FROM evens;
