"""Do these pictures show what was found, where it was found?"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from math import ceil

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from pydicom import Dataset

from engines.types import Volume
from service.results.analysis import Analysis
from service.results.checks.mismatch import paired, require
from service.results.pictures.legend import DETECTED
from service.results.stamp import RESEARCH
from service.results.writers.capture import Area, Capture, captures
from service.types import ResultObject

LEAST_BORDER, MOST_PLACES = 20, 400
"""Voxels of a segment's border: fewer say nothing, and not all of many need be looked at."""
COMPACT = 2
"""How many voxels for each on the border: of less, smoothing leaves too little to look at."""
ALONG_EACH_SIDE = 20
"""Places of a ring that are looked at."""
MOST_OF_THE_BORDER = 0.5
"""Share of a border that has its segment's colour: letters hide some of it, smoothing its finest turns."""
TOWARDS = {
    "L": (1, 0, 0),
    "R": (-1, 0, 0),
    "P": (0, 1, 0),
    "A": (0, -1, 0),
    "H": (0, 0, 1),
    "F": (0, 0, -1),
}
"""Directions in LPS."""

Pixels = NDArray[np.uint8]
Indices = NDArray[np.intp]


def check_captures(datasets: Iterable[Dataset], analysis: Analysis, made: Sequence[ResultObject]) -> None:
    """Compare decoded Secondary Captures with the images and what was found (`service.results.kinds.Check`)."""
    for dataset, capture in as_drawn(datasets, captures(analysis), analysis, "SC"):
        if capture.area:
            check_outlines(dataset, capture.slices[0], capture.area, analysis)
            check_rings(dataset, capture.slices[0], capture.area, analysis)


def as_drawn(
    datasets: Iterable[Dataset], expected: Iterable[Capture], analysis: Analysis, kind: str
) -> Iterator[tuple[Dataset, Capture]]:
    """The decoded Secondary Captures of one kind, each compared, pixel by pixel, with what is drawn again."""
    for number, (dataset, capture) in enumerate(paired(datasets, expected, kind), start=1):
        _check_attributes(dataset, capture, analysis, kind, number)
        require(dataset.PixelData == capture.pixel_data, kind, f"picture {number} is not what was drawn")
        yield dataset, capture


def check_outlines(dataset: Dataset, index: int, area: Area, analysis: Analysis) -> None:
    """The border of each of the topmost segments has that segment's colour.

    Decoded pixels are followed by PatientOrientation back to the source's own plane, which no code that draws has a
    part in. A segment of few voxels or of threads is left to the comparison with the picture drawn again: smoothing and
    letters may hide most of it.
    """
    left, top, right, bottom = area
    picture = _packed(_as_stored(decoded(dataset)[top:bottom, left:right], dataset, index, analysis))
    planes = [
        (label_map.array[index] if isinstance(analysis.image, Volume) else label_map.array, label_map.segments)
        for label_map in analysis.findings.label_maps
    ]
    topmost = next(((plane, segments) for plane, segments in reversed(planes) if plane.any()), None)
    if topmost is None:
        return
    plane, segments = _at_most(topmost[0], picture.shape), topmost[1]
    rows, columns = _borders(plane)
    numbers = plane[rows, columns]
    voxels, on_border = np.bincount(plane.ravel(), minlength=256), np.bincount(numbers, minlength=256)
    for segment in segments:
        border = int(on_border[segment.number])
        is_compact = border >= LEAST_BORDER and voxels[segment.number] >= COMPACT * border
        if is_compact and len(set(segment.colour)) > 1:  # what is grey may as well be the image
            own = np.flatnonzero(numbers == segment.number)[:: border // MOST_PLACES + 1]
            share = _share_coloured(picture, segment.colour, plane.shape, rows[own], columns[own])
            name = f"the outline of {segment.label} in slice {index + 1}"
            require(share >= MOST_OF_THE_BORDER, "SC", f"{name} is not where the segment is")


def check_rings(dataset: Dataset, index: int, area: Area, analysis: Analysis) -> None:
    """Where each detection's ring runs on a slice, the picture has the colour of detections."""
    left, top, right, bottom = area
    picture = _packed(_as_stored(decoded(dataset)[top:bottom, left:right], dataset, index, analysis))
    for found in analysis.detected:
        if index not in found.on or len(found.on[index]) == 1:
            continue
        shares = np.linspace(0, 1, ALONG_EACH_SIDE)[:, None]
        ring = found.on[index]
        line = np.concatenate([start + (end - start) * shares for start, end in pairwise(ring)])
        rows, columns = np.rint(np.clip(line, 0, np.array(analysis.image.array.shape[-2:]) - 1)).astype(np.intp).T
        share = _share_coloured(picture, DETECTED, analysis.image.array.shape[-2:], rows, columns)
        name = f"the ring around {found.detection.label} in slice {index + 1}"
        require(share >= MOST_OF_THE_BORDER, "SC", f"{name} is not where it was detected")


def decoded(dataset: Dataset) -> Pixels:
    """The pixels of a Secondary Capture, ``[row, column, 3]``."""
    shape = int(dataset.Rows), int(dataset.Columns), 3
    return np.frombuffer(dataset.PixelData, np.uint8, int(np.prod(shape))).reshape(shape)


def _check_attributes(dataset: Dataset, capture: Capture, analysis: Analysis, kind: str, number: int) -> None:
    expected = {
        "ImageType": ["DERIVED", "SECONDARY"],
        "ConversionType": "WSD",
        "SamplesPerPixel": 3,
        "PhotometricInterpretation": "RGB",
        "PlanarConfiguration": 0,
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "Rows": capture.page.height,
        "Columns": capture.page.width,
        "PatientOrientation": list(capture.orientation) if capture.orientation else None,
    }
    for keyword, value in expected.items():
        require((dataset.get(keyword) or None) == (value or None), kind, f"{keyword} of picture {number} is wrong")
    for keyword in ("DerivationDescription", "ImageComments"):
        states = str(dataset.get(keyword)).startswith(RESEARCH)
        require(states, kind, f"{keyword} of picture {number} does not say that it is for research")
    referenced = [
        (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID, item.get("ReferencedFrameNumber"))
        for item in dataset.SourceImageSequence
    ]
    planes = [analysis.source.planes[index] for index in capture.slices]
    shown = [(analysis.source.first.SOPClassUID, plane.sop_instance_uid, plane.frame) for plane in planes]
    require(referenced == shown, kind, f"picture {number} refers to other source images than it shows")


def _as_stored(picture: Pixels, dataset: Dataset, index: int, analysis: Analysis) -> Pixels:
    """Turn a picture by its PatientOrientation to the rows and columns of the source; an X-ray is never turned."""
    if not isinstance(analysis.image, Volume):
        return picture
    orientation = analysis.source.planes[index].orientation
    towards = np.array([TOWARDS[letter] for letter in dataset.PatientOrientation], float)
    # how far the picture's rows and columns (first axis) run along the source's rows and columns (second axis)
    along = towards @ np.array([orientation[:3], orientation[3:]], float).T
    if abs(along[0, 1]) > abs(along[0, 0]):
        picture, along = picture.transpose(1, 0, 2), along[::-1]
    return picture[:: -1 if along[1, 1] < 0 else 1, :: -1 if along[0, 0] < 0 else 1]


def _packed(colours: Pixels) -> NDArray[np.uint32]:
    """One number for each colour, which compares faster than three."""
    wide = colours.astype(np.uint32)
    return (wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]).astype(np.uint32)


def _at_most(plane: Pixels, shape: tuple[int, ...]) -> Pixels:
    """Segment numbers in no more rows and columns than a picture has: each where its share of a pixel is the half."""
    if plane.shape[0] <= shape[0] and plane.shape[1] <= shape[1]:
        return plane
    reduced = np.zeros(shape, np.uint8)
    for number in np.flatnonzero(np.bincount(plane.ravel(), minlength=256)[1:]) + 1:
        mask = Pillow.fromarray(np.where(plane == number, 255, 0).astype(np.uint8))
        share = mask.resize((shape[1], shape[0]), Pillow.Resampling.BILINEAR)
        reduced[np.asarray(share) > 127] = number
    return reduced


def _borders(plane: Pixels) -> tuple[Indices, Indices]:
    """Rows and columns of all voxels of segments that have a neighbour of another number; the image has no border."""
    around = np.pad(plane, 1, mode="edge")
    differs = np.zeros(plane.shape, bool)
    for neighbour in (around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]):
        differs |= neighbour != plane
    rows, columns = np.nonzero(differs & (plane > 0))
    return rows, columns


def _share_coloured(
    picture: NDArray[np.uint32],
    colour: tuple[int, int, int],
    shape: tuple[int, ...],
    rows: Indices,
    columns: Indices,
) -> float:
    """How many of some voxels have a colour at their place in the picture, give or take a voxel and a pixel."""
    wanted = _packed(np.array(colour, np.uint8))
    scale = picture.shape[0] / shape[0], picture.shape[1] / shape[1]
    reach = ceil(max(scale)) + 1
    padded = np.pad(picture, reach)
    down, across = ((rows + 0.5) * scale[0]).astype(int), ((columns + 0.5) * scale[1]).astype(int)
    found = np.zeros(rows.shape, bool)
    for i in range(2 * reach + 1):
        for j in range(2 * reach + 1):
            found |= padded[down + i, across + j] == wanted
    return float(found.mean())
