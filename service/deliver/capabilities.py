"""What each archive takes, found out in negotiations and when it is sent something: it gets what it can file."""

import json
import threading
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import structlog
from pydicom.uid import UID

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
REFUSED_SECONDS = 86400.0
"""So long it is not sent what it accepted in a negotiation and then refused."""
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


@dataclass(frozen=True)
class Known:
    """What is known of an archive.

    Attributes
    ----------
    takes
        What it accepts in a negotiation; None where it was never asked.
    refused
        What it accepts there, and has refused when it was sent; with the time of that, in seconds since the epoch.
    """

    takes: frozenset[Storage] | None = None
    refused: Mapping[Storage, float] = field(default_factory=dict)

    def takes_now(self, storage: Storage) -> bool:
        """Whether it is to be sent something of this kind; True where nothing is known of it."""
        forgotten = time.time() - REFUSED_SECONDS
        return (self.takes is None or storage in self.takes) and self.refused.get(storage, 0.0) <= forgotten


class Exchange(Protocol):
    """How nodes that share no folder have the same file (`service.spool.Spool`)."""

    def fetch_file(self, path: Path) -> None:
        """Have a file as whoever published it has left it."""

    def publish_files(self, *files: Path) -> None:
        """Have others find files."""


class Capabilities:
    """The archives of a node, and what they were last known to take. What another process finds out counts, too.

    Parameters
    ----------
    folder
        Where the answers are kept over restarts, so that an encoding that is repeated while an archive is away gives
        the same objects.
    exchange
        With nodes that have another folder; None where all see this one.
    """

    def __init__(self, calling_ae_title: str, folder: Path, exchange: Exchange | None = None) -> None:
        self._calling_ae_title = calling_ae_title
        self._file = folder / FILE
        self._exchange = exchange
        self._lock = threading.Lock()
        self._ask_again_at: dict[str, float] = {}
        self._version = (0, 0)
        self._known: dict[str, Known] = {}
        self._look()

    def fit(self, profile: ResultProfile, archive: Destination) -> tuple[ResultProfile, tuple[str, ...]]:
        """A profile as far as an archive takes it, and what was changed for that.

        An archive that cannot be asked and never could is taken to take everything, but for what it has refused.
        """
        with self._lock:
            self._look()
            if archive.web is None:  # DICOMweb has no negotiation
                self._ask(archive)
            known = self._known.get(_key(archive), Known())
        return fallback(profile, known.takes_now)

    def learn(self, archive: Destination, proposed: Collection[Storage], taken: Collection[Storage]) -> None:
        """Remember what an archive has accepted of what was proposed to it, in an association for other ends."""
        ours = frozenset(all_storages())
        if ours <= frozenset(proposed):
            with self._lock:
                self._ask_again_at[_key(archive)] = time.monotonic() + FRESH_SECONDS
                self._set(archive, replace(self._of(archive), takes=frozenset(taken) & ours))

    def refused(self, archive: Destination, storage: Storage, reason: str) -> None:
        """Remember that an archive takes nothing of this kind, as it has said when it was sent it."""
        with self._lock:
            self._look()
            known = self._of(archive)
            if known.takes_now(storage):
                self._set(archive, replace(known, refused={**known.refused, storage: time.time()}))
        fix = f"it gets another form; correct [archives.{archive.name}.results], or have it take this"
        log.warning("archive.refuses", archive=archive.name, kind=UID(storage[0]).name, reason=reason, fix=fix)

    def refusals(self, archive: Destination) -> tuple[str, ...]:
        """What an archive has refused when it was sent it and is not sent any more, in words."""
        with self._lock:
            self._look()
            known = self._of(archive)
        kinds = sorted(storage for storage in known.refused if not replace(known, takes=None).takes_now(storage))
        return tuple(f"{UID(sop_class).name} in {UID(syntax).name}" for sop_class, syntax in kinds)

    def _of(self, archive: Destination) -> Known:
        return self._known.get(_key(archive), Known())

    def _set(self, archive: Destination, known: Known) -> None:
        if known != self._of(archive):
            self._look()  # what others have found out since, of other archives
            self._known[_key(archive)] = known
            content = {key: _written(one) for key, one in self._known.items()}
            replace_file(self._file, lambda file: file.write(json.dumps(content).encode()))
            self._version = _version(self._file)
            if self._exchange is not None:
                self._exchange.publish_files(self._file)

    def _ask(self, archive: Destination) -> None:
        key = _key(archive)
        if time.monotonic() < self._ask_again_at.get(key, 0.0):
            return
        try:
            takes = accepted(archive, self._calling_ae_title, all_storages())
        except (ArchiveUnavailable, Rejected) as error:
            log.warning("archive.not_asked", archive=archive.name, reason=str(error))
            self._ask_again_at[key] = time.monotonic() + AWAY_SECONDS
            return
        self._ask_again_at[key] = time.monotonic() + FRESH_SECONDS
        self._set(archive, replace(self._of(archive), takes=takes))

    def _look(self) -> None:
        """Take over what other processes have written."""
        if self._exchange is not None:
            self._exchange.fetch_file(self._file)
        with suppress(FileNotFoundError, NotADirectoryError):  # there is none, or no spool yet
            if (version := _version(self._file)) != self._version:
                self._known, self._version = self._read(), version

    def _read(self) -> dict[str, Known]:
        try:
            return {key: _known(one) for key, one in json.loads(self._file.read_text()).items()}
        except OSError:  # there is none, or no spool yet
            return {}
        except (ValueError, AttributeError, TypeError, KeyError) as error:
            # not ours, of an older release, or half a file: it will be asked again
            log.warning("archives.unreadable", file=FILE, reason=type(error).__name__)
            return {}


def _version(file: Path) -> tuple[int, int]:
    """Another one for each that takes its place: times alone are too coarse. Raises `OSError`."""
    found = file.stat()
    return found.st_mtime_ns, found.st_ino


def _key(archive: Destination) -> str:
    return f"{archive.ae_title} {archive.host} {archive.port}" if archive.web is None else archive.web.url


def _written(known: Known) -> dict[str, object]:
    takes = None if known.takes is None else sorted(known.takes)
    return {"takes": takes, "refused": [[*storage, at] for storage, at in sorted(known.refused.items())]}


def _known(written: dict[str, Any]) -> Known:
    takes = written["takes"]
    return Known(
        None if takes is None else frozenset((sop_class, syntax) for sop_class, syntax in takes),
        {(sop_class, syntax): float(at) for sop_class, syntax, at in written["refused"]},
    )
