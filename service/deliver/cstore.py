"""C-STORE to one archive, over associations that stay open while there is work for it."""

import threading
import time
from collections.abc import Callable, Collection, Generator, Iterator, Sequence

from service.deliver.association import Association, Sendable
from service.deliver.base import Pacing
from service.deliver.scu import MOST_PROPOSED, Answer, first_storages, not_accepted, store
from service.errors import ArchiveUnavailable
from service.results.storage import Storage, all_storages
from service.types import Destination
from service.wire.requestor import Patience

IDLE_SECONDS = 5.0
"""So long an association stays open after the last object."""

Learn = Callable[[frozenset[Storage], frozenset[Storage]], object]
"""Told what was proposed to an archive, and what of it was accepted."""


class CStore:
    """Sends by C-STORE (`service.deliver.base.Way`).

    Everything that a result can be stored as is proposed, so that one association serves all of them, and what the
    archive does not take is known before anything is sent.
    """

    def __init__(self, to: Destination, calling_ae_title: str, patience: Patience, learn: Learn) -> None:
        self._to = to
        self._calling = calling_ae_title
        self._patience = patience
        self._learn = learn
        self._kept = KeptAssociations()

    def send(self, files: Sequence[Sendable], pacing: Pacing) -> Generator[Answer]:
        """As `Way.send`."""
        waiting = list(files)
        while waiting:
            storages, count = first_storages(waiting)
            for answer in self._batch(waiting[:count], storages, pacing):
                yield answer
                if answer.unsupported:
                    waiting = []
            waiting = waiting[count:]

    def close(self) -> None:
        """Release what is open."""
        self._kept.close()

    def _batch(self, files: Sequence[Sendable], storages: Sequence[Storage], pacing: Pacing) -> Iterator[Answer]:
        kept = self._kept.take(storages)
        opened = kept or self._open(storages)
        try:
            if lacking := [file for file in files if file.storage not in opened.accepted]:
                yield from (not_accepted(self._to, file) for file in lacking)
                return
            for number, file in enumerate(files):
                pacing(file.path.stat().st_size)
                try:
                    answer = store(opened, self._to, file)
                except ArchiveUnavailable:
                    if number or opened is not kept or opened.usable:
                        raise
                    opened = self._open(storages)  # it has ended while it was not used
                    answer = store(opened, self._to, file)
                yield answer
                if answer.unsupported:
                    return
        finally:
            self._kept.keep(opened)

    def _open(self, storages: Sequence[Storage]) -> Association:
        proposed = list(dict.fromkeys([*storages, *all_storages()]))[:MOST_PROPOSED]
        opened = Association(self._to, self._calling, proposed, self._patience)
        self._learn(opened.proposed, opened.accepted)
        return opened


class KeptAssociations:
    """Associations with one archive that nobody uses just now; each is released after a while."""

    def __init__(self, idle_seconds: float = IDLE_SECONDS) -> None:
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._kept: list[tuple[float, Association]] = []  # the time from which on it is released, the latest last
        self._timer: threading.Timer | None = None
        self._closed = False

    def take(self, storages: Collection[Storage]) -> Association | None:
        """One that is still open, and for which all of these were proposed; None where there is none."""
        while True:
            with self._lock:
                if not self._kept:
                    return None
                _, association = self._kept.pop()
            if association.usable and association.proposed.issuperset(storages):
                return association
            association.release()

    def keep(self, association: Association) -> None:
        """Keep one for a while, if it is still open."""
        if not association.usable:
            association.release()
            return
        with self._lock:
            closed = self._closed
            if not closed:
                self._kept.append((time.monotonic() + self._idle_seconds, association))
                self._wake_later()
        if closed:
            association.release()

    def close(self) -> None:
        """Release all, and keep none any more."""
        with self._lock:
            self._closed = True
            kept, self._kept = self._kept, []
            if self._timer is not None:
                self._timer.cancel()
        for _, association in kept:
            association.release()

    def _wake_later(self) -> None:
        if self._timer is None and self._kept and not self._closed:
            wait = max(0.0, self._kept[0][0] - time.monotonic())
            self._timer = threading.Timer(wait, self._release_idle)
            self._timer.daemon = True
            self._timer.start()

    def _release_idle(self) -> None:
        with self._lock:
            now = time.monotonic()
            idle = [association for until, association in self._kept if until <= now]
            self._kept = [one for one in self._kept if one[0] > now]
            self._timer = None
            self._wake_later()
        for association in idle:
            association.release()
