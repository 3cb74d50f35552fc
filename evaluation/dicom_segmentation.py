"""The masks in a Segmentation object (PS3.3 A.51), whoever made it, on the grid of the images that it is about."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.coding import Code as Concept

from engines.types import Code, Image, Segment, Volume
from evaluation.errors import DataError
from service.errors import WetreadError
from service.series.pixels import stored_values

OFF_GRID = 0.1
"""How far a frame's corner may lie from the centre of a pixel, in pixels."""
OFF_SLICE = 0.3
"""How far a frame may lie from a slice, in steps of the volume: scanners round positions."""
SURE = 0.5
"""Of the largest value of a fractional segmentation; what has less is not the segment."""
BACKGROUND = "125040"

Masks = dict[str, NDArray[np.bool_]]


class OtherSegments(DataError):
    """A SEG is about something that the model does not look for."""


def read_masks(file: Path, image: Image, segments: Sequence[Segment]) -> Masks:
    """Read the masks of a model's segments from a SEG, by the segment's label.

    A segment is the model's if its label is, or its type with its laterality. A reference that tells no sides is all of
    the model's segments of its type, their labels joined by ``+``. Other segments are left out.

    Raises
    ------
    OtherSegments
        None of its segments is the model's.
    DataError
        It lies on another grid than the image, or cannot be understood.
    """
    try:
        return _masks(pydicom.dcmread(file), image, segments)
    except (WetreadError, OSError, MemoryError):
        raise
    except Exception as error:  # written by anybody
        raise DataError(f"a SEG cannot be understood ({type(error).__name__}); look at it in a viewer") from error


def _masks(dataset: Dataset, image: Image, segments: Sequence[Segment]) -> Masks:
    names = {int(item.SegmentNumber): name for item in dataset.SegmentSequence if (name := _name(item, segments))}
    if not names:
        known = ", ".join(str(item.get("SegmentLabel", "?")) for item in dataset.SegmentSequence)
        raise OtherSegments(f"a SEG holds {known}; none of it is {', '.join(each.label for each in segments)}")
    masks: Masks = {name: np.zeros(image.array.shape, np.bool_) for name in names.values()}
    lost = 0
    for number, index, frame in _placed(dataset, image):
        for value, name in names.items():
            inside = frame if number == value else frame == value if number is None else None
            if inside is None or not inside.any():
                continue
            if index is None:
                lost += 1
            else:
                masks[name].reshape(-1, *image.array.shape[-2:])[index] |= inside.astype(np.bool_)
    if lost:
        raise DataError(f"{lost} frames of a SEG lie on no slice of its series; add the slices that are missing")
    return masks


def _name(item: Dataset, segments: Sequence[Segment]) -> str:
    """What a segment of the reference is called among the model's; empty where it is none of them."""
    label = str(item.get("SegmentLabel", "")).strip().lower()
    for segment in segments:
        if segment.label.lower() == label:
            return segment.label
    kind = (item.get("SegmentedPropertyTypeCodeSequence") or [None])[0]
    if kind is None or str(kind.get("CodeValue")) == BACKGROUND:
        return ""
    side = (kind.get("SegmentedPropertyTypeModifierCodeSequence") or [None])[0]
    same = [segment for segment in segments if says(kind, segment.type)]
    if side is not None and any(segment.laterality for segment in same):
        same = [segment for segment in same if segment.laterality and says(side, segment.laterality)]
    return "+".join(segment.label for segment in same)


def says(item: Dataset, code: Code) -> bool:
    """Tell whether a coded item says the same as a code; SNOMED's old identifiers count as its new ones."""
    found = Concept(str(item.get("CodeValue", "")), str(item.get("CodingSchemeDesignator", "")), "")
    return bool(found == Concept(code.value, code.scheme, code.meaning))


def _placed(dataset: Dataset, image: Image) -> Iterator[tuple[int | None, int | None, NDArray[Any]]]:
    """Each frame on the image's grid: its segment (None: its values are), its slice (None: on none), its values."""
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    label_map = dataset.SegmentationType == "LABELMAP"
    least = SURE * float(dataset.get("MaximumFractionalValue") or 1) if dataset.SegmentationType == "FRACTIONAL" else 1
    for values, groups in zip(_frames(dataset), dataset.PerFrameFunctionalGroupsSequence, strict=True):
        number = (
            None if label_map else int(_macro("SegmentIdentificationSequence", groups, shared).ReferencedSegmentNumber)
        )
        frame = values if label_map else values >= least
        yield number, *_on_grid(frame, groups, shared, image)


def _frames(dataset: Dataset) -> Sequence[NDArray[Any]]:
    count, shape = int(dataset.get("NumberOfFrames") or 1), (int(dataset.Rows), int(dataset.Columns))
    if dataset.BitsAllocated == 1:
        if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            raise DataError("a SEG has compressed bits; write it uncompressed")
        bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
        return list(bits[: count * shape[0] * shape[1]].reshape(count, *shape))
    dataset.PhotometricInterpretation = "MONOCHROME2"  # the values of a palette are labels too
    return stored_values(dataset)


def _on_grid(frame: NDArray[Any], groups: Dataset, shared: Dataset, image: Image) -> tuple[int | None, NDArray[Any]]:
    """The slice of a frame, and the frame as that slice's pixels."""
    position = _macro("PlanePositionSequence", groups, shared).get("ImagePositionPatient")
    if not isinstance(image, Volume) or position is None:
        return _by_source(frame, groups, image)
    orientation = np.array(_macro("PlaneOrientationSequence", groups, shared).ImageOrientationPatient, float)
    spacing = np.array(_macro("PixelMeasuresSequence", groups, shared).PixelSpacing, float)
    to_index = np.linalg.inv(image.affine).astype(np.float64)
    corner = to_index @ np.array([*map(float, position), 1.0])
    down = to_index[:3, :3] @ (orientation[3:] * spacing[0])
    right = to_index[:3, :3] @ (orientation[:3] * spacing[1])
    if not (_is_step(down, 1) and _is_step(right, 2)):
        raise DataError("a SEG lies on another grid than its images; resample it to theirs")
    row, column = corner[1:3]
    if down[1] < 0:
        frame, row = frame[::-1], row - (frame.shape[0] - 1)
    if right[2] < 0:
        frame, column = frame[:, ::-1], column - (frame.shape[1] - 1)
    if max(abs(row - round(row)), abs(column - round(column))) > OFF_GRID:
        raise DataError("a SEG lies between the pixels of its images; resample it to their grid")
    places = np.arange(len(image.array)) if image.at is None else np.array(image.at)
    index = int(np.abs(places - corner[0]).argmin())
    near = abs(places[index] - corner[0]) <= OFF_SLICE
    return (index if near else None), _moved(frame, round(row), round(column), image.array.shape[1:])


def _is_step(vector: NDArray[np.float64], axis: int) -> bool:
    """Whether a vector is one step along an axis of the array, either way."""
    expected = np.zeros(3)
    expected[axis] = np.sign(vector[axis])
    return bool(np.allclose(vector, expected, atol=1e-2))


def _moved(frame: NDArray[Any], row: int, column: int, shape: Sequence[int]) -> NDArray[Any]:
    """A frame whose first pixel is another one of the image's."""
    if (row, column) == (0, 0) and frame.shape == tuple(shape):
        return frame
    whole = np.zeros(tuple(shape), frame.dtype)
    rows = slice(max(row, 0), min(row + frame.shape[0], shape[0]))
    columns = slice(max(column, 0), min(column + frame.shape[1], shape[1]))
    if rows.start < rows.stop and columns.start < columns.stop:
        whole[rows, columns] = frame[rows.start - row : rows.stop - row, columns.start - column : columns.stop - column]
    return whole


def _by_source(frame: NDArray[Any], groups: Dataset, image: Image) -> tuple[int | None, NDArray[Any]]:
    """By the image that a frame says it was made from; a frame that says nothing is an X-ray's."""
    if frame.shape != image.array.shape[-2:]:
        raise DataError("a SEG is not as large as its images; scale it")
    derivation = (groups.get("DerivationImageSequence") or [Dataset()])[0]
    sources = [str(item.ReferencedSOPInstanceUID) for item in derivation.get("SourceImageSequence") or []]
    if not isinstance(image, Volume):
        return (0 if not sources or image.source in sources else None), frame
    found: Mapping[str, int] = {uid: index for index, uid in enumerate(image.sources)}
    return next((found[uid] for uid in sources if uid in found), None), frame


def _macro(keyword: str, groups: Dataset, shared: Dataset) -> Dataset:
    """A functional group, of the frame or of all frames (PS3.3 C.7.6.16)."""
    found: Dataset = (groups.get(keyword) or shared.get(keyword) or [Dataset()])[0]
    return found
