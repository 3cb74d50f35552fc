"""A spool that is shared by an object store: each node has a folder of its own, and the store has what all may need.

::

    receiver    series/KEY/…              put, listed ─► 0x0000
    worker      series/KEY/…              got; assembled, analysed
                work/KEY/ITEM/MODEL/…     findings: put, listed ─► encode, on whichever worker
                results/KEY/ITEM/MODEL/…  put, listed ─► encoded
    deliverer   results/…                 got ─► archive

What is listed is durable in the store. Nobody asks the store what it has, and nothing in it is written over: another
content under a name gets another key, and the list says which counts. Each copy is compared with the list's digest.
Local files are copies with one time everywhere, so that what is made of them is the same everywhere; they go when the
series is forgotten, or when there are too many of them.
"""

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from os import utime
from pathlib import Path

import structlog

from service.errors import OutOfResources, StoreUnavailable, WetreadError
from service.ledger.catalogue import Catalogue, Entry
from service.packing import PACKED, UNREADABLE, digest_of, packed, unpack
from service.store import ObjectStore, require_store

log = structlog.get_logger()

AT_A_TIME = 8
"""Files that are brought here at the same time."""
CLOCKS_DIFFER_SECONDS = 300.0
"""What came within this time stays when an old series is forgotten: it may have come after that was decided."""
FASTER = 5
"""So often may another node be faster."""
LOOK_SECONDS = 60.0
"""So long something that was put or got says that the store can be reached."""


class Sharing:
    """What of a spool lies in an object store.

    Names are paths in the spool, with slashes; those of folders end in one. Every method raises `StoreUnavailable`
    while the store is away, and `sqlalchemy.exc.DBAPIError` while the ledger is.

    Parameters
    ----------
    root
        The spool of this node.
    """

    def __init__(self, root: Path, store: ObjectStore, catalogue: Catalogue) -> None:
        self._root = root
        self._store = store
        self._catalogue = catalogue
        self._pool = ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="store")
        self._well_at = time.monotonic()
        self.moved = 0
        """Bytes that were put or got since the start."""

    def close(self) -> None:
        """Let go of threads and database."""
        self._pool.shutdown(cancel_futures=True)
        self._catalogue.close()

    def listed(self, *beginnings: str) -> dict[str, Entry]:
        """What the store has under names that begin so, by name."""
        return self._catalogue.listed(*beginnings)

    # ---- there -------------------------------------------------------------------------------------------------------

    def publish(self, *files: Path) -> None:
        """Have others find these files from now on; what is there as it is costs no transfer."""
        self._until_replaced(files, lambda: (self.listed(*map(self.name_of, files)), ()) if files else ({}, ()))

    def publish_folder(self, folder: Path) -> None:
        """Have others find a folder as it is here, and no other files in it."""
        files = _files(folder)
        names = set(map(self.name_of, files))

        def known() -> tuple[dict[str, Entry], Sequence[Entry]]:
            entries = self.listed(f"{self.name_of(folder)}/")
            return entries, [entry for name, entry in entries.items() if name not in names]

        self._until_replaced(files, known)

    def _until_replaced(
        self, files: Sequence[Path], known: Callable[[], tuple[Mapping[str, Entry], Sequence[Entry]]]
    ) -> None:
        for _ in range(FASTER):
            entries, gone = known()
            if self.replace(entries, files, gone):
                return
        raise StoreUnavailable("others go on putting the same files into the store; it is tried again")

    def replace(self, known: Mapping[str, Entry], files: Iterable[Path], gone: Sequence[Entry] = ()) -> bool:
        """Have others find files in the place of what is known of them, and not find what is gone, all at once.

        Returns
        -------
        bool
            False where somebody else has been faster, and nothing has changed.
        """
        fresh: list[Entry] = []
        try:
            for file in files:
                fresh += self._put_where_new(file, known.get(self.name_of(file)))
        except BaseException:
            self._take_back(fresh)
            raise
        before = [*gone, *(known[entry.name] for entry in fresh if entry.name in known)]
        # where the ledger does not answer, they may be listed all the same: then they must stay
        if not (fresh or before) or self._catalogue.exchange(before, fresh):
            return True
        self._take_back(fresh)
        return False

    def _take_back(self, entries: Sequence[Entry]) -> None:
        """Remove what was never listed; what cannot be removed now stays where nobody finds it."""
        with suppress(StoreUnavailable):
            self._store.remove([entry.key for entry in entries])

    def _put_where_new(self, file: Path, known: Entry | None) -> list[Entry]:
        if known is not None and known.sound and self._is_copy(file, known):
            return []
        digest, found = digest_of(file), file.stat()
        if known is not None and digest == known.digest:
            utime(file, ns=(known.modified_ns, known.modified_ns))
            return []
        entry = Entry(self.name_of(file), uuid.uuid4().hex[:16], digest, found.st_size, found.st_mtime_ns)
        with packed(file) as way, self._noting(found.st_size):
            self._store.put(way, entry.key)
        return [entry]

    # ---- here --------------------------------------------------------------------------------------------------------

    def fetch(self, *beginnings: str) -> dict[str, Entry]:
        """Have here what the store has under names that begin so; what is here already costs nothing.

        Returns
        -------
        dict[str, Entry]
            What is here now, by name.
        """
        entries = self.listed(*beginnings)
        self.bring(entries.values())
        return entries

    def fetch_folder(self, folder: Path) -> None:
        """Have a folder here as it is there, and no other files in it."""
        entries = self.fetch(f"{self.name_of(folder)}/")
        for file in _files(folder):
            if self.name_of(file) not in entries:
                file.unlink(missing_ok=True)

    def bring(self, entries: Iterable[Entry]) -> None:
        """Have these here."""
        lacking = [entry for entry in entries if not self._is_copy(self._root / entry.name, entry)]
        for done in [self._pool.submit(self._get, entry) for entry in lacking]:
            done.result()

    def _get(self, entry: Entry) -> None:
        target = self._root / entry.name
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            for _ in range(2):  # it may have been harmed on its way
                if self._got(entry, part):
                    utime(part, ns=(entry.modified_ns, entry.modified_ns))
                    part.replace(target)
                    return
        except OSError as error:
            raise OutOfResources(f"the spool cannot be written: {error.strerror}") from error
        finally:
            part.unlink(missing_ok=True)
        if self.listed(entry.name).get(entry.name) != entry:
            raise StoreUnavailable(f"{entry.key}: something else has just taken its place")
        if entry.sound:
            require_store(self._store, "")  # or all of it is gone, and may come again
            self._catalogue.damaged(entry)
            log.error("store.damaged", object=entry.key, fix="have it sent again; it takes the place of what is there")
        raise StoreUnavailable(f"{entry.key}: the store has lost or changed it; have the series sent again")

    def _got(self, entry: Entry, part: Path) -> bool:
        """Whether what came is what was put."""
        try:
            with self._noting(entry.length):
                self._store.get(entry.key, part)
            if entry.name.endswith(PACKED):
                unpack(part)
        except (FileNotFoundError, *UNREADABLE):
            return False
        return digest_of(part) == entry.sha256

    def _is_copy(self, file: Path, entry: Entry) -> bool:
        """Whether a file is known to be what is listed: it was compared when it got its time."""
        try:
            found = file.stat()
        except FileNotFoundError:
            return False
        return (found.st_size, found.st_mtime_ns) == (entry.length, entry.modified_ns)

    # ---- no more -----------------------------------------------------------------------------------------------------

    def forget(self, *beginnings: str, older_than: float = 0.0) -> None:
        """Have nobody find these any more, but for what came within so many seconds; `clear_away` removes them."""
        self._catalogue.forget(beginnings, older_than)

    def clear_away(self) -> None:
        """Remove from the store what nobody finds any more."""
        while keys := self._catalogue.leavings(1000):
            self._store.remove(keys)
            self._catalogue.removed(keys)

    # ---- how it is ---------------------------------------------------------------------------------------------------

    @property
    def reachable(self) -> bool:
        """Whether the store takes something just now."""
        if time.monotonic() - self._well_at > LOOK_SECONDS:
            try:
                require_store(self._store, "")
            except WetreadError:
                return False
            self._well_at = time.monotonic()
        return True

    def name_of(self, path: Path) -> str:
        """The name of a file or folder of the spool, without a slash at its end."""
        return path.relative_to(self._root).as_posix()

    @contextmanager
    def _noting(self, length: int) -> Iterator[None]:
        """Something is put or got: remember how much, and whether the store could be reached."""
        try:
            yield
        except StoreUnavailable:
            self._well_at = -LOOK_SECONDS
            raise
        self.moved += length
        self._well_at = time.monotonic()


def _files(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")]
