"""The quarantine of a spool that is shared by an object store (`service.sharing`)."""

from collections.abc import Iterator
from pathlib import Path

from service.quarantine import Quarantine, QuarantineEntry, content_of, read_entry
from service.received import Received
from service.sharing import Sharing


class SharedQuarantine(Quarantine):
    """As `Quarantine`, for all nodes together; a file comes here when it is asked for."""

    def __init__(self, root: Path, sharing: Sharing) -> None:
        super().__init__(root)
        self._sharing = sharing

    def add(self, series: str, content: bytes | Path | Received, reason: str) -> QuarantineEntry:
        """Keep what cannot be used beside its reason; returns when the store has both."""
        folder = self._folder(series, content_of(content))
        self._sharing.fetch(f"{self._sharing.name_of(folder)}/reason.json")  # since when it is there
        entry = super().add(series, content, reason)
        self._sharing.publish_folder(folder)
        return entry

    def holds(self, series: str, content: bytes | Path | Received) -> bool:
        """Whether a content is there."""
        folder = self._folder(series, content_of(content))
        return bool(self._sharing.listed(f"{self._sharing.name_of(folder)}/"))

    def entries(self) -> Iterator[QuarantineEntry]:
        """All that lies there."""
        reasons = [entry for name, entry in self._sharing.listed("quarantine/").items() if name.endswith(".json")]
        self._sharing.bring(reasons)
        for reason in reasons:
            if entry := read_entry(self._root / reason.name):
                yield entry

    def file(self, entry: QuarantineEntry) -> Path:
        """The file of an entry, which is here from now on."""
        self._sharing.fetch(entry.path)
        return super().file(entry)

    def size(self, entry: QuarantineEntry) -> int:
        """Bytes of an entry's file; 0 where somebody has removed it."""
        return sum(found.length for found in self._sharing.listed(entry.path).values())

    def discard(self, entry: QuarantineEntry) -> None:
        """Remove an entry for good."""
        self._sharing.forget(f"{Path(entry.path).parent.as_posix()}/", older_than=0.0)
        self._sharing.clear_away()
        super().discard(entry)
