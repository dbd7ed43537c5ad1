CREATE TABLE events (eventId STRING NOT NULL) WITH (connector = 'log', topic = 'streaming');
CREATE TABLE other (eventId STRING NOT NULL, kind STRING) WITH (connector = 'log', topic = 'devices', type = 'lookup');
CREATE TABLE serving WITH (connector = 'store', path = 'out');
INSERT INTO serving SELECT e.eventId, o.kind FROM events AS e JOIN other AS o ON e.eventId = o.eventId;
