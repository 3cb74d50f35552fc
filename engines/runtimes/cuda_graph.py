"""What is enqueued on a CUDA stream again and again, as one piece."""

from collections.abc import Callable
from importlib import import_module
from typing import Any, Self

import structlog

from engines.errors import RuntimeUnavailable

log = structlog.get_logger()


class CudaGraph:
    """What was enqueued on a stream, to be launched again as one piece.

    pycuda has no graphs, so this goes through NVIDIA's ``cuda-bindings`` where they are installed.
    """

    def __init__(self, driver: Any, graph: Any, stream: int) -> None:
        self._driver = driver
        self._graph = graph
        self._stream = stream

    @classmethod
    def capture(cls, stream: int, enqueue: Callable[[], bool]) -> Self | None:
        """Capture what ``enqueue`` puts on a stream; it is not run.

        Returns
        -------
        CudaGraph or None
            None where cuda-bindings are not installed, or what is enqueued cannot be captured.
        """
        try:
            driver: Any = import_module("cuda.bindings.driver")
        except (ImportError, OSError):
            return None
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        try:
            _ask(driver, driver.cuStreamBeginCapture(stream, mode))
            try:
                enqueued = enqueue()
            finally:
                # Also after a failure, or the stream would stay unusable.
                captured = driver.cuStreamEndCapture(stream)
            graph = _ask(driver, captured)
            try:
                return cls(driver, _ask(driver, driver.cuGraphInstantiate(graph, 0)), stream) if enqueued else None
            finally:
                driver.cuGraphDestroy(graph)
        except RuntimeUnavailable as error:
            log.debug("cuda.not_captured", reason=str(error))
            return None

    def launch(self) -> None:
        """Enqueue it again.

        Raises
        ------
        RuntimeUnavailable
            CUDA refuses.
        """
        _ask(self._driver, self._driver.cuGraphLaunch(self._graph, self._stream))

    def close(self) -> None:
        """Give its memory back."""
        self._driver.cuGraphExecDestroy(self._graph)


def _ask(driver: Any, answer: tuple[Any, ...]) -> Any:
    """Take the result out of an answer of cuda-bindings, which begins with an error code."""
    error, *results = answer
    if error != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeUnavailable(f"CUDA refused a graph ({error}); check the GPU with nvidia-smi")
    return results[0] if results else None
