"""Reads a Delta table with another reader: its version, row count and distinct ids, as JSON.

Usage: delta_readers.py PATH [ID_COLUMN]      needs the packages deltalake and pyarrow
"""

import json
import sys

from deltalake import DeltaTable


def summary(path, column):
    table = DeltaTable(path)
    rows = table.to_pyarrow_table(columns=[column])
    ids = rows.column(column)
    return {
        "version": table.version(),
        "files": len(table.file_uris()),
        "rows": rows.num_rows,
        "distinct": len(ids.unique()),
        "nulls": ids.null_count,
    }


if __name__ == "__main__":
    column = sys.argv[2] if len(sys.argv) > 2 else "eventId"
    print(json.dumps(summary(sys.argv[1], column)))
