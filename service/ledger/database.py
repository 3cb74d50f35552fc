"""The seam to the database: SQLite for one machine, PostgreSQL for several."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, make_url
from sqlalchemy.exc import ArgumentError

from service.errors import ConfigurationError


class Database(Protocol):
    """What the ledger needs of a database, beside SQL that both understand.

    Every method raises `sqlalchemy.exc.DBAPIError` while the database is away, and works again when it is back.
    """

    @property
    def shared(self) -> bool:
        """Whether nodes on other machines may be at work on it."""
        ...

    def reading(self) -> AbstractContextManager[Connection]:
        """What is read within sees one state of the ledger, and holds up nobody."""
        ...

    def writing(self) -> AbstractContextManager[Connection]:
        """All that is written within happens, and survives a power cut, or nothing of it."""
        ...

    def single(self) -> AbstractContextManager[Connection]:
        """For one statement that writes. Whether that survives the death of everybody who works does not matter."""
        ...

    def migrating(self) -> AbstractContextManager[Connection]:
        """As `writing`, and nobody else migrates meanwhile."""
        ...

    def notify(self) -> None:
        """Tell the other nodes that there may be work. Where that fails they find it when they look again."""
        ...

    def listen(self, ring: Callable[[], None]) -> None:
        """From now on ``ring`` when another node has told that there may be work."""
        ...

    def check(self) -> list[str]:
        """Look the whole database over; what is wrong with it, empty for nothing."""
        ...

    def backup(self, target: Path) -> None:
        """Copy what is written now to a new file, while nodes work on.

        Raises
        ------
        ConfigurationError
            The database is not backed up this way.
        """
        ...

    def close(self) -> None:
        """Let go of all connections."""
        ...


def open_database(url: str) -> Database:
    """The database at a URL: ``sqlite:///PATH`` or ``postgresql://USER@HOST/NAME``.

    Raises
    ------
    ConfigurationError
        The URL is of neither.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigurationError(
            "ledger.url is no URL of a database; for example postgresql://wetread@db.example/wetread"
        ) from None
    if parsed.get_backend_name() == "sqlite":
        from service.ledger.sqlite import SQLite

        return SQLite(parsed)
    if parsed.get_backend_name() == "postgresql":
        from service.ledger.postgresql import PostgreSQL

        return PostgreSQL(parsed)
    raise ConfigurationError(
        f"ledger.url is for {parsed.get_backend_name()}; the ledger is kept in sqlite or postgresql"
    )
