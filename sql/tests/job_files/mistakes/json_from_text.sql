CREATE TABLE events (
  eventId STRING NOT NULL, deviceId STRING, value DOUBLE, n INT, tags ARRAY<STRING>, body JSON,
  createdAt TIMESTAMP, enqueuedAt TIMESTAMP METADATA FROM 'timestamp'
) WITH (connector = 'log', topic = 'streaming');
CREATE TABLE serving (body JSON) WITH (connector = 'store', path = 'out');
INSERT INTO serving SELECT deviceId FROM events;
