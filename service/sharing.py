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

import gzip
import hashlib
import shutil
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from os import utime
from pathlib import Path

import structlog

from service.errors import OutOfResources, StoreUnavailable, WetreadError
from service.ledger.catalogue import Catalogue, Entry, open_catalogue
from service.record import PREAMBLE
from service.settings import Settings
from service.store import ObjectStore, open_store, require_store

log = structlog.get_logger()

AT_A_TIME = 8
"""Files that are brought here at the same time."""
CLOCKS_DIFFER_SECONDS = 300.0
"""What came within this time stays when an old series is forgotten: it may have come after that was decided."""
FASTER = 5
"""So often may another node be faster."""
LOOK_SECONDS = 60.0
"""So long something that was put or got says that the store can be reached."""
PACKED = ".npy"
"""What is put packed: label maps take a hundredth then."""
_CHUNK = 1 << 20


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
        done = False
        try:
            for file in files:
                fresh += self._put_where_new(file, known.get(self.name_of(file)))
            before = [*gone, *(known[entry.name] for entry in fresh if entry.name in known)]
            done = not (fresh or before) or self._catalogue.exchange(before, fresh)
        finally:
            if not done:  # what cannot be removed now stays where nobody finds it
                with suppress(StoreUnavailable):
                    self._store.remove([entry.key for entry in fresh])
        return done

    def _put_where_new(self, file: Path, known: Entry | None) -> list[Entry]:
        if known is not None and self._is_copy(file, known):
            return []
        digest, found = digest_of(file), file.stat()
        if known is not None and digest == known.digest:
            utime(file, ns=(known.modified_ns, known.modified_ns))
            return []
        entry = Entry(self.name_of(file), uuid.uuid4().hex[:16], digest, found.st_size, found.st_mtime_ns)
        with _packed(file) as packed:
            self._store.put(packed, entry.key)
        self._note(found.st_size)
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
                if entry.digest and self._got(entry, part):
                    utime(part, ns=(entry.modified_ns, entry.modified_ns))
                    part.replace(target)
                    self._note(entry.length)
                    return
        except OSError as error:
            raise OutOfResources(f"the spool cannot be written: {error.strerror}") from error
        finally:
            part.unlink(missing_ok=True)
        if entry.digest:
            self._catalogue.damaged(entry)
            log.error("store.damaged", object=entry.key, fix="have it sent again; it takes the place of what is there")
        raise StoreUnavailable(f"{entry.key}: the store has lost or changed it; have the series sent again")

    def _got(self, entry: Entry, part: Path) -> bool:
        """Whether what came is what was put."""
        try:
            self._store.get(entry.key, part)
            if entry.name.endswith(PACKED):
                _unpack(part)
        except (FileNotFoundError, EOFError, zlib.error, gzip.BadGzipFile):
            return False
        return digest_of(part) == entry.digest

    def _is_copy(self, file: Path, entry: Entry) -> bool:
        """Whether a file is known to be what is listed: it was compared when it got its time."""
        try:
            found = file.stat()
        except FileNotFoundError:
            return False
        return bool(entry.digest) and (found.st_size, found.st_mtime_ns) == (entry.length, entry.modified_ns)

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

    def _note(self, length: int) -> None:
        self.moved += length
        self._well_at = time.monotonic()


def _files(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")]


def digest_of(content: Path | memoryview) -> str:
    """SHA-256, of a DICOM file without the preamble, which is a spool's own (`service.record`). Raises `OSError`."""
    if isinstance(content, memoryview):
        is_dicom = bytes(content[PREAMBLE : PREAMBLE + 4]) == b"DICM"
        return hashlib.sha256(content[PREAMBLE:] if is_dicom else content).hexdigest()
    with content.open("rb") as file:
        file.seek(PREAMBLE)
        is_dicom = file.read(4) == b"DICM"
        file.seek(PREAMBLE if is_dicom else 0)
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _packed(file: Path) -> Iterator[Path]:
    """A file as it is put."""
    if file.suffix != PACKED:
        yield file
        return
    packed = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        with file.open("rb") as source, gzip.open(packed, "wb", compresslevel=1) as target:
            shutil.copyfileobj(source, target, _CHUNK)
        yield packed
    finally:
        packed.unlink(missing_ok=True)


def _unpack(part: Path) -> None:
    """Replace a file that came packed."""
    unpacked = part.with_name(f"{part.name}.u")
    try:
        with gzip.open(part, "rb") as source, unpacked.open("wb") as target:
            shutil.copyfileobj(source, target, _CHUNK)
        unpacked.replace(part)
    finally:
        unpacked.unlink(missing_ok=True)


def open_sharing(settings: Settings) -> Sharing | None:
    """The store that a node's settings name; None for a spool that is a folder, its own or a shared one.

    Raises
    ------
    ConfigurationError
        There is no such store, or we may not use it; or the ledger is of a later version.
    StoreUnavailable, LedgerUnavailable
        The store or the ledger cannot be reached.
    """
    spool = settings.spool
    if not spool.url:
        return None
    store = open_store(spool.url, spool.endpoint)
    require_store(store, spool.url)
    return Sharing(spool.path, store, open_catalogue(settings.ledger))
