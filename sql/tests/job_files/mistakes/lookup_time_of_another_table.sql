CREATE TABLE events (
  eventId STRING NOT NULL, deviceId STRING, value DOUBLE, n INT, createdAt TIMESTAMP, proctime AS PROCTIME()
) WITH (connector = 'log', topic = 'streaming');
CREATE TABLE devices (deviceId STRING, kind STRING, factor DOUBLE, number SMALLINT)
WITH (connector = 'store', path = 'in', 'lookup' = 'true');
CREATE TABLE serving WITH (connector = 'store', path = 'out');
CREATE TABLE orders (orderId STRING, createdAt AS PROCTIME()) WITH (connector = 'log', topic = 'orders');
INSERT INTO serving SELECT e.eventId, d.kind FROM events AS e
JOIN devices FOR SYSTEM_TIME AS OF e.createdAt AS d ON e.deviceId = d.deviceId;
