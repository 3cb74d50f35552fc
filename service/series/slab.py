"""A file of equally large slices that come in any order, so that those of one stack mostly end up beside each other.

Slices are written where their instance number says. When the last one has come, the volume is there: it is mapped from
this file and nothing is copied. Only where numbers do not follow positions are slices copied, in the kernel.
"""

import errno
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOM_BELOW = 1024
"""Slots before the one of the slice that comes first; unused ones take no room on disk."""
SLOTS = 16384


@dataclass(frozen=True)
class Slot:
    """One slice of a slab."""

    slab: "Slab"
    index: int


class Slab:
    """A file of slices of one shape and type. Several threads may write.

    Parameters
    ----------
    path
        Made anew.
    shape
        Rows and columns of a slice.
    """

    def __init__(self, path: Path, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self.path = path
        self.shape = shape
        self.dtype = dtype
        self.slice_bytes = shape[0] * shape[1] * dtype.itemsize
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        self._lock = threading.Lock()
        self._taken: set[int] = set()
        self._first: tuple[int, float] | None = None
        self._direction = 0

    def write(self, values: NDArray[Any], number: int, along: float) -> Slot:
        """Keep one slice.

        Parameters
        ----------
        number
            Instance number, or whatever numbers slices in a row.
        along
            Position along the normal in mm: tells whether numbers grow with it or against it.
        """
        slot = Slot(self, self._place(number, along))
        self.write_at(slot.index, values)
        return slot

    def write_at(self, index: int, values: NDArray[Any]) -> None:
        """Write one slice where it is told."""
        content = np.ascontiguousarray(values, self.dtype)
        if os.pwrite(self._file, content.data, index * self.slice_bytes) != content.nbytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path.parent))

    def sync(self) -> None:
        """Wait until all that was written would survive a power cut."""
        os.fdatasync(self._file)

    def close(self) -> None:
        """Close the file; volumes that were mapped from it stay valid."""
        os.close(self._file)

    def fill(self, slots: Sequence[Slot]) -> None:
        """Fill this slab, from its first slot on, with slices of others of the same shape."""
        for index, slot in enumerate(slots):
            if slot.slab.dtype == self.dtype:
                _copy(slot, self._file, index * self.slice_bytes)
            else:
                self.write_at(index, slot.slab.read(slot.index))

    def map(self, first: int, count: int) -> "np.memmap[Any, np.dtype[Any]]":
        """``[slice, row, column]``, read only, of slices that lie beside each other."""
        return np.memmap(self.path, self.dtype, "r", first * self.slice_bytes, (count, *self.shape))

    def _place(self, number: int, along: float) -> int:
        with self._lock:
            if self._first is None:
                self._first = number, along
            elif not self._direction and number != self._first[0] and along != self._first[1]:
                self._direction = 1 if (number > self._first[0]) == (along > self._first[1]) else -1
            wanted = ROOM_BELOW + (number - self._first[0]) * (self._direction or 1)
            if wanted in self._taken or not 0 <= wanted < SLOTS:
                wanted = max(self._taken) + 1
            self._taken.add(wanted)
            return wanted

    def read(self, index: int) -> NDArray[Any]:
        """A copy of one slice."""
        content = os.pread(self._file, self.slice_bytes, index * self.slice_bytes)
        return np.frombuffer(content, self.dtype).reshape(self.shape)


def lie_in_a_row(slots: Sequence[Slot]) -> bool:
    """Whether slices lie beside each other in one slab, in this order."""
    first = slots[0]
    return all(slot.slab is first.slab and slot.index == first.index + place for place, slot in enumerate(slots))


def _copy(slot: Slot, target: int, offset: int) -> None:
    source, start, left = slot.slab._file, slot.index * slot.slab.slice_bytes, slot.slab.slice_bytes
    while left:
        copied = os.copy_file_range(source, target, left, start, offset)
        if not copied:
            raise OSError(f"{slot.slab.path.name}: shorter than the slices that it should hold")
        start, offset, left = start + copied, offset + copied, left - copied
