"""Files that are there whole or not at all, and survive a power cut."""

import errno
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO


def replace_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file beside its place, then move it there; it returns when content and directory entry are on disk.

    Whoever reads the file meanwhile sees the old one or the new one.

    Parameters
    ----------
    write
        Writes the content.

    Raises
    ------
    OSError
        It cannot be written; what was there stays.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        write_synced(part, write)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    sync_folder(path.parent)


def new_part(folder: Path) -> Path:
    """A name that nobody has for a file that is being written; what bears one at a start is removed."""
    return folder / f"{uuid.uuid4().hex}.part"


def write_synced(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file; its content is on disk when this returns, its directory entry only after `sync_folder`."""
    with path.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def write_all(descriptor: int, *pieces: bytes | memoryview, at: int = 0) -> None:
    """Write pieces one behind the other from a place in a file. Raises `OSError`."""
    length = sum(len(piece) for piece in pieces)
    if os.pwritev(descriptor, pieces, at) != length:  # of a file, only where the disk is full, or the limit of its size
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def sync_folder(folder: Path) -> None:
    """Bring the entries of a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are not there; their entries are on disk when this returns."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)
