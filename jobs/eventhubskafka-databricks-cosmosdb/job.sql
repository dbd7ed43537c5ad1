-- Event Hubs, over its Kafka endpoint, to Cosmos DB, each event once.
-- Replaces the Databricks job of the solution eventhubskafka-databricks-cosmosdb.

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
  connector            = 'eventhubs',
  connection_string    = '${EVENTHUB}',
  topic                = '${TOPIC:-streaming}',
  format               = 'json',
  'deduplicate.key'    = 'eventId',
  'deduplicate.within' = '10 minutes'
);

-- Entra ID; with the account's key instead: connection_string = '${COSMOSDB}' in place of account. A copy of an event that comes
-- after the ten minutes meets its document and changes nothing, not even _ts.
CREATE TABLE serving WITH (
  connector = 'cosmosdb',
  account   = '${COSMOSDB_ACCOUNT}',
  database  = '${COSMOSDB_DATABASE:-streaming}',
  container = '${COSMOSDB_CONTAINER:-rawdata}',
  write     = 'insert'
);

INSERT INTO serving
SELECT eventId AS id, eventId, complexData, value, type, deviceId, deviceSequenceNumber, createdAt, enqueuedAt,
       now() AS processedAt
FROM events;
