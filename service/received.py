"""One instance as it came: a whole DICOM file in memory, or, where it is large, in a file."""

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class Received:
    """A DICOM file (PS3.10): preamble, prefix, file meta information, and the data set bit for bit as it was sent.

    Attributes
    ----------
    head
        The beginning of the file, with the whole header where it is not enormous; all of it where ``file`` is None.
        Good only until the instance is answered: the buffer is used for the next one.
    length
        Of the whole file in bytes.
    file
        Where it lies as a whole, where it was too large for memory; on the spool's file system, not synced.
    """

    head: memoryview
    length: int
    file: Path | None = None

    @classmethod
    def of(cls, content: bytes) -> Self:
        """Wrap a file that is in memory as a whole."""
        return cls(memoryview(content), len(content))

    def whole(self) -> memoryview:
        """All of it; of a file, what is looked at is read, and not kept in memory. Raises `OSError`."""
        if self.file is None:
            return self.head
        with self.file.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), self.length, access=mmap.ACCESS_READ))
