"""Do these pictures show what was found, where it was found?"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from engines.types import Segment, Volume
from service.results.analysis import Analysis
from service.results.capture import Area, Capture, captures
from service.results.checks.mismatch import require
from service.results.stamp import RESEARCH
from service.types import ResultObject

ON_ITS_SEGMENT = 0.95
"""Share of the pixels in a segment's colour that lie on that segment, give or take a voxel; letters may hide some."""
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


def check_captures(datasets: Sequence[Dataset], analysis: Analysis, made: Sequence[ResultObject]) -> None:
    """Compare decoded Secondary Captures with the images and what was found (`service.results.kinds.Check`)."""
    check_pictures(datasets, captures(analysis), analysis, "SC", check_outlines)


def check_pictures(
    datasets: Sequence[Dataset],
    expected: Iterable[Capture],
    analysis: Analysis,
    kind: str,
    look: Callable[[Dataset, int, Area, Analysis, str], None],
) -> None:
    """Compare decoded Secondary Captures of one kind with what they must show.

    Parameters
    ----------
    look
        A second way to see, from the decoded pixels alone, that a picture of one plane shows what it should; the first
        is to draw it again and compare every pixel.
    """
    count = 0
    for number, capture in enumerate(expected, start=1):
        count = number
        require(number <= len(datasets), kind, f"only {len(datasets)} pictures were written")
        dataset = datasets[number - 1]
        _check_attributes(dataset, capture, analysis, kind, number)
        require(dataset.PixelData == capture.pixel_data, kind, f"picture {number} is not what was drawn")
        if capture.area:
            look(dataset, capture.slices[0], capture.area, analysis, kind)
    require(count == len(datasets), kind, f"{len(datasets)} pictures were written instead of {count}")


def check_outlines(dataset: Dataset, index: int, area: Area, analysis: Analysis, kind: str) -> None:
    """Whatever has a segment's colour lies on that segment, and the topmost segments are to be seen.

    Decoded pixels are followed by PatientOrientation back to the source's own plane, which no code that draws has a
    part in.
    """
    left, top, right, bottom = area
    picture = _packed(_as_stored(decoded(dataset)[top:bottom, left:right], dataset, index, analysis))
    planes = [
        (label_map.array[index] if isinstance(analysis.image, Volume) else label_map.array, label_map.segments)
        for label_map in analysis.findings.label_maps
    ]
    counts = [np.bincount(plane.ravel(), minlength=256) for plane, _ in planes]
    topmost = max((number for number, each in enumerate(counts) if each[1:].any()), default=-1)
    for layer, (plane, segments) in enumerate(planes):
        for segment in segments:
            if counts[layer][segment.number] and _tells_itself_apart(segment, planes):
                outline = picture == _packed(np.array(segment.colour, np.uint8))
                name = f"the outline of {segment.label} in slice {index + 1}"
                require(layer != topmost or bool(outline.any()), kind, f"{name} is not to be seen")
                share = _share_on(outline, plane == segment.number)
                require(share >= ON_ITS_SEGMENT, kind, f"{name} is not where the segment is")


def decoded(dataset: Dataset) -> Pixels:
    """The pixels of a Secondary Capture, ``[row, column, 3]``."""
    shape = int(dataset.Rows), int(dataset.Columns), 3
    return np.frombuffer(dataset.PixelData, np.uint8, int(np.prod(shape))).reshape(shape)


def _check_attributes(dataset: Dataset, capture: Capture, analysis: Analysis, kind: str, number: int) -> None:
    expected = {
        "SOPClassUID": SecondaryCaptureImageStorage,
        "SOPInstanceUID": analysis.uids.instance(kind, number),
        "SeriesInstanceUID": analysis.uids.series(kind),
        "Modality": "OT",
        "InstanceNumber": number,
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


def _tells_itself_apart(segment: Segment, planes: Sequence[tuple[Pixels, Sequence[Segment]]]) -> bool:
    """Whether no other segment has its colour, and no part of the image can have it."""
    colours = [other.colour for _, segments in planes for other in segments if other.number != segment.number]
    return segment.colour not in colours and len(set(segment.colour)) > 1


def _share_on(outline: NDArray[np.bool_], mask: NDArray[np.bool_]) -> float:
    rows, columns = np.nonzero(outline)
    if not rows.size:
        return 1.0
    at_rows = rows * mask.shape[0] // outline.shape[0]
    at_columns = columns * mask.shape[1] // outline.shape[1]
    wider = np.pad(mask, 1)
    neighbours = [wider[at_rows + down, at_columns + right] for down in range(3) for right in range(3)]
    return float(np.any(neighbours, axis=0).mean())
