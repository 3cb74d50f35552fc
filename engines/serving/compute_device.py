"""One device: the queue of its work, and the engines that are active on it."""

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from engines.packages.package import ModelPackage
from engines.runtimes.base import RuntimeSettings, create_engine
from engines.serving.device_memory import MEGABYTE, open_memory
from engines.serving.queued_engine import QueuedEngine
from engines.serving.residency import Residency, ResidentEngine
from engines.serving.scheduling import DeviceQueue, OnStart

GPU_SHARE = 0.9
"""Part of a GPU's free memory that engines take at most, unless a setting says otherwise."""


class ComputeDevice:
    """A CPU or a GPU that several engines share. Use it as a context manager.

    Parameters
    ----------
    name
        For messages.
    settings
        Name the device.
    memory_mb
        What its engines may take together. None: no limit on a CPU, on a GPU `GPU_SHARE` of what is free now.
    batch_seconds, on_start
        See `engines.serving.scheduling.DeviceQueue`.

    Raises
    ------
    RuntimeUnavailable
        On entering: the device cannot be used.
    """

    def __init__(
        self,
        name: str,
        settings: RuntimeSettings,
        *,
        memory_mb: int | None,
        batch_seconds: float,
        on_start: OnStart = lambda _: None,
    ) -> None:
        self.queue = DeviceQueue(name, batch_seconds, on_start)
        self._name = name
        self._settings = settings
        self._budget = None if memory_mb is None else memory_mb * MEGABYTE
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        # All that touches the device happens on its one thread, from here to the end.
        with ExitStack() as opened:
            opened.enter_context(self.queue)
            memory = self.queue.call(self._name, lambda: open_memory(self._settings))
            opened.callback(self.queue.call, self._name, memory.close, urgent=True)
            free = memory.read().free
            if self._budget is None and free is not None:
                self._budget = int(GPU_SHARE * free)
            self._residency = Residency(lambda: memory.read().used, self._budget)
            opened.callback(self.queue.call, self._name, self._residency.close, urgent=True)
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let what runs end, fail what waits, and give all memory back."""
        self._opened.close()

    def engine(self, package: ModelPackage, settings: RuntimeSettings) -> QueuedEngine:
        """Make an engine that is activated here when it is asked.

        Raises
        ------
        RuntimeUnavailable
            The settings' runtime is not there.
        """
        inner = ResidentEngine(package.name, create_engine(package, settings), self._residency)
        return QueuedEngine(package.name, inner, self.queue)
