"""An instance that is too large for memory, on its way into the spool."""

import os
from collections.abc import Callable
from pathlib import Path

from service.errors import OutOfResources


class Spill:
    """A file that takes an instance as it comes, from the first byte of the preamble on. `Received` names it then.

    Parameters
    ----------
    path
        Where it lies; there is no file yet. What is left there is removed at start.
    claim
        Called with the length of each piece before it is written. May raise `OutOfResources`.

    Raises
    ------
    OutOfResources
        From here and from `write`: the disk is full, or cannot be written.
    """

    def __init__(self, path: Path, claim: Callable[[int], object]) -> None:
        self.path = path
        self._claim = claim
        try:
            self._descriptor: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise OutOfResources(f"the spool cannot be written: {error.strerror}") from error

    def write(self, piece: memoryview) -> None:
        """Write what has come next."""
        assert self._descriptor is not None
        self._claim(len(piece))
        try:
            while piece:
                piece = piece[os.write(self._descriptor, piece) :]
        except OSError as error:
            raise OutOfResources(f"the spool cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Write no more; the file stays. May be called again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def discard(self) -> None:
        """Close it, and remove the file where it still lies here: one that was stored lies elsewhere."""
        self.close()
        self.path.unlink(missing_ok=True)
