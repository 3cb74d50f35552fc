"""What the node and an engines' process speak through: either end may stop in the middle of a word."""

import socket
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any

_END = object()


class Line:
    """One end of a connection between two processes.

    Messages are taken in by a thread of its own, so that whoever waits for one can give up, also where the other end
    was stopped while it sent.

    Parameters
    ----------
    connection
        A socket's; it is closed by `close`.
    ended
        Called by that thread when the other end has closed or died.
    """

    def __init__(self, connection: Connection, ended: Callable[[], None] = lambda: None) -> None:
        self._connection = connection
        self._ended = ended
        self._sending = Lock()
        self._came: SimpleQueue[Any] = SimpleQueue()
        self._thread = Thread(target=self._take_in, name="line", daemon=True)
        self._thread.start()

    def send(self, message: Any) -> None:
        """Send a message; waits for as long as the other end takes nothing.

        Raises
        ------
        OSError
            The line is closed, or the other end is gone.
        Exception
            Whatever hinders the message from being pickled; nothing of it was sent then.
        """
        with self._sending:
            self._connection.send(message)

    def next(self, seconds: float | None = None) -> Any:
        """Wait for the next message; None if there was none in so many seconds.

        Raises
        ------
        EOFError
            The other end is gone, and all that it said was taken.
        """
        try:
            message = self._came.get(timeout=seconds)
        except Empty:
            return None
        if message is _END:
            self._came.put(_END)
            raise EOFError
        return message

    def close(self) -> None:
        """Hang up: the other end hears it at once, and so does who still sends here."""
        with suppress(OSError):
            # Closing alone would not do: while a thread reads from it, the socket stays open.
            with socket.fromfd(self._connection.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as end:
                end.shutdown(socket.SHUT_RDWR)
            self._thread.join()
            with self._sending:
                self._connection.close()

    def _take_in(self) -> None:
        try:
            while True:
                self._came.put(self._connection.recv())
        except Exception:  # the end, or what nobody can read: it is not to be trusted any more
            pass
        self._came.put(_END)
        self._ended()
