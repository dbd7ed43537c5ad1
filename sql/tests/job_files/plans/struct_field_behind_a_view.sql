CREATE TABLE events (
  eventId STRING NOT NULL, value DOUBLE, complexData STRUCT<moreData1 DOUBLE, moreData2 DOUBLE>, ts BIGINT,
  eventTime AS to_timestamp_millis(ts), raw JSON
) WITH (connector = 'log', topic = 'streaming');
CREATE TABLE serving WITH (connector = 'store', path = 'out');
CREATE VIEW readings AS SELECT * FROM events WHERE value IS NOT NULL;
INSERT INTO serving SELECT eventId, value + complexData.moreData1 AS sum, raw ->> 'room' AS room FROM readings WHERE value > 0.5;
