"""A connection to a peer that must get on: each wait ends, however slowly the bytes come."""

import contextlib
import select
import socket
import ssl
import struct
from collections.abc import Callable
from time import monotonic

from service.wire.ends import ConnectionLost, TimedOut

MINIMUM_RATE = 1024
"""Bytes per second that a message must bring after the first wait; less is a peer that only holds on to its seat."""

_TICK_SECONDS = 1.0  # how often a wait looks at the time
_LEAVE_SECONDS = 1.0


class Connection:
    """A socket, plain or TLS, and the time until which its peer must have sent something.

    A time limit for each call would let a peer live for ever on one byte a second. So there is one for everything: it
    is set when a wait begins (`allow`), and every payload that came prolongs it by its bytes / `MINIMUM_RATE`
    (`prolong`). A message of n bytes is thus here within the wait + n / `MINIMUM_RATE` seconds, or it is over.

    Parameters
    ----------
    opened
        The socket. A plain one is left blocking, with the kernel's own time limit: Python's would cost a poll per call.
    stopping
        Asked before each wait, and about once a second in it, whether to give up.
    send_seconds
        How long a peer may leave unread what it is sent, beside what its bytes take at `MINIMUM_RATE`.

    Attributes
    ----------
    meanwhile
        Called about once a second while nothing comes.
    """

    def __init__(
        self, opened: socket.socket, stopping: Callable[[], bool] = lambda: False, send_seconds: float = 60.0
    ) -> None:
        self._socket = opened
        self._stopping = stopping
        self.meanwhile: Callable[[], object] = lambda: None
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if isinstance(opened, ssl.SSLSocket):
            opened.settimeout(_TICK_SECONDS)
        else:
            opened.settimeout(None)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(_TICK_SECONDS))
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(_TICK_SECONDS))
        self._send_seconds = send_seconds
        self._receive = opened.recv_into
        self._all = 0 if isinstance(opened, ssl.SSLSocket) else socket.MSG_WAITALL
        self._expires = self._over = float("inf")

    def limit(self, seconds: float) -> None:
        """From now on it may last so long as a whole, whatever is allowed and prolonged."""
        self._over = monotonic() + seconds

    def allow(self, seconds: float) -> None:
        """Begin a wait of so long. Raises `ConnectionLost` where it is not to be waited any more."""
        if self._stopping():
            raise ConnectionLost("given up")
        self._expires = min(monotonic() + seconds, self._over)

    def prolong(self, count: int) -> None:
        """So many bytes of a message have come."""
        self._expires = min(self._expires + count / MINIMUM_RATE, self._over)

    def receive(self, view: memoryview, fill: bool = False) -> int:
        """Receive what is there, at least one byte; return how many.

        Parameters
        ----------
        fill
            Whether to wait, for about a second, until the view is full, where the socket can: the fewer calls, the
            less often threads that receive at the same time wait for each other.

        Raises
        ------
        ConnectionLost, TimedOut
            Nothing comes any more, or nothing came in time.
        """
        while monotonic() < self._expires:
            try:
                count = self._receive(view, 0, self._all if fill else 0)
            except (BlockingIOError, TimeoutError):
                if self._stopping():
                    raise ConnectionLost("given up") from None
                self.meanwhile()
                continue
            except OSError as error:
                raise ConnectionLost(error.strerror or type(error).__name__) from None
            if count:
                return count
            raise ConnectionLost("closed by the peer")
        raise TimedOut

    def send(self, content: bytes | memoryview) -> None:
        """Send PDUs. Raises `ConnectionLost`, also where the peer does not take them."""
        left = memoryview(content)
        expires = monotonic() + self._send_seconds + len(left) / MINIMUM_RATE
        while True:
            try:
                left = left[self._socket.send(left) :]
            except (BlockingIOError, TimeoutError):  # by TLS the same bytes must come again, and they do
                pass
            except OSError as error:
                raise ConnectionLost(error.strerror or type(error).__name__) from None
            if not left:
                return
            if monotonic() > expires:
                raise ConnectionLost("the peer does not read")

    def take_leave(self, last: bytes) -> None:
        """Send the last PDU of ours, and wait a little for the peer to close the connection (PS3.8 9.2, Sta13).

        Closed at once, with bytes of the peer's unread, the connection would be reset, and the PDU lost.
        """
        with contextlib.suppress(ConnectionLost, TimedOut):
            self.send(last)
            self._over, self._stopping, self.meanwhile = float("inf"), lambda: False, lambda: None
            self.allow(_LEAVE_SECONDS)
            rest = memoryview(bytearray(1 << 14))
            while True:
                self.receive(rest)

    def silent(self) -> bool:
        """Whether the peer has sent nothing that is still to be read, its end of the connection included."""
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return False
        return not select.select([self._socket], [], [], 0)[0]

    def close(self) -> None:
        """Close it now."""
        self._socket.close()


def _timeval(seconds: float) -> bytes:
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
