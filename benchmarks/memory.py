"""By how much a process grows at most while it does something."""

from pathlib import Path
from typing import Self

PROCESS = Path("/proc/self")


class Growth:
    """From when it is made: the peak of this process's memory before that does not count."""

    def __init__(self, before: float) -> None:
        self._before = before

    @classmethod
    def begin(cls) -> Self:
        """Begin now; the kernel forgets the peak so far (``man 5 proc_pid_clear_refs``)."""
        (PROCESS / "clear_refs").write_text("5")
        return cls(_resident("VmRSS"))

    @property
    def peak(self) -> float:
        """By how many MB it has grown at most since then."""
        return _resident("VmHWM") - self._before


def _resident(what: str) -> float:
    [line] = [line for line in (PROCESS / "status").read_text().splitlines() if line.startswith(what)]
    return int(line.split()[1]) / 1000
