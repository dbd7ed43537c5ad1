-- Kafka to Kafka, each event once, in transactions.
-- Replaces the Flink job "simple-relay" of the solution hdinsightkafka-flink-hdinsightkafka.

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
  connector              = 'kafka',
  bootstrap_servers      = '${KAFKA:-localhost:9092}',
  topic                  = '${TOPIC:-in}',
  format                 = 'json',
  'deduplicate.key'      = 'eventId',
  'deduplicate.within'   = '10 minutes'
);

-- Readers at read_committed see each row once.
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
  connector         = 'kafka',
  bootstrap_servers = '${OUTPUT_KAFKA:-localhost:9092}',
  topic             = '${OUTPUT_TOPIC:-out}',
  format            = 'json'
);

INSERT INTO relayed
SELECT eventId, complexData, value, type, deviceId, deviceSequenceNumber, createdAt, enqueuedAt, now() AS processedAt
FROM events;
