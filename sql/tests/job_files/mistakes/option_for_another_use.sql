CREATE TABLE events (
  deviceId STRING, n INT, proctime AS PROCTIME()
) WITH (connector = 'log', topic = 'streaming', unpacked = 'true', commit_interval = '1 s', give_up_after = '1 h');
CREATE TABLE devices (deviceId STRING, kind STRING) PARTITIONED BY (kind)
WITH (connector = 'store', path = 'in', 'lookup' = 'true', file_size = '1 MiB', date_format = 'YYYY');
CREATE TABLE serving WITH (connector = 'store', path = 'out', file_size = '1 MiB', date_format = 'YYYY');
INSERT INTO serving SELECT e.deviceId, d.kind FROM events AS e
LEFT JOIN devices FOR SYSTEM_TIME AS OF e.proctime AS d ON e.deviceId = d.deviceId;
