"""Claim, finish, retry, bury: every series is one row per stage, always somewhere.

A stage is finished and the next ones are created in one transaction. A worker holds a job by a lease and a fencing
token: when its lease has ended and somebody else has claimed the job, its finish is refused. Each stage may run twice;
what it writes is the same each time.
"""

from collections.abc import Collection
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from service.errors import LedgerUnavailable
from service.ledger.delivery import Delivery
from service.ledger.operation import Operation
from service.ledger.reception import Reception
from service.ledger.work import Work
from service.settings import LedgerSettings


class Ledger(Reception, Work, Delivery, Operation):
    """The record, in SQLite or PostgreSQL; each of its sides is a module of its own. See `LedgerBase`."""


def ledger_path(spool: Path) -> Path:
    """Where the ledger of a spool folder lies, unless the settings name another one."""
    return spool / "ledger.sqlite"


def open_ledger(spool: Path, settings: LedgerSettings | None = None, urgent: Collection[str] = ()) -> Ledger:
    """Open the ledger of a node; it is made when it is not there, and brought to this version.

    Parameters
    ----------
    spool
        The spool folder.
    urgent
        Senders (calling AE titles) whose series come before all others.

    Raises
    ------
    ConfigurationError
        The URL is of no database that the ledger can be kept in, or the ledger is of a later version.
    LedgerUnavailable
        The database cannot be reached.
    """
    settings = settings or LedgerSettings()
    url = settings.url.get_secret_value() or f"sqlite:///{ledger_path(spool)}"
    try:
        return Ledger(url, settings.lease_seconds, settings.node, urgent)
    except DBAPIError as error:
        where = "ledger.url" if settings.url.get_secret_value() else str(ledger_path(spool))
        raise LedgerUnavailable(f"{where}: the ledger cannot be opened: {str(error.orig).strip()}") from None
