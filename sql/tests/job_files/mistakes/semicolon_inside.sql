CREATE TABLE events (eventId STRING NOT NULL, deviceId STRING;
CREATE TABLE serving WITH (connector = 'store', path = 'out');
INSERT INTO serving SELECT eventId FROM events;
