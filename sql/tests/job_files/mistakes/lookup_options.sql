CREATE TABLE events (
  eventId STRING NOT NULL, deviceId STRING, value DOUBLE, n INT, createdAt TIMESTAMP, proctime AS PROCTIME()
) WITH (connector = 'log', topic = 'streaming');
CREATE TABLE devices (deviceId STRING, kind STRING, factor DOUBLE, number SMALLINT)
WITH (connector = 'store', path = 'in', 'lookup' = 'true', 'lookup.keys' = '0', 'lookup.timeout' = '0 s', 'deduplicate.key' = 'kind');
CREATE TABLE serving WITH (connector = 'store', path = 'out');
INSERT INTO serving SELECT e.eventId FROM events AS e JOIN devices AS d ON e.deviceId = d.deviceId;
