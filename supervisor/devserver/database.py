"""The SQLite connection: schema, settings and transactions.  Tested by tests/devserver/test_store.py."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from supervisor.devserver.records import SCHEMA

Record = TypeVar("Record", bound=msgspec.Struct)
Value = str | bytes | float | int | None


class Database:
    """One connection, used by one thread; `path` None is an in-memory database."""

    def __init__(self, path: str | Path | None = None) -> None:
        # isolation_level None: the module must not begin transactions by itself.
        self._connection = sqlite3.connect(path or ":memory:", isolation_level=None, cached_statements=256)
        # A power failure may lose the last transactions, which is acceptable for a development server.
        self._connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;" + SCHEMA)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit the whole block, or roll it back after an error."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def execute(self, statement: str, *values: Value) -> None:
        self._connection.execute(statement, values)

    def all(self, kind: type[Record], statement: str, *values: Value, **named: Value) -> list[Record]:
        """Return the rows as records; the columns must be those of the record's table.

        Pass `values` for placeholders `?`, or `named` for placeholders `:name`, which may occur more than once.
        """
        # Not `?1`: Python 3.12.0 and 3.12.1 treat that as a name and warn about a sequence.
        return [kind(*row) for row in self._connection.execute(statement, named or values).fetchall()]

    def one(self, kind: type[Record], statement: str, *values: Value, **named: Value) -> Record | None:
        """Return the first row; None without a row."""
        # Fetch all rows: SQLite runs a statement with RETURNING only as far as it is read.
        rows = self.all(kind, statement, *values, **named)
        return rows[0] if rows else None

    def value(self, statement: str, *values: Value) -> Value:
        """Return the first column of the first row; None without a row."""
        row = self._connection.execute(statement, values).fetchone()
        return None if row is None else row[0]

    def close(self) -> None:
        self._connection.close()
