CREATE TABLE events (
  eventId STRING NOT NULL, deviceId STRING, value DOUBLE, n INT, createdAt TIMESTAMP, proctime AS PROCTIME()
) WITH (connector = 'log', topic = 'streaming');
CREATE TABLE devices (deviceId STRING, kind STRING, factor DOUBLE, number SMALLINT)
WITH (connector = 'store', path = 'in', 'lookup' = 'true', 'lookup.cache' = 'whole', 'lookup.cache.ttl' = '5 minutes');
CREATE TABLE serving WITH (connector = 'store', path = 'out');
INSERT INTO serving SELECT e.eventId, d.kind FROM events AS e JOIN devices AS d ON e.deviceId = d.deviceId;
