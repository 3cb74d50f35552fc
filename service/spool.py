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
import json
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from service.durable import make_folder, replace_file, sync_folder, write_synced
from service.errors import ConfigurationError, OutOfResources
from service.versions import (
    CORRECTED_REASON,
    Stored,
    all_current,
    corrections,
    current,
    forget_versions,
    place,
)


def key_of(*uids: str) -> str:
    """The name of something in the spool and in logs: 16 hexadecimal digits of the SHA-256 of its UIDs."""
    return hashlib.sha256("\0".join(uids).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class QuarantineEntry:
    """One thing that cannot be used.

    Attributes
    ----------
    series
        Key of the series that it was given for.
    reason
        Why it cannot be used, and what to do.
    path
        Its file, relative to the spool.
    since
        When it came here first, in seconds since the epoch.
    """

    series: str
    reason: str
    path: str
    since: float = 0.0

    @property
    def id(self) -> str:
        """Its name for an operator: the beginning of a hash of its content, so it stays when it comes again."""
        return Path(self.path).parent.name.rpartition("-")[2]


class Spool:
    """The folder and its rules. What a method says is stored is on disk, directory entry included.

    Raises
    ------
    ConfigurationError
        The folder cannot be made or written, or another node works on it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
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

    def store(self, series: str, instance: str, content: bytes, again: bool = False) -> Stored:
        """Keep one instance (a whole DICOM file) of a series; returns when it would survive a power cut.

        Parameters
        ----------
        again
            Use a content that was replaced before. Otherwise it is a duplicate: two sources that forward different
            contents of an image in turn would replace each other's for ever.

        Raises
        ------
        OutOfResources
            The disk is full or cannot be written.
        """
        folder = self.instance_folder(series)
        part = self.root / "incoming" / f"{uuid.uuid4().hex}.part"
        try:
            make_folder(folder)
            write_synced(part, lambda file: file.write(content))
            with self._alone():
                outcome = place(folder, instance, part, lambda old: self._keep_replaced(series, old), again)
            sync_folder(folder)  # a duplicate's first copy may not be synced yet
        except OSError as error:
            raise OutOfResources(f"the spool cannot be written: {error.strerror}") from error
        else:
            return outcome
        finally:
            part.unlink(missing_ok=True)

    def _keep_replaced(self, series: str, content: bytes) -> None:
        self.quarantine(series, content, CORRECTED_REASON)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Among the threads of this process and the commands beside it, one at a time."""
        with (self.root / "versions.lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def quarantine(self, series: str, content: bytes | Path, reason: str) -> QuarantineEntry:
        """Keep what cannot be used beside its reason. The same content is kept once; a file also stays where it is."""
        data = content.read_bytes() if isinstance(content, Path) else content
        folder = self.root / "quarantine" / f"{series}-{hashlib.sha256(data).hexdigest()[:16]}"
        before = _read_entry(folder / "reason.json")
        since = time.time() if before is None else before.since
        entry = QuarantineEntry(series, reason, str((folder / "instance.dcm").relative_to(self.root)), since)
        try:
            make_folder(folder)
            replace_file(folder / "instance.dcm", lambda file: file.write(data))
            replace_file(folder / "reason.json", lambda file: file.write(json.dumps(asdict(entry)).encode()))
        except OSError as error:
            raise OutOfResources(f"the quarantine cannot be written: {error.strerror}") from error
        return entry

    def quarantined(self) -> Iterator[QuarantineEntry]:
        """All that lies in quarantine."""
        for reason in sorted((self.root / "quarantine").glob("*/reason.json")):
            if entry := _read_entry(reason):
                yield entry

    def discard(self, entry: QuarantineEntry) -> None:
        """Remove an entry of the quarantine for good; copies of the instance elsewhere in the spool stay."""
        folder = (self.root / entry.path).parent
        (folder / "instance.dcm").unlink(missing_ok=True)  # first, so that what is not finished is still listed
        shutil.rmtree(folder)
        sync_folder(folder.parent)

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


def _read_entry(reason: Path) -> QuarantineEntry | None:
    try:
        return QuarantineEntry(**json.loads(reason.read_text()))
    except FileNotFoundError:  # not there, or just now removed
        return None
