"""Room for equally large slices that come in any order, so that those of one stack mostly end up beside each other.

Slices are written where their instance number says. When the last one has come, the volume is there: it is mapped and
nothing is copied. Only where numbers do not follow positions are slices copied.
"""

import errno
import fcntl
import mmap
import os
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import Quarantined

ROOM_BELOW = 1024
"""Slots before the one of the slice that comes first; unused ones take no room."""
IN_A_ROW = 16384
"""Slots for numbers in a row."""
SLOTS = 2 * IN_A_ROW
"""With those that follow, for slices whose number is taken or far from all others, in the order in which they come."""
MAP_NORESERVE = 0x4000 if sys.platform == "linux" else 0
"""Addresses, for which no memory is set aside (mmap(2)); Python names it from 3.13 on."""


Make = Callable[[NDArray[Any]], object]


def copy_of(values: NDArray[Any]) -> Make:
    """What copies these values into a slab."""
    return lambda target: np.copyto(target, values, casting="same_kind")


@dataclass(frozen=True)
class Slot:
    """One slice of a slab."""

    slab: "Slab"
    index: int


class Slab(ABC):
    """Slices of one shape and type. Several threads may write.

    Parameters
    ----------
    shape
        Rows and columns of a slice.
    """

    def __init__(self, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self.shape = shape
        self.dtype = dtype
        self.slice_bytes = shape[0] * shape[1] * dtype.itemsize
        self._lock = threading.Lock()
        self._taken: set[int] = set()
        self._elsewhere = IN_A_ROW
        self._first: tuple[int, float] | None = None
        self._direction = 0

    def write(self, number: int, along: float, make: Make) -> Slot:
        """Keep one slice.

        Parameters
        ----------
        number
            Instance number, or whatever numbers slices in a row.
        along
            Position along the normal in mm: tells whether numbers grow with it or against it.
        make
            Writes the slice into an array ``[row, column]`` of this slab's type. What it raises leaves a slot empty.

        Raises
        ------
        Quarantined
            There are too many slices that have no place of their own.
        """
        slot = Slot(self, self._place(number, along))
        self.write_at(slot.index, make)
        return slot

    def fill(self, slots: Sequence[Slot]) -> None:
        """Fill this slab, from its first slot on, with slices of others of the same shape."""
        for index, slot in enumerate(slots):
            self.write_at(index, copy_of(slot.slab.read(slot.index)))

    @abstractmethod
    def write_at(self, index: int, make: Make) -> None:
        """Write one slice where it is told."""

    @abstractmethod
    def read(self, index: int) -> NDArray[Any]:
        """One slice."""

    @abstractmethod
    def map(self, first: int, count: int) -> NDArray[Any]:
        """``[slice, row, column]``, of slices that lie beside each other; nothing is copied."""

    @abstractmethod
    def close(self) -> None:
        """Take no more slices; volumes that were mapped stay valid."""

    @abstractmethod
    def remove(self) -> None:
        """Close it, and give back the room that it takes."""

    def _place(self, number: int, along: float) -> int:
        with self._lock:
            if self._first is None:
                self._first = number, along
            elif not self._direction and number != self._first[0] and along != self._first[1]:
                self._direction = 1 if (number > self._first[0]) == (along > self._first[1]) else -1
            wanted = ROOM_BELOW + (number - self._first[0]) * (self._direction or 1)
            if wanted in self._taken or not 0 <= wanted < IN_A_ROW:
                wanted = self._elsewhere
                self._elsewhere += 1
            if wanted >= SLOTS:
                raise Quarantined(f"{IN_A_ROW} slices have numbers that others have too; send the series in parts")
            self._taken.add(wanted)
            return wanted


class FileSlab(Slab):
    """A slab in a file, made anew: it can be handed from stage to stage, and takes no memory that the kernel needs.

    The file is locked (flock(2)) while slices may come.
    """

    def __init__(self, path: Path, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        super().__init__(shape, dtype)
        self.path = path
        self._file = path.open("x+b", buffering=0)
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def write_at(self, index: int, make: Make) -> None:
        """Write one slice where it is told. Raises `OSError` where the disk is full."""
        content = np.empty(self.shape, self.dtype)
        make(content)
        if os.pwrite(self._file.fileno(), content.data, index * self.slice_bytes) != content.nbytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path.parent))

    def read(self, index: int) -> NDArray[Any]:
        """A copy of one slice."""
        content = os.pread(self._file.fileno(), self.slice_bytes, index * self.slice_bytes)
        return np.frombuffer(content, self.dtype).reshape(self.shape)

    def map(self, first: int, count: int) -> NDArray[Any]:
        """As `Slab.map`; read only."""
        return np.memmap(self.path, self.dtype, "r", first * self.slice_bytes, (count, *self.shape))

    def close(self) -> None:
        """As `Slab.close`."""
        self._file.close()

    def remove(self) -> None:
        """As `Slab.remove`."""
        self.close()
        self.path.unlink(missing_ok=True)


class MemorySlab(Slab):
    """A slab in memory, for an image that is looked at and forgotten."""

    def __init__(self, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        super().__init__(shape, dtype)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        room = mmap.mmap(-1, SLOTS * self.slice_bytes, flags)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            room.madvise(mmap.MADV_HUGEPAGE)  # small pages would cost more time than all else
        self._slices: NDArray[Any] = np.frombuffer(room, dtype).reshape(SLOTS, *shape)

    def write_at(self, index: int, make: Make) -> None:
        """As `Slab.write_at`."""
        make(self._slices[index])

    def read(self, index: int) -> NDArray[Any]:
        """As `Slab.read`; a view."""
        slice_: NDArray[Any] = self._slices[index]
        return slice_

    def map(self, first: int, count: int) -> NDArray[Any]:
        """As `Slab.map`."""
        return self._slices[first : first + count]

    def close(self) -> None:
        """As `Slab.close`: the memory goes with the last array that is mapped from it."""

    def remove(self) -> None:
        """As `Slab.remove`."""


def lie_in_a_row(slots: Sequence[Slot]) -> bool:
    """Whether slices lie beside each other in one slab, in this order."""
    first = slots[0]
    return all(slot.slab is first.slab and slot.index == first.index + place for place, slot in enumerate(slots))
