CREATE TABLE events (
  eventId STRING NOT NULL, deviceId STRING, value DOUBLE, n INT, tags ARRAY<STRING>, body JSON,
  createdAt TIMESTAMP, enqueuedAt TIMESTAMP METADATA FROM 'timestamp'
) WITH (connector = 'log', topic = 'streaming');
CREATE TABLE copies (
  eventId STRING NOT NULL, deviceId STRING, value DOUBLE, n INT, tags ARRAY<STRING>, body JSON,
  createdAt TIMESTAMP, enqueuedAt TIMESTAMP METADATA FROM 'timestamp'
) WITH (connector = 'log', topic = 'streaming');
INSERT INTO copies SELECT * FROM events;
