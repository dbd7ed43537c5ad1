CREATE TABLE events (
  eventId STRING NOT NULL, deviceId STRING, value DOUBLE, n INT, tags ARRAY<STRING>, body JSON,
  createdAt TIMESTAMP, enqueuedAt TIMESTAMP METADATA FROM 'timestamp'
) WITH (connector = 'log', topic = 'streaming');
CREATE TABLE serving WITH (connector = 'store', path = 'out');
CREATE VIEW marked AS SELECT eventId, CASE WHEN n > 0
  THEN abs(deviceId) ELSE 1 END AS mark FROM events;
INSERT INTO serving
WITH hot AS (SELECT eventId, n FROM events WHERE n > 0 AND (createdAt
  > tags OR n < 7))
SELECT eventId, n FROM hot;
