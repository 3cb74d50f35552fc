"""An engine as its callers see it: what touches the device goes through the device's queue."""

from typing import Self

from engines.runtimes.base import DeviceAnswer, Engine, Outputs, WholePath
from engines.serving.scheduling import DeviceQueue, Tensor
from engines.types import EngineIdentity, Volume


class QueuedEngine(Engine):
    """An engine that several threads share, each of which waits for its own answers.

    Parameters
    ----------
    model
        Its name.
    engine
        Runs on the queue's thread only.
    queue
        That of the engine's device.
    urgent
        Whether what is asked here comes before what is asked of others; see `DeviceQueue`.
    """

    def __init__(self, model: str, engine: Engine, queue: DeviceQueue, *, urgent: bool = False) -> None:
        self._model = model
        self._engine = engine
        self._queue = queue
        self._urgent = urgent

    def asked(self, *, urgent: bool) -> Self:
        """Give the same engine for urgent or for routine work."""
        return type(self)(self._model, self._engine, self._queue, urgent=urgent)

    @property
    def identity(self) -> EngineIdentity:
        """See `Engine.identity`."""
        return self._engine.identity

    @property
    def batch(self) -> int:
        """See `Engine.batch`."""
        return self._engine.batch

    @property
    def whole_path(self) -> WholePath | None:
        """See `Engine.whole_path`; a volume on the device is one piece of work."""
        path = self._engine.whole_path
        if path is None:
            return None

        def queued(volume: Volume) -> DeviceAnswer:
            return self._queue.call(self._model, lambda: path(volume), urgent=self._urgent)

        return queued

    def activate(self) -> None:
        """See `Engine.activate`."""
        self._queue.call(self._model, self._engine.activate, urgent=self._urgent)

    def infer(self, tensor: Tensor) -> Outputs:
        """See `Engine.infer`."""
        return self._queue.infer(self._model, self._engine, tensor, urgent=self._urgent)

    def deactivate(self) -> None:
        """See `Engine.deactivate`."""
        self._queue.call(self._model, self._engine.deactivate, urgent=True)
