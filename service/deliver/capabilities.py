"""What each archive takes: found out by asking it in a negotiation, so that it is not sent what it cannot file."""

import json
import threading
import time
from collections.abc import Collection
from pathlib import Path

import structlog

from service.deliver.association import Association
from service.durable import replace_file
from service.errors import ArchiveUnavailable, Rejected
from service.results.profile import ResultProfile
from service.results.storage import Storage, all_storages, fallback
from service.types import Destination

log = structlog.get_logger()

FRESH_SECONDS = 900.0
"""So long an answer counts: archives learn and forget SOP classes when somebody configures them."""
AWAY_SECONDS = 10.0
"""So long one that did not answer is left alone: a result that waits for a time-out holds up those behind it."""
FILE = "archives.json"


def accepted(to: Destination, calling_ae_title: str, wanted: Collection[Storage]) -> frozenset[Storage]:
    """Which SOP classes, each in a transfer syntax, a peer takes. Nothing is sent.

    Raises
    ------
    ArchiveUnavailable, Rejected
        As `service.deliver.association.Association`.
    """
    with Association(to, calling_ae_title, list(wanted)) as opened:
        return opened.accepted


class Capabilities:
    """The archives of a node, and what they were last known to take.

    Parameters
    ----------
    folder
        Where the answers are kept over restarts, so that an encoding that is repeated while an archive is away gives
        the same objects.
    """

    def __init__(self, calling_ae_title: str, folder: Path) -> None:
        self._calling_ae_title = calling_ae_title
        self._file = folder / FILE
        self._lock = threading.Lock()
        self._ask_again_at: dict[str, float] = {}
        self._takes = self._read()

    def fit(self, profile: ResultProfile, archive: Destination) -> tuple[ResultProfile, tuple[str, ...]]:
        """A profile as far as an archive takes it, and what was changed for that.

        An archive that cannot be asked and never could is taken to take everything.
        """
        with self._lock:
            takes = self._ask(archive)
        return (profile, ()) if takes is None else fallback(profile, takes.__contains__)

    def _ask(self, archive: Destination) -> frozenset[Storage] | None:
        key = f"{archive.ae_title} {archive.host} {archive.port}"
        if time.monotonic() < self._ask_again_at.get(key, 0.0):
            return self._takes.get(key)
        try:
            takes = accepted(archive, self._calling_ae_title, all_storages())
        except (ArchiveUnavailable, Rejected) as error:
            log.warning("archive.not_asked", archive=archive.name, reason=str(error))
            self._ask_again_at[key] = time.monotonic() + AWAY_SECONDS
            return self._takes.get(key)
        self._ask_again_at[key] = time.monotonic() + FRESH_SECONDS
        if takes != self._takes.get(key):
            self._takes[key] = takes
            content = {name: sorted(each) for name, each in self._takes.items()}
            replace_file(self._file, lambda file: file.write(json.dumps(content).encode()))
        return takes

    def _read(self) -> dict[str, frozenset[Storage]]:
        try:
            content = json.loads(self._file.read_text())
            return {name: frozenset((cls, syntax) for cls, syntax in each) for name, each in content.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, AttributeError, TypeError) as error:  # not ours, or half a file: it will be asked again
            log.warning("archives.unreadable", file=FILE, reason=type(error).__name__)
            return {}
