"""What a process and all that it has started use, from outside (``man 5 proc``)."""

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

PROC = Path("/proc")
SAMPLE_SECONDS = 0.05
_TICKS = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> Iterator[int]:
    """A process and those that it or they have started, dead ones included that nobody has waited for."""
    yield pid
    with suppress(OSError):
        for task in (PROC / str(pid) / "task").iterdir():
            for child in (task / "children").read_text().split():
                yield from tree(int(child))


def cpu_seconds(pid: int) -> float:
    """User and system time of all of them, with that of those that have ended."""
    total = 0
    for one in tree(pid):
        with suppress(OSError):
            fields = (PROC / str(one) / "stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
    return total / _TICKS


def memory_mb(pid: int) -> float:
    """Memory of their own: not what of files is mapped, nor what the page cache holds."""
    total = 0
    for one in tree(pid):
        with suppress(OSError):
            lines = (PROC / str(one) / "status").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
    return total / 1000


class Watch:
    """What a process uses in a ``with`` statement: CPU seconds, its largest memory, and by how much that grew."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._stop = threading.Event()
        self._sampler = threading.Thread(target=self._sample)

    def __enter__(self) -> Self:
        self._before, self._cpu = memory_mb(self._pid), cpu_seconds(self._pid)
        self.peak_mb = self._before
        self._sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cpu_seconds = cpu_seconds(self._pid) - self._cpu
        self._stop.set()
        self._sampler.join()
        self.peak_mb = max(self.peak_mb, memory_mb(self._pid))
        self.grown_mb = self.peak_mb - self._before

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self.peak_mb = max(self.peak_mb, memory_mb(self._pid))
