"""The instances of all series: each stored once, durable before anybody hears of it."""

import fcntl
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

from service.durable import make_folder, new_part, sync_folder, write_all
from service.errors import OutOfResources
from service.quarantine import Quarantine
from service.received import Received
from service.record import write_over
from service.recycling import Ready
from service.room import Room
from service.syncing import Syncing
from service.versions import Duplicates, Stored, all_current, corrections, current, forget_versions, holds, place

log = structlog.get_logger()

_MOVED = (Stored.NEW, Stored.CORRECTED)


class Instances:
    """Those of a spool. See `service.spool` for its folders, and for what is meant by a key.

    Parameters
    ----------
    root
        The spool.
    quarantine
        Where contents go that do not count.
    own
        The folder whose ``incoming`` and ``ready`` are this process's alone; default: the spool.
    """

    def __init__(
        self,
        root: Path,
        duplicates: Duplicates,
        sync: Syncing,
        room: Room,
        quarantine: Quarantine,
        own: Path | None = None,
    ) -> None:
        self._root = root
        self._own = own or root
        self._series = root / "series"
        self._folders: dict[str, Path] = {}
        """Of the series that were asked for last: a path that is joined costs 3 µs."""
        self._incoming = self._own / "incoming"
        self._lock = root / "versions.lock"
        self._duplicates: Duplicates = duplicates
        self._sync = sync
        self._room = room
        self._quarantine = quarantine
        self._ready = self._ready_files(self._own, 0)  # files of the node that works on it are no business of others
        self._placing = threading.Lock()

    # ---- the one node ----------------------------------------------------------------------------------------------

    def begin(self, ready_bytes: int) -> None:
        """Put in order what an earlier run has left, and keep files ready from now on, of so many bytes in all."""
        self._ready = self._ready_files(self._own, ready_bytes)
        self._recover(self._own, self._ready)
        self._ready.start()

    def clear(self, own: Path, keep_ready: bool) -> None:
        """Put in order what a process that is no more has left in a folder of its own."""
        self._recover(own, self._ready_files(own, sys.maxsize if keep_ready else 0))
        with suppress(OSError):  # it is not empty
            for folder in (own / "ready", own / "incoming", own):
                folder.rmdir()

    def _recover(self, own: Path, ready: Ready) -> None:
        for leftover in (own / "incoming").glob("*.part"):
            leftover.unlink()
        count = 0
        for record, path in ready.recover():
            received = Received(memoryview(b""), record.length, path)
            try:
                self._place(record.series, record.instance, received, str(path), again=False)
                path.unlink(missing_ok=True)
                count += 1
            except (OSError, OutOfResources) as error:  # it stays where it is, and is found again
                log.warning("spool.recovery_failed", series=record.series, reason=str(error), fix="start again")
        if count:
            log.info("spool.recovered", instances=count)

    def end(self) -> None:
        """Leave the ready files to another node."""
        self._ready.stop()
        self._ready = self._ready_files(self._own, 0)

    def spare(self) -> None:
        """Make room: keep no files ready just now."""
        self._ready.spare()

    def _ready_files(self, own: Path, budget: int) -> Ready:
        return Ready(own / "ready", own / "incoming", budget, self._room.plenty)

    # ---- storing ---------------------------------------------------------------------------------------------------

    def store(
        self,
        series: str,
        instance: str,
        received: Received,
        again: bool = False,
        durable: Callable[[], object] | None = None,
    ) -> Stored:
        """Keep one instance. See `service.spool.Spool.store`."""
        folder = self.folder(series)
        try:
            if holds(folder, instance, received):
                self._sync.entries(folder)  # another thread may not be as far yet
                return Stored.DUPLICATE
            if received.file is None:  # of a file, each piece has claimed its room
                self._room.claim(received.length)
            ready = None if received.file else self._ready.take(received.length)
            part = str(received.file or ready or new_part(self._incoming))
            acknowledged = False
            try:
                self._write(series, instance, received, part, ready is not None)
                if durable is not None and ready is not None and self._duplicates != "reject":
                    acknowledged = True
                    durable()
                outcome = self._place(series, instance, received, part, again)
            except BaseException:
                if not acknowledged:
                    _remove(part)
                raise
            if outcome not in _MOVED:
                _remove(part)
            if ready is None or outcome is not Stored.NEW:
                self._sync.entries(folder)
        except OSError as error:
            raise OutOfResources(f"the spool cannot be written: {error.strerror}") from error
        return outcome

    def _write(self, series: str, instance: str, received: Received, part: str, over: bool) -> None:
        """Bring the content to disk. Only in a file that is written over it is found again without its name."""
        if over:
            write_over(part, series, instance, received.head, self._sync.data)
            return
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if received.file is None:
                write_all(descriptor, received.head)
            self._sync.data(descriptor)
        finally:
            os.close(descriptor)

    def _place(self, series: str, instance: str, received: Received, part: str, again: bool) -> Stored:
        def move(target: str) -> None:
            try:
                os.rename(part, target)  # noqa: PTH104  # that of pathlib makes a new path of it
            except FileNotFoundError:  # the first of its series
                make_folder(self.folder(series))
                os.rename(part, target)  # noqa: PTH104

        with self._alone():
            return place(self.folder(series), instance, received, move, self._quarantine, self._duplicates, again)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Among the threads of this process and the commands beside it, one at a time; it takes 10 µs."""
        with self._placing:
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield
            finally:
                os.close(descriptor)

    # ---- what is there ---------------------------------------------------------------------------------------------

    def path(self, series: str, instance: str) -> Path:
        """Where an instance lies, or would lie."""
        return current(self.folder(series), instance)

    def folder(self, series: str) -> Path:
        """The folder of a series."""
        known = self._folders.get(series)
        if known is None:
            if len(self._folders) > 1000:
                self._folders.clear()
            known = self._folders[series] = self._series / series
        return known

    def files(self, series: str) -> list[Path]:
        """Those of a series that count."""
        return all_current(self.folder(series))

    def corrections(self, series: str) -> int:
        """How often one of a series was replaced by a corrected one."""
        return corrections(self.folder(series))

    def forget(self, series: str, before: float = math.inf) -> None:
        """Remove those of a series that were written before a moment (seconds since the epoch)."""
        folder = self.folder(series)
        with suppress(OSError):
            sync_folder(folder)  # or after a stop an instance may lie where it was before its rename, with its record
            forget_versions(folder, self._ready.give, before)


def _remove(path: str) -> None:
    Path(path).unlink(missing_ok=True)
