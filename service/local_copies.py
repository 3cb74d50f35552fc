"""Copies of what an object store has (`service.sharing`), and what was made of them: not for ever, and not too many."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import structlog

log = structlog.get_logger()

IN_USE_SECONDS = 600.0
"""A series of which a file was written or used within this time stays: somebody may be at work on it."""
LOOK_SECONDS = 600.0
"""How often they are looked through."""
_AREAS = ("series", "work", "results")


class LocalCopies:
    """The files of a spool that can be had, or made, again.

    Parameters
    ----------
    root
        The spool.
    most
        Bytes that they may take; for what is in use, more.
    drop
        Removes the files of a series, by its key.
    clock
        Seconds since the epoch.
    """

    def __init__(
        self, root: Path, most: int, drop: Callable[[str], object], clock: Callable[[], float] = time.time
    ) -> None:
        self._root = root
        self._most = most
        self._drop = drop
        self._clock = clock
        self._looked_at = -LOOK_SECONDS
        self._moved = 0

    def used(self, series: str) -> None:
        """A series is at work, or was just now."""
        with suppress(FileNotFoundError):
            (self._root / "series" / series).touch()

    def tidy(self, moved: int, is_listed: Callable[[str], bool]) -> None:
        """Remove copies of what is listed no more, and the oldest where there are too many. Call it now and then.

        Parameters
        ----------
        moved
            Bytes that have come or gone since the start: where these are few, nothing is looked at.
        is_listed
            Whether the store has something under a name that begins so.
        """
        now = self._clock()
        if now - self._looked_at < LOOK_SECONDS and moved - self._moved < self._most / 20:
            return
        self._looked_at, self._moved = now, moved
        idle = [series for series, used in self._series().items() if now - used > IN_USE_SECONDS]
        for series in [series for series in idle if not is_listed(f"series/{series}/")]:
            self._drop(series)
            idle.remove(series)
        for folder in (self._root / "quarantine").iterdir():
            if now - folder.stat().st_mtime > IN_USE_SECONDS and not is_listed(f"quarantine/{folder.name}/"):
                shutil.rmtree(folder)
        self._make_fewer(idle)

    def _make_fewer(self, idle: list[str]) -> None:
        """Remove the oldest, as far as they are not in use, until there are not too many."""
        sizes = {series: self._size(series) for series in self._series()}
        total = sum(sizes.values())
        gone = 0
        for series in idle:
            if total <= self._most:
                break
            self._drop(series)
            total -= sizes.get(series, 0)
            gone += 1
        if gone:
            log.info("spool.copies_removed", series=gone, left_mb=total >> 20)

    def _series(self) -> dict[str, float]:
        """When each was used last, in that order."""
        used: dict[str, float] = {}
        for area in _AREAS:
            for folder in (self._root / area).iterdir():
                used[folder.name] = max(used.get(folder.name, 0.0), folder.stat().st_mtime)
        return dict(sorted(used.items(), key=lambda one: one[1]))

    def _size(self, series: str) -> int:
        return sum(size for area in _AREAS for size in _sizes(self._root / area / series))


def _sizes(folder: Path) -> Iterator[int]:
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):
            yield file.stat().st_size
