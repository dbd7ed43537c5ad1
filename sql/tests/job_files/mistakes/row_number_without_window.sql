CREATE TABLE events (
  eventId STRING NOT NULL, deviceId STRING, value DOUBLE, n INT, tags ARRAY<STRING>, body JSON,
  createdAt TIMESTAMP, enqueuedAt TIMESTAMP METADATA FROM 'timestamp'
) WITH (connector = 'log', topic = 'streaming');
CREATE TABLE serving WITH (connector = 'store', path = 'out');
INSERT INTO serving
SELECT eventId FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY eventId ORDER BY enqueuedAt) AS rn FROM events
) WHERE rn = 1;
