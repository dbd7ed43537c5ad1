CREATE TABLE events (eventId STRING NOT NULL, deviceId STRING, value DOUBLE) WITH (connector = 'log', topic = 'streaming');
CREATE TABLE copies (
  eventId STRING NOT NULL,
  device STRING METADATA FROM 'key'
) WITH (connector = 'store', path = 'copies');
INSERT INTO copies SELECT eventId, deviceId FROM events;
