"""Writes the Avro files beside it, by a writer that is not the reader's: `pip install fastavro cramjam backports.zstd`, then run it there."""
import datetime
import decimal
import uuid

import fastavro

ORDER = {
    "type": "record", "name": "shop.Order", "fields": [
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["web", "store"]}},
        {"name": "n", "type": ["null", "int"], "default": None},
        {"name": "either", "type": ["null", "int", "string"]},
        {"name": "id", "type": "string"},
        {"name": "returned", "type": "Kind"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "seen", "type": [{"type": "long", "logicalType": "timestamp-millis"}, "null"]},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "price", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}]},
        {"name": "key", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "digest", "type": {"type": "fixed", "name": "other.Digest", "size": 4}},
        {"name": "weight", "type": "float"},
        {"name": "lines", "type": {"type": "array", "items": {"type": "record", "name": "Line", "fields": [
            {"name": "sku", "type": "string"}, {"name": "count", "type": "long"}, {"name": "digest", "type": "other.Digest"}]}}},
        {"name": "tags", "type": {"type": "map", "values": ["null", "string"]}},
        {"name": "gift", "type": ["null", "Line"]},
        {"name": "nothing", "type": "null"},
    ],
}

START = datetime.datetime(2026, 11, 22, tzinfo=datetime.timezone.utc)


def order(n):
    line = lambda m: {"sku": f"sku {m}", "count": m, "digest": bytes([0, 0, n // 256, n % 256])}
    return {
        "kind": "web", "n": n, "either": n if n % 2 else str(n), "id": f"o{n}", "returned": ["web", "store"][n % 2],
        "at": START + datetime.timedelta(microseconds=n), "seen": None if n % 3 == 0 else START + datetime.timedelta(seconds=n),
        "day": START.date() + datetime.timedelta(days=n), "price": None if n % 5 == 0 else decimal.Decimal(n) / 100 - 1,
        "key": str(uuid.UUID(int=n)), "digest": bytes([n % 256, 1, 2, 3]), "weight": n / 2,
        "lines": [line(m) for m in range(n % 3)], "tags": {f"tag {m}": None if m else "ä" for m in range(n % 3)},
        "gift": line(n) if n % 2 else None, "nothing": None,
    }


for codec in ["null", "deflate", "snappy", "zstandard"]:
    with open(f"{codec}.avro", "wb") as out:
        fastavro.writer(out, ORDER, [order(n) for n in range(200)], codec=codec, sync_interval=2000, sync_marker=b"0123456789abcdef")
SMALL = {"type": "record", "name": "Order", "fields": [{"name": "id", "type": "string"}, {"name": "n", "type": ["null", "int"]}]}
with open("small.avro", "wb") as out:
    orders = [{"id": f"o{n}", "n": n} for n in range(40)]
    fastavro.writer(out, SMALL, orders, sync_interval=60, sync_marker=b"0123456789abcdef")
