"""What the preamble of a file says that was written over: which instance it holds, and whether it is whole.

PS3.10 7.1 leaves the 128 bytes before ``DICM`` to whoever writes the file.
"""

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import xxhash

PREAMBLE = 128
"""Bytes before ``DICM`` (PS3.10 7.1), which are ours to write: they say nothing about an instance."""
PAGE = 4096
"""Whole pages are written, for a part of one would first be read from the disk."""


class Checksum:
    """The checksum of a record, while the bytes come."""

    def __init__(self) -> None:
        self._digest = xxhash.xxh3_128()
        self._seen = PREAMBLE

    def see(self, content: memoryview) -> None:
        """So much of the file has come."""
        self._digest.update(content[self._seen :])
        self._seen = len(content)

    def of(self, series: str, instance: str) -> bytes:
        """That of all which was seen, as an instance."""
        self._digest.update(f"{series}{instance}{self._seen:x}".encode())
        return self._digest.digest()


@dataclass(frozen=True)
class Record:
    """What the preamble of a recycled file says: a magic with the version of this layout, and what follows.

    Attributes
    ----------
    series, instance
        Their keys in the spool (`service.spool.key_of`), 16 hexadecimal digits each.
    length
        Of the whole file in bytes.
    checksum
        XXH3 (128 bits) of all bytes from 128 on, the keys and the length. It tells what was torn by a stop; it does not
        protect against people.
    """

    series: str
    instance: str
    length: int
    checksum: bytes

    @classmethod
    def of(cls, series: str, instance: str, content: memoryview, checksum: "Checksum | None" = None) -> Self:
        """Make the record of an instance, a whole file, of which a checksum may have seen the beginning."""
        checksum = checksum or Checksum()
        checksum.see(content)
        return cls(series, instance, len(content), checksum.of(series, instance))

    def encode(self) -> bytes:
        """The 128 bytes."""
        keys = bytes.fromhex(self.series), bytes.fromhex(self.instance)
        return _LAYOUT.pack(_MAGIC, *keys, self.length, self.checksum)

    @classmethod
    def decode(cls, preamble: bytes) -> Self | None:
        """Read one; None where there is none. Whether it fits the file is another question: `fits`."""
        if len(preamble) < PREAMBLE or not preamble.startswith(_MAGIC):
            return None
        _, series, instance, length, checksum = _LAYOUT.unpack(preamble[:PREAMBLE])
        return cls(series.hex(), instance.hex(), length, checksum)

    def fits(self, content: memoryview) -> bool:
        """Whether the file, which may have old bytes behind the instance, holds what the record says."""
        if not PREAMBLE <= self.length <= len(content):
            return False
        return Record.of(self.series, self.instance, content[: self.length]) == self


_MAGIC = b"WETREAD\x01"
_LAYOUT = struct.Struct("<8s8s8sQ16s80x")
assert _LAYOUT.size == PREAMBLE


def whole_pages(length: int) -> int:
    """A length in bytes, up to the next page."""
    return -(-length // PAGE) * PAGE


def read_record(path: Path) -> Record | None:
    """The record of a file, where it has one that fits. Raises `OSError`."""
    with path.open("rb", buffering=0) as file:
        record = Record.decode(file.read(PREAMBLE))
        if record is None:
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content, memoryview(content) as view:
            return record if record.fits(view) else None
