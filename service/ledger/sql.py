"""What the two databases say in different words: the time, inserting what may be there, a beginning of a key."""

from typing import Any

from sqlalchemy import ColumnElement, Float, Table, and_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class now(FunctionElement[float]):  # noqa: N801, as SQLAlchemy's own functions
    """Seconds since the epoch by the database's clock: one clock for all nodes, whatever theirs say."""

    type = Float()
    inherit_cache = True


@compiles(now, "sqlite")
def _now_sqlite(_element: now, _compiler: SQLCompiler, **_: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _now_postgresql(_element: now, _compiler: SQLCompiler, **_: Any) -> str:
    # of the statement, not of the transaction, which may have waited; and, unlike clock_timestamp(), an index can be
    # searched by it
    return "CAST(EXTRACT(epoch FROM statement_timestamp()) AS double precision)"


def upsert(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that can say what is done ``ON CONFLICT``."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)


def begins(column: ColumnElement[str], beginning: str) -> ColumnElement[bool]:
    """Whether a key (hexadecimal digits, or a word) begins so; unlike LIKE, an index answers that."""
    return and_(column >= beginning, column < beginning + "~")
