"""The ledger of several machines: PostgreSQL, by psycopg 3."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import structlog
from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, DisconnectionError

from service.errors import ConfigurationError

log = structlog.get_logger()

CHANNEL = "wetread_ledger"
"""What nodes listen on."""

STALE_SECONDS = 1.0
"""A connection that has not been used for so long is tried first."""

PAUSE_SECONDS = 0.01
"""Between two notifications: what is told meanwhile goes together."""

_MIGRATION = 0x77657472656164  # "wetread": the number of an advisory lock
_CONNECT: dict[str, Any] = {
    "application_name": "wetread",
    "connect_timeout": 10,
    # so that a server whose machine has died is noticed
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "options": "-c lock_timeout=30s -c idle_in_transaction_session_timeout=60s",
}


class PostgreSQL:
    """A server. A connection that was lost is noticed before it is used again, so that a server's restart costs only
    what was under way.

    Parameters
    ----------
    url
        ``postgresql://USER@HOST/NAME``; what is not in it, libpq takes from PGPASSFILE and the like.
    """

    shared = True

    def __init__(self, url: URL) -> None:
        url = url.set(drivername="postgresql+psycopg")
        self._engine = _pool(url, _CONNECT)
        quick = {**_CONNECT, "options": f"{_CONNECT['options']} -c synchronous_commit=off"}
        self._single = _pool(url, quick).execution_options(isolation_level="AUTOCOMMIT")
        self._closing = threading.Event()
        self._listener: threading.Thread | None = None
        self._news = threading.Event()
        self._crier: threading.Thread | None = None
        self._mark = uuid4().hex  # of what this end tells, which it need not hear

    def reading(self) -> AbstractContextManager[Connection]:
        """See `Database.reading`."""
        return self._single.begin()

    def writing(self) -> AbstractContextManager[Connection]:
        """See `Database.writing`."""
        return self._engine.begin()

    def single(self) -> AbstractContextManager[Connection]:
        """See `Database.single`. Nobody waits for the disk: where the server dies, a claim may be lost and made again
        under the same token; then too only one of the two can finish.
        """
        return self._single.begin()

    @contextmanager
    def migrating(self) -> Iterator[Connection]:
        """See `Database.migrating`."""
        with self._engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _MIGRATION})
            yield connection

    def notify(self) -> None:
        """See `Database.notify`. As a part of what was written it would have all others wait for the disk; and whoever
        has written goes on with the next.
        """
        self._news.set()
        if self._crier is None:
            self._crier = threading.Thread(target=self._cry, name="ledger-crier", daemon=True)
            self._crier.start()

    def _cry(self) -> None:
        last = False
        while not last:
            self._news.wait()
            last = self._closing.is_set()
            self._news.clear()
            # of either library; who is not told looks again, but a thread that ended would tell nobody any more
            with suppress(Exception), self._single.begin() as connection:
                connection.exec_driver_sql(f"NOTIFY {CHANNEL}, '{self._mark}'")
            self._closing.wait(PAUSE_SECONDS)

    def listen(self, ring: Callable[[], None]) -> None:
        """See `Database.listen`."""
        if self._listener is None:
            self._listener = threading.Thread(target=self._listen, args=(ring,), name="ledger-listener", daemon=True)
            self._listener.start()

    def _listen(self, ring: Callable[[], None]) -> None:
        while not self._closing.is_set():
            try:
                self._hear(ring)
            except Exception as error:  # of either library; a listener that ends would slow everything down unnoticed
                log.warning("ledger.unheard", reason=type(error).__name__)
                self._closing.wait(1.0)

    def _hear(self, ring: Callable[[], None]) -> None:
        taken = self._engine.raw_connection()
        driver = cast(Any, taken.driver_connection)
        taken.detach()  # it is not the pool's any more
        with closing(driver):
            driver.autocommit = True
            driver.execute(f"LISTEN {CHANNEL}")
            ring()  # for what was told before
            while not self._closing.is_set():
                for told in driver.notifies(timeout=0.5, stop_after=1):
                    if told.payload != self._mark:
                        ring()

    def check(self) -> list[str]:
        """See `Database.check`. The server checks its own pages; this reads every row of every table."""
        with self.reading() as connection:
            tables = connection.execute(
                text("SELECT tablename FROM pg_tables WHERE schemaname = current_schema() ORDER BY tablename")
            ).scalars()
            wrong = []
            for table in tables.all():
                try:
                    # the text of every row, so that what is stored out of line is read, too
                    connection.exec_driver_sql(f'SELECT sum(length(t::text)) FROM "{table}" t')
                except DBAPIError as error:
                    wrong.append(f"{table}: {error.orig}")
            return wrong

    def backup(self, target: Path) -> None:
        """See `Database.backup`. A server's backup is its administrator's."""
        raise ConfigurationError(
            "the ledger is in PostgreSQL, which has its own backups: pg_dump for one state, WAL archiving for every one"
        )

    def close(self) -> None:
        """See `Database.close`."""
        self._closing.set()
        if self._listener is not None:
            self._listener.join()
        if self._crier is not None:
            self._news.set()
            self._crier.join()
        self._engine.dispose()
        self._single.dispose()


def _pool(url: URL, connect: dict[str, Any]) -> Engine:
    """Connections, as many as threads ask for: one that found none would fail in another way than the database.

    So would one whose replacement is found dead, too: what is new is used, whatever comes of it.
    """
    engine = create_engine(url, pool_size=8, max_overflow=-1, connect_args=connect)

    def note_use(_connection: Any, record: Any) -> None:
        record.info["used"] = time.monotonic()

    def try_it(connection: Any, record: Any, _proxy: Any) -> None:
        if time.monotonic() - record.info["used"] > STALE_SECONDS:
            try:
                engine.dialect.do_ping(connection)
            except engine.dialect.loaded_dbapi.Error as error:
                raise DisconnectionError(str(error)) from None  # another connection takes its place

    event.listen(engine, "connect", note_use)
    event.listen(engine, "checkin", note_use)
    event.listen(engine, "checkout", try_it)
    return engine
