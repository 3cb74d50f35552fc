"""The branches of the error tree that know DICOM and the network.

::

    PermanentError
    ├── Quarantined           an instance, a series or a result cannot be used; the reason is for an operator
    ├── Rejected              a peer refuses an object for good
    └── ConfigurationError    a setting is wrong: key, value and fix in the message
    TransientError
    ├── ArchiveUnavailable    an archive cannot be reached or is out of resources
    ├── LedgerUnavailable     the ledger's database cannot be reached
    ├── Postponed             it is not time yet: the work waits until then
    └── OutOfResources        this machine has no room (disk, memory) for it now
        └── StoreUnavailable  the object store of the spool cannot be reached, or has lost something
"""

import traceback
from pathlib import Path

from engines.errors import PermanentError, TransientError, WetreadError

__all__ = [
    "ArchiveUnavailable",
    "ConfigurationError",
    "LedgerUnavailable",
    "OutOfResources",
    "PermanentError",
    "Postponed",
    "Quarantined",
    "Rejected",
    "StoreUnavailable",
    "TransientError",
    "WetreadError",
    "told_by_place",
]


class Quarantined(PermanentError):
    """An instance, a series or a result cannot be used; the message says why and what to do."""


class Rejected(PermanentError):
    """A peer refuses an object, and would refuse it again."""


class ConfigurationError(PermanentError):
    """A setting is wrong; the message names the key, the value and the fix."""


class ArchiveUnavailable(TransientError):
    """An archive cannot be reached, or says that it is out of resources."""


class LedgerUnavailable(TransientError):
    """The ledger's database cannot be reached, or has no room."""


class Postponed(TransientError):
    """It is not time yet: the job goes back to the ledger until then, and that counts as no failure.

    Attributes
    ----------
    until
        Seconds since the epoch.
    """

    def __init__(self, words: str, until: float) -> None:
        super().__init__(words)
        self.until = until


class OutOfResources(TransientError):
    """This machine has no room for it now."""


class StoreUnavailable(OutOfResources):
    """The object store of the spool cannot be reached, refuses, or no longer has what was put there."""


def told_by_place(error: Exception) -> str:
    """What kind of error it is, and where it was raised: its own message may hold values of a patient's header."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}"
