"""A Starlette application in a thread of its own, that peers which never speak cannot wear out."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.errors import ConfigurationError

REQUEST_SECONDS = 10.0
"""How long a connection may take until its first request has begun: its line and header have come."""
GRACE_SECONDS = 5
"""How long requests that are being answered have at a stop."""


class WebServer:
    """Serves an application.

    Parameters
    ----------
    section
        Of the settings that name host and port, for errors.
    host, port
        Where to listen; port 0 takes a free one, see `port`.
    tls
        Serve HTTPS with what this gives, asked anew at each handshake, so that certificates may change. The scope has
        the channel, which knows the peer's certificate, as ``extensions.tls.channel``.
    connections
        How many at a time; those above are answered with 503. None: as many as come.
    """

    def __init__(
        self,
        section: str,
        app: ASGIApp,
        host: str,
        port: int,
        tls: Callable[[], ssl.SSLContext] | None = None,
        connections: int | None = None,
    ) -> None:
        self._section = section
        self._address = (host, port)
        config = uvicorn.Config(
            app,
            http=_PromptConnection,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            limit_concurrency=None if connections is None else connections + 1,  # it counts from its own on
        )
        config.load()
        config.ssl = None if tls is None else _renewing(tls)
        self._server = uvicorn.Server(config)

    def start(self) -> None:
        """Listen and serve.

        Raises
        ------
        ConfigurationError
            The address cannot be bound.
        """
        host, port = self._address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server(self._address, family=family)
        except OSError as error:
            raise ConfigurationError(
                f"{self._section}.port = {port}: cannot listen on {host} ({error.strerror}); "
                "end what listens there, or choose another port"
            ) from None
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name=self._section, daemon=True
        )
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.01)

    def stop(self) -> None:
        """Answer what is being asked, then close."""
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    @property
    def port(self) -> int:
        """The port it listens on (the chosen one where 0 was asked for)."""
        return int(self._socket.getsockname()[1])


class _PromptConnection(H11Protocol):
    """Uvicorn's connection, closed where no request comes; uvicorn itself waits only between two requests."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.loop.call_later(REQUEST_SECONDS, self._close_if_silent)
        if (channel := transport.get_extra_info("ssl_object")) is not None:
            self.app = _over(channel, self.app)

    def _close_if_silent(self) -> None:
        if getattr(self, "cycle", None) is None:
            self.transport.close()


def _renewing(tls: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """A context that takes the one of now for each connection."""

    def renew(channel: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _context: ssl.SSLContext) -> None:
        channel.context = tls()

    context = tls()
    context.sni_callback = renew  # called for every client hello, whether or not it names a server
    return context


def _over(channel: Any, app: Any) -> Any:
    """The application, told what channel it speaks over."""

    async def told(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await app({**scope, "extensions": {"tls": {"channel": channel}}}, receive, send)

    return told
