"""Reads the slices of a series while they arrive, in any order, so that its volume is there when the last one is.

`SeriesReader.add` is called for each file as it comes and decodes it in the background; `SeriesReader.read` waits for
what is still under way and reads what was never added. So a series that was not streamed (after a restart, a late
slice, too many at once) takes the same way, only later.
"""

import threading
import uuid
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import uid

from engines.types import Radiograph
from service.errors import PermanentError, Quarantined
from service.series.radiograph import radiograph
from service.series.slab import Slab, Slot
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


Outcome = Slice | XRay | LeftOut


class SeriesReader:
    """Reads the files of one series; the decoded slices lie in slabs in a folder.

    Parameters
    ----------
    folder
        Where slabs are made; what is in it already is left alone.
    pool
        Shared by all series, so that their number does not matter.
    """

    def __init__(self, folder: Path, pool: ThreadPoolExecutor) -> None:
        self._folder = folder
        self._pool = pool
        self._lock = threading.Lock()
        self._slabs: dict[tuple[tuple[int, int], np.dtype[Any]], Slab] = {}
        self._under_way: dict[Path, tuple[str, Future[list[Outcome | Future[Outcome]]]]] = {}

    def add(self, file: Path) -> None:
        """Begin to read a file, unless that was done before and it is still the same file."""
        stamp = _stamp(file)
        with self._lock:
            known = self._under_way.get(file)
            if known is None or known[0] != stamp:
                self._under_way[file] = stamp, self._pool.submit(self._read, file, len(self._under_way))

    def read(self, files: Sequence[Path]) -> Reading:
        """Wait until these files are read, and give what they hold; what else was added does not count."""
        for file in files:
            self.add(file)
        outcomes = [
            outcome.result() if isinstance(outcome, Future) else outcome
            for file in files
            for outcome in self._under_way[file][1].result()
        ]
        return Reading(
            tuple(one for one in outcomes if isinstance(one, Slice)),
            tuple(one for one in outcomes if isinstance(one, XRay)),
            tuple(_once(one for one in outcomes if isinstance(one, LeftOut))),
            {file: self._under_way[file][0] for file in files},
        )

    def new_slab(self, shape: tuple[int, int], dtype: np.dtype[Any]) -> Slab:
        """An empty slab beside the others."""
        return Slab(self._folder / f"{uuid.uuid4().hex}.slab", shape, dtype)

    def close(self) -> None:
        """Close the slabs; volumes that were mapped from them stay valid."""
        with self._lock:
            for slab in self._slabs.values():
                slab.close()
            self._slabs.clear()

    def discard(self) -> None:
        """Give up: wait for what is under way and remove the slabs."""
        for _, future in self._under_way.values():
            if not future.cancel():
                future.exception()
        paths = [slab.path for slab in self._slabs.values()]
        self.close()
        for path in paths:
            path.unlink(missing_ok=True)

    def _read(self, file: Path, counted: int) -> list[Outcome | Future[Outcome]]:
        """In the pool: an X-ray image, one slice, or one task for each frame of a multi-frame image."""
        try:
            image = open_image(file)
        except NotMeant as other:
            return [self._radiograph(file) or LeftOut(file, str(other), faulty=False)]
        except Exception as error:
            return [_left_out(file, error)]
        if len(image.frames) == 1:
            return [self._slice(image, 0, counted)]
        return [self._pool.submit(self._slice, image, index, counted) for index in range(len(image.frames))]

    def _slice(self, image: Image, index: int, counted: int) -> Outcome:
        try:
            return image.slice(index, self._place, counted)
        except Exception as error:
            return _left_out(image.file, error)

    def _radiograph(self, file: Path) -> Outcome | None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                data_set = pydicom.dcmread(file)
                if data_set.get("SOPClassUID") not in RADIOGRAPHS:
                    return None
                return XRay(file, *radiograph(file, data_set))
        except Exception as error:
            return _left_out(file, error)

    def _place(self, values: NDArray[Any], number: int, along: float) -> Slot:
        shape = int(values.shape[0]), int(values.shape[1])
        with self._lock:
            slab = self._slabs.get((shape, values.dtype))
            if slab is None:
                slab = self._slabs[shape, values.dtype] = self.new_slab(shape, values.dtype)
        return slab.write(values, number, along)


def _left_out(file: Path, error: Exception) -> LeftOut:
    if isinstance(error, NotMeant):
        return LeftOut(file, str(error), faulty=False)
    if isinstance(error, Quarantined):
        return LeftOut(file, str(error), faulty=True)
    if isinstance(error, (OSError, MemoryError, PermanentError)):  # of this machine, not of the file
        raise error
    # a header can be wrong in more ways than its parser foresees
    reason = f"the header cannot be understood ({type(error).__name__}); repair it and send the instance again"
    return LeftOut(file, reason, faulty=True)


def _once(entries: Any) -> list[LeftOut]:
    """One entry for each file and reason: the frames of an image may all have the same one."""
    return list(dict.fromkeys(entries))


def _stamp(file: Path) -> str:
    status = file.stat()
    return f"{file.name} {status.st_size} {status.st_mtime_ns}"
