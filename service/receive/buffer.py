"""Where an instance is put together: one buffer for each association, used again for the next instance."""

import mmap
from collections.abc import Callable

from service.errors import OutOfResources
from service.received import Received
from service.record import PREAMBLE
from service.spill import Spill

IN_MEMORY = 1 << 24
"""Bytes of a file that are kept in memory; the rest of a larger one goes to the spool as it comes."""
ROOM = 1 << 21
"""Bytes behind them: a command set, or the part of a large file that is not yet in the spool; twice the longest PDU."""
COMMAND = IN_MEMORY
"""Where in the buffer a command set goes: not where the instance will be."""

KEPT = 1 << 20
"""Bytes of it that an association keeps while it waits: to be given new memory costs as much as to receive."""

_PREFIX = b"DICM"


class InstanceBuffer:
    """Holds the instance that is coming in as a DICOM file.

    The memory is mapped and not allocated: of its 18 MiB only those pages become real that bytes have come for, so an
    association costs what its largest instance does, without growing and copying, until it waits for the next one
    (`shrink`).

    Parameters
    ----------
    spill
        Opens a `Spill`. Raises `OutOfResources`.
    """

    def __init__(self, spill: Callable[[], Spill]) -> None:
        self._memory = mmap.mmap(-1, IN_MEMORY + ROOM, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.view = memoryview(self._memory)
        self.view[PREAMBLE : PREAMBLE + len(_PREFIX)] = _PREFIX
        self._open = spill
        self._spill: Spill | None = None
        self._spilt = 0  # bytes that are in the file
        self._failure: OutOfResources | None = None
        self._in_use = False
        self._reached = 0  # by the largest instance since the memory was given back

    def begin(self, file_meta: bytes) -> int:
        """Begin a file; return where its data set goes."""
        self._in_use = True
        start = PREAMBLE + len(_PREFIX)
        self.view[start : start + len(file_meta)] = file_meta
        return start + len(file_meta)

    def place(self, at: int, length: int) -> int:
        """Where the next payload goes, so many bytes long, when the last one ended at ``at``."""
        if at + length + 16 <= len(self.view):  # and the headers that follow it
            return at
        if self._failure is None:
            try:
                if self._spill is None:
                    self._spill = self._open()
                    self._spill.write(self.view[:at])
                else:
                    self._spill.write(self.view[IN_MEMORY:at])
            except OutOfResources as error:
                self._failure = error  # the rest is received all the same: the peer hears of it when it has sent all
        self._spilt += at - (IN_MEMORY if self._spilt else 0)
        return IN_MEMORY

    def received(self, at: int) -> Received:
        """The whole file, whose last byte came before ``at``.

        Raises
        ------
        OutOfResources
            It could not be written while it came.
        """
        self._reached = max(self._reached, at)
        if not self._spilt:
            return Received(self.view[:at], at)
        if self._failure is None and self._spill is not None:
            self._spill.write(self.view[IN_MEMORY:at])
            self._spill.close()
            length = self._spilt + at - IN_MEMORY
            return Received(self.view[:IN_MEMORY], length, self._spill.path)
        raise OutOfResources("the spool cannot be written") from self._failure

    def clear(self) -> None:
        """Make ready for the next instance; what nobody has taken is removed."""
        if self._spilt:
            if self._spill is not None:
                self._spill.discard()
            self._spill, self._spilt, self._failure = None, 0, None
        self._in_use = False

    def shrink(self) -> None:
        """Give back what a large instance took, where none is coming in; a command may be."""
        if self._reached > KEPT and not self._in_use:
            self._memory.madvise(mmap.MADV_DONTNEED, KEPT, IN_MEMORY - KEPT)
            self._reached = 0
