"""What cannot be used, each thing beside the reason, until an operator decides.

::

    quarantine/SERIES-HASH/instance.dcm
    quarantine/SERIES-HASH/reason.json
"""

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from service.durable import make_folder, replace_file, sync_folder
from service.errors import OutOfResources
from service.received import Received
from service.record import PREAMBLE


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


class Quarantine:
    """The folder ``quarantine`` of a spool, of which ``root`` is the path."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def add(self, series: str, content: bytes | Path | Received, reason: str) -> QuarantineEntry:
        """Keep what cannot be used beside its reason. The same content is kept once; a file also stays where it is.

        Raises
        ------
        OutOfResources
            The disk is full or cannot be written.
        """
        try:
            data = content_of(content)
            folder = self._folder(series, data)
            before = read_entry(folder / "reason.json")
            since = time.time() if before is None else before.since
            entry = QuarantineEntry(series, reason, str((folder / "instance.dcm").relative_to(self._root)), since)
            make_folder(folder)
            replace_file(folder / "instance.dcm", lambda file: file.write(data))
            replace_file(folder / "reason.json", lambda file: file.write(json.dumps(asdict(entry)).encode()))
        except OSError as error:
            raise OutOfResources(f"the quarantine cannot be written: {error.strerror}") from error
        return entry

    def holds(self, series: str, content: bytes | Path | Received) -> bool:
        """Whether a content is here."""
        return self._folder(series, content_of(content)).is_dir()

    def _folder(self, series: str, data: memoryview) -> Path:
        return self._root / "quarantine" / f"{series}-{_digest(data)}"

    def entries(self) -> Iterator[QuarantineEntry]:
        """All that lies here."""
        for reason in sorted((self._root / "quarantine").glob("*/reason.json")):
            if entry := read_entry(reason):
                yield entry

    def file(self, entry: QuarantineEntry) -> Path:
        """The file of an entry, as it was received."""
        return self._root / entry.path

    def size(self, entry: QuarantineEntry) -> int:
        """Bytes of an entry's file; 0 where somebody has removed it."""
        path = self.file(entry)
        return path.stat().st_size if path.exists() else 0

    def discard(self, entry: QuarantineEntry) -> None:
        """Remove an entry for good; copies of the instance elsewhere in the spool stay."""
        folder = (self._root / entry.path).parent
        (folder / "instance.dcm").unlink(missing_ok=True)  # first, so that what is not finished is still listed
        shutil.rmtree(folder)
        sync_folder(folder.parent)


def content_of(content: bytes | Path | Received) -> memoryview:
    """All bytes of it. Raises `OSError`."""
    if isinstance(content, Received):
        return content.whole()
    return memoryview(content.read_bytes() if isinstance(content, Path) else content)


def _digest(data: memoryview) -> str:
    """The same for files that differ in their preamble only, in which the spool writes."""
    is_file = bytes(data[PREAMBLE : PREAMBLE + 4]) == b"DICM"
    return hashlib.sha256(data[PREAMBLE:] if is_file else data).hexdigest()[:16]


def read_entry(reason: Path) -> QuarantineEntry | None:
    """An entry as it was written beside its file; None where it is not there. Raises `OSError`."""
    try:
        return QuarantineEntry(**json.loads(reason.read_text()))
    except FileNotFoundError:  # not there, or just now removed
        return None
