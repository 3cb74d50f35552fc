"""The spool: the folder in which everything lies that the node was given or has made.

::

    spool/
      lock                          held by the one node that works on this spool
      nodes/NAME/                   lock, incoming, ready and receivers of each node, where several share the spool
      versions.lock                 held while an instance gets its place
      incoming/*.part               being written; removed at start
      ready/*.dcm                   to be written over; some of them may hold an instance (`service.recycling`)
      receivers/N/                  incoming and ready of each process that receives, where there are several
      series/SERIES/INSTANCE.dcm    as received, bit for bit from byte 128 on (corrected ones: `service.versions`)
      quarantine/SERIES-HASH/…      what cannot be used, each with a reason.json
      work/SERIES/ITEM/…            hand-over from stage to stage; can be made again from series/
      results/SERIES/ITEM/MODEL/…   encoded objects, until they are delivered and the series is forgotten
      ledger.sqlite

SERIES and INSTANCE are hashes of UIDs: no name comes from the wire, so none can point elsewhere or tell who it is.
"""

import fcntl
import hashlib
import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import IO

import structlog

from service.durable import make_folder, new_part, write_synced
from service.errors import ConfigurationError, OutOfResources
from service.instances import Instances
from service.quarantine import Quarantine, QuarantineEntry
from service.received import Received
from service.room import Room
from service.spill import Spill
from service.syncing import Sync, Syncing, sync_file_system
from service.types import ResultObject
from service.versions import Duplicates, Stored

log = structlog.get_logger()

_SHARED = ("series", "quarantine", "work", "results")
_RECEIVERS, _NODES = "receivers", "nodes"
_RECEIVERS_END_SECONDS = 5.0
"""How long to wait for the receivers of a node that was killed: they end by themselves, when what they are writing is
written."""


@lru_cache(4096)
def key_of(*uids: str) -> str:
    """The name of something in the spool and in logs: 16 hexadecimal digits of the SHA-256 of its UIDs."""
    return hashlib.sha256("\0".join(uids).encode()).hexdigest()[:16]


class Spool:
    """The folder and its rules. What a method says is stored is on disk, directory entry included.

    Parameters
    ----------
    receiver
        Which of the node's receivers works with it (`service.receive.receivers`); 0: none of them.
    node
        The name of the node where several share the spool, which then has to be on a file system whose locks (flock(2))
        hold between machines; empty for the only one.

    Raises
    ------
    ConfigurationError
        The folder cannot be made or written, or another node works on it.
    """

    def __init__(
        self,
        root: Path,
        duplicates: Duplicates = "keep-first",
        *,
        sync: Sync = "each",
        ready_mb: int = 0,
        reserve_mb: int = 0,
        receiver: int = 0,
        node: str = "",
    ) -> None:
        self.root = root
        self._home = root / _NODES / node if node else root
        self._own = self._home / _RECEIVERS / str(receiver) if receiver else self._home
        self._quarantine = Quarantine(root)
        self._sync = sync
        self._ready_bytes = ready_mb << 20
        self._room = Room(root, reserve_mb << 20, lambda: self._instances.spare())
        self._instances = Instances(root, duplicates, Syncing(root, sync), self._room, self._quarantine, self._own)
        try:
            for folder in (self._own / "incoming", self._own / "ready", *(root / name for name in _SHARED)):
                folder.mkdir(parents=True, exist_ok=True)
            self._probe()
        except OSError as error:
            raise ConfigurationError(
                f"spool.path = {str(root)!r}: cannot be written ({error.strerror}); "
                "create it and give it to the user that runs wetread, or name another folder"
            ) from None
        self._lock: IO[str] | None = None

    # ---- the one node ----------------------------------------------------------------------------------------------

    def lock(self, receivers: int = 0) -> None:
        """Become the one node that works on this spool, until `unlock` or the end of the process.

        What an earlier run has left is put in order: instances that were durable get their place, all that was half
        written is removed.

        Parameters
        ----------
        receivers
            How many the node is going to have: their ready files are kept, those of others removed.
        """
        handle = (self._home / "lock").open("w")
        before = self._home / _RECEIVERS
        shared = self._home != self.root
        deadline = time.monotonic() + (_RECEIVERS_END_SECONDS if before.is_dir() else 0.0)
        while not _locked(handle):
            if time.monotonic() >= deadline:
                handle.close()
                raise ConfigurationError(
                    f"spool.path = {str(self.root)!r}: another node works on it; stop that one or name another folder"
                    + (f", or give each node a name: ledger.node = {self._home.name!r} is taken" * shared)
                )
            time.sleep(0.05)
        self._lock = handle
        try:
            for own in before.glob("*"):
                self._instances.clear(own, keep_ready=own.name in map(str, range(1, receivers + 1)))
            with suppress(OSError):
                before.rmdir()
            self.join()
            if self._sync != "off":  # an earlier run may not have, and its instances are duplicates from now on
                sync_file_system(self.root)
        except OSError as error:
            self.unlock()
            raise ConfigurationError(
                f"spool.path = {str(self.root)!r}: what an earlier run has left cannot be put in order "
                f"({error.strerror}); look at the disk, and at who owns the files"
            ) from error
        if self._sync == "off":
            log.warning(
                "spool.sync_off",
                reason="a power cut takes what was acknowledged, and its senders may have deleted it",
                fix='spool.sync = "each"',
            )

    @property
    def lock_descriptor(self) -> int:
        """The lock, for a process of this node: one that inherits it keeps others out for as long as it lives."""
        assert self._lock is not None
        return self._lock.fileno()

    def join(self) -> None:
        """Put in order what an earlier process has left in our own folders, and keep files ready. Raises `OSError`."""
        self._instances.begin(self._ready_bytes)

    def leave(self) -> None:
        """Keep no files ready any more."""
        self._instances.end()

    def unlock(self) -> None:
        """Let another node work on this spool."""
        if self._lock is not None:
            self.leave()
            self._lock.close()
            self._lock = None

    # ---- instances -------------------------------------------------------------------------------------------------

    def store(
        self,
        series: str,
        instance: str,
        received: Received,
        again: bool = False,
        durable: Callable[[], object] | None = None,
    ) -> Stored:
        """Keep one instance of a series; returns when it would survive a power cut (but for ``sync="off"``).

        Parameters
        ----------
        series, instance
            Their keys.
        again
            Use a content that was replaced before, or would not count. Otherwise one that was replaced is a duplicate:
            two sources that forward different contents of an image in turn would replace each other's for ever.
        durable
            Called before this returns, where it would survive already and is kept whatever is found at its place: the
            next start of this node would give it that. Not where only a start of another one could.

        Raises
        ------
        OutOfResources
            The disk is full, or almost, or cannot be written. After ``durable`` was called, only that it has no place
            yet.
        """
        return self._instances.store(series, instance, received, again, durable if self._home == self.root else None)

    def spill(self) -> Spill:
        """Begin a file for an instance that is too large for memory; `Received` names it when it is whole.

        Raises
        ------
        OutOfResources
            The disk is full, or almost, or cannot be written.
        """
        return Spill(self._new_part(), self._room.claim)

    def _new_part(self) -> Path:
        return new_part(self._own / "incoming")

    def quarantine(self, series: str, content: bytes | Path | Received, reason: str) -> QuarantineEntry:
        """Keep what cannot be used beside its reason. See `service.quarantine`."""
        return self._quarantine.add(series, content, reason)

    def quarantined(self) -> Iterator[QuarantineEntry]:
        """All that lies in quarantine."""
        return self._quarantine.entries()

    def quarantined_file(self, entry: QuarantineEntry) -> Path:
        """The file of an entry of the quarantine, as it was received."""
        return self._quarantine.file(entry)

    def quarantined_size(self, entry: QuarantineEntry) -> int:
        """Bytes of an entry's file; 0 where somebody has removed it."""
        return self._quarantine.size(entry)

    def discard(self, entry: QuarantineEntry) -> None:
        """Remove an entry of the quarantine for good; copies of the instance elsewhere in the spool stay."""
        self._quarantine.discard(entry)

    def instance_path(self, series: str, instance: str) -> Path:
        """Where an instance lies, or would lie; ``series`` and ``instance`` are keys."""
        return self._instances.path(series, instance)

    def instance_folder(self, series: str) -> Path:
        """The folder of a series' instances."""
        return self._instances.folder(series)

    def instances(self, series: str) -> list[Path]:
        """The files of a series, in no particular order of slices."""
        return self._instances.files(series)

    def corrections(self, series: str) -> int:
        """How often an instance of a series was replaced by a corrected one."""
        return self._instances.corrections(series)

    def work(self, *parts: str) -> Path:
        """The folder in which stages leave files for the next one; made when it is not there."""
        return self._folder("work", *parts)

    def results(self, *parts: str) -> Path:
        """The folder of encoded objects; made when it is not there."""
        return self._folder("results", *parts)

    def forget(self, series: str, before: float = math.inf) -> None:
        """Remove the files of a series: instances, intermediate files and results. Quarantine stays.

        Parameters
        ----------
        before
            Seconds since the epoch: instances that were written later stay, for they came after it was decided.
        """
        for name in ("work", "results"):
            shutil.rmtree(self.root / name / series, ignore_errors=True)
        self._instances.forget(series, before)

    # ---- nothing where all who work on it see this folder: see `service.shared_spool` --------------------------------

    def fetch(self, series: str) -> None:
        """Have here all instances of a series that others have received. Raises `StoreUnavailable`."""

    def fetch_file(self, path: Path) -> None:
        """Have a file as whoever published it has left it. Raises `StoreUnavailable`."""

    def fetch_folder(self, folder: Path) -> None:
        """Have a folder of `work` as whoever published it has left it. Raises `StoreUnavailable`."""

    def result_here(self, result: ResultObject) -> ResultObject:
        """An encoded object with its file on this machine, whichever has encoded it. Raises `StoreUnavailable`."""
        return result

    def publish_folder(self, folder: Path) -> None:
        """Have others find a folder of `work` as it is here. Raises `StoreUnavailable`."""

    def publish_files(self, *files: Path) -> None:
        """Have others find these files. Raises `StoreUnavailable`."""

    def state(self, series: str) -> str:
        """What instances a series has, in one word; empty where what is made of them is shared, too."""
        return ""

    def tidy(self) -> None:
        """Keep not too many copies of what others have. Call it now and then."""

    def clear_away(self) -> None:
        """Remove what was forgotten from where others see it, too."""

    # ---- how it is ---------------------------------------------------------------------------------------------------

    def writable(self) -> bool:
        """Whether the spool takes a file just now."""
        try:
            self._probe()
            self._room.claim(0)
        except (OSError, OutOfResources):
            return False
        return True

    def free_bytes(self) -> int:
        """Free room on the spool's file system."""
        return shutil.disk_usage(self.root).free

    def _probe(self) -> None:
        probe = self._new_part()
        write_synced(probe, lambda file: file.write(b"wetread"))
        probe.unlink()

    def _folder(self, *parts: str) -> Path:
        folder = self.root.joinpath(*parts)
        make_folder(folder)
        return folder


def _locked(handle: IO[str]) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
