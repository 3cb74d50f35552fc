"""Files that were written before and are written again: the cheapest way to be durable.

Syncing a new file costs its blocks, its inode and its entry in a folder. Writing over blocks that were written once
before, and syncing the data alone (``fdatasync``), changes nothing else on the disk. So `Ready` keeps files in
``spool/ready/``; an instance is written over one of them, with a record in the preamble (`service.record`) that says
which instance it is and has a checksum of it all. What is on disk, where the machine stops ...

====================  ==================================================================================================
after                 on disk
====================  ==================================================================================================
a part of the write   a file in ``ready/`` whose record, old or new, does not fit its bytes: it is ready again
``fdatasync``         a file in ``ready/`` with a record that fits: at start it gets its place, however often
the cut               the same; it ends where the record says, or still has old bytes behind that
the rename            the same, or the instance in its series
…                     …
it is forgotten       the instance in its series, or a file in ``incoming/``, which is removed at start
the wiped record      the same, but the record is empty
the rename back       the same, or a file in ``ready/`` whose record is empty: nothing that was forgotten comes back
====================  ==================================================================================================

Cut and rename are not synced: the journals of ext4 and XFS (and the transactions of btrfs and ZFS) keep them in this
order, so that no file in a series ever has old bytes behind the instance; were they lost both, the record is still
there. On ext4 a slice takes no transaction of the journal so, where a new file takes two (itself and its folder). To
cut off whole blocks takes as long as all the rest: so files are kept that have just as many pages as what comes. Where
a file system writes each block to a new place (btrfs, ZFS), recycling is as safe, but saves little.
"""

import fcntl
import os
import signal
import threading
import time
import uuid
from bisect import bisect_left, insort
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from service.durable import new_part, sync_folder, write_synced
from service.record import PAGE, PREAMBLE, Record, read_record, whole_pages

FIRST_SIZES = (129 * PAGE, 130 * PAGE)
"""What is expected before anything has arrived: CT slices of 512 × 512 with headers of some kilobytes."""
LARGEST_SHARE = 8
"""A file that would take more than this part of the budget is not kept ready: syncing it costs little beside writing
it."""
RECENT = 64
"""So many of the last sizes tell what is kept ready."""
QUIET_SECONDS = 0.5
"""Ready files are made only where nothing has arrived for so long: otherwise they would cost what they save."""


class Ready:
    """The files that are ready to be written again, in a folder of their own. Only one process may use it.

    Parameters
    ----------
    folder
        ``spool/ready``; made where it is not there.
    incoming
        Where files are made; what lies there is removed at start.
    budget
        Bytes that they may take together; 0: there are none.
    room
        Whether so many bytes may be used for it.
    """

    def __init__(self, folder: Path, incoming: Path, budget: int, room: Callable[[int], bool] = lambda _: True) -> None:
        self._folder = folder
        self._incoming = incoming
        self._budget = budget
        self._room = room
        self._lock = threading.Lock()
        self._files: list[tuple[int, str]] = []
        """Capacity and path, sorted."""
        self._given: list[tuple[int, Path]] = []
        """Capacity and path of files that were given back and have a record still."""
        self._total = 0
        """Bytes of both."""
        self._recent = deque(FIRST_SIZES, RECENT)
        """Sizes of what came last, in whole pages."""
        self._last_arrival = 0.0
        self._stopping = threading.Event()
        self._filler: threading.Thread | None = None

    # ---- taking and giving -----------------------------------------------------------------------------------------

    def take(self, length: int) -> str | None:
        """The path of a file with at least so many bytes, and at most twice as many whole pages; None: there is none.

        One that has just as many pages is the best: to cut off whole blocks costs as much as the rest together. It is
        the caller's from now on. Whether there is one or not, the size is remembered.
        """
        if not self._budget:
            return None
        self._last_arrival = time.monotonic()
        pages = whole_pages(length)
        with self._lock:
            if pages * LARGEST_SHARE <= self._budget:
                self._recent.append(pages)
            index = bisect_left(self._files, (pages, ""))
            if index == len(self._files) or self._files[index][0] > 2 * pages:
                return None
            capacity, path = self._files.pop(index)
            self._total -= capacity
        return path

    def give(self, path: Path) -> None:
        """Take over a file that is not needed any more: it is kept, to be made ready soon, or removed.

        Nobody finds it under its name from now on. Raises `OSError`.
        """
        part = new_part(self._incoming)
        path.rename(part)
        capacity = whole_pages(part.stat().st_size)
        with self._lock:
            kept = _serves(capacity, self._recent) is not None and self._total + capacity <= self._budget
            if kept:
                self._given.append((capacity, part))
                self._total += capacity
        if not kept:
            part.unlink()

    def spare(self) -> None:
        """Remove all files, to make room."""
        with self._lock:
            paths = [Path(path) for _, path in self._files] + [path for _, path in self._given]
            self._files.clear()
            self._given.clear()
            self._total = 0
        for path in paths:
            path.unlink(missing_ok=True)

    # ---- start -----------------------------------------------------------------------------------------------------

    def recover(self) -> Iterator[tuple[Record, Path]]:
        """Look at what an earlier run has left: yield instances, cut to their length; keep or remove all else.

        Who gets an instance has to give it its place, or to remove it; what stays is found again at the next start.
        """
        self._folder.mkdir(exist_ok=True)
        for path in sorted(self._folder.iterdir()):
            record = read_record(path)
            if record is not None:
                os.truncate(path, record.length)
                yield record, path
                continue
            capacity = path.stat().st_size // PAGE * PAGE
            if capacity and self._total + capacity <= self._budget:
                self._recent.append(capacity)  # as good a guess as any of what will come
                insort(self._files, (capacity, str(path)))
                self._total += capacity
            else:
                path.unlink()

    def start(self) -> None:
        """Make files in the background from now on, where the budget and the room allow it."""
        if self._budget:
            self._filler = threading.Thread(target=self._fill, name="ready-files", daemon=True)
            self._filler.start()

    def stop(self) -> None:
        """Make no more files."""
        self._stopping.set()
        if self._filler is not None:
            self._filler.join()

    # ---- filling ---------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        while not self._stopping.wait(QUIET_SECONDS / 2):
            with suppress(OSError):  # a full disk: what arrives is written to new files, and says so
                while not self._stopping.is_set() and self._quiet() and self.fill_one():
                    pass

    def _quiet(self) -> bool:
        return time.monotonic() - self._last_arrival > QUIET_SECONDS

    def fill_one(self) -> bool:
        """Make one file ready; return whether there was one to make. Raises `OSError`."""
        with self._lock:
            given = self._given.pop() if self._given else None
        if given is not None:
            self._make_of(*given)
            return True
        size = self._lacking()
        if size is None or not self._room(size):
            return False
        part = new_part(self._incoming)
        try:
            write_synced(part, lambda file: file.write(bytes(size)))
            self._add(part, size)
        finally:
            part.unlink(missing_ok=True)
        return True

    def _make_of(self, capacity: int, part: Path) -> None:
        """Make a file ready that was given back; one that others can still read is removed, or its reader would find
        another patient's image in it.
        """
        with self._lock:
            self._total -= capacity
        try:
            if _wipe(part, capacity):
                self._add(part, capacity)
        finally:
            part.unlink(missing_ok=True)

    def _add(self, part: Path, capacity: int) -> None:
        """Take in a file whose content is on disk. It is given out only when its name is, too."""
        path = self._folder / f"{uuid.uuid4().hex}.dcm"
        part.rename(path)
        sync_folder(self._folder)
        with self._lock:
            insort(self._files, (capacity, str(path)))
            self._total += capacity

    def _lacking(self) -> int | None:
        """The size of the file to make next; what is there beyond need makes room for it.

        Of the budget, each of the sizes that came last should have its part by bytes.
        """
        with self._lock:
            came = Counter(self._recent)
            unit = self._budget / sum(came.elements())
            need: dict[int | None, float] = {size: size * count * unit for size, count in came.items()}
            have: Counter[int | None] = Counter()
            for capacity, count in Counter(capacity for capacity, _ in self._files).items():
                have[_serves(capacity, came)] += capacity * count
            size = max(came, key=lambda size: need[size] - have[size])
            if size > need[size] - have[size] or size * LARGEST_SHARE > self._budget:
                return None
            while self._total + size > self._budget:
                most = max(have, key=lambda served: have[served] - need.get(served, 0))
                # half of what it should be: small changes of what comes should not rewrite the disk
                if most == size or have[size] > need[size] / 2:
                    return None
                index = next((i for i, (has, _) in enumerate(self._files) if _serves(has, came) == most), None)
                if index is None:
                    return None
                capacity, path = self._files.pop(index)
                self._total -= capacity
                have[most] -= capacity
                Path(path).unlink(missing_ok=True)
            return size


def _serves(capacity: int, sizes: Iterable[int]) -> int | None:
    """The largest of these sizes for which a file would be given out."""
    return max((size for size in sizes if size <= capacity <= 2 * size), default=None)


def _wipe(path: Path, capacity: int) -> bool:
    """Empty the record of a file and fill its last page; False where others could still read what it will hold."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if found.st_nlink > 1 or not _only_ours(descriptor):
            return False
        os.pwrite(descriptor, bytes(PREAMBLE), 0)
        os.pwrite(descriptor, bytes(capacity - found.st_size), found.st_size)
        os.fsync(descriptor)
        return True
    finally:
        os.close(descriptor)


def _only_ours(descriptor: int) -> bool:
    """Whether nobody else has a file open: only then the kernel grants a lease for writing (fcntl(2))."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)  # SIGIO, the default, would end this process
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:  # or this file system has no leases
        return False
    return True
