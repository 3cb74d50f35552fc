"""Messages with a data set on their way to a peer: files become PDUs in one buffer, some dozens at a time.

Headers are packed where they belong, and the kernel reads the data set of a file to the places between them
(``preadv``): a small object costs one call to read and one to send. The buffer stays in the processor's cache, so that
this costs no more than to map the file; and a file that was cut short is an error, not a signal that ends the node.
"""

import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.wire.pdu import IS_LAST, P_DATA

LONGEST = 1 << 17
"""Bytes of the longest P-DATA-TF PDU that we send, with its header; where the peer takes less, it is less."""

_BLOCK = 1 << 18
_COMMANDS = 1 << 13  # room for a command before the first block
_MOST_VIEWS = 1000  # IOV_MAX is 1024
_HEADERS = struct.Struct(">BxIIBB")


class FileChanged(OSError):
    """A file holds less than it did when it was looked at."""


@dataclass(frozen=True)
class DataSet:
    """An encoded data set in an open file: ``length`` bytes from ``start`` on."""

    descriptor: int
    start: int
    length: int


class Outgoing:
    """Sends messages as P-DATA-TF PDUs (PS3.8 9.3.5), each with one presentation data value.

    Parameters
    ----------
    send
        Sends all of what it is given. Raises `ConnectionLost`.
    maximum
        Longest P-DATA-TF PDU that the peer takes, without its header of 6 bytes; 0 for any (PS3.8 D.1).
    """

    def __init__(self, send: Callable[[memoryview], object], maximum: int) -> None:
        self._send = send
        most = min(maximum or LONGEST, LONGEST - 6)
        self._payload = max(most - 6, 2) & ~1  # fragments have even lengths (PS3.8 E.1)
        self._view = memoryview(bytearray(max(_BLOCK, self._payload + _HEADERS.size) + _COMMANDS))

    def message(self, context: int, command: bytes, data_set: DataSet) -> None:
        """Send a message.

        Parameters
        ----------
        context
            ID of the presentation context.
        command
            PDUs of the command.

        Raises
        ------
        ConnectionLost
        OSError
            The file cannot be read (`FileChanged`), and the message is cut short: the association must be aborted.
        """
        self._view[: len(command)] = command
        filled, offset, end = len(command), data_set.start, data_set.start + data_set.length
        while offset < end:
            filled, taken = self._block(context, filled, data_set.descriptor, offset, end)
            self._send(self._view[:filled])
            filled, offset = 0, offset + taken

    def _block(self, context: int, at: int, descriptor: int, offset: int, end: int) -> tuple[int, int]:
        """Fill the buffer from ``at`` on; return where it is filled to, and how much of the data set that took."""
        view, left, header = self._view, end - offset, _HEADERS.size
        places: list[memoryview] = []
        while left and len(places) < _MOST_VIEWS:
            length = min(left, self._payload)
            if at + header + length > len(view):
                break
            left -= length
            control = 0 if left else IS_LAST
            _HEADERS.pack_into(view, at, P_DATA, length + 6, length + 2, context, control)
            at += header + length
            places.append(view[at - length : at])
        _read(descriptor, places, offset, end - offset - left)
        return at, end - offset - left


def _read(descriptor: int, places: Sequence[memoryview], offset: int, count: int) -> None:
    if os.preadv(descriptor, places, offset) == count:
        return
    for place in places:  # the file system gave less than was asked for, or there is no more
        while place:
            got = os.preadv(descriptor, [place], offset)
            if not got:
                raise FileChanged("the file has become shorter")
            place, offset = place[got:], offset + got
