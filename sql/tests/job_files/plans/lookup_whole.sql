CREATE TABLE events (
  eventId STRING NOT NULL, deviceId STRING, value DOUBLE, n INT, createdAt TIMESTAMP, proctime AS PROCTIME()
) WITH (connector = 'log', topic = 'streaming');
CREATE TABLE devices (deviceId STRING, kind STRING, factor DOUBLE, number SMALLINT)
WITH (connector = 'store', path = 'in', 'lookup' = 'true', 'lookup.cache' = 'FULL', 'lookup.full-cache.periodic-reload.interval' = '30 s');
CREATE TABLE serving WITH (connector = 'store', path = 'out');
CREATE VIEW known AS SELECT deviceId, upper(kind) AS kind FROM devices WHERE factor > 0;
INSERT INTO serving SELECT e.eventId, k.kind FROM events AS e JOIN known AS k ON lower(e.deviceId) = k.deviceId WHERE e.n > 3;
