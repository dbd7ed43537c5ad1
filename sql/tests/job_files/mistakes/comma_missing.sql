CREATE TABLE events (eventId STRING NOT NULL deviceId STRING) WITH (connector = 'log');
