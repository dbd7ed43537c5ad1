CREATE TABLE events (
  eventId STRING NOT NULL, deviceId STRING, value DOUBLE, g AS now(), tags ARRAY<STRING>, body JSON,
  createdAt TIMESTAMP, enqueuedAt TIMESTAMP METADATA FROM 'timestamp', WATERMARK FOR g AS g
) WITH (connector = 'log', topic = 'streaming');
CREATE TABLE serving WITH (connector = 'store', path = 'out');
INSERT INTO serving SELECT eventId FROM events;
