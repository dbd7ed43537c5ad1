CREATE TABLE events (
  eventId STRING NOT NULL, deviceId STRING, n INT, ts BIGINT, tags ARRAY<STRING>,
  fourfold AS Twice * 2, twice BIGINT AS (n * 2), unused AS upper(key), place STRUCT<site STRING>,
  key AS concat(device, '/', place.site), device AS lower(deviceId), eventTime AS to_timestamp_millis(millis), millis AS ts + twice,
  WATERMARK FOR eventTime AS eventTime - INTERVAL '5' SECOND
) WITH (connector = 'log', topic = 'streaming', 'deduplicate.key' = 'key', 'deduplicate.within' = '10 minutes');
CREATE TABLE serving WITH (connector = 'store', path = 'out');
INSERT INTO serving SELECT eventId, fourfold, device FROM events WHERE fourfold > 4;
