"""The SQLite connection: schema, settings, transactions.  Knows the tables, not what their rows mean."""

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
    """One connection, used by one thread; `path` None keeps everything in memory."""

    def __init__(self, path: str | Path | None = None) -> None:
        # Transactions are ours to begin (isolation_level None): the module would open them behind our back.
        self._connection = sqlite3.connect(path or ":memory:", isolation_level=None, cached_statements=256)
        # A power cut may cost a development server its last transactions, and nothing else.
        self._connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;" + SCHEMA)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the block or nothing of it."""
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
        # Not `?1`: Python 3.12.0 and 3.12.1 take that for a name and warn that a sequence was passed.
        return [kind(*row) for row in self._connection.execute(statement, named or values).fetchall()]

    def one(self, kind: type[Record], statement: str, *values: Value, **named: Value) -> Record | None:
        """The first row, if any."""
        # All rows are fetched: a statement with RETURNING is carried out only as far as it is read.
        rows = self.all(kind, statement, *values, **named)
        return rows[0] if rows else None

    def value(self, statement: str, *values: Value) -> Value:
        """The first column of the first row; None without a row."""
        row = self._connection.execute(statement, values).fetchone()
        return None if row is None else row[0]

    def close(self) -> None:
        self._connection.close()
