"""The connections of one port that this process serves, each in a thread."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable

import structlog

from service.receive.association import Association
from service.receive.conversation import Takes
from service.receive.peer import Peer
from service.receive.policy import AssociationPolicy
from service.receive.tls import Tls
from service.settings import Settings
from service.wire.connection import Connection

log = structlog.get_logger()

_STOP_SECONDS = 10.0
_CROWD_SECONDS = 10.0


class Connections:
    """Serves the Storage and Verification SCP (PS3.4 B, A) on each connection that it is given.

    So many connections may wait for an association as there are seats, and as many again. Where one more comes, the
    one that has waited longest makes room: whoever opens connections and says nothing keeps nobody out who asks at
    once.

    Parameters
    ----------
    tls
        What makes TLS connections of them, where they are to be.
    ended
        Called at the end of each that was begun.
    """

    def __init__(
        self,
        settings: Settings,
        policy: AssociationPolicy,
        intake: Takes,
        tls: Tls | None = None,
        ended: Callable[[], object] = lambda: None,
    ) -> None:
        self._settings = settings
        self._policy = policy
        self._intake = intake
        self._tls = tls
        self._ended = ended
        self._stopping = False
        self._most_waiting = 2 * settings.node.maximum_associations
        self._lock = threading.Lock()
        self._open: dict[socket.socket, threading.Thread] = {}
        self._waiting: dict[socket.socket, None] = {}  # those of them without an association, the oldest first
        self._crowded, self._told = 0, float("-inf")  # connections that made room since it was last told, and when

    def begin(self, opened: socket.socket) -> None:
        """Serve a connection. Raises `OSError` or `RuntimeError` where there are no descriptors or threads for it."""
        # a socket of TLS takes the descriptor with it, so that another one is needed to hang up while it shakes hands
        line = opened if self._tls is None else opened.dup()
        thread = threading.Thread(target=self._serve, args=(opened, line), name="association", daemon=True)
        with self._lock:
            crowded = next(iter(self._waiting)) if len(self._waiting) >= self._most_waiting else None
            if crowded is not None:
                del self._waiting[crowded]
                _hang_up(crowded)
            self._open[line] = thread
            self._waiting[line] = None
        if crowded is not None:
            self._tell_of_crowd()
        try:
            thread.start()
        except RuntimeError:
            self._forget(line)
            raise

    def stop(self) -> None:
        """End those that are open when what they are storing is stored; `begin` is not called any more."""
        self._stopping = True
        with self._lock:
            still_open, waiting = dict(self._open), set(self._waiting)
        for line in still_open:
            if self._tls is None or line in waiting:  # after an end that it did not expect, TLS sends no A-ABORT
                _hang_up(line)
        deadline = time.monotonic() + _STOP_SECONDS
        for thread in still_open.values():
            thread.join(max(0.0, deadline - time.monotonic()))

    def _tell_of_crowd(self) -> None:
        """One event now and then: who floods the node with connections is not to flood the log."""
        self._crowded += 1
        if time.monotonic() - self._told > _CROWD_SECONDS:
            fix = "find out who connects and asks for nothing"
            log.warning("connections.full", most=self._most_waiting, closed=self._crowded, fix=fix)
            self._crowded, self._told = 0, time.monotonic()

    def _serve(self, opened: socket.socket, line: socket.socket) -> None:
        try:
            if self._tls is not None:
                opened = self._tls.wrap(opened)
            connection = Connection(opened, lambda: self._stopping)
            peer = Peer.of(opened)
            threading.current_thread().name = f"association-{peer.address}"
            association = Association(connection, peer, self._settings.node, self._policy, self._intake)
            association.serve(lambda has_seat: self._seat(line, has_seat), lambda: self._stopping)
        except OSError as error:  # gone before it was served, or no handshake, which was logged
            log.debug("connection.closed", reason=error.strerror)
        finally:
            opened.close()
            self._forget(line)
            self._ended()

    def _seat(self, line: socket.socket, has_seat: bool) -> None:
        with self._lock:
            if has_seat:
                self._waiting.pop(line, None)
            else:
                self._waiting[line] = None

    def _forget(self, line: socket.socket) -> None:
        with self._lock:
            self._open.pop(line, None)
            self._waiting.pop(line, None)
        line.close()


def _hang_up(line: socket.socket) -> None:
    """Whoever waits for the peer finds the connection lost; sending still works."""
    with contextlib.suppress(OSError):
        line.shutdown(socket.SHUT_RD)
