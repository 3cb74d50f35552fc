"""The queue of one device: one thread runs everything on it, urgent work first, and joins small inputs into batches."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from threading import Condition, Thread, get_ident
from time import monotonic
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from engines.errors import RuntimeUnavailable
from engines.runtimes.base import Engine, Outputs

Answer = TypeVar("Answer")

Tensor = NDArray[np.float32]

BATCH_SECONDS = 0.005
"""How long an input waits for others to share its batch, unless a setting says otherwise."""


@dataclass(frozen=True)
class Running:
    """What a device does now.

    Attributes
    ----------
    model
        Whose work it is.
    since
        When it began, by `time.monotonic`.
    threads
        Who waits for it (`threading.get_ident`).
    """

    model: str
    since: float
    threads: frozenset[int]


OnStart = Callable[[Running], None]
"""Told what a device does next, before it does it: afterwards may be too late."""


class DeviceQueue:
    """One thread that runs everything on one device.

    Others hand in work and wait. Urgent work comes before routine, and otherwise what came first. Nothing is
    interrupted: a volume is handed in patch by patch, so an urgent X-ray is served after the patch that runs.
    Inferences of one engine on one grid are joined up to the engine's batch, whichever study they are from. A routine
    one waits a little for others, but never while the device has something else to do.

    Use it as a context manager; what still waits when it is closed fails.

    Parameters
    ----------
    device
        Its name, for messages and the thread.
    batch_seconds
        How long an inference waits at most for others to join it.
    on_start
        See `OnStart`.
    """

    def __init__(self, device: str, batch_seconds: float = BATCH_SECONDS, on_start: OnStart = lambda _: None) -> None:
        self._device = device
        self._on_start = on_start
        self._batch_seconds = batch_seconds
        self._changed = Condition()
        self._urgent: deque[_Work] = deque()
        self._routine: deque[_Work] = deque()
        self._running: Running | None = None
        self._open = False

    def __enter__(self) -> Self:
        self._open = True
        self._thread = Thread(target=self._serve, name=f"queue of {self._device}", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let what runs end, and fail what waits."""
        with self._changed:
            self._open = False
            waiting = [*self._urgent, *self._routine]
            self._urgent.clear()
            self._routine.clear()
            self._changed.notify_all()
        for work in waiting:
            work.answer.set_exception(self._closed(work.model))
        self._thread.join()

    @property
    def running(self) -> Running | None:
        """What runs now, None while the device is idle."""
        return self._running

    def infer(self, model: str, engine: Engine, tensor: Tensor, *, urgent: bool = False) -> Outputs:
        """Infer on the device, perhaps together with others, and wait for the answer.

        Parameters
        ----------
        model
            Its name.
        engine
            Runs on the device's thread, and only there.
        tensor
            See `Engine.infer`.

        Raises
        ------
        RuntimeUnavailable
            The queue is closed.
        Exception
            Whatever the inference raised that this input was part of.
        """
        if len(tensor) > engine.batch:
            raise ValueError(f"{model} was given {len(tensor)} inputs at once, but takes {engine.batch}")
        outputs: Outputs = self._submit(
            _Work(model, urgent, partial(_infer, engine), tensor, (engine, tensor.shape[1:]), engine.batch)
        )
        return outputs

    def call(self, model: str, task: Callable[[], Answer], *, urgent: bool = False) -> Answer:
        """Run anything else on the device's thread, as one piece, and wait for what it returns.

        Raises
        ------
        RuntimeUnavailable
            The queue is closed.
        Exception
            Whatever the task raised.
        """
        answer: Answer = self._submit(_Work(model, urgent, lambda _: [task()]))
        return answer

    def _submit(self, work: "_Work") -> Any:
        with self._changed:
            if not self._open:
                raise self._closed(work.model)
            (self._urgent if work.urgent else self._routine).append(work)
            self._changed.notify_all()
        return work.answer.result()

    def _closed(self, model: str) -> RuntimeUnavailable:
        return RuntimeUnavailable(f"{model} is not active: the queue of {self._device} is closed")

    def _serve(self) -> None:
        while self._serve_next():
            pass

    def _serve_next(self) -> bool:
        # A method of its own, so that no tensor is kept while the device is idle.
        together = self._next()
        if not together:
            return False
        try:
            if self._running is not None:
                self._on_start(self._running)
            answers = together[0].run([work.tensor for work in together])
        except BaseException as error:  # whoever waits must be told, and the thread serves on
            self._running = None
            for work in together:
                work.answer.set_exception(error)
        else:
            self._running = None
            for work, answer in zip(together, answers, strict=True):
                work.answer.set_result(answer)
        return True

    def _next(self) -> "Sequence[_Work]":
        """Wait for work and take it out of the queue; nothing once the queue is closed."""
        with self._changed:
            while self._open:
                together = self._first_with_its_like()
                patience = self._patience(together)
                if patience > 0:
                    self._changed.wait(patience)
                elif not together:
                    self._changed.wait()
                else:
                    for work in together:
                        (self._urgent if work.urgent else self._routine).remove(work)
                    self._running = Running(together[0].model, monotonic(), frozenset(work.thread for work in together))
                    return together
        return ()

    def _first_with_its_like(self) -> "list[_Work]":
        together: list[_Work] = []
        for work in (*self._urgent, *self._routine):
            first = together[0] if together else work
            if work is first or (work.like == first.like and _count([*together, work]) <= first.most):
                together.append(work)
        return together

    def _patience(self, together: "Sequence[_Work]") -> float:
        """How long the first may still wait for others, in seconds."""
        if not together or together[0].urgent or _count(together) >= together[0].most:
            return 0.0
        if len(together) < len(self._urgent) + len(self._routine):
            return 0.0  # what waits behind it would wait too
        return together[0].arrived + self._batch_seconds - monotonic()


@dataclass(eq=False)
class _Work:
    """What a device is asked for. What has the same ``like`` can run together, up to ``most`` inputs."""

    model: str
    urgent: bool
    run: Callable[[Sequence[Tensor]], Sequence[Any]]
    tensor: Tensor = field(default_factory=lambda: np.zeros(1, np.float32))
    like: object = field(default_factory=object)
    most: int = 1
    arrived: float = field(default_factory=monotonic)
    thread: int = field(default_factory=get_ident)
    answer: Future[Any] = field(default_factory=Future)


def _count(together: Sequence[_Work]) -> int:
    return sum(len(work.tensor) for work in together)


def _infer(engine: Engine, tensors: Sequence[Tensor]) -> Sequence[Outputs]:
    if len(tensors) == 1:
        return [engine.infer(tensors[0])]
    outputs = engine.infer(np.concatenate(tensors))
    ends = np.cumsum([len(tensor) for tensor in tensors])
    return [
        {name: array[end - len(tensor) : end] for name, array in outputs.items()}
        for tensor, end in zip(tensors, ends, strict=True)
    ]
