CREATE TABLE events (
  eventId STRING NOT NULL, deviceId STRING, value DOUBLE, n INT, createdAt TIMESTAMP, proctime AS PROCTIME()
) WITH (connector = 'log', topic = 'streaming');
CREATE TABLE devices (deviceId STRING, kind STRING, factor DOUBLE, number SMALLINT)
WITH (connector = 'store', path = 'in', 'lookup' = 'true');
CREATE TABLE serving WITH (connector = 'store', path = 'out');
INSERT INTO serving
SELECT eventId, kind FROM (
  SELECT e.eventId, d.kind, ROW_NUMBER() OVER (PARTITION BY e.eventId ORDER BY now()) AS rn
  FROM events AS e JOIN devices AS d ON e.deviceId = d.deviceId
) WHERE rn = 1;
