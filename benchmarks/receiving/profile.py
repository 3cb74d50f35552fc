"""Where the time of a Python process goes, by samples of all of its threads (py-spy, where it is installed)."""

import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.table import Table

SAMPLES = 500
"""In a second."""
SHOWN = 25

_NUMBER = re.compile(r"[-_]?\d.*|\(.*")


class Profile:
    """Samples a process in a ``with`` statement; without a folder it does nothing.

    Parameters
    ----------
    folder
        Where the stacks go, one file for each name: lines of frames with the number of samples, as flame graphs want.
    """

    def __init__(self, pid: int, folder: Path | None, name: str) -> None:
        self._pid, self._folder, self._name = pid, folder, name

    def __enter__(self) -> Self:
        if self._folder is not None:
            program = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
            if program is None:
                raise SystemExit("--profile needs py-spy: pip install py-spy")
            self._folder.mkdir(parents=True, exist_ok=True)
            self._stacks = self._folder / (re.sub(r"\W+", "-", self._name) + ".txt")
            self._process = subprocess.Popen(
                [program, "record", "--pid", str(self._pid), "--format", "raw", "--output", str(self._stacks),
                 "--rate", str(SAMPLES), "--threads", "--nonblocking"],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            assert self._process.stdout is not None
            self._process.stdout.readline()  # it samples now, or has said why not
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is None:
            return
        self._process.send_signal(signal.SIGINT)
        said, _ = self._process.communicate(timeout=60)
        if self._stacks.exists():
            _show(self._name, self._stacks)
        else:  # no Python process, or none that may be looked into
            print(f"no profile of {self._name}: {said.decode(errors='replace').strip()[-200:]}", file=sys.stderr)


def _show(name: str, stacks: Path) -> None:
    """What the threads were at: their innermost lines, by kind of thread."""
    inner, total = Counter[tuple[str, str]](), 0
    for line in stacks.read_text().splitlines():
        frames, _, count = line.rpartition(" ")
        thread, *stack = frames.split(";")
        last = stack[-1] if stack else "(outside of Python)"
        kind = thread.partition(": ")[2] if thread.startswith("thread (") else thread
        inner[_NUMBER.sub("", kind) or kind, last] += int(count)
        total += int(count)
    table = Table("share", "thread", "line", title=name)
    for (thread, last), count in inner.most_common(SHOWN):
        table.add_row(f"{count / total:.1%}", thread, last)
    Console(stderr=True).print(table)
