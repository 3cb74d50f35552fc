"""An instance is written over a ready file while it comes: little is left to wait for when its last byte is there."""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

from service.durable import write_all
from service.record import PAGE, PREAMBLE, Checksum, Record, whole_pages

STEP = 1 << 17
"""Bytes that are written at a time; from then on they are on their way to the disk."""

_WRITE = 2  # SYNC_FILE_RANGE_WRITE
_sync_file_range = ctypes.CDLL(None).sync_file_range  # Python has none
_sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


class Overwriting:
    """One ready file that is written over. The record comes last: until then it is as ready as it was.

    Parameters
    ----------
    path
        A file that was written to its end once, with an empty record.
    give_back
        Called with its capacity in bytes and its path where it is not needed after all.

    Raises
    ------
    OSError
        The file cannot be opened.
    """

    def __init__(self, path: Path, give_back: Callable[[int, Path], object]) -> None:
        self.path = path
        self._give_back = give_back
        self._descriptor: int | None = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        self._capacity = os.fstat(self._descriptor).st_size
        self._checksum = Checksum()
        self._at = PAGE  # behind the page of the record
        self._failure: OSError | None = None

    def bring(self, content: memoryview, whole: bool = False) -> None:
        """So much of the file has come; more of it may, unless this is the whole."""
        length = len(content)
        end = length if whole else min(length // PAGE * PAGE, self._capacity)
        if end - self._at < (1 if whole else STEP) or self._descriptor is None or self._failure is not None:
            return
        pages = whole_pages(end)  # a part of a page would first be read from the disk
        try:
            write_all(self._descriptor, content[self._at : end], bytes(pages - end), at=self._at)
        except OSError as error:  # told when it is complete: the peer could not be answered before
            self._failure = error
            return
        _sync_file_range(self._descriptor, self._at, pages - self._at, _WRITE)  # where it fails, the sync does it
        self._checksum.see(content[:end])
        self._at = end

    def complete(self, series: str, instance: str, content: memoryview, sync: Callable[[int], object]) -> None:
        """Write what is left and the record, bring it to disk, and cut the file.

        Raises
        ------
        OSError
            It is not on disk; the file must not be given out again.
        """
        assert self._descriptor is not None
        try:
            self.bring(content, whole=True)
            if self._failure is not None:
                raise self._failure
            length = len(content)
            record = Record.of(series, instance, content, self._checksum)
            write_all(self._descriptor, record.encode(), content[PREAMBLE:PAGE], bytes(max(0, PAGE - length)))
            sync(self._descriptor)
            os.ftruncate(self._descriptor, length)
        finally:
            self._close()

    def give_up(self) -> bool:
        """It is not needed any more; return whether it was never completed."""
        if self._descriptor is None:
            return False
        self._close()
        if self._failure is None:
            self._give_back(self._capacity, self.path)
        else:
            self.path.unlink(missing_ok=True)
        return True

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
