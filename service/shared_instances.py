"""The instances of a spool that is shared by an object store (`service.sharing`).

What counts is what is listed. Before an instance is stored, the files that this node has of it are made what is listed;
then it gets its place among them as everywhere (`service.versions`); what has changed is put and listed, all at once.
Where another node was faster with the same instance, that is done again.
"""

import fcntl
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from service.errors import OutOfResources, StoreUnavailable
from service.instances import Instances
from service.ledger.catalogue import Entry
from service.packing import digest_of
from service.quarantine import Quarantine
from service.received import Received
from service.room import Room
from service.sharing import CLOCKS_DIFFER_SECONDS, FASTER, Sharing
from service.syncing import Syncing
from service.versions import REPLACED, Duplicates, Stored


class SharedInstances(Instances):
    """Those of all nodes together. Parameters as for `Instances`; ``root`` is the spool of this node."""

    def __init__(
        self, root: Path, duplicates: Duplicates, room: Room, quarantine: Quarantine, own: Path, sharing: Sharing
    ) -> None:
        super().__init__(root, duplicates, Syncing(root, "off"), room, quarantine, own)  # what is put is durable
        self._sharing = sharing
        self._locks = root / "locks"
        self._locks.mkdir(exist_ok=True)

    def store(
        self,
        series: str,
        instance: str,
        received: Received,
        again: bool = False,
        _durable: Callable[[], object] | None = None,
    ) -> Stored:
        """Keep one instance; returns when the store has it, and not before. See `service.spool.Spool.store`."""
        with self._alone_with(instance):
            for _ in range(FASTER):
                known = self._known(series, instance)
                if known and not again and self._is_current(known, received):
                    return Stored.DUPLICATE
                self._make_local(series, instance, known)
                outcome = super().store(series, instance, received, again)
                placed = self.path(series, instance)
                published = False
                try:
                    published = self._publish(placed, instance, known)
                    if published:
                        return outcome
                    received = Received.of(placed.read_bytes())
                finally:
                    # nobody was told of them, and times are too coarse to tell them from others
                    if not published and outcome in (Stored.NEW, Stored.CORRECTED):
                        placed.unlink(missing_ok=True)
                        placed.with_name(f"{instance}{REPLACED}").unlink(missing_ok=True)
        raise StoreUnavailable("other nodes go on storing the same image; send it again")

    def _known(self, series: str, instance: str) -> dict[str, Entry]:
        return self._sharing.listed(f"series/{series}/{instance}")

    def _is_current(self, known: dict[str, Entry], received: Received) -> bool:
        digest = digest_of(received.whole())
        return any(entry.digest == digest for name, entry in known.items() if name.endswith(".dcm"))

    def _make_local(self, series: str, instance: str, known: dict[str, Entry]) -> None:
        """Have the files of an instance as they are listed, and none that nobody was told of."""
        self._sharing.bring(entry for entry in known.values() if entry.sound)
        folder = self.folder(series)
        for name in (f"{instance}{REPLACED}", f"{instance}.dcm"):
            if f"series/{series}/{name}" not in known:
                (folder / name).unlink(missing_ok=True)

    def _publish(self, current: Path, instance: str, known: dict[str, Entry]) -> bool:
        """Have others find what counts now. False where another node was faster."""
        try:
            files = [current]
            if (history := current.with_name(f"{instance}{REPLACED}")).exists():
                files.append(history)
            names = {self._sharing.name_of(file) for file in files}
            return self._sharing.replace(known, files, [entry for name, entry in known.items() if name not in names])
        except OSError as error:
            raise OutOfResources(f"the spool cannot be read: {error.strerror}") from error

    @contextmanager
    def _alone_with(self, instance: str) -> Iterator[None]:
        """Of the threads and processes of this node, one at a time for an instance (and others of the same lock)."""
        descriptor = os.open(self._locks / f"{instance[:2]}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    # ---- what is there ---------------------------------------------------------------------------------------------

    def fetch(self, series: str) -> None:
        """Have the instances of a series here, as they are listed."""
        entries = self._sharing.fetch(f"series/{series}/")
        for history in self.folder(series).glob(f"*{REPLACED}"):
            if self._sharing.name_of(history) not in entries:
                history.unlink(missing_ok=True)

    def files(self, series: str) -> list[Path]:
        """Those that count, whether or not they are here."""
        return [
            self.folder(series) / Path(name).name for name in self._sharing.listed(f"series/{series}/") if _is(name)
        ]

    def corrections(self, series: str) -> int:
        """How often one of a series was replaced by a corrected one, as their numbers say."""
        numbers = (file.stem.partition("+")[2] for file in self.files(series))
        return sum(int(number) for number in numbers if number)

    def state(self, series: str) -> list[str]:
        """What counts, another list as soon as any of it is another."""
        entries = self._sharing.listed(f"series/{series}/")
        return [f"{name} {entry.length} {entry.modified_ns}" for name, entry in entries.items() if _is(name)]

    def forget(self, series: str, before: float = math.inf) -> None:
        """Have nobody find the files of a series any more, and remove those that are here.

        What was stored within the last minutes stays where ``before`` is given: clocks of machines differ.
        """
        older_than = 0.0 if before == math.inf else CLOCKS_DIFFER_SECONDS
        self._sharing.forget(*(f"{area}/{series}/" for area in ("series", "work", "results")), older_than=older_than)
        self.drop(series)

    def drop(self, series: str) -> None:
        """Remove the files of a series that are here; what is listed can be brought here again."""
        super().forget(series)


def _is(name: str) -> bool:
    return name.endswith(".dcm")
