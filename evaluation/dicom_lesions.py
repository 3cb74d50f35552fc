"""The findings of a report become lesions: what is drawn slice by slice on one thing is one lesion."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.types import Code
from evaluation.cases import Lesion
from evaluation.dicom_headers import Plane, Series
from evaluation.dicom_report import Finding
from evaluation.dicom_segmentation import says

ANYTHING = (
    Code("52988006", "SCT", "Lesion"),
    Code("27925004", "SCT", "Nodule"),
    Code("786838002", "SCT", "Nodule of lung"),
    Code("4147007", "SCT", "Mass"),
    Code("49755003", "SCT", "Morphologically Abnormal Structure"),
)
"""General words for what a detector may look for."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """One region of a finding.

    Attributes
    ----------
    finding
        Its number in the report.
    slice
        Number of the slice, along the normal; None for what is drawn in space.
    low, high
        On the slice, row and column.
    points
        In LPS mm, ``[n, 3]``; in an X-ray row and column, ``[n, 2]``.
    """

    finding: int
    slice: int | None
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    points: NDArray[np.float64]

    def next_to(self, other: "Drawn") -> bool:
        """Tell whether both lie on neighbouring slices, one over the other."""
        if self.slice is None or other.slice is None or abs(self.slice - other.slice) != 1:
            return False
        return bool((self.low <= other.high).all() and (other.low <= self.high).all())


def looked_for(findings: Sequence[Finding], codes: Sequence[Code]) -> tuple[Finding, ...]:
    """Give the findings with a place that a detector of these classes should find.

    They are of its classes, of a general kind (`ANYTHING`), or of none that the report names.
    """
    wanted = (*codes, *ANYTHING)
    return tuple(
        each
        for each in findings
        if (each.regions or each.places) and (each.code is None or any(says(each.code, code) for code in wanted))
    )


def lesions_in_volume(findings: Sequence[Finding], series: Series) -> tuple[Lesion, ...]:
    """Make lesions, in LPS mm, of what is drawn on the slices of a series, or in its frame of reference."""
    planes = {(plane.instance, plane.frame): number for number, plane in enumerate(series.planes)}
    half = _half_a_step(series.planes)
    drawn = [one for number, each in enumerate(findings) for one in _drawn(number, each, series, planes)]
    return _lesions(drawn, findings, half)


def lesions_in_xray(findings: Sequence[Finding], instance: str) -> tuple[Lesion, ...]:
    """Make lesions, in rows and columns, of what is drawn on an X-ray."""
    drawn = [
        Drawn(number, 0, region.points.min(axis=0), region.points.max(axis=0), region.points)
        for number, each in enumerate(findings)
        for region in each.regions
        if region.instance == instance
    ]
    return _lesions(drawn, findings, np.zeros(2))


def _drawn(number: int, finding: Finding, series: Series, planes: Mapping[tuple[str, int], int]) -> Iterator[Drawn]:
    for region in finding.regions:
        index = planes.get((region.instance, region.frame))
        if index is not None:
            plane, points = series.planes[index], region.points
            positions = plane.corner + points[:, :1] * plane.down + points[:, 1:] * plane.right
            yield Drawn(number, index, points.min(axis=0), points.max(axis=0), positions)
    for place in finding.places:
        if place.frame_of_reference in ("", series.frame_of_reference):
            nowhere = np.zeros(2)
            yield Drawn(number, None, nowhere, nowhere, place.points)


def _half_a_step(planes: Sequence[Plane]) -> NDArray[np.float64]:
    """Half of the way to the next slice, along each axis of the patient."""
    if len(planes) < 2:
        return np.zeros(3)
    corners = np.array([plane.corner for plane in planes])
    step: NDArray[np.float64] = np.median(np.abs(np.diff(corners @ planes[0].normal))) * np.abs(planes[0].normal)
    return step / 2


def _lesions(drawn: Sequence[Drawn], findings: Sequence[Finding], half: NDArray[np.float64]) -> tuple[Lesion, ...]:
    """Join the regions of a finding, of findings with one tracking UID, and what continues on the next slice."""
    together = list(range(len(drawn)))

    def root(index: int) -> int:
        while together[index] != index:
            index = together[index]
        return index

    for later in range(len(drawn)):
        for earlier in range(later):
            if _same(drawn[later], drawn[earlier], findings):
                together[root(later)] = root(earlier)
    parts: dict[int, list[Drawn]] = {}
    for index, one in enumerate(drawn):
        parts.setdefault(root(index), []).append(one)
    return tuple(_lesion(part, findings, half) for part in parts.values())


def _same(one: Drawn, other: Drawn, findings: Sequence[Finding]) -> bool:
    tracking = findings[one.finding].tracking
    if one.finding == other.finding or (tracking and tracking == findings[other.finding].tracking):
        return True
    return one.next_to(other)


def _lesion(part: Sequence[Drawn], findings: Sequence[Finding], half: NDArray[np.float64]) -> Lesion:
    low = np.min([one.points.min(axis=0) - (half if one.slice is not None else 0) for one in part], axis=0)
    high = np.max([one.points.max(axis=0) + (half if one.slice is not None else 0) for one in part], axis=0)
    measured = [diameter for one in part if (diameter := findings[one.finding].diameter_mm) is not None]
    return Lesion(tuple(map(float, low)), tuple(map(float, high)), max(measured, default=None))
