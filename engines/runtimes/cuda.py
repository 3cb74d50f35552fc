"""One NVIDIA GPU through pycuda: its context and its errors."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Any

from engines.errors import OutOfMemory, RuntimeUnavailable


class Gpu:
    """A GPU's primary context, which every engine of a process on this GPU shares, and which ends with the process.

    Parameters
    ----------
    number
        Of the GPU, as ``nvidia-smi`` counts.

    Attributes
    ----------
    driver
        The module ``pycuda.driver``.
    name
        For example ``NVIDIA RTX A4000``.
    capability
        Compute capability, for example ``sm89``.

    Raises
    ------
    RuntimeUnavailable
        pycuda is not installed, there is no driver, or no GPU of that number.
    """

    def __init__(self, number: int) -> None:
        try:
            self.driver: Any = import_module("pycuda.driver")
        except (ImportError, OSError) as error:
            raise RuntimeUnavailable(
                f"pycuda cannot be imported ({error}); install the NVIDIA driver and the CUDA toolkit, then "
                "pip install pycuda"
            ) from error
        try:
            self.driver.init()
            device = self.driver.Device(number)
            self.name: str = device.name()
            self.capability = "sm{}{}".format(*device.compute_capability())
            self._context = _primary_context(self.driver, number)
        except self.driver.Error as error:
            raise RuntimeUnavailable(f"GPU {number} cannot be used ({error}); check it with nvidia-smi") from error

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current in this thread.

        Raises
        ------
        OutOfMemory
            From within: memory could not be had, of the GPU or page-locked.
        RuntimeUnavailable
            From within: any other error of CUDA.
        """
        try:
            self._context.push()
            try:
                yield
            finally:
                self._context.pop()
        except self.driver.MemoryError as error:
            raise OutOfMemory(
                f"{self.name} has too little memory free ({error}); see with nvidia-smi what else uses it"
            ) from error
        except self.driver.Error as error:
            raise RuntimeUnavailable(
                f"{self.name} failed ({error}); check it with nvidia-smi, and its entries in the kernel's log (dmesg)"
            ) from error


@cache
def _primary_context(driver: Any, number: int) -> Any:
    """Retain a GPU's primary context, once in a process and for good.

    If it ended with the last engine, the next one would find TensorRT's libraries full of what belonged to it; and
    pycuda's ``detach`` leaves it current in the thread, and gives nothing back in any thread but the one that made it.
    """
    context = driver.Device(number).retain_primary_context()
    # Nor may pycuda end it when the interpreter ends: it would take it for one of its own (cuCtxDetach), and warn.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(context))
    return context
