"""The ledger, read by plain SQL."""

import sqlite3
from contextlib import closing
from typing import Any

import psycopg
from psycopg.rows import dict_row


def rows(ledger: str, query: str) -> list[dict[str, Any]]:
    """The rows of a query.

    Parameters
    ----------
    ledger
        Path of an SQLite file, or URL of a PostgreSQL database.
    query
        Without parameters.

    Raises
    ------
    sqlite3.Error, psycopg.Error
        It cannot be read.
    """
    if ledger.startswith("postgresql://"):
        with psycopg.connect(ledger, row_factory=dict_row, connect_timeout=5) as connection:
            return connection.execute(query.encode()).fetchall()
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True, timeout=30)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(query)]
