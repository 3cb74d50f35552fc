"""A wall clock that can be set, for the processes that are started with it.

libfaketime is not it: where it leaves the monotonic clock alone, version 0.9.10 has Python's ``time.sleep`` fail.
"""

import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.validators import require_tool

SOURCE = Path(__file__).with_suffix(".c")


class JumpingClock:
    """The true time, and some seconds more or less. It is read at every look, so it jumps at once.

    Parameters
    ----------
    folder
        Where the library is built and the shift is kept.
    """

    def __init__(self, folder: Path) -> None:
        compiler = require_tool("cc")
        folder.mkdir(parents=True, exist_ok=True)
        library, self._file = folder / "jumping_clock.so", folder / "ahead"
        subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl", "-lm"], check=True)
        self._file.write_bytes(bytes(8))
        self.seconds = 0
        self.environment: Mapping[str, str] = {"LD_PRELOAD": str(library), "JUMPING_CLOCK": str(self._file)}

    def jump(self, seconds: int) -> None:
        """Set it on, or back."""
        self.seconds += seconds
        with self._file.open("r+b", buffering=0) as file:
            file.write(struct.pack("d", self.seconds))
