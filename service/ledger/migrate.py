"""Brings a ledger of any earlier version to this one, when it is opened."""

from pathlib import Path

import structlog
from sqlalchemy import Connection, column, inspect, select, table

from service.errors import ConfigurationError
from service.ledger.database import Database
from service.ledger.schema import REVISION, metadata

log = structlog.get_logger()

MIGRATIONS = Path(__file__).with_name("migrations")
_VERSION = table("alembic_version", column("version_num"))


def revision_of(connection: Connection) -> str | None:
    """Which migration a ledger was brought to; empty for one from before the first, None for an empty database."""
    tables = inspect(connection).get_table_names()
    if "alembic_version" in tables:
        return connection.execute(select(_VERSION.c.version_num)).scalar() or ""
    return "" if "series" in tables else None


def upgrade(database: Database) -> None:
    """Make the ledger's tables, or bring them to this version, all or nothing. What is in them stays.

    Raises
    ------
    ConfigurationError
        The ledger is of a later version.
    """
    with database.reading() as connection:
        if revision_of(connection) == REVISION:
            return
    with database.migrating() as connection:
        revision = revision_of(connection)
        if revision == REVISION:  # somebody else has done it meanwhile
            return
        if revision is None:
            metadata.create_all(connection)
        _run_steps(connection, stamp=revision is None)
    if revision is not None:
        log.info("ledger.migrated", before=revision or "none", now=REVISION)


def _run_steps(connection: Connection, stamp: bool) -> None:
    from alembic import command  # loading it takes longer than the rest
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    try:
        (command.stamp if stamp else command.upgrade)(config, "head")
    except CommandError as error:
        raise ConfigurationError(
            f"the ledger was written by a later version of Wetread ({error}); install that one, or restore a backup"
        ) from None
