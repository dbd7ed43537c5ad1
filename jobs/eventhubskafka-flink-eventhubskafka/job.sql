-- Event Hubs to Event Hubs, each event once, without transactions: the standard tier has none.
-- Replaces the Flink job "simple-relay" of the solution eventhubskafka-flink-eventhubskafka.

CREATE TABLE events (
  eventId              STRING NOT NULL,
  complexData          JSON,
  value                DOUBLE,
  type                 STRING,
  deviceId             STRING,
  deviceSequenceNumber BIGINT,
  createdAt            TIMESTAMP,
  enqueuedAt           TIMESTAMP METADATA FROM 'timestamp'
) WITH (
  connector              = 'eventhubs',
  connection_string      = '${EVENTHUB}',
  topic                  = '${TOPIC:-in}',
  format                 = 'json',
  'deduplicate.key'      = 'eventId',
  'deduplicate.within'   = '10 minutes'
);

-- The policy of this connection string needs Send, and Listen: after a crash the hub is read back.
CREATE TABLE relayed (
  eventId              STRING NOT NULL,
  complexData          JSON,
  value                DOUBLE,
  type                 STRING,
  deviceId             STRING,
  deviceSequenceNumber BIGINT,
  createdAt            TIMESTAMP,
  enqueuedAt           TIMESTAMP,
  processedAt          TIMESTAMP
) WITH (
  connector         = 'eventhubs',
  connection_string = '${OUTPUT_EVENTHUB}',
  topic             = '${OUTPUT_TOPIC:-out}',
  format            = 'json'
);

INSERT INTO relayed
SELECT eventId, complexData, value, type, deviceId, deviceSequenceNumber, createdAt, enqueuedAt, now() AS processedAt
FROM events;
