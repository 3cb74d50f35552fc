"""From the files of a series to the images that models run on.

A CT series becomes one `Volume`, each X-ray image a `Radiograph`. What cannot be used is left out with a reason, while
the rest goes on.
"""

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset, uid

from engines.types import Image, Volume
from service.errors import PermanentError, Quarantined
from service.series.facts import ImageFacts
from service.series.geometry import Plane, affine_of, order, plane
from service.series.pixels import LOSSY, stored_values
from service.series.radiograph import radiograph
from service.spool import key_of

RADIOGRAPHS = (
    uid.ComputedRadiographyImageStorage,
    uid.DigitalXRayImageStorageForPresentation,
    uid.DigitalXRayImageStorageForProcessing,
)
SLICES = (uid.CTImageStorage, uid.EnhancedCTImageStorage)


@dataclass(frozen=True, eq=False)
class Item:
    """One thing that models can run on.

    Attributes
    ----------
    key
        Its name within the series.
    files
        The file of each slice, in slice order, or the one file of a radiograph.
    facts
        Header facts that routing and readers need: modality, body part, view, number of slices.
    notes
        Statements of input quality for the reader of the results.
    """

    key: str
    image: Image
    files: tuple[Path, ...]
    facts: ImageFacts
    notes: tuple[str, ...]

    def headers(self) -> list[Dataset]:
        """Read the data sets of the files without their pixels: one for each slice, or one for all frames."""
        return [pydicom.dcmread(file, stop_before_pixels=True) for file in dict.fromkeys(self.files)]


@dataclass(frozen=True)
class LeftOut:
    """A file that is not part of any item, and why; ``faulty`` where it should have been one."""

    file: Path
    reason: str
    faulty: bool


@dataclass(frozen=True, eq=False)
class Assembly:
    """All that could be made of a series."""

    items: tuple[Item, ...]
    left_out: tuple[LeftOut, ...]


class NoVolume(Quarantined):
    """The slices do not make a volume. ``left_out`` tells what may be the cause: files that cannot be slices."""

    def __init__(self, reason: str, left_out: tuple[LeftOut, ...]) -> None:
        super().__init__(reason)
        self.left_out = left_out


@dataclass(frozen=True, eq=False)
class _Slice:
    """One CT slice with its decoded values in modality units."""

    file: Path
    uid: str
    plane: Plane
    values: NDArray[np.float32] | NDArray[np.int16]
    facts: ImageFacts
    notes: tuple[str, ...]


class _NotMeant(PermanentError):
    """No model is meant to see this instance; nothing is wrong with it."""


def assemble(files: Sequence[Path], threads: int = 2) -> Assembly:
    """Make images of the files of one series.

    Raises
    ------
    NoVolume
        The slices do not make a volume: gaps, several at one position, tilt. Nothing of the series can be used.
    """
    left_out: list[LeftOut] = []
    slices: list[_Slice] = []
    items: list[Item] = []

    def read(file: Path) -> list[_Slice] | Item | LeftOut:
        try:
            return _read(file)
        except _NotMeant as error:
            return LeftOut(file, str(error), faulty=False)
        except Quarantined as error:
            return LeftOut(file, str(error), faulty=True)
        except (OSError, MemoryError):  # of this machine, not of the file
            raise
        except Exception as error:  # a header can be wrong in more ways than its parser foresees
            reason = f"the header cannot be understood ({type(error).__name__}); repair it and send the instance again"
            return LeftOut(file, reason, faulty=True)

    with ThreadPoolExecutor(threads) as pool:
        for outcome in pool.map(read, files):
            if isinstance(outcome, LeftOut):
                left_out.append(outcome)
            elif isinstance(outcome, Item):
                items.append(outcome)
            else:
                slices.extend(outcome)
    if slices:
        try:
            volume, others = _volume(slices)
        except Quarantined as error:
            raise NoVolume(str(error), tuple(left_out)) from None
        if unusable := sum(one.faulty for one in left_out):
            # at the end of a series a missing slice leaves no gap, so the reader has to be told
            note = f"{unusable} images of the series could not be used; the volume may be incomplete."
            volume = replace(volume, notes=(*volume.notes, note))
        items.append(volume)
        left_out.extend(others)
    return Assembly(tuple(items), tuple(left_out))


def _read(file: Path) -> "list[_Slice] | Item":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old scanners break many rules; what matters is checked below
        data_set = pydicom.dcmread(file)
        sop_class = data_set.get("SOPClassUID")
        if sop_class in RADIOGRAPHS:
            return _radiograph(file, data_set)
        if sop_class in SLICES:
            return list(_slices(file, data_set))
    raise _NotMeant(f"{uid.UID(str(sop_class)).name}: carried along, never processed")


def _slices(file: Path, data_set: Dataset) -> Iterator[_Slice]:
    if "LOCALIZER" in (data_set.get("ImageType") or ()):
        raise _NotMeant("a localiser, which is not part of the volume")
    frames = stored_values(data_set)
    facts, notes = _facts(data_set), _quality(data_set)
    for index, frame in enumerate(frames):
        groups = _functional_groups(data_set, index)
        try:
            where = plane(
                [float(x) for x in groups["ImagePositionPatient"]],
                [float(x) for x in groups["ImageOrientationPatient"]],
                [float(x) for x in groups["PixelSpacing"]],
            )
            slope, intercept = float(groups["RescaleSlope"]), float(groups["RescaleIntercept"])
        except (KeyError, TypeError, ValueError) as error:
            raise Quarantined(
                f"{error} is missing or not a number: the slice has no place; repair the header and send it again"
            ) from error
        yield _Slice(file, str(data_set.SOPInstanceUID), where, _rescaled(frame, slope, intercept), facts, notes)


_GEOMETRY = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
}


def _functional_groups(data_set: Dataset, frame: int) -> dict[str, Any]:
    """Geometry and rescale of a frame: from functional groups (Enhanced CT, PS3.3 C.7.6.16), or from the top level."""
    found: dict[str, Any] = {}
    shared = data_set.get("SharedFunctionalGroupsSequence") or [Dataset()]
    per_frame = data_set.get("PerFrameFunctionalGroupsSequence")
    own = per_frame[frame] if per_frame else Dataset()
    for name, sequence in _GEOMETRY.items():
        for place in (own, shared[0]):
            if place.get(sequence) and place[sequence][0].get(name) is not None:
                found[name] = place[sequence][0].get(name)
                break
        else:
            if data_set.get(name) is not None:
                found[name] = data_set.get(name)
    return found


def _rescaled(frame: NDArray[Any], slope: float, intercept: float) -> NDArray[np.int16] | NDArray[np.float32]:
    """The modality transform (PS3.3 C.11.1); int16 where that is exact."""
    if slope == int(slope) and intercept == int(intercept):
        values = frame.astype(np.int32) * int(slope) + int(intercept)
        if values.min() >= -32768 and values.max() <= 32767:
            return values.astype(np.int16)
    return (frame * np.float32(slope) + np.float32(intercept)).astype(np.float32)


def _volume(slices: list[_Slice]) -> tuple[Item, list[LeftOut]]:
    """The largest set of slices of one size and orientation, as a volume; the others are left out."""

    def grid(one: _Slice) -> tuple[object, ...]:
        axes = np.concatenate([one.plane.along_row, one.plane.along_column])
        return (one.values.shape, *np.round(axes, 3).tolist(), *np.round(one.plane.spacing, 4).tolist())

    most, _ = Counter(grid(one) for one in slices).most_common(1)[0]
    stack = [one for one in slices if grid(one) == most]
    left_out = [
        LeftOut(one.file, "another stack: its size, spacing or orientation is not that of most slices", faulty=False)
        for one in slices
        if grid(one) != most
    ]
    stack = [stack[index] for index in order([one.plane for one in stack])]
    affine = affine_of([one.plane for one in stack])
    kind = np.int16 if all(one.values.dtype == np.int16 for one in stack) else np.float32
    array = np.empty((len(stack), *stack[0].values.shape), kind)
    for target, one in zip(array, stack, strict=True):
        target[:] = one.values
    volume = Volume(array, affine, tuple(one.uid for one in stack))
    facts = replace(stack[0].facts, slices=len(stack))
    notes = tuple(dict.fromkeys(note for one in stack for note in one.notes))
    return Item("volume", volume, tuple(one.file for one in stack), facts, notes), left_out


def _radiograph(file: Path, data_set: Dataset) -> Item:
    image, notes = radiograph(file, data_set)
    return Item(key_of(image.source), image, (file,), _facts(data_set), (*_quality(data_set), *notes))


def _facts(header: Dataset) -> ImageFacts:
    def text(name: str) -> str:
        return str(header.get(name) or "").strip().upper()

    return ImageFacts(text("Modality"), text("BodyPartExamined"), text("ViewPosition"), 1)


def _quality(header: Dataset) -> tuple[str, ...]:
    if header.file_meta.TransferSyntaxUID in LOSSY or header.get("LossyImageCompression") == "01":
        return ("The source image was compressed with loss.",)
    return ()
