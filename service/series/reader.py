"""Reads the slices of a series while they arrive, in any order, so that its volume is there when the last one is.

`SeriesReader.add` is called for each file as it comes and decodes it in the background; `SeriesReader.read` waits for
what is still under way and reads what was never added. So a series that was not streamed (after a restart, a late
slice, too many at once) takes the same way, only later.
"""

import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pydicom
from pydicom import uid

from engines.types import Radiograph
from service.errors import Quarantined, WetreadError
from service.series.radiograph import radiograph
from service.series.slab import FileSlab, MemorySlab, Slab
from service.series.slices import Image, NotMeant, Slice, open_image

RADIOGRAPHS = (
    uid.ComputedRadiographyImageStorage,
    uid.DigitalXRayImageStorageForPresentation,
    uid.DigitalXRayImageStorageForProcessing,
)


@dataclass(frozen=True)
class LeftOut:
    """A file that is not part of any item, and why; ``faulty`` where it should have been one."""

    file: Path
    reason: str
    faulty: bool


@dataclass(frozen=True, eq=False)
class XRay:
    """A radiograph and what a reader should know of it."""

    file: Path
    image: Radiograph
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Reading:
    """All that was read of the files of a series.

    ``stamps`` tells of each file which version of it was read.
    """

    slices: tuple[Slice, ...]
    radiographs: tuple[XRay, ...]
    left_out: tuple[LeftOut, ...]
    stamps: Mapping[Path, str]


T = TypeVar("T")
Outcome = Slice | XRay | LeftOut
Outcomes = list[Outcome | Future[Outcome]]

TOGETHER = 16
"""Files that one task reads where many are there already: tasks cost as much as small slices."""


class SeriesReader:
    """Reads the files of one series; the decoded slices lie in slabs.

    Parameters
    ----------
    folder
        Where slabs are made; what is in it already is left alone. None for slabs in memory.
    pool
        Shared by all series, so that their number does not matter.
    """

    def __init__(self, folder: Path | None, pool: ThreadPoolExecutor) -> None:
        self._folder = folder
        self._pool = pool
        self._lock = threading.Lock()
        self._slab_of: dict[tuple[tuple[int, int], np.dtype[Any]], Slab] = {}
        self._slabs: list[Slab] = []
        self._tasks: list[Future[Any]] = []
        self._closed = False
        self._under_way: dict[Path, tuple[str, Future[list[Outcomes]], int]] = {}
        """By file: which version of it, the task that reads it, and its place among the files of that task."""

    def add(self, files: Sequence[Path]) -> None:
        """Begin to read files, but for those that were begun before and are the same still, or in a closed reader."""
        for start in range(0, len(files), TOGETHER):
            self._begin(files[start : start + TOGETHER])

    def read(self, files: Sequence[Path]) -> Reading:
        """Wait until these files are read, and give what they hold; what else was added does not count."""
        self.add(files)
        tasks = [self._under_way[file] for file in files]
        outcomes = [
            outcome.result() if isinstance(outcome, Future) else outcome
            for _, future, place in tasks
            for outcome in future.result()[place]
        ]
        return Reading(
            tuple(one for one in outcomes if isinstance(one, Slice)),
            tuple(one for one in outcomes if isinstance(one, XRay)),
            tuple(dict.fromkeys(one for one in outcomes if isinstance(one, LeftOut))),
            {file: stamp for file, (stamp, _, _) in zip(files, tasks, strict=True)},
        )

    def _begin(self, files: Sequence[Path]) -> None:
        stamps = [(file, _stamp(file)) for file in files]
        with self._lock:
            fresh = [(file, stamp) for file, stamp in stamps if self._under_way.get(file, ("",))[0] != stamp]
            if fresh and not self._closed:
                future = self._submit(self._read_all, [file for file, _ in fresh], len(self._under_way))
                for place, (file, stamp) in enumerate(fresh):
                    self._under_way[file] = stamp, future, place

    def _read_all(self, files: Sequence[Path], counted: int) -> list[Outcomes]:
        return [self._read(file, counted + place) for place, file in enumerate(files)]

    def new_slab(self, shape: tuple[int, int], dtype: np.dtype[Any]) -> Slab:
        """An empty slab beside the others."""
        folder = self._folder
        slab = (
            MemorySlab(shape, dtype) if folder is None else FileSlab(folder / f"{uuid.uuid4().hex}.slab", shape, dtype)
        )
        self._slabs.append(slab)
        return slab

    def close(self) -> None:
        """Read no more, and close the slabs once nothing writes to them; volumes that were mapped stay valid."""
        self._end()
        for slab in self._slabs:
            slab.close()

    def discard(self) -> None:
        """Give up: read no more, and remove the slabs."""
        self._end()
        for slab in self._slabs:
            slab.remove()

    def _end(self) -> None:
        with self._lock:
            self._closed = True
        while self._tasks:  # one that runs may add those of its frames
            task = self._tasks.pop()
            if not task.cancel():
                wait([task])

    def _submit(self, call: Callable[..., T], *arguments: object) -> Future[T]:
        future = self._pool.submit(call, *arguments)
        self._tasks.append(future)
        return future

    def _read(self, file: Path, counted: int) -> Outcomes:
        """In the pool: an X-ray image, one slice, or one task for each frame of a multi-frame image."""
        try:
            image = open_image(file)
        except NotMeant as other:
            return [self._radiograph(file) or LeftOut(file, str(other), faulty=False)]
        except Exception as error:
            return [_left_out(file, error)]
        if len(image.frames) == 1:
            return [self._slice(image, 0, counted)]
        return [self._submit(self._slice, image, index, counted) for index in range(len(image.frames))]

    def _slice(self, image: Image, index: int, counted: int) -> Outcome:
        try:
            return image.slice(index, self._slab, counted)
        except Exception as error:
            return _left_out(image.file, error)

    def _radiograph(self, file: Path) -> Outcome | None:
        try:
            data_set = pydicom.dcmread(file)
            if data_set.get("SOPClassUID") not in RADIOGRAPHS:
                return None
            return XRay(file, *radiograph(file, data_set))
        except Exception as error:
            return _left_out(file, error)

    def _slab(self, shape: tuple[int, int], dtype: np.dtype[Any]) -> Slab:
        with self._lock:
            slab = self._slab_of.get((shape, dtype))
            if slab is None:
                slab = self._slab_of[shape, dtype] = self.new_slab(shape, dtype)
            return slab


def _left_out(file: Path, error: Exception) -> LeftOut:
    if isinstance(error, NotMeant):
        return LeftOut(file, str(error), faulty=False)
    if isinstance(error, Quarantined):
        return LeftOut(file, str(error), faulty=True)
    if isinstance(error, (OSError, MemoryError, WetreadError)):  # of this machine, not of the file
        raise error
    # a header can be wrong in more ways than its parser foresees
    reason = f"the header cannot be understood ({type(error).__name__}); repair it and send the instance again"
    return LeftOut(file, reason, faulty=True)


def _stamp(file: Path) -> str:
    status = file.stat()
    return f"{file.name} {status.st_size} {status.st_mtime_ns}"
