"""A stand-in for ``pycuda.driver`` that runs the kernels of ``kernels.cu`` on the CPU, compiled as plain C++.

What it proves: the arithmetic of the kernels, their parameters, and the bookkeeping around them: what is allocated,
copied, started and freed, in which order. What it does not: that a GPU runs them, or how fast.

"Device memory" is host memory. A stream does nothing before somebody waits for it, so that nobody can count on a copy
or a kernel being done early. The threads of a launch run one after the other (in a shuffled order, where a seed is
given) or a few at a time. `tests/gpu/test_device_path.py` runs the real thing where there is a GPU.
"""

import ctypes
import shutil
import struct
import subprocess
from collections import deque
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

SOURCE = Path(__file__).with_suffix(".cpp")
FLAGS = ("-O2", "-std=c++17", "-ffp-contract=off", "-fno-strict-aliasing", "-shared", "-fPIC", "-pthread")
"""No contraction, as in ``scripts/make_ptx.sh``: the same bits as on a GPU."""

GUARD, NOISE = 4096, 0x7F

COMPILER = shutil.which("g++")


@cache
def library() -> ctypes.CDLL:
    """Compile the kernels once in a process, and load them."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.so"
        subprocess.run([str(COMPILER), *FLAGS, "-o", str(path), str(SOURCE)], check=True)
        loaded = ctypes.CDLL(str(path))
    numbers = [ctypes.c_uint] * 2
    loaded.start.argtypes = [ctypes.c_char_p, *numbers, ctypes.c_char_p, ctypes.c_size_t, *numbers]
    return loaded


class CpuDriver:
    """What the device path uses of ``pycuda.driver``.

    Attributes
    ----------
    limit
        Bytes of "device memory" that there are.
    seed, at_once
        Shuffles the threads of a launch; how many of them run at once.
    held
        Allocations that were not freed, by address.
    most
        The most bytes that were held at once.
    started
        Names of the kernels that were started, in order.
    """

    class Error(Exception): ...

    class MemoryError(Error): ...

    def __init__(self, limit: int = 2**34) -> None:
        self.limit = limit
        self.seed, self.at_once = 0, 1
        self.held: dict[int, np.ndarray] = {}
        self.most = 0
        self.started: list[str] = []
        self.streams: list[Stream] = []

    def mem_alloc(self, size: int) -> "Allocation":
        assert size > 0, "CUDA refuses to allocate nothing"
        if self.taken + size > self.limit:
            raise self.MemoryError("cuMemAlloc failed: out of memory")
        # What is in new memory is not known, and what is beside it is somebody else's: nobody may count on zeros, and
        # `Allocation.free` sees what was written over the edges.
        guarded = np.full(size + 2 * GUARD, NOISE, np.uint8)
        memory = guarded[GUARD:-GUARD]
        self.held[memory.ctypes.data] = memory
        self.most = max(self.most, self.taken)
        return Allocation(self, memory.ctypes.data)

    @property
    def taken(self) -> int:
        return sum(memory.size for memory in self.held.values())

    def view(self, address: int, shape: tuple[int, ...], kind: Any = np.float32) -> np.ndarray:
        """Device memory as an array; it must lie within one allocation."""
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        for start, memory in self.held.items():
            if start <= address and address + size <= start + memory.size:
                return memory[address - start : address - start + size].view(kind).reshape(shape)
        raise self.Error(f"{size} bytes at {address:#x} are not within one allocation")

    def memcpy_htod_async(self, address: int, source: np.ndarray, stream: "Stream") -> None:
        stream.enqueue(lambda: np.copyto(self.view(address, (source.nbytes,), np.uint8), source.view(np.uint8)))

    def memcpy_dtoh_async(self, target: np.ndarray, address: int, stream: "Stream") -> None:
        stream.enqueue(lambda: np.copyto(target.view(np.uint8), self.view(address, (target.nbytes,), np.uint8)))

    def memset_d32_async(self, address: int, value: int, count: int, stream: "Stream") -> None:
        stream.enqueue(lambda: self.view(address, (count,), np.uint32).fill(value))

    def pagelocked_empty(self, shape: Any, dtype: Any) -> np.ndarray:
        return np.empty(shape, dtype)

    def Stream(self) -> "Stream":  # noqa: N802
        self.streams.append(Stream(len(self.streams)))
        return self.streams[-1]

    def Event(self) -> "Event":  # noqa: N802
        return Event()

    def module_from_file(self, path: str) -> "CpuDriver":
        assert Path(path).is_file()
        return self

    def get_function(self, name: str) -> "Function":
        return Function(self, name)


class Allocation:
    def __init__(self, driver: CpuDriver, address: int) -> None:
        self._driver, self._address = driver, address

    def __int__(self) -> int:
        return self._address

    def free(self) -> None:
        for stream in self._driver.streams:
            stream.synchronize()
        guarded = self._driver.held.pop(self._address).base
        assert isinstance(guarded, np.ndarray)
        assert (guarded[:GUARD] == NOISE).all(), "a kernel wrote before its memory"
        assert (guarded[-GUARD:] == NOISE).all(), "a kernel wrote beyond its memory"


class Stream:
    def __init__(self, handle: int) -> None:
        self.handle, self.done = handle, 0
        self._waiting: deque[Callable[[], object]] = deque()

    def enqueue(self, work: Callable[[], object]) -> None:
        self._waiting.append(work)

    @property
    def end(self) -> int:
        """How much was enqueued so far."""
        return self.done + len(self._waiting)

    def reach(self, end: int) -> None:
        while self.done < end:
            self.done += 1
            self._waiting.popleft()()

    def synchronize(self) -> None:
        self.reach(self.end)


class Event:
    def __init__(self) -> None:
        self._place: tuple[Stream, int] | None = None

    def record(self, stream: Stream) -> None:
        self._place = stream, stream.end

    def synchronize(self) -> None:
        if self._place is not None:
            stream, end = self._place
            stream.reach(end)


class Function:
    def __init__(self, driver: CpuDriver, name: str) -> None:
        self._driver, self._name, self._format = driver, name, ""

    def prepare(self, parameters: str) -> "Function":
        self._format = parameters
        return self

    def prepared_async_call(
        self, grid: tuple[int, ...], block: tuple[int, int, int], stream: Stream, *arguments: Any
    ) -> None:
        packed = struct.pack(self._format, *arguments)
        self._driver.started.append(self._name)
        stream.enqueue(lambda: self._run(grid[0], block[0], packed))

    def _run(self, grid: int, block: int, packed: bytes) -> None:
        driver = self._driver
        failed = library().start(self._name.encode(), grid, block, packed, len(packed), driver.seed, driver.at_once)
        if failed:
            raise driver.Error(f"{self._name}: {('parameters of another size', 'no such kernel')[failed - 1]}")
