"""The spool: the folder in which everything lies that the node was given or has made.

::

    spool/
      lock                          held by the one node that works on this spool
      versions.lock                 held while an instance gets its place
      incoming/*.part               being written; removed at start
      series/SERIES/INSTANCE.dcm    as received, bit for bit (corrected ones: `service.versions`)
      quarantine/SERIES-HASH/…      what cannot be used, each with a reason.json
      work/SERIES/ITEM/…            hand-over from stage to stage; can be made again from series/
      results/SERIES/ITEM/MODEL/…   encoded objects, until they are delivered and the series is forgotten
      ledger.sqlite

SERIES and INSTANCE are hashes of UIDs: no name comes from the wire, so none can point elsewhere or tell who it is.
"""

import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from service.durable import make_folder, sync_folder, write_synced
from service.errors import ConfigurationError, OutOfResources
from service.quarantine import Quarantine, QuarantineEntry
from service.received import Received
from service.versions import Duplicates, Stored, all_current, corrections, current, forget_versions, holds, place


def key_of(*uids: str) -> str:
    """The name of something in the spool and in logs: 16 hexadecimal digits of the SHA-256 of its UIDs."""
    return hashlib.sha256("\0".join(uids).encode()).hexdigest()[:16]


class Spool:
    """The folder and its rules. What a method says is stored is on disk, directory entry included.

    Raises
    ------
    ConfigurationError
        The folder cannot be made or written, or another node works on it.
    """

    def __init__(self, root: Path, duplicates: Duplicates = "keep-first") -> None:
        self.root = root
        self._duplicates: Duplicates = duplicates
        self._quarantine = Quarantine(root)
        try:
            for name in ("incoming", "series", "quarantine", "work", "results"):
                (root / name).mkdir(parents=True, exist_ok=True)
            self._probe()
        except OSError as error:
            raise ConfigurationError(
                f"spool.path = {str(root)!r}: cannot be written ({error.strerror}); "
                "create it and give it to the user that runs wetread, or name another folder"
            ) from None
        self._lock: IO[str] | None = None

    def lock(self) -> None:
        """Become the one node that works on this spool, until `unlock` or the end of the process."""
        handle = (self.root / "lock").open("w")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.close()
            raise ConfigurationError(
                f"spool.path = {str(self.root)!r}: another node works on it; stop that one or name another folder"
            ) from None
        for leftover in (self.root / "incoming").glob("*.part"):
            leftover.unlink()
        self._lock = handle

    def unlock(self) -> None:
        """Let another node work on this spool."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def store(self, series: str, instance: str, received: Received, again: bool = False) -> Stored:
        """Keep one instance of a series; returns when it would survive a power cut.

        Parameters
        ----------
        again
            Use a content that was replaced before, or would not count. Otherwise one that was replaced is a duplicate:
            two sources that forward different contents of an image in turn would replace each other's for ever.

        Raises
        ------
        OutOfResources
            The disk is full or cannot be written.
        """
        folder = self.instance_folder(series)
        part = self.root / "incoming" / f"{uuid.uuid4().hex}.part"
        try:
            make_folder(folder)
            if not holds(folder, instance, received):
                write_synced(part, lambda file: file.write(received.whole()))
                with self._alone():
                    outcome = place(
                        folder,
                        instance,
                        received,
                        lambda target: os.link(part, target),
                        lambda content, reason: self.quarantine(series, content, reason),
                        self._duplicates,
                        again,
                    )
            else:
                outcome = Stored.DUPLICATE
            sync_folder(folder)  # a duplicate's first copy may not be synced yet
        except OSError as error:
            raise OutOfResources(f"the spool cannot be written: {error.strerror}") from error
        else:
            return outcome
        finally:
            part.unlink(missing_ok=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Among the threads of this process and the commands beside it, one at a time."""
        with (self.root / "versions.lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def quarantine(self, series: str, content: bytes | Path | Received, reason: str) -> QuarantineEntry:
        """Keep what cannot be used beside its reason. See `service.quarantine`."""
        return self._quarantine.add(series, content, reason)

    def quarantined(self) -> Iterator[QuarantineEntry]:
        """All that lies in quarantine."""
        return self._quarantine.entries()

    def discard(self, entry: QuarantineEntry) -> None:
        """Remove an entry of the quarantine for good; copies of the instance elsewhere in the spool stay."""
        self._quarantine.discard(entry)

    def instance_path(self, series: str, instance: str) -> Path:
        """Where an instance lies, or would lie; ``series`` and ``instance`` are keys."""
        return current(self.instance_folder(series), instance)

    def instance_folder(self, series: str) -> Path:
        """The folder of a series' instances."""
        return self.root / "series" / series

    def instances(self, series: str) -> list[Path]:
        """The files of a series, in no particular order of slices."""
        return all_current(self.instance_folder(series))

    def corrections(self, series: str) -> int:
        """How often an instance of a series was replaced by a corrected one."""
        return corrections(self.instance_folder(series))

    def work(self, *parts: str) -> Path:
        """The folder in which stages leave files for the next one; made when it is not there."""
        return self._folder("work", *parts)

    def results(self, *parts: str) -> Path:
        """The folder of encoded objects; made when it is not there."""
        return self._folder("results", *parts)

    def forget(self, series: str) -> None:
        """Remove the files of a series: instances, intermediate files and results. Quarantine stays."""
        for name in ("work", "results"):
            shutil.rmtree(self.root / name / series, ignore_errors=True)
        with suppress(OSError):
            forget_versions(self.instance_folder(series))

    def writable(self) -> bool:
        """Whether the spool takes a file just now."""
        try:
            self._probe()
        except OSError:
            return False
        return True

    def free_bytes(self) -> int:
        """Free room on the spool's file system."""
        return shutil.disk_usage(self.root).free

    def _probe(self) -> None:
        probe = self.root / "incoming" / f"{uuid.uuid4().hex}.part"
        write_synced(probe, lambda file: file.write(b"wetread"))
        probe.unlink()

    def _folder(self, *parts: str) -> Path:
        folder = self.root.joinpath(*parts)
        make_folder(folder)
        return folder
