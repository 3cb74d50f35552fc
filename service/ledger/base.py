"""What all sides of the ledger stand on: the database, and who asks it."""

import os
import socket
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

from service.ledger.bell import Bell
from service.ledger.database import open_database
from service.ledger.migrate import upgrade


def running_seconds() -> float:
    """A clock that no one sets, and that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class LedgerBase:
    """The record, in SQLite or PostgreSQL; what a method has written survives a power cut.

    Every method raises `sqlalchemy.exc.DBAPIError` while the database is away or full; it works again afterwards.

    Parameters
    ----------
    url
        Of the database: ``sqlite:///PATH`` or ``postgresql://USER@HOST/NAME``.
    lease_seconds
        How long a claim holds without a heartbeat.
    name
        Of this node among those that share the ledger; one that starts again under its name has its work back at once.
        Default: of this process.
    urgent
        Senders (calling AE titles) whose series come before all others.
    """

    def __init__(self, url: str, lease_seconds: float = 120.0, name: str = "", urgent: Collection[str] = ()) -> None:
        self._database = open_database(url)
        self._name = name or f"{socket.gethostname()}:{os.getpid()}"
        self._among_others = self._name if self._database.shared else None
        self._lease_seconds = lease_seconds
        self._urgent = frozenset(urgent)
        self._bell = Bell()
        self._heard = threading.local()
        self._look_at = 0.0
        self._receiving_until = running_seconds() + lease_seconds
        self._clock_ahead = time.time() - time.monotonic()
        upgrade(self._database)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    @contextmanager
    def _making_ready(self) -> Iterator[Connection]:
        """A transaction after which there may be work."""
        with self._database.writing() as connection:
            yield connection
        self._bell.ring()
        self._database.notify()
