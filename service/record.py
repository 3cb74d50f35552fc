"""What the preamble of a file says that was written over: which instance it holds, and whether it is whole.

PS3.10 7.1 leaves the 128 bytes before ``DICM`` to whoever writes the file.
"""

import mmap
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import xxhash

from service.durable import write_all

PREAMBLE = 128
"""Bytes before ``DICM`` (PS3.10 7.1), which are ours to write: they say nothing about an instance."""
PAGE = 4096
"""Whole pages are written, for a part of one would first be read from the disk."""


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
    def of(cls, series: str, instance: str, content: memoryview) -> Self:
        """Make the record of an instance, a whole file."""
        digest = xxhash.xxh3_128(content[PREAMBLE:])
        digest.update(f"{series}{instance}{len(content):x}".encode())
        return cls(series, instance, len(content), digest.digest())

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


def write_over(path: str, series: str, instance: str, content: memoryview, sync: Callable[[int], object]) -> None:
    """Write an instance, a whole file, over one that has at least as many pages, and cut that.

    Raises
    ------
    OSError
        It is not on disk.
    """
    length = len(content)
    record = Record.of(series, instance, content).encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        write_all(descriptor, record, content[PREAMBLE:], bytes(whole_pages(length) - length))
        sync(descriptor)
        os.ftruncate(descriptor, length)
    finally:
        os.close(descriptor)


def read_record(path: Path) -> Record | None:
    """The record of a file, where it has one that fits. Raises `OSError`."""
    with path.open("rb", buffering=0) as file:
        record = Record.decode(file.read(PREAMBLE))
        if record is None:
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content, memoryview(content) as view:
            return record if record.fits(view) else None
