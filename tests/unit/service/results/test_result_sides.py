"""The patient's right is on the right in every kind that draws, however the source lies: told from files alone."""

from collections.abc import Iterator
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import Dataset

from engines.types import LabelMap
from service.results.analysis import Analysis
from service.results.encode import encode
from service.results.profile import ResultProfile
from tests.unit.service.results.examples import NODULE, findings, small_ct, volume_of

PROFILE = ResultProfile(objects=("SEG", "RTSTRUCT", "SC", "GSPS", "SR"), captures=3)
AXES = [tuple(int(sign) * (axis == place) for place in range(3)) for axis in range(3) for sign in (1, -1)]
PLANES = [
    (*row, *column)
    for row, column in permutations(AXES, 2)
    if not np.dot(row, column) and (row[0] or column[0])  # right and left lie within the plane
]
"""Directions of rows and columns in LPS: axial and coronal planes, turned and mirrored in every way."""


def source(orientation: tuple[int, ...], against: bool, tilt: float) -> tuple[NDArray[np.int16], list[Dataset]]:
    """Slices of 12 × 10 pixels around the patient's middle, one after the other along their normal or against it."""
    volume, headers = small_ct((3, 12, 10))
    turn = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
    along_row, along_column = turn @ orientation[:3], turn @ orientation[3:]
    normal = np.cross(along_row, along_column) * (-1 if against else 1)
    for index, header in enumerate(headers):
        corner = normal * (index - 1) * 2.5 - along_row * 4.5 * 0.7 - along_column * 5.5 * 0.8
        header.ImageOrientationPatient = [round(float(value), 9) for value in (*along_row, *along_column)]
        header.ImagePositionPatient = [round(float(value), 6) for value in corner]
        header.PixelSpacing = [0.8, 0.7]
    return volume.array, headers  # type: ignore[return-value]


def in_patient(
    holder: Dataset, position: Dataset, measures: Dataset, pixels: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Row and column to LPS (PS3.3 equation C.7.6.2.1-1)."""
    row, column = (
        np.array(holder.ImageOrientationPatient[:3], float),
        np.array(holder.ImageOrientationPatient[3:], float),
    )
    steps = np.stack([column * float(measures.PixelSpacing[0]), row * float(measures.PixelSpacing[1])])
    return np.array(position.ImagePositionPatient, float) + np.atleast_2d(pixels) @ steps


def lines_of(items: Dataset) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """The image of each outline of a presentation state or a report, and its rows and columns."""
    for annotation in items.get("GraphicAnnotationSequence", []):
        for item in annotation.get("GraphicObjectSequence", []):
            points = np.array(item.GraphicData, float).reshape(-1, 2)
            yield annotation.ReferencedImageSequence[0].ReferencedSOPInstanceUID, points[:, ::-1] - 0.5
    for item in items.get("ContentSequence", []):
        if item.ValueType == "SCOORD":
            points = np.array(item.GraphicData, float).reshape(-1, 2)
            yield item.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID, points[:, ::-1] - 0.5
        yield from lines_of(item)


def place_in_picture(picture: Dataset, colour: tuple[int, int, int]) -> tuple[float, float]:
    """Row and column of the middle of a colour, from the middle of the image."""
    side = picture.Columns
    pixels = picture.pixel_array[30 : 30 + side]  # without the words below
    rows, columns = np.nonzero((pixels == colour).all(axis=-1))
    return float(rows.mean()) - side / 2, float(columns.mean()) - side / 2


@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.sampled_from(PLANES), st.booleans(), st.sampled_from([0.0, 0.3, -0.3]))
@example((1, 0, 0, 0, 1, 0), False, 0.0)
@example((-1, 0, 0, 0, 1, 0), True, 0.0)
@example((0, 1, 0, -1, 0, 0), True, 0.3)
def test_what_is_on_the_right_is_drawn_on_the_right(
    tmp_path_factory: pytest.TempPathFactory,
    orientation: tuple[int, ...],
    against: bool,
    tilt: float,
) -> None:
    array, headers = source(orientation, against, tilt)
    first = headers[0]
    pixels = np.array(list(product(range(12), range(10))), float)
    # of each slice what lies 1 to 3 mm to the patient's right of the middle: LPS x grows to the left
    x = np.stack([in_patient(header, header, first, pixels)[:, 0].reshape(12, 10) for header in headers])
    labels = np.where((x < -1) & (x > -3), NODULE.number, 0).astype(np.uint8)
    found = findings(label_map=LabelMap(labels, (NODULE,)))
    folder: Path = tmp_path_factory.mktemp("sides")
    results = encode(Analysis(found, volume_of(array, headers), headers, PROFILE), folder)
    decoded = {entry.kind: pydicom.dcmread(entry.path) for entry in reversed(results)}
    by_uid = {header.SOPInstanceUID: header for header in headers}

    seg = decoded["SEG"]
    shared = seg.SharedFunctionalGroupsSequence[0]
    for group, frame in zip(seg.PerFrameFunctionalGroupsSequence, np.atleast_3d(seg.pixel_array), strict=True):
        position = group.PlanePositionSequence[0]
        plane, measures = shared.PlaneOrientationSequence[0], shared.PixelMeasuresSequence[0]
        assert (in_patient(plane, position, measures, np.argwhere(frame).astype(float))[:, 0] < -1).all()
    for contour in decoded["RTSTRUCT"].ROIContourSequence[0].ContourSequence:
        assert np.array(contour.ContourData, float).reshape(-1, 3)[:, 0].max() < 0
    for kind in ("GSPS", "SR"):
        lines = list(lines_of(decoded[kind]))
        assert lines
        for uid, points in lines:
            assert in_patient(by_uid[uid], by_uid[uid], first, points)[:, 0].max() < 0
    pictures = [pydicom.dcmread(entry.path) for entry in results if entry.kind == "SC"][1:]
    for picture in pictures:
        _, right = place_in_picture(picture, NODULE.colour)
        towards_left = {"L": right, "R": -right}.get(picture.PatientOrientation[0])
        assert towards_left is not None, "rows of an axial or a coronal picture run between right and left"
        assert towards_left < -10
        assert picture.PatientOrientation[0] == "L", "as radiologists look at it"
