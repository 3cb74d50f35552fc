"""Deflated data sets (PS3.5 A.5): their beginning, and how far they inflate, without ever holding all of one.

A few kilobytes can inflate to gigabytes. What would, is not read at all.
"""

import zlib
from collections.abc import Iterator

from service.errors import Quarantined

LARGEST = 1 << 30
"""No data set inflates to more bytes than this: a parser would hold all of them."""
_PIECE = 1 << 16
_INFLATED = 1 << 20


def inflated_head(deflated: memoryview, size: int) -> bytes:
    """The beginning of a deflated data set, ``size`` bytes where it has as many.

    Raises
    ------
    ValueError
        It is not deflated, or ends early.
    Quarantined
        It inflates to more than `LARGEST` bytes.
    """
    head, total = bytearray(), 0
    for piece in _inflated(deflated):
        head += piece[: size - len(head)]
        total += len(piece)
        if total > LARGEST:
            raise Quarantined(f"the data set inflates to more than {LARGEST >> 20} MiB; send it in another encoding")
    return bytes(head)


def _inflated(deflated: memoryview) -> Iterator[bytes]:
    inflating = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for start in range(0, len(deflated), _PIECE):
            rest = bytes(deflated[start : start + _PIECE])
            while rest:
                yield inflating.decompress(rest, _INFLATED)
                rest = inflating.unconsumed_tail
            if inflating.eof:
                return
        while piece := inflating.decompress(b"", _INFLATED):
            yield piece
    except zlib.error as error:
        raise ValueError("not deflated") from error
    if not inflating.eof:
        raise ValueError("ends early")
