"""Parses each statement of a file with sqlglot's T-SQL grammar: a witness that is not ours. Prints what it cannot read."""

import re
import sys

import sqlglot
from sqlglot import exp

# Documented, and not known to this grammar: hints of an INSERT's target, an index within CREATE TABLE, a key that is not clustered, and
# what is tried and caught.
UNKNOWN = [
    (r" WITH \(TABLOCK\) \(", " ("),
    (r", INDEX \[millrace_columns\] CLUSTERED COLUMNSTORE", ""),
    (r"PRIMARY KEY NONCLUSTERED \(", "PRIMARY KEY ("),
    (r"BEGIN TRY ", ""),
    (r"END TRY BEGIN CATCH (.*?;)\s+THROW;\s+END CATCH;", r"\1"),
]


def problems(text):
    for pattern, instead in UNKNOWN:
        text = re.sub(pattern, instead, text, flags=re.S)
    try:
        for statement in sqlglot.parse(text, dialect="tsql"):
            # What it only passes through unread.
            if statement and (unread := next(statement.find_all(exp.Command), None)):
                yield f"not read: {unread.sql()}"
    except sqlglot.errors.ParseError as error:
        yield str(error)


batches = re.split(r"^-- (.*)$", open(sys.argv[1], encoding="utf-8").read(), flags=re.M)[3:]
found = [f"{name}: {problem}" for name, text in zip(batches[::2], batches[1::2]) for problem in problems(text)]
print("\n".join(found) or f"{len(batches) // 2} batches")
sys.exit(bool(found))
