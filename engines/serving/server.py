"""The other end of `engines.serving.process`: opens the engines of one device, and answers requests."""

import os
import threading
import time
import traceback
from collections.abc import MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import structlog

from engines.errors import EngineFault, WetreadError
from engines.packages.package import load_package
from engines.serving.engine_set import EngineSet, open_engines
from engines.serving.line import Line
from engines.serving.messages import (
    PULSE_SECONDS,
    Answer,
    EngineSpec,
    EngineStatus,
    Logged,
    Opened,
    Pulse,
    Request,
    VerifyAgain,
)
from engines.serving.opening import settled
from engines.serving.scheduling import Running


class Server:
    """Answers what comes through a connection."""

    def __init__(self, connection: Connection) -> None:
        self._line = Line(connection, ended=_end)
        self._threads: dict[int, int] = {}
        """Which request each thread works on."""
        self._told: tuple[int, ...] = ()

    def serve(self) -> None:
        """Open the engines that are asked for, and answer until the other end closes."""
        spec: EngineSpec = self._line.next()
        structlog.configure(processors=[self._forward], wrapper_class=structlog.BoundLogger)
        try:
            packages = {package.name: package for package in map(load_package, spec.packages)}
            opened = open_engines(
                packages,
                settled(spec.settings, spec.fallback),
                memory_mb=spec.memory_mb,
                batch_seconds=spec.batch_seconds,
                on_start=self._started,
            )
            engines = opened.__enter__()
        except Exception as error:
            self._line.send(Opened(error=_sendable(error)))
            return
        threading.Thread(target=self._pulse, args=[engines], daemon=True).start()
        self._line.send(Opened(statuses(engines)))
        with ThreadPoolExecutor(spec.parallel + 1) as pool:
            while True:
                pool.submit(self._answer, engines, self._line.next())

    def _answer(self, engines: EngineSet, message: Request | VerifyAgain) -> None:
        thread = threading.get_ident()
        self._threads[thread] = message.number
        try:
            if isinstance(message, VerifyAgain):
                engines.verify_again()
                answer = Answer(message.number, statuses(engines))
            else:
                answer = Answer(message.number, self._run(engines, message))
        except Exception as error:
            answer = Answer(message.number, error=_sendable(error))
        finally:
            del self._threads[thread]
        try:
            self._line.send(answer)
        except OSError:  # the node is gone, and nobody waits any more
            return
        except Exception as error:  # not to be pickled, or no memory for that: whoever waits must be told
            self._line.send(Answer(message.number, error=_sendable(error)))

    @staticmethod
    def _run(engines: EngineSet, request: Request) -> Any:
        image = request.image.open()
        return engines.run(request.model, image, probabilities=request.probabilities, urgent=request.urgent)

    def _pulse(self, engines: EngineSet) -> None:
        with suppress(OSError):  # the node is gone, and this process ends
            while True:
                running = engines.running
                if running is None:
                    self._tell(Pulse())
                else:
                    self._tell(Pulse(self._requests(running), time.monotonic() - running.since))
                time.sleep(PULSE_SECONDS)

    def _started(self, running: Running) -> None:
        """Say whose inference it is before it begins: where it ends the process, no later pulse would tell."""
        requests = self._requests(running)
        if requests and requests != self._told:  # once for all patches of a volume
            self._tell(Pulse(requests))

    def _tell(self, pulse: Pulse) -> None:
        self._told = pulse.requests
        self._line.send(pulse)

    def _requests(self, running: Running) -> tuple[int, ...]:
        threads = dict(self._threads)
        return tuple(sorted(threads[thread] for thread in running.threads if thread in threads))

    def _forward(self, _logger: Any, level: str, fields: MutableMapping[str, Any]) -> Any:
        event = str(fields.pop("event", ""))
        self._line.send(Logged(level, event, {key: _plain(value) for key, value in fields.items()}))
        raise structlog.DropEvent


def _end() -> None:
    """End with the node, whatever is going on here: nobody else would end what hangs in a driver."""
    os._exit(0)


def statuses(engines: EngineSet) -> tuple[EngineStatus, ...]:
    """How each model is served."""
    return tuple(
        EngineStatus(name, model.engine.identity, model.problem, model.refusals)
        for name, model in engines.models.items()
    )


def _sendable(error: Exception) -> Exception:
    """An expected error as it is; of any other only kind and place: its words might tell of a patient."""
    if isinstance(error, WetreadError | OSError | MemoryError):
        return error
    place = traceback.extract_tb(error.__traceback__)[-1]
    return EngineFault(f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}")


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else str(value)
