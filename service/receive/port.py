"""A port that DICOM peers connect to."""

import socket
import threading
import time
from collections.abc import Callable

import structlog

from service.errors import ConfigurationError
from service.settings import Settings

log = structlog.get_logger()

_BACKLOG = 512


class Port:
    """Listens on the port of ``[node]``, or with TLS on that of ``[tls]``.

    Parameters
    ----------
    secured
        Whether it is that of ``[tls]``.
    begin
        Called with each connection, in the thread that listens: takes it over, and returns at once. Raises `OSError`
        or `RuntimeError` where it cannot be served.
    """

    def __init__(self, settings: Settings, secured: bool, begin: Callable[[socket.socket], None]) -> None:
        self._settings = settings
        self._secured = secured
        self._begin = begin
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
        port = self._settings.tls.port if self._secured else node.port
        six = ":" in node.host
        family = socket.AF_INET6 if six else socket.AF_INET
        both = six and socket.has_dualstack_ipv6()  # "::" is every address, of both kinds
        try:
            self._server = socket.create_server((node.host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=both)
        except OSError as error:
            key = "tls.port" if self._secured else "node.port"
            reason = (error.strerror or str(error)).partition(" (while")[0]  # Python adds the address to it
            raise ConfigurationError(
                f"{key} = {port}: cannot listen on {node.host} ({reason}); "
                "end what listens there, or choose another port"
            ) from None
        self._thread = threading.Thread(target=self._accept, args=(self._server,), name=f"listener-{self.port}")
        self._thread.daemon = True
        self._thread.start()
        log.info("receiver.listening", ae_title=node.ae_title, host=node.host, port=self.port, tls=self._secured)

    def stop(self) -> None:
        """Take no new connections."""
        if self._server is None or self._thread is None:
            return
        server, self._server = self._server, None
        server.shutdown(socket.SHUT_RDWR)  # closing alone would not wake the thread that waits in accept
        self._thread.join()
        server.close()

    def _accept(self, server: socket.socket) -> None:
        while self.listening:
            try:
                opened, _ = server.accept()
                self._begin(opened)
            except (OSError, RuntimeError) as error:  # no descriptors or threads left; or it was gone already
                if self.listening:
                    log.warning("connection.not_taken", reason=getattr(error, "strerror", None) or str(error))
                    time.sleep(0.1)
