CREATE TABLE events (
  eventId STRING NOT NULL, n INT, tags ARRAY<STRING>, lines ARRAY<STRUCT<sku STRING, amount INT>>
) WITH (connector = 'log', topic = 'streaming');
CREATE TABLE serving WITH (connector = 'store', path = 'out');
INSERT INTO serving SELECT e.eventId, l.line.sku AS sku, l.line.amount * n AS amount, tag
FROM events e CROSS JOIN UNNEST(e.lines) AS l (line) LEFT JOIN UNNEST(e.tags) AS t (tag) ON true
WHERE l.line.amount > 0 AND e.n > 2;
