CREATE TABLE events (
  eventId STRING NOT NULL, deviceId STRING, value DOUBLE, n INT, createdAt TIMESTAMP, proctime AS PROCTIME()
) WITH (connector = 'log', topic = 'streaming');
CREATE TABLE devices (deviceId STRING, kind STRING, factor DOUBLE, number SMALLINT)
WITH (connector = 'store', path = 'in', 'lookup' = 'true', 'lookup.partial-cache.expire-after-write' = '5 minutes', 'lookup.cache.max_bytes' = '1 MiB', 'lookup.keys' = '50');
CREATE TABLE serving WITH (connector = 'store', path = 'out');
CREATE TABLE second WITH (connector = 'store', path = 'second');
INSERT INTO serving SELECT e.eventId, d.kind FROM events AS e JOIN devices AS d ON e.deviceId = d.deviceId;
INSERT INTO second SELECT e.eventId, d.factor FROM events AS e LEFT JOIN devices AS d ON e.deviceId = d.deviceId;
