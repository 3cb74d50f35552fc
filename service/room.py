"""Room on the spool's file system: who brings more is refused before nothing is left for work that is under way."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from service.errors import OutOfResources

log = structlog.get_logger()

RESUME = 1.25
"""So many times the reserve must be free before anything is taken again: otherwise each file that is removed would let
one instance in, and half a series."""
INODES = 500
"""Files that must remain possible; file systems that do not count them say 0."""
LOOK_SECONDS = 1.0
"""How old a look at the file system may be; what was taken since is counted."""


class Room:
    """Tells whether there is room for an instance beside the reserve, in which the ledger, its WAL and results grow.

    Parameters
    ----------
    folder
        Any on the file system.
    reserve
        Bytes that stay free; 0: everything may be used.
    spare
        Called where there is too little: gives up what can be spared.
    clock
        Monotonic seconds.
    """

    def __init__(
        self,
        folder: Path,
        reserve: int,
        spare: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._reserve = reserve
        self._spare = spare
        self._clock = clock
        self._lock = threading.Lock()
        self._left = 0
        """Bytes that may be taken before the next look."""
        self._looked = -LOOK_SECONDS
        self._short = ""

    def claim(self, length: int) -> None:
        """Take room for so many bytes.

        Raises
        ------
        OutOfResources
            There is too little, or was and there is not clearly enough again.
        """
        if not self._reserve:
            return
        with self._lock:
            now = self._clock()
            if self._left < length or now - self._looked >= LOOK_SECONDS:
                was_short = bool(self._short)
                self._look(length)
                if self._short:
                    self._spare()
                    self._look(length)
                self._looked = now
                if self._short and not was_short:
                    log.warning("spool.short", reason=self._short)
            if self._short:
                self._left = 0  # the next one looks again: refusing costs more than looking
                raise OutOfResources(self._short)
            self._left -= length

    @property
    def short(self) -> str:
        """Why nothing is taken just now, and what to do; empty where there is room."""
        return self._short

    def plenty(self, length: int) -> bool:
        """Whether so many bytes may be used for what can be spared again."""
        free, _ = self._free()
        return free - length > 2 * RESUME * self._reserve

    def _look(self, length: int) -> None:
        """Look at the file system; it takes two microseconds where it is a local one."""
        before = self._short
        free, inodes = self._free()
        factor = RESUME if self._short else 1.0
        self._left = free - int(self._reserve * factor)
        if self._left < length:
            kept = f"spool.reserve_mb = {self._reserve >> 20} stay free"
            self._short = f"{free >> 20} MB are free on the spool's file system, and {kept}; make room"
        elif inodes is not None and inodes < INODES * factor:
            self._short = f"{inodes} more files are possible on the spool's file system; remove some, or give it inodes"
        else:
            self._short = ""
        if before and not self._short:
            log.info("spool.room_again", free_mb=free >> 20)

    def _free(self) -> tuple[int, int | None]:
        found = os.statvfs(self._folder)
        return found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None
