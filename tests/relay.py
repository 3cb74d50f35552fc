"""Stands between a client and a server, and can be shut, hung up or held: the network as it is at times."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

PIECE = 1 << 16


class Line:
    """One connection through a relay: ``near`` to who has connected, ``far`` to the server."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near, self.far = near, far

    def hang_up(self) -> None:
        """End it, both ways."""
        for end in (self.near, self.far):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Relay:
    """Passes on what comes, as it comes. Use it as a context manager.

    Parameters
    ----------
    port
        Of the server behind it, on the loopback interface.
    listen
        Where it listens itself; on a free port by default.
    tls
        How it speaks TLS to who connects; what goes to the server is plain.
    """

    def __init__(self, port: int, listen: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self._to = port
        self._tls = tls
        self._passing = threading.Event()
        self._passing.set()
        self._lock = threading.Lock()
        self._lines: set[Line] = set()
        self._listener: socket.socket | None = None
        self.accepted = 0
        self.port = listen
        self.open()

    # ---- what can be done to it ------------------------------------------------------------------------------------

    def open(self) -> None:
        """Listen."""
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port))
            self.port = int(self._listener.getsockname()[1])
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def shut(self) -> None:
        """Listen no more: who connects is refused; and hang up all lines."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.hang_up()

    def hang_up(self) -> None:
        """End all lines."""
        for line in self.lines:
            line.hang_up()

    def hold(self) -> None:
        """Pass on nothing: all wait, and nobody is told."""
        self._passing.clear()

    def go_on(self) -> None:
        """Pass on what was held, and what comes."""
        self._passing.set()

    @property
    def lines(self) -> list[Line]:
        """Those that are open."""
        with self._lock:
            return list(self._lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._passing.set()
        self.shut()

    # ---- what it does ----------------------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                self.accepted += 1
                threading.Thread(target=self._begin, args=(near,), daemon=True).start()

    def _begin(self, near: socket.socket) -> None:
        try:
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                near = self._tls.wrap_socket(near, server_side=True)
            far = socket.create_connection(("127.0.0.1", self._to), 10)
        except OSError:  # a handshake that fails, a server that is not there
            near.close()
            return
        far.settimeout(None)
        far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line = Line(near, far)
        with self._lock:
            self._lines.add(line)
        ways = self._ways(line)
        left = [len(ways)]
        for way in ways:
            threading.Thread(target=self._run, args=(line, way, left), daemon=True).start()

    def _run(self, line: Line, way: Callable[[], None], left: list[int]) -> None:
        with contextlib.suppress(OSError, ValueError):  # it was hung up
            way()
        line.hang_up()
        with self._lock:
            left[0] -= 1
            if not left[0]:
                self._lines.discard(line)

    def _ways(self, line: Line) -> list[Callable[[], None]]:
        """What is done in each direction, until it returns."""
        return [lambda: self._copy(line.near, line.far), lambda: self._copy(line.far, line.near)]

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        while piece := source.recv(PIECE):
            self._passing.wait()
            target.sendall(piece)
