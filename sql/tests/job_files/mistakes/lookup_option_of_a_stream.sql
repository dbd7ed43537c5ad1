CREATE TABLE events (eventId STRING NOT NULL)
WITH (connector = 'log', topic = 'streaming', 'lookup.cache.ttl' = '5 minutes');
CREATE TABLE serving WITH (connector = 'store', path = 'out');
INSERT INTO serving SELECT eventId FROM events;
