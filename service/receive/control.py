"""What the node and one of its receivers say to each other, and how connections pass from one to the other."""

import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

from service.settings import Settings

# ---- the node to a receiver ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Begin:
    """The first word: which receiver it is, counted from 1, and what it goes by."""

    number: int
    settings: Settings


@dataclass(frozen=True)
class Serve:
    """Serve the connection that comes with this; ``secured``: it came in by the port of ``[tls]``."""

    secured: bool


@dataclass(frozen=True)
class Asked:
    """Are you there? The answer is `Here`."""


@dataclass(frozen=True)
class Stop:
    """End what is open when what it is storing is stored, and yourself."""


# ---- a receiver to the node ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Begun:
    """Connections are served from now on; or an error, and then it ends."""

    error: Exception | None = None


@dataclass(frozen=True)
class Here:
    """The answer to `Asked`."""


@dataclass(frozen=True)
class Associated:
    """A peer asks for an association: whatever is to be asked of the node for it comes by the line with this."""


@dataclass(frozen=True)
class Ended:
    """A connection has ended."""


@dataclass(frozen=True)
class Logged:
    """An event, for the log of the node."""

    level: str
    event: str
    fields: dict[str, Any]


# ---- both ------------------------------------------------------------------------------------------------------------


class Control:
    """One end of what they speak through: messages, each with an open file or without.

    Whoever is at the other end got it from the node that started it: there is no address that others could find.

    Parameters
    ----------
    connection
        A socket's (AF_UNIX).
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()

    def send(self, message: object, descriptor: int | None = None) -> None:
        """Say something; a descriptor can be closed here afterwards. Raises `OSError` where the other end is gone."""
        with self._sending:
            self._connection.send((message, descriptor is not None))
            if descriptor is not None:
                send_handle(self._connection, descriptor, None)

    def receive(self) -> tuple[Any, int]:
        """Wait for the next message, and the descriptor that came with it, or -1; only one thread may.

        Raises
        ------
        EOFError, OSError
            The other end is gone.
        """
        message, comes_with = self._connection.recv()
        return message, recv_handle(self._connection) if comes_with else -1

    def close(self) -> None:
        """Hang up; not while another thread waits in `receive`."""
        with self._sending:
            self._connection.close()
