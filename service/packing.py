"""A file on its way to an object store and back: packed where that pays, and what tells that it came as it was."""

import gzip
import hashlib
import shutil
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.record import PREAMBLE

PACKED = ".npy"
"""What is put packed: label maps take a hundredth then."""
UNREADABLE = (EOFError, zlib.error, gzip.BadGzipFile)
"""What is raised where something packed was harmed."""
_CHUNK = 1 << 20


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
def packed(file: Path) -> Iterator[Path]:
    """A file as it is put: itself, or packed for so long. Raises `OSError`."""
    if file.suffix != PACKED:
        yield file
        return
    part = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        with file.open("rb") as source, gzip.open(part, "wb", compresslevel=1) as target:
            shutil.copyfileobj(source, target, _CHUNK)
        yield part
    finally:
        part.unlink(missing_ok=True)


def unpack(part: Path) -> None:
    """Replace a file that came packed. Raises `UNREADABLE`, `OSError`."""
    unpacked = part.with_name(f"{part.name}.u")
    try:
        with gzip.open(part, "rb") as source, unpacked.open("wb") as target:
            shutil.copyfileobj(source, target, _CHUNK)
        unpacked.replace(part)
    finally:
        unpacked.unlink(missing_ok=True)
