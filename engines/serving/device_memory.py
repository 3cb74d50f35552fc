"""How much memory of a device is taken, and how much is free."""

import os
from pathlib import Path
from typing import NamedTuple, Protocol

from engines.runtimes.base import RuntimeSettings

MEGABYTE = 1_000_000

STATM = Path("/proc/self/statm")


class MemoryUse(NamedTuple):
    """Bytes of a device's memory; ``free`` is None where nobody can tell what this process may take."""

    used: int
    free: int | None


class DeviceMemory(Protocol):
    """Tells the memory of a device."""

    def read(self) -> MemoryUse:
        """Give what is taken now."""
        ...

    def close(self) -> None:
        """Let the device go."""
        return


class ProcessMemory(DeviceMemory):
    """What this process has in RAM (``man 5 proc_pid_statm``: the second number, in pages).

    All threads take and give back memory: what is measured around one inference is a good guess, not more.
    """

    def __init__(self, statm: Path = STATM) -> None:
        self._statm = statm

    def read(self) -> MemoryUse:
        """See `DeviceMemory.read`."""
        pages = int(self._statm.read_text(encoding="ascii").split()[1])
        return MemoryUse(pages * os.sysconf("SC_PAGESIZE"), None)


class GpuMemory(DeviceMemory):
    """What of a GPU's memory is taken, by whoever.

    Raises
    ------
    RuntimeUnavailable
        There is no such GPU, or pycuda is not installed.
    """

    def __init__(self, number: int) -> None:
        from engines.runtimes.cuda import Gpu

        self._gpu = Gpu(number)

    def read(self) -> MemoryUse:
        """See `DeviceMemory.read`."""
        with self._gpu.current():
            free, total = self._gpu.driver.mem_get_info()
        return MemoryUse(total - free, free)


def open_memory(settings: RuntimeSettings) -> DeviceMemory:
    """Give what tells the memory of the device that these settings name.

    Raises
    ------
    RuntimeUnavailable
        The device cannot be used.
    """
    return ProcessMemory() if settings.runtime == "openvino" else GpuMemory(settings.device)
