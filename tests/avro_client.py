"""Confluent's own client, which writes and reads Avro by a schema registry.

Usage: avro_client.py write SERVERS REGISTRY TOPIC COUNT      numbers by two versions of a schema, in turns
       avro_client.py read SERVERS REGISTRY TOPIC             each value as a line of JSON
"""

import datetime
import decimal
import json
import sys

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

FIELDS = [
    {"name": "n", "type": "long"},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
    {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["EVEN", "ODD"]}},
    {"name": "tags", "type": {"type": "array", "items": "string"}},
    {"name": "extra", "type": {"type": "map", "values": ["null", "double"]}},
]
NOTE = {"name": "note", "type": ["null", "string"], "default": None}


def schema(fields):
    return json.dumps({"type": "record", "name": "Reading", "namespace": "plant", "fields": fields})


def number(n):
    return {
        "n": n,
        "at": datetime.datetime(2026, 11, 22, tzinfo=datetime.timezone.utc) + datetime.timedelta(microseconds=n),
        "price": decimal.Decimal(n) / 4,
        "kind": "ODD" if n % 2 else "EVEN",
        "tags": ["x"] * (n % 3),
        "extra": {"half": n / 2, "none": None},
        "note": f"note {n}",
    }


def write(servers, registry, topic, count):
    client = SchemaRegistryClient({"url": registry})
    # In the second version, a field has come and the others stand elsewhere.
    versions = [AvroSerializer(client, schema(FIELDS)), AvroSerializer(client, schema([NOTE] + FIELDS[::-1]))]
    producer = Producer({"bootstrap.servers": servers})
    context = SerializationContext(topic, MessageField.VALUE)
    for n in range(int(count)):
        producer.produce(topic, versions[n % 2](number(n), context), partition=n % 2)
        producer.poll(0)
    producer.produce(topic, b"no Avro at all", partition=0)
    assert producer.flush(60) == 0


def read(servers, registry, topic):
    deserialize = AvroDeserializer(SchemaRegistryClient({"url": registry}))
    settings = {"bootstrap.servers": servers, "group.id": "witness", "enable.partition.eof": True}
    consumer = Consumer({**settings, "isolation.level": "read_committed", "enable.auto.commit": False})
    partitions = list(consumer.list_topics(topic, timeout=30).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    context, ended = SerializationContext(topic, MessageField.VALUE), 0
    while ended < len(partitions):
        message = consumer.poll(30)
        assert message is not None, "nothing comes"
        if message.error():
            ended += 1
        else:
            print(json.dumps(deserialize(message.value(), context), default=str))
    consumer.close()


if __name__ == "__main__":
    {"write": write, "read": read}[sys.argv[1]](*sys.argv[2:])
