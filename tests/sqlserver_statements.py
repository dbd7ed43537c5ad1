"""Parses T-SQL with sqlglot's grammar: a witness that is not ours. Prints what it cannot read.

The first file has the statements that are said to a server, each with the pages that document it; the others are for people to run."""

import re
import sys

import sqlglot
from sqlglot import exp

# Documented, and not known to this grammar: hints of an INSERT's target, an index within CREATE TABLE, a key that is not clustered,
# what is tried and caught, how a table is partitioned, and users of Entra ID.
UNKNOWN = [
    (r" WITH \(TABLOCK\) \(", " ("),
    (r", INDEX \[millrace_columns\] CLUSTERED COLUMNSTORE", ""),
    (r"INDEX \[ixccs\] CLUSTERED COLUMNSTORE,", ""),
    (r"PRIMARY KEY NONCLUSTERED \(", "PRIMARY KEY ("),
    (r"BEGIN TRY ", ""),
    (r"END TRY BEGIN CATCH (.*?;)\s+THROW;\s+END CATCH;", r"\1"),
    (r"CREATE PARTITION (FUNCTION|SCHEME) .*?;", ""),
    (r"CREATE USER \[\w+\] FROM EXTERNAL PROVIDER;", ""),
]
DOCUMENTED = re.compile(r"(-- <https://learn\.microsoft\.com/sql/\S+>\n)+")


def problems(text):
    for pattern, instead in UNKNOWN:
        text = re.sub(pattern, instead, text, flags=re.S)
    try:
        for statement in sqlglot.parse(text, dialect="tsql"):
            # What it only passes through unread.
            if statement and (unread := next(statement.find_all(exp.Command), None)):
                yield f"not read: {unread.sql()}"
            # The server adds up an int as an int, and fails when it is full.
            for mean in statement.find_all(exp.Avg) if statement else ():
                if not isinstance(mean.this, exp.Cast):
                    yield f"say of which type the mean is: {mean.sql()}"
    except sqlglot.errors.ParseError as error:
        yield str(error)


def statements(path):
    batches = re.split(r"^-- (?!<)(.*)\n", open(path, encoding="utf-8").read(), flags=re.M)[3:]
    for name, text in zip(batches[::2], batches[1::2]):
        if not DOCUMENTED.match(text):
            yield name, ["no page documents it"]
        yield name, problems(text)


def batches(path):
    """What `GO` ends."""
    for number, text in enumerate(re.split(r"^GO$", open(path, encoding="utf-8").read(), flags=re.M), 1):
        yield f"{path}, batch {number}", problems(text)


said, *scripts = sys.argv[1:]
parsed = [*statements(said), *(batch for script in scripts for batch in batches(script))]
found = [f"{name}: {problem}" for name, all_of in parsed for problem in all_of]
print("\n".join(found) or f"{len(parsed)} batches")
sys.exit(bool(found))
