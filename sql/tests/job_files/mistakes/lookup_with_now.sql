CREATE TABLE events (
  eventId STRING NOT NULL, deviceId STRING, value DOUBLE, n INT, createdAt TIMESTAMP, proctime AS PROCTIME()
) WITH (connector = 'log', topic = 'streaming');
CREATE TABLE devices (deviceId STRING, kind STRING, factor DOUBLE, number SMALLINT)
WITH (connector = 'store', path = 'in', 'lookup' = 'true');
CREATE TABLE serving WITH (connector = 'store', path = 'out');
CREATE VIEW fresh AS SELECT deviceId, kind, now() AS seen FROM devices;
INSERT INTO serving SELECT e.eventId, f.seen FROM events AS e JOIN fresh AS f ON e.deviceId = f.deviceId;
