"""``/health`` and ``/metrics`` over HTTP, for an orchestrator and for Prometheus; nothing of a patient in either."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.operate.metrics import Metrics
from service.roles import Role
from service.web import WebServer


@dataclass(frozen=True)
class EngineHealth:
    """One served model: what it runs on, and whether it reproduced its golden outputs there.

    ``problem`` says what is wrong where it did not, ``refusals`` why what was asked for in the settings was not taken.
    """

    model: str
    runtime: str
    precision: str
    device: str
    verified: bool
    problem: str = ""
    refusals: tuple[str, ...] = ()


@dataclass(frozen=True)
class Health:
    """What is right and wrong in the node just now.

    ``spool_free_bytes`` is the room left on the file system of the spool; ``receivers_lost`` counts those of several
    receiving processes that have died and are being started again; ``role`` is what the node is there for.
    """

    version: str
    receiver_listening: bool
    ledger_reachable: bool
    spool_writable: bool
    spool_free_bytes: int
    engines: tuple[EngineHealth, ...]
    receivers_lost: int = 0
    role: Role = Role.ALL

    @property
    def ok(self) -> bool:
        """Whether it does what it is there for: of a whole node, that a series that arrives now would be worked on."""
        receives = self.receiver_listening or not self.role.receives
        works = (bool(self.engines) and all(engine.verified for engine in self.engines)) or not self.role.works
        return self.ledger_reachable and self.spool_writable and receives and works


class HttpServer:
    """Serves health and metrics from a thread of its own.

    Parameters
    ----------
    host, port
        Where to listen; port 0 takes a free one, see `port`.
    health
        Asked at each request to ``/health``, in a worker thread. The answer is 200 where it is ok, else 503.
    metrics
        What ``/metrics`` shows.
    also
        Further routes.
    """

    def __init__(
        self, host: str, port: int, health: Callable[[], Health], metrics: Metrics, also: Sequence[Route] = ()
    ) -> None:
        self._health = health
        self._metrics = metrics
        routes = [Route("/health", self._show_health), Route("/metrics", self._show_metrics), *also]
        self._server = WebServer("http", Starlette(routes=routes), host, port)

    def start(self) -> None:
        """Listen and serve. Raises `ConfigurationError` where the address cannot be bound."""
        self._server.start()

    def stop(self) -> None:
        """Answer what is being asked, then close."""
        self._server.stop()

    @property
    def port(self) -> int:
        """The port it listens on (the chosen one where 0 was asked for)."""
        return self._server.port

    def _show_health(self, _request: Request) -> Response:
        health = self._health()
        content = {"status": "ok" if health.ok else "degraded", "use": "research use only"} | asdict(health)
        return JSONResponse(content, status_code=200 if health.ok else 503)

    def _show_metrics(self, _request: Request) -> Response:
        return Response(generate_latest(self._metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
