"""Memory of a GPU that is given back whatever happens, and the way to it and from it."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from engines.errors import OutOfMemory

MEBIBYTE = 2**20

STAGE = 16 * MEBIBYTE
"""Bytes that are copied at a time: much more than a copy's fixed cost, little enough to be page-locked for good."""


class Allocations:
    """Allocations that end together, as a context manager.

    Parameters
    ----------
    driver
        The module ``pycuda.driver``.
    stream
        On which memory is filled; what still runs on it is waited for before memory is freed.
    """

    def __init__(self, driver: Any, stream: Any) -> None:
        self._driver = driver
        self._stream = stream
        self._taken: list[Any] = []

    def take(self, count: int, kind: type[np.generic] = np.uint8) -> int:
        """Allocate an array and give its address; what is in it is not known.

        Raises
        ------
        OutOfMemory
            The device has not as much left.
        """
        size = count * np.dtype(kind).itemsize
        try:
            memory = self._driver.mem_alloc(size)
        except self._driver.MemoryError as error:
            raise OutOfMemory(f"the GPU has no {-(-size // MEBIBYTE)} MiB left; stop what else uses it") from error
        self._taken.append(memory)
        return int(memory)

    def fill(self, address: int, count: int, value: int = 0) -> None:
        """Set so many numbers of four bytes, on the stream."""
        self._driver.memset_d32_async(address, value, count, self._stream)

    def send(self, staging: "Staging", array: NDArray[Any] | None) -> int | None:
        """Allocate an array, copy it to the device and give its address; of None it is None."""
        if array is None:
            return None
        address = self.take(array.size, array.dtype.type)
        staging.send(array, address)
        return address

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._stream.synchronize()
        finally:
            while self._taken:
                self._taken.pop().free()


class Staging:
    """Two page-locked buffers between an array and the device: while one is copied, the other is filled or emptied.

    Only page-locked memory is copied while the processor does something else, and at the bus's full speed; to lock the
    pages of each series anew would take longer than to copy it once more.

    Parameters
    ----------
    driver
        The module ``pycuda.driver``.
    stream
        On which the copies run, in order with the kernels.
    """

    def __init__(self, driver: Any, stream: Any) -> None:
        self._driver = driver
        self._stream = stream
        self._buffers = [(driver.pagelocked_empty(STAGE, np.uint8), driver.Event()) for _ in range(2)]

    def send(self, array: NDArray[Any], address: int) -> None:
        """Copy an array to the device; it may be changed as soon as this returns."""
        source = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        for number, start in enumerate(range(0, len(source), STAGE)):
            part = source[start : start + STAGE]
            buffer, copied = self._buffers[number % 2]
            copied.synchronize()
            np.copyto(buffer[: len(part)], part)
            self._driver.memcpy_htod_async(address + start, buffer[: len(part)], self._stream)
            copied.record(self._stream)

    def receive(self, array: NDArray[Any], source: int | Callable[[int, int], int]) -> None:
        """Fill a contiguous array from the device.

        Parameters
        ----------
        array
            Is complete when this returns.
        source
            An address; or what takes the first byte and the number of bytes of a part of the array, and gives the
            address where that part lies once the stream gets there.
        """
        target = array.reshape(-1).view(np.uint8)
        waiting: list[tuple[NDArray[np.uint8], NDArray[np.uint8], Any]] = []
        for number, start in enumerate(range(0, len(target), STAGE)):
            part = target[start : start + STAGE]
            buffer, copied = self._buffers[number % 2]
            address = source + start if isinstance(source, int) else source(start, len(part))
            self._driver.memcpy_dtoh_async(buffer[: len(part)], address, self._stream)
            copied.record(self._stream)
            waiting.append((part, buffer, copied))
            if len(waiting) == 2:
                _empty(*waiting.pop(0))
        for last in waiting:
            _empty(*last)


def _empty(part: NDArray[np.uint8], buffer: NDArray[np.uint8], copied: Any) -> None:
    copied.synchronize()
    np.copyto(part, buffer[: len(part)])
