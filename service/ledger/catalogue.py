"""What lies in the object store of a spool (`service.sharing`): the list of it, so that nobody has to ask the store."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Row, delete, insert, or_, select, update
from sqlalchemy.exc import DBAPIError

from service.errors import LedgerUnavailable
from service.ledger.database import Database, open_database
from service.ledger.migrate import upgrade
from service.ledger.schema import leavings, objects
from service.ledger.sql import begins, now, upsert
from service.settings import LedgerSettings

_DAMAGED = "damaged "


@dataclass(frozen=True)
class Entry:
    """A row of ``objects``: one file of the spool, as it lies in the store.

    Attributes
    ----------
    name
        Its path in the spool, with slashes.
    token
        Tells contents that were put under one name at different times from each other; no two have the same.
    digest
        SHA-256 of the content, in hexadecimal digits; ``damaged`` before it where the store did not have that any more.
    length
        In bytes.
    modified_ns
        When the file was written, in nanoseconds since the epoch; copies of it get the same time.
    """

    name: str
    token: str
    digest: str
    length: int
    modified_ns: int

    @property
    def sound(self) -> bool:
        """Whether nobody has found that the store does not have it any more."""
        return not self.digest.startswith(_DAMAGED)

    @property
    def sha256(self) -> str:
        """What the content is to have, or to have had."""
        return self.digest.removeprefix(_DAMAGED)

    @property
    def key(self) -> str:
        """Where it lies in the store."""
        return f"{self.name}.{self.token}"


class Catalogue:
    """The list, in the ledger's database. Every method raises `sqlalchemy.exc.DBAPIError` while that is away."""

    def __init__(self, database: Database) -> None:
        self._database = database
        upgrade(database)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def listed(self, *beginnings: str) -> dict[str, Entry]:
        """What is there under the names that begin so, by name and in their order."""
        mine = or_(*(begins(objects.c.name, each) for each in beginnings))
        with self._database.reading() as connection:
            rows = connection.execute(select(objects).where(mine).order_by(objects.c.name))
            return {row.name: _entry(row) for row in rows}

    def exchange(self, before: Iterable[Entry], after: Iterable[Entry]) -> bool:
        """Put entries in the place of others, all or nothing.

        Returns
        -------
        bool
            False where nothing was done: of the earlier ones not all are there any more, or under the name of a new
            one there is another. Somebody else has been faster then.
        """
        try:
            with self._database.writing() as connection:
                for entry in before:
                    mine = delete(objects).where(objects.c.name == entry.name, objects.c.token == entry.token)
                    _require(connection.execute(mine).rowcount == 1)
                    connection.execute(insert(leavings).values(key=entry.key))
                fresh = upsert(connection.dialect.name, objects).values(kept_at=now()).on_conflict_do_nothing()
                for entry in after:
                    _require(connection.execute(fresh.returning(objects.c.name), vars(entry)).first() is not None)
        except _Faster:
            return False
        return True

    def damaged(self, entry: Entry) -> None:
        """The store does not have what was put there: whoever has the content may put it again."""
        if entry.sound:
            mine = update(objects).where(objects.c.name == entry.name, objects.c.token == entry.token)
            with self._database.writing() as connection:
                connection.execute(mine.values(digest=f"{_DAMAGED}{entry.digest}"))

    def forget(self, beginnings: Sequence[str], older_than: float = 0.0) -> None:
        """Take what is there under these names off the list; it is to be removed from the store.

        Parameters
        ----------
        older_than
            Seconds: what was put there later stays.
        """
        mine = or_(*(begins(objects.c.name, each) for each in beginnings))
        old = objects.c.kept_at <= now() - older_than
        with self._database.writing() as connection:
            gone = connection.execute(delete(objects).where(mine, old).returning(*objects.c)).all()
            if gone:
                connection.execute(insert(leavings), [{"key": _entry(row).key} for row in gone])

    def leavings(self, most: int) -> list[str]:
        """Keys of what is to be removed from the store."""
        with self._database.reading() as connection:
            return list(connection.execute(select(leavings.c.key).limit(most)).scalars())

    def removed(self, keys: Sequence[str]) -> None:
        """These are no longer in the store."""
        with self._database.writing() as connection:
            connection.execute(delete(leavings).where(leavings.c.key.in_(keys)))


class _Faster(Exception):
    """Somebody else was."""


def _require(done: bool) -> None:
    if not done:
        raise _Faster


def _entry(row: Row[tuple[object, ...]]) -> Entry:
    return Entry(row.name, row.token, row.digest, row.length, row.modified_ns)


def open_catalogue(settings: LedgerSettings) -> Catalogue:
    """The catalogue in the ledger that several nodes share.

    Raises
    ------
    ConfigurationError
        The URL is of no database that the ledger can be kept in, or the ledger is of a later version.
    LedgerUnavailable
        The database cannot be reached.
    """
    try:
        return Catalogue(open_database(settings.url.get_secret_value()))
    except DBAPIError as error:
        raise LedgerUnavailable(f"ledger.url: the ledger cannot be opened: {str(error.orig).strip()}") from None
