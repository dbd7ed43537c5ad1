CREATE TABLE events (
  eventId STRING NOT NULL, deviceId STRING, value DOUBLE, n INT, tags ARRAY<STRING>, body JSON,
  createdAt TIMESTAMP, enqueuedAt TIMESTAMP METADATA FROM 'timestamp'
) WITH (connector = 'log', topic = 'streaming');
CREATE TABLE bad WITH (connector = 'store', path = 'bad', 'dead-letter' = 'true');
INSERT INTO bad SELECT eventId FROM events;
