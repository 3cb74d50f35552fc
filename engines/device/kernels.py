"""The compiled kernels of ``kernels.cu``, and how to start them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

PTX = Path(__file__).with_name("kernels.ptx")
"""Made by ``scripts/make_ptx.sh``; the driver compiles it for its GPU."""

PARAMETERS: Mapping[str, str] = {
    "average_int16": "PPP 3i i 3i 3i",
    "average_float32": "PPP 3i i 3i 3i",
    "lowest_int16": "PPP 3i i",
    "lowest_float32": "PPP 3i i",
    "resample_int16": "PPP 12d 3i 3i ff",
    "resample_float32": "PPP 12d 3i 3i ff",
    "cut_patch": "PP 3i 3i 3i i ffff",
    "add_patch": "PPPP 3i 3i 3i i i f",
    "normalise": "PPPP 3i i",
    "begin_components": "PP 3i",
    "join_components": "PP 3i",
    "count_components": "PPP 3i",
    "find_largest": "PPPP 3i",
    "drop_components": "PPPP 3i i",
    "label_source": "PPP 12d qq 3i 3i i",
}
"""What each kernel takes, in the notation of `struct`, whose alignment is CUDA's: P is an address, 3i a shape or an
index, 12d a matrix."""

BLOCK = 256
"""Threads of a block."""


class Kernels:
    """The kernels, loaded into the current context.

    Parameters
    ----------
    driver
        The module ``pycuda.driver``.
    stream
        On which kernels run, one after the other.
    """

    def __init__(self, driver: Any, stream: Any) -> None:
        self._stream = stream
        self._module = driver.module_from_file(str(PTX))
        self._functions = {
            name: self._module.get_function(name).prepare(parameters.replace(" ", ""))
            for name, parameters in PARAMETERS.items()
        }

    def start(self, name: str, threads: int, *arguments: float | Iterable[Any] | None) -> None:
        """Start a kernel.

        Parameters
        ----------
        name
            See `PARAMETERS`.
        threads
            At least as many are started.
        arguments
            Addresses (None is null), numbers, shapes, and matrices of four rows, in the kernel's order.
        """
        flat = [number for argument in arguments for number in _numbers(argument)]
        self._functions[name].prepared_async_call((-(-threads // BLOCK), 1), (BLOCK, 1, 1), self._stream, *flat)


def _numbers(argument: float | Iterable[Any] | None) -> Iterable[Any]:
    match argument:
        case None:
            return (0,)
        case np.ndarray():
            return argument[:3].ravel().tolist()
        case int() | float():
            return (argument,)
        case _:
            return argument
