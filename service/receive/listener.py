"""Listens for DICOM peers, and gives each connection a thread."""

import contextlib
import socket
import threading
import time

import structlog

from service.errors import ConfigurationError
from service.receive.association import Association
from service.receive.connection import Connection
from service.receive.conversation import Takes
from service.receive.peer import Peer
from service.receive.policy import AssociationPolicy
from service.receive.tls import Tls
from service.settings import Settings

log = structlog.get_logger()

_BACKLOG = 512
_STOP_SECONDS = 10.0
_CROWD_SECONDS = 10.0


class Listener:
    """The Storage and Verification SCP (PS3.4 B, A) on one port: that of ``[node]``, or with TLS that of ``[tls]``.

    So many connections may wait for an association as there are seats, and as many again. Where one more comes, the
    one that has waited longest makes room: whoever opens connections and says nothing keeps nobody out who asks at
    once.
    """

    def __init__(self, settings: Settings, policy: AssociationPolicy, intake: Takes, tls: Tls | None = None) -> None:
        self._settings = settings
        self._policy = policy
        self._intake = intake
        self._tls = tls
        self._most_waiting = 2 * settings.node.maximum_associations
        self._lock = threading.Lock()
        self._open: dict[socket.socket, threading.Thread] = {}
        self._waiting: dict[socket.socket, None] = {}  # those of them without an association, the oldest first
        self._crowded, self._told = 0, float("-inf")  # connections that made room since it was last told, and when
        self._server: socket.socket | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port it listens on (the chosen one where the setting is 0)."""
        assert self._server is not None
        return int(self._server.getsockname()[1])

    @property
    def listening(self) -> bool:
        """Whether it takes connections now."""
        return self._server is not None

    def start(self) -> None:
        """Listen. Raises `ConfigurationError` where the address or port cannot be had."""
        node = self._settings.node
        port = node.port if self._tls is None else self._settings.tls.port
        six = ":" in node.host
        family = socket.AF_INET6 if six else socket.AF_INET
        both = six and socket.has_dualstack_ipv6()  # "::" is every address, of both kinds
        try:
            self._server = socket.create_server((node.host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=both)
        except OSError as error:
            key = "node.port" if self._tls is None else "tls.port"
            reason = (error.strerror or str(error)).partition(" (while")[0]  # Python adds the address to it
            raise ConfigurationError(
                f"{key} = {port}: cannot listen on {node.host} ({reason}); "
                "end what listens there, or choose another port"
            ) from None
        self._thread = threading.Thread(target=self._accept, args=(self._server,), name=f"listener-{self.port}")
        self._thread.daemon = True
        self._thread.start()
        log.info(
            "receiver.listening", ae_title=node.ae_title, host=node.host, port=self.port, tls=self._tls is not None
        )

    def stop(self) -> None:
        """Take no new connections, and end those that are open when what they are storing is stored."""
        if self._server is None or self._thread is None:
            return
        server, self._server = self._server, None
        server.shutdown(socket.SHUT_RDWR)  # closing alone would not wake the thread that waits in accept
        self._thread.join()
        server.close()
        with self._lock:
            still_open, waiting = dict(self._open), set(self._waiting)
        for line in still_open:
            if self._tls is None or line in waiting:  # after an end that it did not expect, TLS sends no A-ABORT
                _hang_up(line)
        deadline = time.monotonic() + _STOP_SECONDS
        for thread in still_open.values():
            thread.join(max(0.0, deadline - time.monotonic()))

    def _accept(self, server: socket.socket) -> None:
        while self.listening:
            try:
                opened, _ = server.accept()
                self._begin(opened)
            except (OSError, RuntimeError) as error:  # no descriptors or threads left; or it was gone already
                if self.listening:
                    log.warning("connection.not_taken", reason=getattr(error, "strerror", None) or str(error))
                    time.sleep(0.1)

    def _begin(self, opened: socket.socket) -> None:
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
            connection = Connection(opened, lambda: not self.listening)
            peer = Peer.of(opened)
            threading.current_thread().name = f"association-{peer.address}"
            association = Association(connection, peer, self._settings.node, self._policy, self._intake)
            association.serve(lambda has_seat: self._seat(line, has_seat), lambda: not self.listening)
        except OSError as error:  # gone before it was served, or no handshake, which was logged
            log.debug("connection.closed", reason=error.strerror)
        finally:
            opened.close()
            self._forget(line)

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


def listeners(settings: Settings, policy: AssociationPolicy, intake: Takes) -> tuple[Listener, ...]:
    """Those that the settings ask for: plain, with TLS, or both. Raises `ConfigurationError` for wrong certificates."""
    plain = () if settings.tls.only else (Listener(settings, policy, intake),)
    return (*plain, Listener(settings, policy, intake, Tls(settings.tls))) if settings.tls.on else plain


def _hang_up(line: socket.socket) -> None:
    """Whoever waits for the peer finds the connection lost; sending still works."""
    with contextlib.suppress(OSError):
        line.shutdown(socket.SHUT_RD)
