"""Bringing what was received to disk before it is acknowledged: each thread for itself, one for all, or nobody."""

import ctypes
import os
import threading
from pathlib import Path
from typing import Literal

from service.durable import sync_folder

Sync = Literal["each", "group", "off"]
"""Who does it: each thread by itself; one for all that wait at the time; or the kernel whenever it likes, and then a
power cut takes what was acknowledged (the end of the process alone does not)."""


class Syncing:
    """Brings files and folders of one file system to disk.

    ``each`` syncs the data of the one file and nothing else. ``group`` is one ``syncfs`` for all that wait: one commit
    of the journal and one flush of the device, but also for whatever else was written there meanwhile. It is for many
    associations at once on a disk whose flushes are slow; one thread that syncs file after file for the others was
    slower than each for itself, since the kernel merges flushes that come together.

    Parameters
    ----------
    root
        A folder of the file system.
    """

    def __init__(self, root: Path, how: Sync) -> None:
        self.how = how
        self._root = root
        self._changed = threading.Condition()
        self._next = _Round()
        self._running = False

    def data(self, descriptor: int) -> None:
        """Return when the content of a file is on disk. Raises `OSError`: then nobody knows what is there."""
        if self.how == "each":
            os.fdatasync(descriptor)
        elif self.how == "group":
            self._together()

    def entries(self, folder: Path) -> None:
        """Return when the entries of a folder are on disk. Raises `OSError`."""
        if self.how == "each":
            sync_folder(folder)
        elif self.how == "group":
            self._together()

    def _together(self) -> None:
        """Wait for a round that begins after this call; who finds none running runs it."""
        with self._changed:
            mine = self._next
            while not mine.ended:
                if self._running:
                    self._changed.wait()
                else:
                    self._run(mine)
        if mine.error is not None:
            raise OSError(mine.error.errno, mine.error.strerror)

    def _run(self, this: "_Round") -> None:
        self._running, self._next = True, _Round()
        self._changed.release()
        try:
            sync_file_system(self._root)
        except OSError as error:
            this.error = error
        finally:
            self._changed.acquire()
            this.ended, self._running = True, False
            self._changed.notify_all()


class _Round:
    ended = False
    error: OSError | None = None


def sync_file_system(folder: Path) -> None:
    """``syncfs(2)``; since Linux 5.8 it tells of pages that could not be written. Raises `OSError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)
