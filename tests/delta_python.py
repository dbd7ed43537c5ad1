"""Delta tables by another implementation, for the tests: the packages deltalake and pyarrow.

delta_python.py rows PATH        the table's rows as JSON, one a line; fails if a filter on a value misses a row that has it
delta_python.py make PATH KIND   a new table with columns id and n, and what KIND says; one row, id = "theirs"
delta_python.py delete PATH PREDICATE
"""

import base64
import datetime
import decimal
import json
import math
import os
import sys

import pyarrow as pa
from deltalake import DeltaTable, Field, QueryBuilder, Schema, write_deltalake
from deltalake.exceptions import DeltaProtocolError


def plain(value):
    if isinstance(value, datetime.datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.%f") + ("Z" if value.tzinfo else "")
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value


def read(table):
    """With Arrow's own Parquet reader, unless the table has deletion vectors, which it does not know."""
    try:
        return table.to_pyarrow_table()
    except DeltaProtocolError:
        return pa.table(QueryBuilder().register("t", table).execute("select * from t").read_all())


def check_filters(table, rows):
    """Files are passed over by their statistics and partition values: a filter finds what a look at every row does."""
    for field in rows.schema:
        if pa.types.is_nested(field.type):
            continue
        values = rows.column(field.name)
        for value in values.unique():
            if not value.is_valid or value.as_py() != value.as_py():
                continue
            expected = sum(1 for other in values if other == value)
            found = table.to_pyarrow_table(columns=[field.name], filters=[(field.name, "==", value)]).num_rows
            if found != expected:
                raise AssertionError(f"{field.name} = {value}: a filter finds {found} rows of {expected}")


def rows(path):
    table = DeltaTable(path)
    found = read(table)
    if "deletionVectors" not in (table.protocol().reader_features or []):
        check_filters(table, found)
    for row in found.to_pylist(maps_as_pydicts="strict"):
        print(json.dumps(plain(row)))


def make(path, kind):
    metadata = {
        "generated": {"delta.generationExpression": "1"},
        "invariant": {"delta.invariants": json.dumps({"expression": {"expression": "n > 0"}})},
    }
    configuration = {
        "append-only": {"delta.appendOnly": "true"},
        "change-feed": {"delta.enableChangeDataFeed": "true"},
        "deletion-vectors": {"delta.enableDeletionVectors": "true"},
        "short-memory": {"delta.setTransactionRetentionDuration": "interval 1 days"},
    }
    schema = Schema([Field("id", "string"), Field("n", "long", metadata=metadata.get(kind))])
    table = DeltaTable.create(path, schema, configuration=configuration.get(kind))
    if kind == "constraint":
        table.alter.add_constraint({"positive": "n > 0"})
    if kind in ("plain", "append-only", "change-feed", "constraint"):
        write_deltalake(table, pa.table({"id": ["theirs"], "n": [1]}), mode="append")


if __name__ == "__main__":
    command, path, *rest = sys.argv[1:]
    if command == "delete":
        DeltaTable(path).delete(*rest)
    else:
        {"rows": rows, "make": make}[command](path, *rest)
    # Without the interpreter's own end: the packages' threads are still there, and it aborts over them.
    sys.stdout.flush()
    os._exit(0)
