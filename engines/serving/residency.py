"""Which engines are active on a device: as many as its memory budget takes; the least recently used makes room."""

from collections.abc import Callable, Hashable
from typing import TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray

from engines.errors import OutOfMemory, RuntimeUnavailable, WetreadError
from engines.runtimes.base import DeviceAnswer, Engine, Outputs, WholePath
from engines.serving.device_memory import MEGABYTE
from engines.types import EngineIdentity, Volume

Answer = TypeVar("Answer")

ACTIVATION = "activation"

log = structlog.get_logger()


class Residency:
    """The engines of one device that are active.

    Everything here runs on the device's own thread (`engines.serving.scheduling.DeviceQueue`), so no engine is evicted
    while it infers. What an engine takes is the change of the used memory over its activation and its first inference
    on a grid.

    Parameters
    ----------
    used
        Gives the bytes of the device's memory that are taken.
    budget
        How many bytes the engines may take together; None is no limit.
    """

    def __init__(self, used: Callable[[], int], budget: int | None = None) -> None:
        self._used = used
        self._budget = budget
        self._active: dict[ResidentEngine, None] = {}
        """The least recently used first."""
        self._closed = False

    @property
    def active(self) -> tuple[str, ...]:
        """The models that are active, the least recently used first."""
        return tuple(engine.model for engine in self._active)

    def use(self, engine: "ResidentEngine", work: Callable[[], Answer], what: Hashable) -> Answer:
        """Run something with an engine that is active, whatever has to be evicted for it.

        Parameters
        ----------
        engine
            Is activated if it is not.
        work
            What to do.
        what
            What it is, a grid for example: the first time of each is measured.

        Raises
        ------
        OutOfMemory
            The engine does not fit even if it is alone.
        RuntimeUnavailable
            It was retired, all are closed, or it cannot be activated.
        """
        if self._closed or engine.retired:
            raise RuntimeUnavailable(f"{engine.model} is not active: its engine was closed or replaced; try again")
        if what in engine.too_large:
            raise self._too_large(engine, engine.too_large[what])
        if engine not in self._active:
            self._make_room(engine.memory)
        while True:
            try:
                if engine not in self._active:
                    self._measured(engine, ACTIVATION, engine.inner.activate)
                    self._active[engine] = None
                answer = self._measured(engine, what, work)
                break
            except OutOfMemory as error:
                if (least := self._least_recently_used(engine)) is None:
                    if engine.takes.keys() <= {ACTIVATION}:
                        self._drop(engine)  # it has never served
                    raise
                self._drop(engine)  # with what it has taken in vain
                self._evict(least, str(error))
        self._active[engine] = self._active.pop(engine)
        self._keep_budget(engine, what)
        return answer

    def retire(self, engine: "ResidentEngine") -> None:
        """Give an engine's memory back for good."""
        engine.retired = True
        self._drop(engine)

    def close(self) -> None:
        """Give the memory of every engine back for good."""
        self._closed = True
        for engine in list(self._active):
            self._drop(engine)

    def _measured(self, engine: "ResidentEngine", what: Hashable, work: Callable[[], Answer]) -> Answer:
        before = self._used()
        answer = work()
        if what not in engine.takes:
            engine.takes[what] = max(0, self._used() - before)
        return answer

    def _make_room(self, wanted: int) -> None:
        while self._exceeds(wanted) and (least := self._least_recently_used()) is not None:
            self._evict(least, "memory budget")

    def _keep_budget(self, engine: "ResidentEngine", what: Hashable) -> None:
        if self._budget is not None and engine.memory > self._budget:
            self._drop(engine)
            engine.too_large[what] = engine.memory
            del engine.takes[what]
            raise self._too_large(engine, engine.too_large[what])
        while self._exceeds() and (least := self._least_recently_used(engine)) is not None:
            self._evict(least, "memory budget")

    def _exceeds(self, more: int = 0) -> bool:
        return self._budget is not None and sum(each.memory for each in self._active) + more > self._budget

    def _least_recently_used(self, but: "ResidentEngine | None" = None) -> "ResidentEngine | None":
        return next((each for each in self._active if each is not but), None)

    def _evict(self, engine: "ResidentEngine", reason: str) -> None:
        log.info("engine.evicted", model=engine.model, memory_mb=engine.memory // MEGABYTE, reason=reason)
        self._drop(engine)

    def _drop(self, engine: "ResidentEngine") -> None:
        if engine not in self._active:
            return
        del self._active[engine]
        try:
            engine.inner.deactivate()
        except WetreadError as error:  # the device may have failed; the others are dropped all the same
            log.warning("engine.not_released", model=engine.model, reason=str(error))

    def _too_large(self, engine: "ResidentEngine", size: int) -> OutOfMemory:
        return OutOfMemory(
            f"{engine.model} alone takes {size / MEGABYTE:.0f} MB of the device, more than the budget of "
            f"{(self._budget or 0) / MEGABYTE:.0f} MB; raise engines.memory_mb, or give the model a smaller patch"
        )


class ResidentEngine(Engine):
    """An engine that is activated when it is asked and may be evicted in between.

    Parameters
    ----------
    model
        Its name.
    inner
        The engine itself.
    residency
        Decides when it is active.

    Attributes
    ----------
    takes
        Bytes that each kind of use has added when it was first measured.
    too_large
        The uses that do not fit into the budget, with what the engine would take.
    retired
        Whether it has been closed for good.
    """

    def __init__(self, model: str, inner: Engine, residency: Residency) -> None:
        self.model = model
        self.inner = inner
        self.takes: dict[Hashable, int] = {}
        self.too_large: dict[Hashable, int] = {}
        self.retired = False
        self._residency = residency
        self._has_whole_path = False

    @property
    def memory(self) -> int:
        """Bytes that it takes while it is active, as far as measured."""
        return sum(self.takes.values())

    @property
    def identity(self) -> EngineIdentity:
        """See `Engine.identity`."""
        return self.inner.identity

    @property
    def batch(self) -> int:
        """See `Engine.batch`."""
        return self.inner.batch

    @property
    def whole_path(self) -> WholePath | None:
        """See `Engine.whole_path`; known once the engine has been active."""
        return self._on_device if self._has_whole_path else None

    def activate(self) -> None:
        """See `Engine.activate`."""
        self._use(lambda: None, ACTIVATION)

    def infer(self, tensor: NDArray[np.float32]) -> Outputs:
        """See `Engine.infer`; the engine is activated if it is not."""
        return self._use(lambda: self.inner.infer(tensor), tensor.shape[2:])

    def deactivate(self) -> None:
        """Close it for good."""
        self._residency.retire(self)

    def _on_device(self, volume: Volume) -> DeviceAnswer:
        def work() -> DeviceAnswer:
            # Asked for now: that of an engine which was evicted in between is gone.
            path = self.inner.whole_path
            if path is None:
                raise RuntimeUnavailable(
                    f"{self.model} has no whole path on {self.identity.device} any more; try again"
                )
            return path(volume)

        return self._use(work, "whole path")

    def _use(self, work: Callable[[], Answer], what: Hashable) -> Answer:
        answer = self._residency.use(self, work, what)
        self._has_whole_path = self.inner.whole_path is not None
        return answer
