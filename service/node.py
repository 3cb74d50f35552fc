"""The composition root: builds the parts of a node from its settings, starts them, drains them."""

import os
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import structlog
from sqlalchemy.exc import DBAPIError

from engines.packages.package import ModelPackage
from engines.serving.pool import EnginePool
from service import __version__
from service.deliver.capabilities import Capabilities
from service.deliver.sender import Senders
from service.encoding import encode_files
from service.errors import ConfigurationError
from service.lanes import make_workers
from service.ledger.ledger import open_ledger
from service.operate.certificates import CertificateWatch
from service.operate.fetching import Fetching
from service.operate.http import EngineHealth, Health, HttpServer
from service.operate.metrics import Metrics
from service.operate.operator import operator_routes
from service.operate.page import Page
from service.pipeline import Encode, NoEngines, Pipeline
from service.reception import Reception
from service.roles import Role
from service.series.streaming import Streaming
from service.served import compiled_folder, engine_spec, served_packages
from service.settings import Settings
from service.shared_spool import open_spool
from service.upkeep import EngineUpkeep
from service.worker import Worker

log = structlog.get_logger()


class Node:
    """A running node. Use it as a context manager, or `start` it and later `stop` it.

    Parameters
    ----------
    role
        Which part of the work it does; anything but all needs others, and a ledger and a spool that they share.
    encode
        How results are encoded; by itself in this process (`service.encoding`).

    Raises
    ------
    WetreadError
        From `start`: the spool, the port, a model or an engine is not as it must be; nothing is served then.
    """

    def __init__(self, settings: Settings, role: Role = Role.ALL, encode: Encode = encode_files) -> None:
        self._settings = settings
        self._role = role
        self._encode = encode
        self._metrics = Metrics.on_new_registry()
        self._certificates = CertificateWatch(settings)
        self._stopping = threading.Event()
        self._begun: ExitStack | None = None
        self._grace_seconds = 0.0
        self._workers: tuple[Worker, ...] = ()
        self._engines: EnginePool | None = None
        self._reception: Reception | None = None
        self._fetching: Fetching | None = None

    def start(self) -> None:
        """Open the spool, ledger and engines, then listen: a sender finds either a node that works or none."""
        with ExitStack() as begun:  # what has begun ends, the last first, where what follows fails; or at `stop`
            self._begin(begun)
            self._begun = begun.pop_all()
        models = sorted(self._engines.packages) if self._engines else []
        log.info("node.started", version=__version__, role=str(self._role), models=models, http_port=self._http.port)

    def _begin(self, begun: ExitStack) -> None:
        settings, role = self._settings, self._role
        if role is not Role.ALL and not settings.shared:
            raise ConfigurationError(
                f"--role {role}: the other roles need the same ledger; set ledger.url to a PostgreSQL database, and "
                "spool.path to a folder that all of them see under the same path, or spool.url to an object store"
            )
        packages = served_packages(settings) if role.works else {}
        spool = settings.spool
        receivers = settings.node.receivers if role.receives and settings.node.receivers > 1 else 0
        ready_mb = spool.ready_mb if role.receives and not receivers else 0
        self._spool = open_spool(settings, ready_mb=ready_mb, node=settings.shared)
        self._spool.lock(receivers)
        begun.callback(self._spool.unlock)
        self._ledger = open_ledger(settings.spool.path, settings.ledger, settings.urgent_senders)
        begun.callback(self._ledger.close)
        if reclaimed := self._ledger.reclaim():
            log.info("ledger.reclaimed", jobs=reclaimed)
        if role.works:
            self._begin_engines(begun, packages)
        self._streaming = Streaming(self._spool, min(4, os.cpu_count() or 1))
        begun.callback(self._streaming.stop)
        capabilities = Capabilities(settings.node.ae_title, settings.spool.path, self._spool)
        senders = Senders(settings, capabilities)
        begun.callback(senders.close)
        engines = self._engines or NoEngines()
        parts = (self._spool, self._ledger, self._streaming, engines, capabilities, senders)
        pipeline = Pipeline(settings, *parts, self._encode)
        self._workers = tuple(make_workers(settings, role, pipeline, self._ledger, self._metrics))
        if role.receives:
            # what is read while it comes is of use where it is assembled
            also = (self._streaming,) if role.works else ()
            self._reception = Reception(settings, self._spool, self._ledger, self._metrics, *also)
            begun.callback(self._reception.close)
            begun.callback(self._reception.drain)
            self._fetching = Fetching(settings, self._spool, self._ledger) if settings.fetch else None
        self._metrics.watch_jobs(self._ledger.counts)
        self._metrics.watch_engines(lambda: self._engines.statuses if self._engines else ())
        self._metrics.watch_certificates(self._certificates.ends)
        page = Page(self.health, self._ledger, settings)
        routes = operator_routes(page, self._ledger, settings.http.password.get_secret_value())
        self._http = HttpServer(settings.http.host, settings.http.port, self.health, self._metrics, routes)
        self._http.start()
        begun.callback(self._http.stop)
        self._certificates.look()
        ticker = threading.Thread(target=self._tick, name="ticker", daemon=True)
        ticker.start()
        begun.callback(ticker.join)
        begun.callback(self._stopping.set)
        if self._fetching is not None:
            self._fetching.start()
            begun.callback(self._fetching.stop)
        for worker in self._workers:
            worker.start()
        begun.callback(self._end_workers)  # while the ticker still prolongs their leases
        if self._reception is not None:
            begun.callback(self._reception.drain)  # once more: what comes is stopped before what works on it

    def _begin_engines(self, begun: ExitStack, packages: Mapping[str, ModelPackage]) -> None:
        settings = self._settings
        self._engines = EnginePool(engine_spec(settings), settings.engines.devices)
        with ExitStack() as opening:
            opening.callback(self._engines.close)
            self._engines.open(packages)
            upkeep = EngineUpkeep(settings, self._engines, lambda: served_packages(settings), compiled_folder(settings))
            upkeep.start()
            begun.callback(upkeep.stop)
            begun.push(opening.pop_all())  # ends before the upkeep, which may be at a reload that would take long

    def stop(self, grace_seconds: float = 30.0) -> None:
        """Drain: take no new associations, let running stages finish or hand them back, close everything."""
        if self._begun is None:
            return
        log.info("node.draining")
        self._grace_seconds = grace_seconds
        begun, self._begun = self._begun, None
        begun.close()
        log.info("node.stopped")

    def _end_workers(self) -> None:
        """Have them finish what they are at, or hand it back."""
        for worker in self._workers:
            worker.stop()
        deadline = time.monotonic() + self._grace_seconds
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))
            if worker.is_alive():
                worker.hand_back()

    @property
    def port(self) -> int:
        """The DICOM port it listens on: the plain one where there is one; 0 where it does not receive."""
        return self._reception.port if self._reception else 0

    @property
    def http_port(self) -> int:
        """The port of ``/health`` and ``/metrics``."""
        return self._http.port

    def health(self) -> Health:
        """What is right and wrong just now."""
        try:
            self._ledger.counts()
            ledger_reachable = True
        except DBAPIError:
            ledger_reachable = False
        return Health(
            version=__version__,
            role=self._role,
            receiver_listening=self._reception is not None and self._reception.listening,
            receivers_lost=self._reception.lost if self._reception else 0,
            ledger_reachable=ledger_reachable,
            spool_writable=self._spool.writable(),
            spool_free_bytes=self._spool.free_bytes(),
            engines=tuple(
                EngineHealth(
                    status.model,
                    status.engine.runtime,
                    status.engine.precision,
                    status.engine.device,
                    status.verified,
                    status.problem,
                    status.refusals,
                )
                for status in (self._engines.statuses if self._engines else ())
            ),
        )

    def _tick(self) -> None:
        """Several times a second: complete what is whole; now and then: prolong leases, forget what is old."""
        last_beat = last_sweep = time.monotonic()
        beat_seconds = min(20.0, self._settings.ledger.lease_seconds / 4)
        while not self._stopping.wait(0.1):
            try:
                self._streaming.tick()
                if self._reception is not None:
                    self._reception.decide()
                if time.monotonic() - last_beat > beat_seconds:
                    last_beat = time.monotonic()
                    for worker in self._workers:
                        worker.beat()
                    if self._reception is not None:
                        self._reception.beat()
                    self._spool.tidy()
                if time.monotonic() - last_sweep > 600:
                    last_sweep = time.monotonic()
                    self._certificates.look()
                    if self._role.receives:
                        self._sweep()
            except Exception as error:  # a full disk, a locked database: without this thread nothing would ever start
                log.error("ticker.failed", reason=type(error).__name__)  # noqa: TRY400
                self._stopping.wait(1.0)

    def _sweep(self) -> None:
        """Forget the files of series whose work ended long ago, and later what was done on them."""
        kept = self._settings.ledger
        known_since = time.time() - kept.known_days * 86400 if kept.known_days else 0.0
        self._ledger.forget(time.time() - kept.history_days * 86400, known_since)
        begun = time.time() - 1.0  # file times are of a coarser clock
        for series in self._ledger.ended_before(time.time() - self._settings.spool.keep_hours * 3600):
            self._spool.forget(series, before=begun)
        self._spool.clear_away()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def notify_systemd(state: str) -> None:
    """Tell systemd (``Type=notify``) how it stands: ``READY=1``, ``STOPPING=1``; nothing where there is no systemd."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(state.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)
