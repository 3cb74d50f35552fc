"""The ledger of one machine, in a file: SQLite with a write-ahead log, synced at every commit."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.exc import DatabaseError

from service.errors import ConfigurationError

SECONDS_TO_WAIT = 30
"""For another process to end its transaction."""


class SQLite:
    """A file. Its threads write one after the other: SQLite's own waiting sleeps ever longer, and is not fair.

    Parameters
    ----------
    url
        ``sqlite:///PATH``.
    """

    shared = False

    def __init__(self, url: URL) -> None:
        self._path = url.database or ""
        self._engine = create_engine(url, connect_args={"timeout": SECONDS_TO_WAIT})
        self._reader = self._engine.execution_options(begin="BEGIN")
        self._quick = self._engine.execution_options(synchronous="NORMAL")
        self._turn = threading.Lock()
        event.listen(self._engine, "connect", _prepare)
        event.listen(self._engine, "begin", _begin)

    def reading(self) -> AbstractContextManager[Connection]:
        """See `Database.reading`."""
        return self._reader.begin()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """See `Database.writing`."""
        with self._turn, self._engine.begin() as connection:
            yield connection

    @contextmanager
    def single(self) -> Iterator[Connection]:
        """See `Database.single`. It is not synced: only where the machine dies can it be lost."""
        with self._turn, self._quick.begin() as connection:
            yield connection

    def migrating(self) -> AbstractContextManager[Connection]:
        """See `Database.migrating`."""
        return self.writing()

    def notify(self) -> None:
        """See `Database.notify`. There are no other nodes."""

    def listen(self, ring: Callable[[], None]) -> None:
        """See `Database.listen`. Other processes are an operator's, and may wait until it is looked again."""

    def check(self) -> list[str]:
        """See `Database.check`."""
        try:
            with self.reading() as connection:
                found = [row[0] for row in connection.exec_driver_sql("PRAGMA integrity_check")]
                orphans = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        except DatabaseError as error:  # so broken that it cannot be looked at
            return [str(error.orig)]
        wrong = [line for line in found if line != "ok"]
        return wrong + [f"row {row[1]} of {row[0]} names a row of {row[2]} that is not there" for row in orphans]

    def backup(self, target: Path) -> None:
        """See `Database.backup`."""
        if target.exists():
            raise ConfigurationError(f"{target} exists and is left alone; name another file")
        path = Path(self._path).resolve()
        with (
            closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=SECONDS_TO_WAIT)) as source,
            closing(sqlite3.connect(target)) as copy,
        ):
            source.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, whole in itself

    def close(self) -> None:
        """See `Database.close`."""
        self._engine.dispose()


def _prepare(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # the driver would begin transactions on its own, and late
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")
    record.info["synchronous"] = "FULL"


def _begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    synchronous = options.get("synchronous", "FULL")
    if connection.info["synchronous"] != synchronous:
        connection.exec_driver_sql(f"PRAGMA synchronous = {synchronous}")
        connection.info["synchronous"] = synchronous
    # a transaction that reads first and writes later would fail with SQLITE_BUSY instead of waiting
    connection.exec_driver_sql(options.get("begin", "BEGIN IMMEDIATE"))
